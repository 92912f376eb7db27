"""Commands of whoever runs an installation: schema, loops, quarantine, kill switch."""

from typing import Annotated, Any, Literal

import typer
from sqlalchemy import Connection, func, select

from infra import tables
from infra.clock import format_time
from infra.database import reading, writing
from infra.migrations import heads
from ingestion import quarantine
from ingestion.loops import load_loop, load_loops
from ingestion.switches import set_switch
from pipelines.commands.workspace import (
    FAILED,
    JsonOption,
    LoopArgument,
    open_workspace,
    out,
    print_json,
    print_table,
    printable,
)
from pipelines.replaying import replay

ACTOR = "cli"
LOOPS = """The loops of this installation.

Example: rewardloop loops list"""
HELD = """Records that could not be used.

Example: rewardloop quarantine list"""

Ids = Annotated[list[int], typer.Argument(help="Numbers of quarantined records.", show_default=False)]
Reason = Annotated[str, typer.Option(help="Why; it is kept in the audit.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(migrate)
    app.command()(kill)
    app.command()(unkill)
    loops = typer.Typer(no_args_is_help=True, help=LOOPS, rich_markup_mode=None)
    loops.command("list")(list_loops)
    loops.command("show")(show_loop)
    app.add_typer(loops, name="loops")
    held = typer.Typer(no_args_is_help=True, help=HELD, rich_markup_mode=None)
    held.command("list")(list_held)
    held.command("show")(show_held)
    held.command("replay")(replay_held)
    held.command("drop")(drop_held)
    app.add_typer(held, name="quarantine")


def migrate() -> None:
    """Bring the database to the newest schema. Safe to repeat.

    Example: rewardloop migrate
    """
    open_workspace()
    out().print(f"The database is at schema {', '.join(heads())}.", highlight=False)


def list_loops(as_json: JsonOption = False) -> None:
    """List the loops with what they hold.

    Example: rewardloop loops list
    """
    workspace = open_workspace()
    with reading(workspace.engine) as connection:
        found = [_loop_line(connection, loop_id, version) for loop_id, (_, version) in load_loops(connection).items()]
    found.sort(key=lambda line: str(line["loop"]))
    if as_json:
        print_json(found)
    elif found:
        print_table("Loops", list(found[0]), [list(line.values()) for line in found], numbers=(1, 2, 3, 4, 5))
    else:
        out().print("No loops yet. Import one: rewardloop import --mapping …, or PUT /v1/loops/{id}.", highlight=False)


def show_loop(loop: LoopArgument) -> None:
    """Print a loop's definition in force, as JSON.

    Example: rewardloop loops show hillstrom
    """
    with reading(open_workspace().engine) as connection:
        definition, version = load_loop(connection, loop)
    print_json({"version": version, **definition.model_dump(mode="json")})


def list_held(
    state: Annotated[
        Literal["held", "replayed", "dropped"], typer.Option(help="`held`, `replayed` or `dropped`.")
    ] = "held",
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 100,
    as_json: JsonOption = False,
) -> None:
    """List quarantined records and why they are there.

    Example: rewardloop quarantine list
    """
    found = quarantine.list_held(open_workspace().engine, state=state, limit=limit)
    if as_json:
        print_json([_without_bytes(record) for record in found])
    elif found:
        rows = [(record.id, record.source, record.position, record.reason) for record in found]
        print_table(f"Quarantine, {state}", ["id", "source", "position", "reason"], rows, numbers=(0,))
    else:
        out().print(f"No records are {state}.")


def show_held(
    id_: Annotated[int, typer.Argument(metavar="ID", help="Number of the record.")], as_json: JsonOption = False
) -> None:
    """Show one quarantined record with its bytes.

    Example: rewardloop quarantine show 17
    """
    workspace = open_workspace()
    record = quarantine.show(workspace.engine, workspace.secrets, id_)
    text = None if record.raw is None else record.raw.decode("utf-8", "backslashreplace")
    if as_json:
        print_json(_without_bytes(record) | {"raw": text})
        return
    for name, value in _without_bytes(record).items():
        out().print(f"{name:<12}{printable(str(value))}", markup=False, highlight=False, soft_wrap=True)
    typer.echo(printable(text) if text is not None else "(the bytes are gone)")


def replay_held(ids: Ids, as_json: JsonOption = False) -> None:
    """Send quarantined records through the door again, after what was wrong is mended.

    Example: rewardloop quarantine replay 17 18
    """
    workspace = open_workspace()
    replayed, refused = replay(workspace, ids)
    if as_json:
        print_json({"replayed": list(replayed), "refused": {str(id_): reason for id_, reason in refused.items()}})
    else:
        out().print(f"{len(replayed)} replayed, {len(refused)} still cannot be used.")
        for id_, reason in refused.items():
            out().print(f"  {id_}: {reason}", markup=False, highlight=False, soft_wrap=True)
    if refused:
        raise typer.Exit(FAILED)


def drop_held(ids: Ids) -> None:
    """Give quarantined records up; their bytes are deleted.

    Example: rewardloop quarantine drop 17
    """
    workspace = open_workspace()
    out().print(f"{quarantine.drop(workspace.engine, ids, workspace.clock())} dropped.")


def kill(loop: LoopArgument, reason: Reason = "") -> None:
    """Put a loop on its baseline at once.

    Example: rewardloop kill hillstrom --reason "wrong prices in the copy"
    """
    _switch(loop, True, reason)
    out().print(f"Loop {loop} answers its baseline. Undo: rewardloop unkill {loop}", markup=False, highlight=False)


def unkill(loop: LoopArgument, reason: Reason = "") -> None:
    """Let a loop choose again.

    Example: rewardloop unkill hillstrom --reason "prices corrected"
    """
    _switch(loop, False, reason)
    out().print(f"Loop {loop} chooses again.", markup=False, highlight=False)


def _switch(loop: str, killed: bool, reason: str) -> None:
    workspace = open_workspace()
    with writing(workspace.engine) as connection:
        set_switch(connection, loop, killed, reason, ACTOR, workspace.clock())


def _without_bytes(record: quarantine.Held) -> dict[str, Any]:
    document = {name: getattr(record, name) for name in record.__struct_fields__ if name != "raw"}
    return document | {name: format_time(document[name]) for name in ("created_at", "expires_at")}


def _loop_line(connection: Connection, loop_id: str, version: int) -> dict[str, Any]:
    in_loop = tables.campaigns.c.loop_id == loop_id
    campaigns = select(tables.campaigns.c.campaign_id).where(in_loop)
    champion = connection.scalar(select(tables.champions.c.version).where(tables.champions.c.loop_id == loop_id))
    return {
        "loop": loop_id,
        "version": version,
        "campaigns": _count(connection, tables.campaigns, in_loop),
        "contents": _count(connection, tables.contents, tables.contents.c.campaign_id.in_(campaigns)),
        "decisions": _count(connection, tables.decisions, tables.decisions.c.loop_id == loop_id),
        "past results": _count(connection, tables.historical_results, tables.historical_results.c.loop_id == loop_id),
        "champion": champion or "",
    }


def _count(connection: Connection, table: Any, where: Any) -> int:
    return connection.scalar(select(func.count()).select_from(table).where(where)) or 0
