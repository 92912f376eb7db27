"""The apply thread: one chunk of decoded records at a time goes through the store's transaction, with patience.

While it works another chunk may wait, so that Python decodes while the database works, and memory stays bounded.

- Database away: the same chunk again, after growing pauses, until it is back or the chunk is dropped.
- Conflict: another worker applied these records. The chunk is dropped; the worker reads on from the database's word.
- A record that the database refuses: the chunk is halved until that record is alone; it goes into quarantine, the
  others are applied. Each half saves its own offsets, so a crash in between loses nothing.
- Anything else is a fault of ours or of the machine: the thread ends and the worker with it, nothing committed.

Dropping is a number: ``epoch`` grows, and chunks of an earlier epoch are not applied any more. That is for speed
only; what makes it safe is that offsets are saved in the transaction, and only from where they stood.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy.exc import StatementError

from infra.backoff import delays
from infra.broker import Partition, Record
from infra.errors import Conflict, Unavailable
from infra.logs import log
from infra.telemetry import worker_batches, worker_delay_seconds, worker_refused, worker_waiting
from ingestion.events import Offset, Rejected
from ingestion.store import Applied
from ingestion.stream.messages import Decoded, position_of

Step = Callable[[str], None]
"""Called with the name of each step of the commit order; tests crash there."""


CLOSE_SECONDS = 2.0
REFUSED = "The database refused the record ({}); correct it and send it under an id of its own, or replay it"


class Item(NamedTuple):
    """A record and what it was decoded to."""

    record: Record
    decoded: Decoded


class Chunk(NamedTuple):
    """Records to be applied together, in the order of their partitions, and where their partitions stand.

    Without records it is a tick: decisions that wait are counted.
    """

    items: Sequence[Item] = ()
    begins: Mapping[Partition, int] = {}
    topic_ids: Mapping[str, str | None] = {}
    epoch: int = 0

    @property
    def ends(self) -> dict[Partition, int]:
        """Where the partitions stand afterwards."""
        return {(record.topic, record.partition): record.offset + 1 for record, _ in self.items}

    @property
    def offsets(self) -> tuple[Offset, ...]:
        """What is saved with the records."""
        return tuple(
            Offset(
                topic=topic,
                partition=partition,
                begin=self.begins[topic, partition],
                end=end,
                topic_id=self.topic_ids.get(topic),
            )
            for (topic, partition), end in self.ends.items()
        )

    def age(self, now: float) -> float:
        """Seconds since the oldest record was written to its topic. ``now``: Unix time, by the machine's clock."""
        return max(0.0, now - min(record.timestamp_ms for record, _ in self.items) / 1_000)

    def halves(self) -> tuple["Chunk", "Chunk"]:
        """The first and the second half; the second begins where the first ends."""
        middle = len(self.items) // 2
        first = self._replace(items=self.items[:middle])
        return first, self._replace(items=self.items[middle:], begins={**self.begins, **first.ends})


class Dropped(Exception):
    """The chunk is not to be applied any more."""


