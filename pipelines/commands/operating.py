"""Commands of whoever runs an installation: schema, loops, quarantine, kill switch."""

from typing import Annotated, Any, Literal

import typer
from sqlalchemy import Connection, func, select

from infra import tables
from infra.clock import HOUR, format_time
from infra.database import reading, writing
from infra.migrations import heads
from ingestion import quarantine, store
from ingestion.decode import Edge, decode_event
from ingestion.decoding import TopicDecoder
from ingestion.events import Event, Rejected
from ingestion.intake import connector_of, take_again
from ingestion.keys import is_public
from ingestion.loops import load_loop, load_loops
from ingestion.messages import held_record
from ingestion.replay import decode_again
from ingestion.switches import set_switch
from ingestion.topics import topics
from pipelines.commands.workspace import (
    FAILED,
    JsonOption,
    LoopArgument,
    Workspace,
    open_workspace,
    out,
    print_json,
    print_table,
    printable,
)

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
    batch, refused = quarantine.replay(workspace.engine, workspace.secrets, ids, lambda held: _decode(workspace, held))
    if batch.replayed:
        store.apply(
            workspace.engine,
            batch,
            workspace.secrets,
            workspace.clock(),
            quarantine_days=workspace.settings.quarantine_days,
        )
    if as_json:
        print_json({"replayed": list(batch.replayed), "refused": {str(id_): reason for id_, reason in refused.items()}})
    else:
        out().print(f"{len(batch.replayed)} replayed, {len(refused)} still cannot be used.")
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


def _decode(workspace: Workspace, held: quarantine.Held) -> Event | quarantine.Facts | Rejected:
    """A topic's record again, a vendor's, or a native event; a row of an import is mended in its file instead."""
    raw = held.raw or b""
    if held.source.startswith("import:"):
        reason = "a row of an import is mended in its file; import the mended rows under another import name"
        return Rejected(source=held.source, position=held.position, reason=reason, raw=raw)
    settings = workspace.settings
    record = held_record(held.position, raw)
    if record is not None and record.topic in {topic.name for topic in topics(settings.kafka_topic_prefix).read}:
        return decode_again(record, TopicDecoder(workspace.engine, workspace.secrets, settings, workspace.clock))
    sources = (held.source, *settings.sources)
    with reading(workspace.engine) as connection:
        signed = is_public(connection, held.source)
    edge = Edge(workspace.secrets, sources, workspace.clock(), settings.clock_skew_hours * HOUR, signed)
    if connector_of(held.position):
        return take_again(held.position, raw, edge, format_time(held.created_at))
    return decode_event(raw, edge)


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
