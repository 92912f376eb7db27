"""``plan``, ``best``: a send planned ahead of time, and the end of a campaign's search.

Each command imports ``pipelines/planning.py`` when it runs: LightGBM takes seconds to import, `--help` should not.
"""

from typing import Annotated

import typer

from pipelines.commands.workspace import JsonOption, open_workspace

Campaign = Annotated[str, typer.Argument(help="The campaign's id.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(plan)
    app.command()(best)


def plan(
    campaign: Campaign,
    emails: Annotated[int, typer.Option(min=1, help="Size of the send, e-mails.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Plan a send ahead of time: sizes and shares of a test and the rest. `rank-audience` then makes the choices.

    Example: rewardloop plan june-offer --emails 50000
    """
    from pipelines import planning

    planning.plan_shares(open_workspace(), campaign, emails, as_json)


def best(
    campaign: Campaign,
    error: Annotated[float, typer.Option(min=1e-9, max=0.5, help="Probability of a wrong answer, at most.")] = 0.05,
    tolerance: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Differences to ignore, relative to the leader's reward.")
    ] = 0.0,
    retire: Annotated[bool, typer.Option("--retire", help="Retire the contents that are beaten.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Tell which content of a campaign is the best, and whether that is certain enough to stop exploring.

    Look as often as you like: the error holds at every moment, under any policy.

    Example: rewardloop best june-offer --tolerance 0.02
    """
    from pipelines import planning

    planning.best(open_workspace(), campaign, error, tolerance, retire, as_json)
