"""``judges run`` and ``calibrate``: copy rated by a language model, and what its ratings are worth in money.

Each command imports ``pipelines/judging.py`` when it runs, for the sake of a quick `--help`.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines.commands.workspace import JsonOption, LoopArgument, open_workspace


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(help="Language models as judges of copy, held against what it earned.", no_args_is_help=True)
    group.command()(run)
    group.command()(calibrate)
    app.add_typer(group, name="judges")


def run(
    loop: LoopArgument,
    campaign: Annotated[str | None, typer.Option(help="Only this campaign.", show_default=False)] = None,
    rubric: Annotated[
        Path | None, typer.Option(help="TOML with the criteria; without it clear, specific, wanted, honest.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Most contents to rate.")] = 500,
    mlflow: Annotated[bool, typer.Option("--mlflow", help="By one of MLflow's own judges instead of ours.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Have the contents of a loop rated that this judge has not rated yet, the newest first.

    Ratings are stored as feedback of the source LLM_JUDGE. They are never outcomes: what they are worth, `judges
    calibrate` says. The server is that of REWARDLOOP_GENERATOR_URL; what it may cost, REWARDLOOP_GENERATOR_BUDGET.

    Example: rewardloop judges run email-subjects --campaign june
    """
    from pipelines import judging

    judging.run(open_workspace(), loop, campaign, rubric, limit, mlflow, as_json)


def calibrate(
    loop: LoopArgument,
    segment: Annotated[
        str | None, typer.Option(help="Also by this feature of the context.", show_default=False)
    ] = None,
    by: Annotated[
        Literal["prompt_id", "generator", "campaign_id", "locale"] | None,
        typer.Option(
            help="Also what each group of copy earns, from few outcomes and many ratings.", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Hold every judge's ratings against what the copy earned: correlation, curve, weight, and whether it misleads.

    Ends with exit code 3 when a judge misleads.

    Example: rewardloop judges calibrate email-subjects --segment tier --by generator
    """
    from pipelines import judging

    raise typer.Exit(judging.calibrate(open_workspace(), loop, segment, by, as_json))
