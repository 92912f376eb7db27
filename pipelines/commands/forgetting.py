"""``forget``: a person deleted everywhere, because they asked for it."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from infra.errors import BadInput
from ingestion.people.forgetting import Forgotten, forget, forget_again
from pipelines.commands.workspace import FAILED, JsonOption, open_workspace, out, print_json

Users = Annotated[
    list[str] | None,
    typer.Option(
        "--user", help="An id the person is known by, in clear; repeat it for each (e-mail, customer number)."
    ),
]
Also = Annotated[
    list[Path] | None,
    typer.Option("--also", help="A file or folder outside the data folder to look through too; repeat it."),
]


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command("forget")(forget_user)


def forget_user(
    user: Users = None,
    also: Also = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, and delete nothing.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Delete what came in about forgotten persons since, or with a back-up.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete a person everywhere: decisions, events, quarantine, feedback, audiences, exports. There is no way back.

    The same command again deletes nothing more, so one that was interrupted is repeated.

    Example: rewardloop forget --user ann@example.com --user customer-4711
    """
    if again == bool(user):
        raise BadInput("Say whom to forget with --user, or --again without one")
    workspace = open_workspace()
    stands_on = workspace.engine, workspace.secrets
    if again:
        found = forget_again(*stands_on, workspace.clock(), actor="cli")
    else:
        home = workspace.settings.home.resolve()
        found = forget(*stands_on, user or (), workspace.clock(), home=home, also=also or (), dry_run=dry_run)
    if as_json:
        print_json(msgspec.to_builtins(found))
    else:
        _tell(found, "would be deleted" if dry_run else "deleted")
    if found.left:
        raise typer.Exit(FAILED)


def _tell(found: Forgotten, what: str) -> None:
    console = out()
    console.print(
        f"{found.decisions:,} decisions, {found.events:,} events, {found.quarantined:,} quarantined records, "
        f"{found.feedback:,} pieces of feedback and {found.rows:,} rows of {found.files:,} files {what}.",
        highlight=False,
        soft_wrap=True,
    )
    for path, reason in found.left.items():
        console.print(f"Left: {path}: {reason}", markup=False, highlight=False, soft_wrap=True)
