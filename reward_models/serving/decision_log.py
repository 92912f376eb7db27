"""The decision log: stored before it is answered, many decisions in one commit (invariants 8 and 11).

One writer thread takes what waits in a bounded queue, inserts it once, and wakes the requests after the commit: threads
that wait (``store``), and coroutines (``stored``), those of one event loop all at once. A decision id that is stored
already wins: its row is read back, and is the answer. While the database is away (``reach.py``) or the queue is full,
both raise ``Unavailable`` and the caller answers the baseline, unstored.

A connection lost during the commit itself leaves open whether the row is there; it then is the stored answer of the
next call with that id.
"""

import asyncio
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from operator import attrgetter

import msgspec
from sqlalchemy import Connection, Engine, Row, select

from infra import arrays, tables
from infra.database import Pen, chunks, insert_new
from infra.errors import RewardloopError, Unavailable
from infra.logs import log
from infra.telemetry import decision_log_depth
from infra.threads import groups
from ingestion.events import Decision
from reward_models.serving.reach import Reach

GROUP = 200
"""Most decisions in one commit."""
WAITING = 2_000
"""Most decisions that wait for a commit; more is answered without being stored."""
PATIENCE_SECONDS = 5.0
"""How long a decision may wait to be taken; then the caller answers the baseline."""
STOP_SECONDS = 30.0

_COLUMNS = tuple(str(column.name) for column in tables.decisions.columns if column.name != "batch_no")
_row = attrgetter(*_COLUMNS)


class _Ticket:
    """A decision that waits, and its caller: a thread, or a coroutine of an event loop."""

    __slots__ = ("_claimed", "answer", "decision", "loop")

    def __init__(
        self,
        decision: Decision,
        answer: "Future[Decision] | asyncio.Future[Decision]",
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.decision, self.answer, self.loop = decision, answer, loop
        self._claimed = threading.Lock()

    def claim(self) -> bool:
        """Whether nobody has claimed it before: the writer, who stores it then, or the caller, who gives it up."""
        return self._claimed.acquire(blocking=False)


class DecisionLog:
    """Start it once, ``store`` from any thread or await ``stored``, ``stop`` it at the end: what was taken is still
    written."""

    def __init__(self, engine: Engine, waiting: int = WAITING) -> None:
        self.engine = engine
        self._pen = Pen(engine)
        self._queue: queue.Queue[_Ticket | None] = queue.Queue(waiting)
        self._reach = Reach()
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
        answer: Future[Decision] = Future()
        ticket = self._put(_Ticket(decision, answer))
        try:
            return answer.result(PATIENCE_SECONDS)
        except TimeoutError:
            if ticket.claim():
                raise _too_long() from None
            return answer.result()  # it is being written: what becomes of it is the answer

    async def stored(self, decision: Decision) -> Decision:
        """:meth:`store`, for a coroutine."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Decision] = loop.create_future()
        ticket = self._put(_Ticket(decision, answer, loop))
        patience = loop.call_later(PATIENCE_SECONDS, _give_up, ticket)
        try:
            return await answer
        finally:
            patience.cancel()

    def _put(self, ticket: _Ticket) -> _Ticket:
        self._reach.check()
        try:
            self._queue.put_nowait(ticket)
        except queue.Full:
            raise Unavailable("Too many decisions wait to be stored; try again") from None
        return ticket

    def _run(self) -> None:
        for tickets in groups(self._queue, GROUP):
            self._write(tickets)
        self._pen.close()

    def _write(self, tickets: Sequence[_Ticket]) -> None:
        tickets = [ticket for ticket in tickets if ticket.claim()]
        stored: Sequence[Decision | Exception]
        try:
            decisions = [ticket.decision for ticket in tickets]
            with self._reach.committing():
                stored = self._pen.write(lambda connection: insert_decisions(connection, decisions))
        except RewardloopError as error:
            stored = [error] * len(tickets)
        except Exception as error:  # the writer must live: the next group may be storable
            log.error("decision_log_failed", exc_info=error)
            reason = f"The decision could not be stored ({type(error).__name__}); see the log"
            stored = [Unavailable(reason)] * len(tickets)
        _tell(tickets, stored)


def insert_decisions(connection: Connection, decisions: Sequence[Decision]) -> list[Decision]:
    """Insert each id once; returns, in order, what is stored under each id."""
    mine: dict[str, Decision] = {}
    for decision in decisions:
        mine.setdefault(decision.decision_id, decision)
    new = _insert_new(connection, [decision for _, decision in sorted(mine.items())])
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


def _insert_new(connection: Connection, decisions: Sequence[Decision]) -> set[str]:
    """Insert them, not yet counted, in this order; returns the ids that are new."""
    cells = dict(zip(_COLUMNS, zip(*map(_row, decisions), strict=True), strict=True))
    if connection.dialect.name == "postgresql":
        return arrays.insert_new(connection, tables.decisions, cells)
    return {key for (key,) in insert_new(connection, tables.decisions, cells)}


def decision_of(row: Row[tuple[object, ...]]) -> Decision:
    """A row of ``decisions`` as a decision."""
    return msgspec.convert({name: row._mapping[tables.decisions.c[name]] for name in _COLUMNS}, Decision)


_Answer = tuple["Future[Decision] | asyncio.Future[Decision]", Decision | Exception]


def _tell(tickets: Sequence[_Ticket], stored: Sequence[Decision | Exception]) -> None:
    """Wake those who wait; an event loop is called once for all of its own."""
    answers: dict[asyncio.AbstractEventLoop | None, list[_Answer]] = {}
    for ticket, answer in zip(tickets, stored, strict=True):
        answers.setdefault(ticket.loop, []).append((ticket.answer, answer))
    for loop, some in answers.items():
        if loop is None:
            _settle(some)
        else:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_settle, some)


def _settle(answers: Sequence[_Answer]) -> None:
    for future, answer in answers:
        if future.done():  # whoever waited went away
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)


def _give_up(ticket: _Ticket) -> None:
    if ticket.claim():
        _settle([(ticket.answer, _too_long())])


def _too_long() -> Unavailable:
    return Unavailable("The decision waited too long to be stored; try again")
