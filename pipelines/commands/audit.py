"""``audit``: who changed what, and when."""

from typing import Annotated

import msgspec
import typer

from infra.clock import DAY, format_time
from infra.database import reading
from ingestion.audit import read_audit
from pipelines.commands.workspace import JsonOption, open_workspace, out, print_json, print_table


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command()(audit)


def audit(
    action: Annotated[
        str | None, typer.Option(help="Only this: promote, approve, approval, kill …", show_default=False)
    ] = None,
    subject: Annotated[
        str | None, typer.Option(help="Only about this loop, version, content, campaign or connection.")
    ] = None,
    actor: Annotated[str | None, typer.Option(help="Only by this person or key.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Only of the last days.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """Who approved, promoted, switched, defined or let in what, and when. Lines are only ever added.

    Example: rewardloop audit --action promote
    """
    workspace = open_workspace()
    since = 0 if days is None else workspace.clock() - days * DAY
    with reading(workspace.engine) as connection:
        found = read_audit(connection, action=action, subject=subject, actor=actor, since=since, limit=limit)
    lines = [msgspec.structs.asdict(entry) | {"at": format_time(entry.at)} for entry in found]
    if as_json:
        print_json(lines)
    elif lines:
        rows = [[*list(line.values())[:-1], msgspec.json.encode(line["details"]).decode()] for line in lines]
        print_table("Audit", ["id", "at", "actor", "action", "subject", "details"], rows, numbers=(0,))
    else:
        out().print("Nothing of this kind was changed.")
