"""The decision log: stored before it is answered, many decisions in one commit (invariants 8 and 11).

One writer thread takes what waits in a bounded queue, inserts it once, and wakes the requests after the commit.
A decision id that is stored already wins: its row is read back, and is the answer. While the database is away
or the queue is full, ``store`` raises ``Unavailable`` and the caller answers the baseline, unstored.

A connection lost during the commit itself leaves open whether the row is there; it then is the stored answer of the
next call with that id.
"""

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, Engine, Row, select

from infra import tables
from infra.database import chunks, insert_new, writing
from infra.errors import RewardloopError, Unavailable
from infra.logs import log
from infra.telemetry import decision_log_depth
from infra.threads import groups
from ingestion.events import Decision

GROUP = 200
"""Most decisions in one commit."""
WAITING = 2_000
"""Most decisions that wait for a commit; more is answered without being stored."""
PATIENCE_SECONDS = 5.0
"""How long a decision may wait to be taken; then the caller answers the baseline."""
STOP_SECONDS = 30.0

_COLUMNS = tuple(str(column.name) for column in tables.decisions.columns if column.name != "batch_no")


class _Ticket(NamedTuple):
    decision: Decision
    stored: "Future[Decision]"


class DecisionLog:
    """Start it once, ``store`` from any thread, ``stop`` it at the end: what was taken is still written."""

    def __init__(self, engine: Engine, waiting: int = WAITING) -> None:
        self.engine = engine
        self._queue: queue.Queue[_Ticket | None] = queue.Queue(waiting)
        self._thread = threading.Thread(target=self._run, name="decision-log", daemon=True)

    def start(self) -> None:
        """Start the writer."""
        decision_log_depth.set_function(self._queue.qsize)
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, then end the writer."""
        self._queue.put(None)
        self._thread.join(STOP_SECONDS)

    def store(self, decision: Decision) -> Decision:
        """The decision that is stored under this id: this one, or the one that was there before.

        Raises :class:`Unavailable` when it could not be stored.
        """
        ticket = _Ticket(decision, Future())
        try:
            self._queue.put_nowait(ticket)
        except queue.Full:
            raise Unavailable("Too many decisions wait to be stored; try again") from None
        try:
            return ticket.stored.result(PATIENCE_SECONDS)
        except TimeoutError:
            if ticket.stored.cancel():
                raise Unavailable("The decision waited too long to be stored; try again") from None
            return ticket.stored.result()  # it is being written: what becomes of it is the answer

    def _run(self) -> None:
        for tickets in groups(self._queue, GROUP):
            self._write(tickets)

    def _write(self, tickets: Sequence[_Ticket]) -> None:
        tickets = [ticket for ticket in tickets if ticket.stored.set_running_or_notify_cancel()]
        try:
            with writing(self.engine) as connection:
                stored = insert_decisions(connection, [ticket.decision for ticket in tickets])
        except RewardloopError as error:
            _fail(tickets, error)
        except Exception as error:  # the writer must live: the next group may be storable
            _fail(tickets, Unavailable(f"The decision could not be stored ({type(error).__name__}); see the log"))
            log.error("decision_log_failed", exc_info=error)
        else:
            for ticket, decision in zip(tickets, stored, strict=True):
                ticket.stored.set_result(decision)


def insert_decisions(connection: Connection, decisions: Sequence[Decision]) -> list[Decision]:
    """Insert each id once; returns, in order, what is stored under each id."""
    mine: dict[str, Decision] = {}
    for decision in decisions:
        mine.setdefault(decision.decision_id, decision)
    rows = [decision_row(decision) for _, decision in sorted(mine.items())]
    new = {key for (key,) in insert_new(connection, tables.decisions, rows)}
    earlier = read_decisions(connection, sorted(set(mine) - new))
    return [earlier.get(decision.decision_id, mine[decision.decision_id]) for decision in decisions]


def read_decisions(connection: Connection, decision_ids: Sequence[str]) -> dict[str, Decision]:
    """The stored decisions of these ids."""
    found = {}
    for some in chunks(decision_ids, 500):
        query = select(tables.decisions).where(tables.decisions.c.decision_id.in_(some))
        for row in connection.execute(query):
            found[row.decision_id] = decision_of(row)
    return found


def decision_row(decision: Decision) -> dict[str, object]:
    """The decision as a row of ``decisions``, not yet counted."""
    return {name: msgspec.to_builtins(getattr(decision, name)) for name in _COLUMNS}


def decision_of(row: Row[tuple[object, ...]]) -> Decision:
    """A row of ``decisions`` as a decision."""
    return msgspec.convert({name: row._mapping[tables.decisions.c[name]] for name in _COLUMNS}, Decision)


def _fail(tickets: Sequence[_Ticket], error: Exception) -> None:
    for ticket in tickets:
        ticket.stored.set_exception(error)
