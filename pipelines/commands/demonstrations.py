"""``demonstrations import``, ``fit`` and ``show``: what marketers chose, the reward that it implies, and a model to start with.

Each command imports ``pipelines/imitation.py`` when it runs: LightGBM takes seconds to import, `--help` should not.
"""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.workspace import JsonOption, LoopArgument, open_workspace


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(help="What marketers chose among what they had, and what it teaches.", no_args_is_help=True)
    group.command("import")(import_)
    group.command()(fit)
    group.command()(show)
    app.add_typer(group, name="demonstrations")


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV or Parquet: chosen, candidates (ids with | between them), annotator, context or context.<name>.",
            show_default=False,
        ),
    ],
    loop: Annotated[str, typer.Option(help="The loop whose contents were chosen among.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Store what marketers chose among what they had. The same file again changes nothing.

    Example: rewardloop demonstrations import chosen.csv --loop email-subjects
    """
    from pipelines import imitation

    imitation.import_file(open_workspace(), file, loop, as_json)


def fit(
    loop: LoopArgument,
    usual: Annotated[
        float,
        typer.Option(min=1e-9, help="Reward of a usual decision, for a loop that has no outcomes yet: one in fifty."),
    ] = 0.02,
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Let it serve at once, on your word: only in a loop that no model serves yet."),
    ] = False,
    actor: Annotated[str, typer.Option(help="Who says so, with --serve; for the audit.")] = "cli",
    as_json: JsonOption = False,
) -> None:
    """Learn from choices: a reward model that starts where marketers stand, registered as a version.

    Choices come as feedback of the kind demonstration. Where the loop has outcomes they are learned from too, and
    overrule choices as they grow. No gate has judged what is served by --serve: keep a holdout, and the next retrain.

    Example: rewardloop demonstrations fit email-subjects --serve
    """
    from pipelines import imitation

    imitation.fit(open_workspace(), loop, usual, serve, actor, as_json)


def show(
    loop: LoopArgument,
    context: Annotated[
        str, typer.Option(help='Customers to show it for, as JSON: \'{"tier": "gold"}\'; without it the usual ones.')
    ] = "{}",
    as_json: JsonOption = False,
) -> None:
    """What choices say: how well an apprentice foretells them, what each feature of copy is worth to those who chose,
    and whether outcomes confirm it.

    Example: rewardloop demonstrations show email-subjects --context '{"tier": "gold"}'
    """
    from pipelines import imitation

    imitation.show(open_workspace(), loop, context, as_json)
