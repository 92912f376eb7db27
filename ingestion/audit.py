"""The audit: who changed what, and when. Lines are added in the transaction of the change, and never changed again:
nothing here or elsewhere updates or deletes one (``tests/ingestion/test_audit.py`` looks), and no call of the API does.

Recorded are approvals of copy and models, promotions, kill switches, definitions of loops, starts and ends of campaigns,
keys, what was given up in quarantine, and gaps that were accepted.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from infra import tables


class Entry(msgspec.Struct, frozen=True):
    """One line. ``at``: microseconds."""

    id: int
    at: int
    actor: str
    action: str
    subject: str
    details: dict[str, Any]


def record(connection: Connection, actor: str, action: str, subject: str, details: Mapping[str, Any], now: int) -> None:
    """Write one line: who changed what."""
    connection.execute(
        tables.audit.insert().values(at=now, actor=actor, action=action, subject=subject, details=dict(details))
    )


def read_audit(
    connection: Connection,
    *,
    action: str | None = None,
    subject: str | None = None,
    actor: str | None = None,
    since: int = 0,
    limit: int = 100,
) -> list[Entry]:
    """The newest lines that fit, the oldest of them first. ``actor``: its words or how they begin (a key's name)."""
    audit = tables.audit.c
    query = select(tables.audit).where(audit.at >= since).order_by(audit.id.desc()).limit(limit)
    if action is not None:
        query = query.where(audit.action == action)
    if subject is not None:
        query = query.where(audit.subject == subject)
    if actor is not None:
        query = query.where((audit.actor == actor) | audit.actor.startswith(f"{actor}: ", autoescape=True))
    return [Entry(*row) for row in connection.execute(query)][::-1]
