"""What the ledger looks like now, as gauges: conservation, what is pending and for how long, quarantine.

Cheap however many facts there are: the ledger's lines are added up once and then only the new ones; the search for the
oldest waiting event goes on where it last stood, a few batches at a time. After a start it takes a while to come up with
an old one.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Select, and_, exists, func, select, text

from infra.clock import MICROS, Clock
from infra.database import reading, search_by_keys
from infra.errors import Unavailable
from infra.tables import attributions, batches, events
from infra.telemetry import (
    conservation_error,
    database_up,
    pending_oldest_seconds,
    pending_records,
    quarantine_held_records,
)
from ingestion.join.attribution import names_no_decision

LOOK_SECONDS = 5.0
"""How often a process looks; Prometheus asks every 15 seconds."""
STRIDE = 20
"""Most batches in which one look searches for the oldest waiting event."""
WATCHED = text("events.type IN ('click', 'open', 'activation')")
"""Types of the events that are searched: the condition of ``ix_events_watched``, spelled out so that it is used."""


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
        except Unavailable:
            database_up.set(0)
            return
        database_up.set(1)
        conservation_error.set(self._error)
        pending_records.set(self._pending)
        quarantine_held_records.set(self._held)
        pending_oldest_seconds.set(waited)

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
        search_by_keys(connection)
        numbers = connection.scalars(_with_pending(self._searched)).all()
        oldest = connection.execute(_waiting_in(numbers)).first() if numbers else None
        if oldest is None:
            self._searched = max((self._searched, *numbers))
            return 0.0
        self._searched = oldest.batch_no - 1
        return max(0, self._clock() - int(oldest.received_at)) / MICROS


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
    nowhere = ~exists().where(_same_event())
    waiting = and_(WATCHED, events.c.batch_no.in_(numbers), ~names_no_decision(events), nowhere)
    oldest_first = (events.c.batch_no, events.c.received_at)
    return select(*oldest_first).where(waiting).order_by(*oldest_first).limit(1)


def _same_event() -> ColumnElement[bool]:
    return attributions.c.event_no == events.c.event_no
