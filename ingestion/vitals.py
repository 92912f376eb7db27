"""What the ledger looks like now, as gauges: conservation, what is pending and for how long, quarantine, join methods.

Cheap however many facts there are: the ledger's lines are added up once and then only the new ones; the shares are
those of the newest events; the search for the oldest waiting event goes on where it last stood, a few batches at a
time. After a start it takes a while to come up with an old one.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Select, and_, exists, func, select

from infra.clock import MICROS, Clock
from infra.database import reading
from infra.errors import Unavailable
from infra.tables import attributions, batches, events
from infra.telemetry import (
    conservation_error,
    database_up,
    join_method_share,
    pending_oldest_seconds,
    pending_records,
    quarantine_held_records,
)
from ingestion.attribution import LAST_TOUCH, REVERSAL

NEWEST = 1_000
"""Events whose join methods are shown."""
STRIDE = 20
"""Most batches in which one look searches for the oldest waiting event."""

NONE = "none"
"""Belongs to no decision, so far."""
METHODS = ("decision_id", "token", LAST_TOUCH, REVERSAL, NONE)


class Vitals:
    """Looks at the ledger of ``engine``, again and again, from one thread."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine, self._clock = engine, clock
        self._added_up = 0
        self._pending = self._held = self._error = 0
        self._searched = 0

    def look(self) -> None:
        """Set the gauges. A database that does not answer is a gauge too, and leaves the others as they were."""
        try:
            with reading(self._engine) as connection:
                self._add_up(connection)
                waited = self._waited(connection)
                shares = method_shares(connection)
        except Unavailable:
            database_up.set(0)
            return
        database_up.set(1)
        conservation_error.set(self._error)
        pending_records.set(self._pending)
        quarantine_held_records.set(self._held)
        pending_oldest_seconds.set(waited)
        for method, share in shares.items():
            join_method_share.labels(method).set(share)

    def _add_up(self, connection: Connection) -> None:
        """Add the lines of the ledger that are new; batches commit in the order of their numbers."""
        upto, error, pending, held = connection.execute(_new_lines(self._added_up)).one()
        if upto is not None:
            self._added_up = upto
            self._error += int(error)
            self._pending += int(pending)
            self._held += int(held)

    def _waited(self, connection: Connection) -> float:
        """Seconds since the oldest event came that names an unknown decision; 0 for none found yet."""
        numbers = connection.scalars(_with_pending(self._searched)).all()
        oldest = connection.execute(_waiting_in(numbers)).first() if numbers else None
        if oldest is None:
            self._searched = max((self._searched, *numbers))
            return 0.0
        self._searched = oldest.batch_no - 1
        return max(0, self._clock() - int(oldest.received_at)) / MICROS


def method_shares(connection: Connection) -> dict[str, float]:
    """Of each method, its share among the newest events; an event that belongs to two loops counts twice."""
    found = {method: int(count) for method, count in connection.execute(_newest_methods())}
    total = sum(found.values())
    return {method: found.get(method, 0) / total if total else 0.0 for method in METHODS}


def _new_lines(since: int) -> Select[Any]:
    line = batches.c
    in_a_state = line.applied + line.duplicate + line.ignored + line.pending + line.quarantined
    return select(
        func.max(line.batch_no),
        func.sum(line.read - in_a_state),
        func.sum(line.pending + line.became_pending - line.left_pending),
        func.sum(line.quarantined - line.left_quarantine),
    ).where(line.batch_no > since)


def _with_pending(since: int) -> Select[tuple[int]]:
    """Batches that brought events without a decision. One that names its decision never loses it again."""
    newer = and_(batches.c.batch_no > since, batches.c.pending > 0)
    return select(batches.c.batch_no).where(newer).order_by(batches.c.batch_no).limit(STRIDE)


def _waiting_in(numbers: Sequence[int]) -> Select[Any]:
    waiting = and_(events.c.batch_no.in_(numbers), events.c.decision_id.is_not(None), ~exists().where(_same_event()))
    oldest_first = (events.c.batch_no, events.c.received_at)
    return select(*oldest_first).where(waiting).order_by(*oldest_first).limit(1)


def _newest_methods() -> Select[Any]:
    counted = events.c.batch_no.is_not(None)
    newest = select(events.c.source, events.c.event_id).where(counted).order_by(events.c.batch_no.desc()).limit(NEWEST)
    listed = newest.subquery("newest")
    same = and_(attributions.c.source == listed.c.source, attributions.c.event_id == listed.c.event_id)
    method = func.coalesce(attributions.c.method, NONE)
    return select(method, func.count()).select_from(listed.outerjoin(attributions, same)).group_by(method)


def _same_event() -> ColumnElement[bool]:
    return and_(attributions.c.source == events.c.source, attributions.c.event_id == events.c.event_id)
