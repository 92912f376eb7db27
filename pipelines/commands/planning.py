"""``plan``, ``best``: a send planned ahead of time, and the end of a campaign's search.

Each command imports ``pipelines/planning.py`` when it runs: LightGBM takes seconds to import, `--help` should not.
"""

from pathlib import Path
from typing import Annotated

import typer

from infra.errors import BadInput
from pipelines.commands.workspace import JsonOption, open_workspace

Campaign = Annotated[str, typer.Argument(help="The campaign's id.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(plan)
    app.command()(best)


def plan(
    campaign: Campaign,
    emails: Annotated[int | None, typer.Option(min=1, help="Size of the send, e-mails.", show_default=False)] = None,
    recipients: Annotated[
        Path | None,
        typer.Option(help="CSV or Parquet with `unit`; every other column is context.", show_default=False),
    ] = None,
    destination: Annotated[Path | None, typer.Option("--out", help="CSV to write.", show_default=False)] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of this send; the same again gives the same choices.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Plan a send ahead of time: sizes and shares of a test and the rest, or the choice for every recipient.

    With --recipients every choice is stored with its probability, like a call of /v1/rank, and written to --out.

    Example: rewardloop plan june-offer --emails 50000

    Example: rewardloop plan june-offer --recipients customers.csv --out sends.csv --name june-1
    """
    if (emails is None) == (recipients is None):
        raise BadInput("Give either --emails, to plan shares, or --recipients, to choose for each")
    if recipients is not None and (destination is None or name is None):
        raise BadInput("--recipients needs --out, the file to write, and --name, which makes the send repeatable")
    from pipelines import planning

    if recipients is not None and destination is not None and name is not None:
        planning.decide_recipients(open_workspace(), campaign, recipients, destination, name, as_json)
    elif emails is not None:
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
