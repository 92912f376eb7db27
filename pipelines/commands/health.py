"""``health``: whether a loop's log can be believed, before any number is made of it."""

from typing import Annotated

import msgspec
import typer

from infra.clock import DAY
from infra.database import reading
from ingestion.ledger import newest_batch
from ingestion.loops import load_loop
from pipelines.commands.workspace import (
    GATE_REFUSED,
    JsonOption,
    LoopArgument,
    open_workspace,
    out,
    print_json,
    print_table,
)
from reward_models.health import ContentHealth, Health, examine


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(health)


def health(
    loop: LoopArgument,
    days: Annotated[
        int | None, typer.Option(min=1, help="Only decisions of the last so many days.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Whether the log of a loop can be believed: groups and contents as they were dealt, activations, joins, bots.

    `evaluate` and the gate ask the same before they make a number, and refuse where this refuses (exit code 3).

    Example: rewardloop health email-subjects --days 28
    """
    workspace = open_workspace()
    now = workspace.clock()
    with reading(workspace.engine) as connection:
        definition, _ = load_loop(connection, loop)
        since = None if days is None else now - days * DAY
        found = examine(connection, definition, as_of=newest_batch(connection), now=now, since=since)
    if as_json:
        print_json(document(found))
    else:
        print_health(found)
        print_contents(found)
    if found.refused:
        raise typer.Exit(GATE_REFUSED)


def document(found: Health) -> dict[str, object]:
    """The report as JSON."""
    return {**msgspec.to_builtins(found), "refused": found.refused}


def print_health(found: Health) -> None:
    """The checks, one line each."""
    rows = [(check.name, check.state, check.sentence) for check in found.checks if check.state != "none"]
    title = f"Log health of {found.loop_id}: {found.decisions:,} decisions of {found.units:,} units"
    print_table(title, ["check", "", "found"], rows)


def print_contents(found: Health) -> None:
    """Rates per content."""
    columns = ["campaign", "content", "decisions", "shown vs drawn, z", "activated", "used", "bots", "not mature"]
    print_table("Per content", columns, [_row(one) for one in found.contents], numbers=range(2, len(columns)))
    verdict = found.refused or "Nothing speaks against making numbers of this log."
    out().print(verdict, markup=False, highlight=False, soft_wrap=True)


def _row(one: ContentHealth) -> list[str]:
    z = "" if one.z is None else f"{one.z:+.2f}"
    rates = (one.activation, one.join, one.bot, one.unmatured)
    return [
        one.campaign_id,
        one.content_id,
        f"{one.decisions:,}",
        z,
        *("" if rate is None else f"{rate:.1%}" for rate in rates),
    ]
