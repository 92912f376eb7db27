"""``lift`` and ``drill``: what the holdout proves, and that the proof can be trusted."""

from typing import Annotated

import typer

from pipelines.commands.workspace import JsonOption, LoopArgument, open_workspace


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(lift)
    app.command()(drill)


def lift(
    loop: LoopArgument,
    act: Annotated[
        bool, typer.Option("--act", help="Put the loop on its baseline if a guardrail that asks for it is breached.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """What the loop earns against its holdout so far: every customer as assigned, with all purchases.

    Look as often as you like: the intervals hold over all looks together. Ends with exit code 3 when a guardrail is
    breached.

    Example: rewardloop lift email-subjects
    """
    from pipelines import proving

    proving.lift(open_workspace(), loop, act, as_json)


def drill(
    loop: LoopArgument,
    metric: Annotated[str | None, typer.Option(help="Metric to drill on; without it the first.")] = None,
    runs: Annotated[int, typer.Option(min=20, max=20_000, help="How often customers are dealt anew.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the deals.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """An A/A drill: deal this loop's customers anew, without any effect, and count how often a lift is claimed.

    Ends with exit code 3 when that is more often than promised.

    Example: rewardloop drill email-subjects --runs 1000
    """
    from pipelines import proving

    proving.drill(open_workspace(), loop, metric, runs, seed, as_json)