class Applier:
    """The thread and its one waiting place.

    ``write`` stores a chunk in one transaction, ``reject`` makes a record one for quarantine, ``after`` is told what was applied.
    """

    def __init__(
        self,
        write: Callable[[Chunk], Applied],
        reject: Callable[[Record, str], Rejected],
        after: Callable[[Applied], None],
        step: Step,
    ) -> None:
        self.epoch = 0
        self._write, self._reject, self._after, self._step = write, reject, after, step
        self._changed = threading.Condition()
        self._waiting: Chunk | None = None
        self._working = False
        self._stopped = False
        self._settled: dict[Partition, int] = {}
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="apply", daemon=True)
        self._thread.start()

    def put(self, chunk: Chunk, timeout: float) -> bool:
        """Leave a chunk to be applied; False when the place is taken for that long. A dropped one is forgotten."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting is None or self._failure is not None, timeout):
                return False
            if chunk.epoch == self.epoch:
                self._waiting = chunk
                self._changed.notify_all()
            return True

    def settled(self) -> dict[Partition, int]:
        """How far partitions were applied since this was asked last. Raises what ended the thread."""
        with self._changed:
            if self._failure is not None:
                raise self._failure
            done, self._settled = self._settled, {}
            return done

    def idle(self, timeout: float) -> bool:
        """Wait until nothing is left to apply; False when it takes longer."""
        with self._changed:
            return self._changed.wait_for(self._is_idle, timeout)

    def drop(self) -> None:
        """Give up all that is not applied yet. What is inside the transaction may still commit."""
        with self._changed:
            self.epoch += 1
            self._waiting = None
            self._changed.notify_all()

    def close(self) -> None:
        """End the thread after what it is doing, and wait a moment for that. Again: does nothing."""
        with self._changed:
            self._stopped = True
            self.epoch += 1
            self._waiting = None
            self._changed.notify_all()
        self._thread.join(CLOSE_SECONDS)

    def _is_idle(self) -> bool:
        return self._failure is not None or (self._waiting is None and not self._working)

    def _run(self) -> None:
        try:
            while (chunk := self._take()) is not None:
                self._apply(chunk)
                with self._changed:
                    self._working = False
                    self._changed.notify_all()
        except BaseException as failure:  # raised again by `settled`, in the worker's own thread
            with self._changed:
                self._failure, self._working = failure, False
                self._changed.notify_all()

    def _take(self) -> Chunk | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._stopped)
            chunk, self._waiting = self._waiting, None
            self._working = chunk is not None
            self._changed.notify_all()
            return chunk

    def _apply(self, chunk: Chunk) -> None:
        try:
            in_pieces(chunk, self._commit, self._reject)
        except Dropped:
            worker_batches.labels("dropped").inc()
        except Conflict as conflict:
            log.info("batch_left_to_another_worker", reason=str(conflict))
            worker_batches.labels("conflict").inc()
            self.drop()

    def _commit(self, chunk: Chunk) -> None:
        applied = self._patiently(chunk)
        self._step("applied")
        if chunk.items:
            worker_batches.labels("applied").inc()
            worker_delay_seconds.observe(chunk.age(time.time()))
            with self._changed:
                self._settled |= chunk.ends
        self._after(applied)

    def _patiently(self, chunk: Chunk) -> Applied:
        for delay in delays():
            if chunk.epoch != self.epoch:
                break
            self._step("before_apply")
            try:
                applied = self._write(chunk)
            except Unavailable as away:
                self._rest(chunk, delay, away)
            else:
                worker_waiting.labels("database").set(0)
                return applied
        raise Dropped

    def _rest(self, chunk: Chunk, delay: float, away: Unavailable) -> None:
        worker_waiting.labels("database").set(1)
        log.warning("database_away", reason=str(away), again_in_seconds=round(delay, 1))
        with self._changed:
            self._changed.wait_for(lambda: chunk.epoch != self.epoch, delay)


_VALUES = {"DataError", "IntegrityError"}
_MACHINERY = {"DatabaseError", "InterfaceError", "SQLAlchemyError", "RewardloopError", "OSError", "MemoryError"}


def in_pieces(chunk: Chunk, commit: Callable[[Chunk], None], reject: Callable[[Record, str], Rejected]) -> None:
    """Commit the chunk; where data is refused, by halves, until the record that is to blame is rejected.

    Raises what ``commit`` raises for any other reason, or for the rejected record too.
    """
    try:
        commit(chunk)
    except Exception as error:
        if not chunk.items or not is_about_data(error):
            raise
        if len(chunk.items) > 1:
            for half in chunk.halves():
                in_pieces(half, commit, reject)
            return
        record = chunk.items[0].record
        log.error("record_refused_by_the_database", position=position_of(record), error=type(error).__name__)
        rejected = reject(record, REFUSED.format(type(error).__name__))
        commit(chunk._replace(items=(Item(record, rejected),)))
        worker_refused.inc()


def is_about_data(error: Exception) -> bool:
    """Whether other records may still be applied: the values were refused, not the statement or the connection.

    By name, because drivers and SQLAlchemy each have their own classes with the names of the DB-API (PEP 249).
    """
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(kinds & _VALUES) or type(error) is StatementError or not kinds & _MACHINERY
