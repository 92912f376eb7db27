"""``preferences import``, ``report``, ``evaluate``: what people prefer.

Each command imports ``pipelines/preferring.py`` when it runs: LightGBM takes seconds to import, `--help` should not.
"""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.workspace import JsonOption, LoopArgument, open_workspace

preferences = typer.Typer(
    name="preferences",
    help="What people prefer: pairs, rankings and ratings, kept beside the outcomes and weighed against them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.add_typer(preferences)


@preferences.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV or Parquet: winner and loser, or ranking (a>b>c), or content and rating; annotator.",
            show_default=False,
        ),
    ],
    loop: Annotated[str, typer.Option(help="The loop whose contents were judged.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Store what people said about contents of a loop. The same file again changes nothing.

    Example: rewardloop preferences import judged.csv --loop emails
    """
    from pipelines import preferring

    preferring.import_file(open_workspace(), file, loop, as_json)


@preferences.command()
def report(loop: LoopArgument, as_json: JsonOption = False) -> None:
    """Whether people agree, whom to believe, and what they say beside the money, with the weight of each.

    Example: rewardloop preferences report emails
    """
    from pipelines import preferring

    preferring.report(open_workspace(), loop, as_json)


@preferences.command()
def evaluate(
    file: Annotated[
        Path, typer.Argument(help="CSV or Parquet with two texts and the winner in each row.", show_default=False)
    ],
    text_a: Annotated[str, typer.Option(help="Column of the first text.")] = "text_a",
    text_b: Annotated[str, typer.Option(help="Column of the second text.")] = "text_b",
    winner: Annotated[str, typer.Option(help="Column of the winner: a or b, 1 or 2, tie.")] = "winner",
    group: Annotated[str, typer.Option(help="Column of what must not be split.")] = "group",
    prompt: Annotated[str, typer.Option(help="Column of what both texts answer.")] = "prompt",
    seed: Annotated[int, typer.Option(min=0, help="Deals the folds.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """How well the preferred of two texts is told, beside "the longer one wins", on groups that were not learned from.

    Example: rewardloop preferences evaluate answers.csv --text-a response_a --text-b response_b
    """
    from pipelines import preferring
    from reward_models.preferences.pairs import Columns

    preferring.evaluate(file, Columns(text_a, text_b, winner, group, prompt), seed, as_json)
