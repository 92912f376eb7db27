"""The kill switch: one row per loop says that every answer is its baseline (invariant 18)."""

from sqlalchemy import Connection, select

from infra import tables
from infra.database import upsert
from ingestion.audit import record
from ingestion.loops import load_loop


def set_switch(connection: Connection, loop_id: str, killed: bool, reason: str, actor: str, now: int) -> None:
    """Put a loop on its baseline, or let it choose again; audited. Raises ``NotFound`` for an unknown loop."""
    load_loop(connection, loop_id)
    row = {"loop_id": loop_id, "killed": killed, "reason": reason, "changed_at": now}
    upsert(connection, tables.loop_switches, [row])
    record(connection, actor, "kill" if killed else "unkill", loop_id, {"reason": reason}, now)


def killed_loops(connection: Connection) -> set[str]:
    """Loops that answer their baseline."""
    switches = tables.loop_switches.c
    return set(connection.scalars(select(switches.loop_id).where(switches.killed)))
