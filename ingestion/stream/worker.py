"""The Kafka worker: decisions, events and contents from their topics into the store (invariant 4).

1. Poll records. 2. Decode them: what cannot be read becomes ``Rejected``, never an exception. 3. Hand them to the
apply thread (``ingestion/stream/applier.py``), which stores them, their outcomes and their offsets in one transaction.
4. Commit the offsets to Kafka, after the database.

At least once in, exactly once counted. The database's offsets rule: partitions are put there after every assignment
and after every doubt, whatever Kafka's group remembers; partitions never seen begin at the earliest record. A stored
position that the log does not hold, or a topic made anew, stops the worker with :class:`GapFound`.

``revoked`` and ``lost`` are called by the client's own thread: they wait a moment for work under way, and leave a
note. A worker that has lost a partition without knowing it can do no harm: the offsets no longer stand where its
batch began, so the database refuses the batch.

Waiting never loses the group: while the database is away, or slower than the topics, partitions are paused and polled.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from queue import SimpleQueue
from typing import NoReturn, Protocol

from sqlalchemy import Engine

from infra.backoff import delays
from infra.broker import Assignment, Partition, Record
from infra.clock import Clock
from infra.database import reading
from infra.errors import OutOfLog, Unavailable
from infra.logs import log
from infra.secrets import Secrets
from infra.settings import Settings
from infra.telemetry import (
    lag_records,
    offset_gap_records,
    offset_gaps,
    worker_decode_seconds,
    worker_partitions,
    worker_read,
    worker_waiting,
)
from ingestion.events import Rejected
from ingestion.ledger import Stored, stored_offsets
from ingestion.store import Applied, apply
from ingestion.stream.applier import Applier, Chunk, Step
from ingestion.stream.gaps import REWRITTEN, Gap, GapFound, gap_of
from ingestion.stream.messages import Decoded, batch_of
from ingestion.stream.progress import Progress

STOP_SECONDS = 15.0
"""How long a stop waits for the batch in hand."""
REVOKE_SECONDS = 5.0
"""How long a rebalance waits for it; longer would keep the client from its heartbeats."""
POLL_SECONDS = 0.25
PATIENCE_SECONDS = 0.5
"""How long a chunk waits for its place before the group is polled again."""
LOOK_SECONDS = 1.0
"""How often the lag is looked at."""
IDENTITY_SECONDS = 60.0
"""How often the topics' ids are compared with those that were read."""
REST_SECONDS = 2.0
"""Longest pause of the polling thread."""


class Consumer(Protocol):
    """What the worker needs of ``infra.broker.Consumer``, which says what each does."""

    def poll(self, most: int, timeout: float) -> list[Record]: ...
    def commit(self, positions: Mapping[Partition, int]) -> None: ...
    def pause(self, partitions: Iterable[Partition]) -> None: ...
    def resume(self, partitions: Iterable[Partition]) -> None: ...
    def seek(self, partition: Partition, position: int) -> None: ...
    def lag(self) -> dict[Partition, int]: ...
    def close(self) -> None: ...


class Decoder(Protocol):
    """Bytes to facts, with what is known of loops and campaigns."""

    def decode(self, records: Sequence[Record]) -> Sequence[Decoded]:
        """What each record is, in their order. Raises ``Unavailable`` when what must be known cannot be looked up."""

    def settle(self, records: Sequence[Record], decoded: Sequence[Decoded]) -> Sequence[Decoded]:
        """The same against what is stored. Raises ``Unavailable``; calling it again is safe."""

    def reject(self, record: Record, reason: str) -> Rejected:
        """The record for quarantine."""


def nothing(_: object) -> None:
    """The hook that does nothing."""


class Worker:
    """One member of the consumer group; ``run`` is called once.

    ``consume`` joins the group, ``topic_ids`` asks the broker for the ids of the topics; both raise
    :class:`Unavailable`. ``announce`` is told of every committed batch, ``step`` of every step of the commit order:
    polled, decoded, before_apply, applied (the database has committed), before_commit, committed.
    """

    def __init__(
        self,
        engine: Engine,
        secrets: Secrets,
        settings: Settings,
        clock: Clock,
        consume: Callable[[Assignment], Consumer],
        decoder: Decoder,
        topic_ids: Callable[[], Mapping[str, str | None]],
        *,
        announce: Callable[[Applied], None] = nothing,
        step: Step = nothing,
    ) -> None:
        self._engine, self._secrets, self._settings, self._clock = engine, secrets, settings, clock
        self._consume, self._decoder, self._topic_ids, self._step = consume, decoder, topic_ids, step
        self._applier = Applier(self._write, decoder.reject, announce, step)
        self._progress = Progress()
        self._given_away: SimpleQueue[Sequence[Partition]] = SimpleQueue()
        self._epoch = 0
        self._stored: Mapping[Partition, Stored] = {}
        self._ids: Mapping[str, str | None] = {}
        self._rests: dict[str, Iterator[float]] = {}
        self._stop = threading.Event()
        now = time.monotonic()
        self._first_at = self._handed_at = self._looked_at = self._identified_at = self._turned_at = now

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set; then finish the batch in hand, commit its offsets and leave the group.

        Raises :class:`GapFound`, or what broke; nothing is committed to Kafka that is not in the database.
        """
        self._stop = stop
        with closing(self._applier):
            consumer = self._join()
            if consumer is not None:
                self._read(consumer)

    @property
    def seconds_since_poll(self) -> float:
        """How long ago the group was last polled: many when the worker hangs."""
        return time.monotonic() - self._turned_at

    @property
    def partitions(self) -> set[Partition]:
        """What this worker reads."""
        return self._progress.partitions

    def assigned(self, partitions: Sequence[Partition]) -> dict[Partition, int | None]:
        """Partitions were given to this worker: where the database says they are read from; None: never read.

        Raises :class:`Unavailable` to be asked again, :class:`GapFound`.
        """
        self._hear()
        try:
            self._ask()
        except Unavailable as away:
            raise _DatabaseAway(str(away)) from away
        self._identify()
        found = {partition: self._position(partition) for partition in partitions}
        for partition, position in found.items():
            self._progress.place(partition, position or 0)
        self._say("partitions_gained", partitions)
        return found

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """Partitions go to another worker: what is in hand is finished, or dropped when that takes long."""
        if not self._applier.idle(REVOKE_SECONDS):
            self._applier.drop()
        self._given_away.put(partitions)

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Partitions went to another worker some time ago: what is in hand is applied by him."""
        self._applier.drop()
        self._given_away.put(partitions)

    def _read(self, consumer: Consumer) -> None:
        self._consumer = consumer
        try:
            while not self._stop.is_set():
                self._turn()
            self._finish()
        finally:
            self._applier.close()
            consumer.close()
            _forget_lag(self._progress.partitions)

    def _turn(self) -> None:
        self._settle()
        self._place()
        self._take(self._poll(POLL_SECONDS))
        if self._is_due():
            self._hand_over()
        self._look()

    def _join(self) -> Consumer | None:
        while not self._stop.is_set():
            try:
                return self._consume(self)
            except Unavailable as away:
                self._rest("broker", away)
        return None

    def _settle(self) -> None:
        """Commit to Kafka what the database has; start over when something was dropped."""
        self._hear()
        ends = self._applier.settled()
        if self._epoch != self._applier.epoch:
            self._epoch = self._applier.epoch
            self._progress.start_over()
        mine = {partition: end for partition, end in ends.items() if partition in self._progress.partitions}
        if mine:
            self._step("before_commit")
            self._consumer.commit(mine)
            self._step("committed")

    def _hear(self) -> None:
        """Let go of what was given away."""
        while not self._given_away.empty():
            partitions = self._given_away.get()
            self._progress.lose(partitions)
            _forget_lag(partitions)
            self._say("partitions_given_away", partitions)

    def _place(self) -> None:
        """After a doubt: read on from where the database says, once nothing is under way that moves its offsets."""
        self._hear()
        unplaced = sorted(self._progress.unplaced)
        if not unplaced:
            return
        self._consumer.pause(unplaced)
        if not self._applier.idle(PATIENCE_SECONDS):
            return
        try:
            self._ask()
        except Unavailable as away:
            self._rest("database", away)
            return
        for partition in unplaced:
            position = self._position(partition) or 0
            self._consumer.seek(partition, position)
            self._progress.place(partition, position)
        self._consumer.resume(unplaced)

    def _ask(self) -> None:
        """Where the partitions stand."""
        with reading(self._engine) as connection:
            self._stored = stored_offsets(connection)
        self._back("database")

    def _identify(self) -> None:
        self._ids = self._topic_ids()
        self._identified_at = time.monotonic()

    def _position(self, partition: Partition) -> int | None:
        """Where the database says it is read from; None: it never was. A topic made anew is a gap."""
        stored = self._stored.get(partition)
        if stored is None:
            return None
        gap = gap_of(partition, stored, None, self._ids.get(partition[0]))
        if gap is not None:
            self._stop_for(gap)
        return stored.position

    def _poll(self, timeout: float) -> list[Record]:
        self._turned_at = time.monotonic()
        most = max(1, self._settings.worker_batch_records - self._progress.waiting)
        try:
            records = self._consumer.poll(most, timeout)
        except OutOfLog as outside:
            self._outside(outside)
            return []
        except Unavailable as away:
            self._rest("database" if isinstance(away, _DatabaseAway) else "broker", away)
            return []
        self._back("broker")
        return records

    def _take(self, records: Sequence[Record]) -> None:
        self._hear()
        wanted = self._progress.wanted(records)
        if not wanted:
            return
        self._step("polled")
        try:
            with worker_decode_seconds.time():
                decoded = self._decoder.decode(wanted)
        except Unavailable as away:
            self._progress.start_over()
            self._rest("database", away)
            return
        if not self._progress.waiting:
            self._first_at = time.monotonic()
        self._progress.add(wanted, decoded)
        for topic, count in Counter(record.topic for record in wanted).items():
            worker_read.labels(topic).inc(count)
        self._step("decoded")

    def _write(self, chunk: Chunk) -> Applied:
        """Store a chunk; called by the apply thread."""
        decoded = self._decoder.settle([record for record, _ in chunk.items], [one for _, one in chunk.items])
        batch, days = batch_of(decoded, chunk.offsets), self._settings.quarantine_days
        return apply(self._engine, batch, self._secrets, self._clock(), quarantine_days=days)

    def _is_due(self) -> bool:
        """Whether what waits is to be applied now: it fills a batch, or waited long; nothing at all is a tick."""
        now, waiting = time.monotonic(), self._progress.waiting
        if not waiting:
            return now - self._handed_at >= self._settings.tick_seconds
        full = waiting >= self._settings.worker_batch_records
        return full or now - self._first_at >= self._settings.worker_batch_wait_ms / 1_000

    def _hand_over(self) -> None:
        """Give what waits to the apply thread; while it has no place, keep the group without reading more."""
        chunk = self._progress.chunk(self._ids, self._epoch)
        self._handed_at = time.monotonic()
        if not chunk.items:
            self._applier.put(chunk, 0)  # a tick; where there is no place for it, decisions are counted anyway
            return
        held_back = False
        while not self._applier.put(chunk, PATIENCE_SECONDS) and not self._stop.is_set():
            self._consumer.pause(self._progress.placed)
            held_back = True
            self._take(self._poll(0.0))
            self._settle()
        if held_back:
            self._consumer.resume(self._progress.placed)

    def _outside(self, outside: OutOfLog) -> None:
        """A position that the log does not hold: a gap, unless nothing of the partition was ever read."""
        partition, at = outside.partition, outside.position
        self._hear()
        if partition not in self._progress.placed:
            return
        if at == 0 and partition not in self._stored:
            self._consumer.seek(partition, outside.earliest)
            self._progress.place(partition, outside.earliest)
            return
        bounds = (outside.earliest, outside.latest)
        rewritten = Gap(*partition, at, *bounds, None, REWRITTEN)
        self._stop_for(gap_of(partition, Stored(at, None), bounds, None) or rewritten)

    def _stop_for(self, gap: Gap) -> NoReturn:
        """Apply what is in hand, then stop with an alarm: a person decides."""
        offset_gaps.inc()
        offset_gap_records.inc(gap.missing or 0)
        log.error("offset_gap", **gap._asdict())
        self._finish()
        raise GapFound(gap)

    def _look(self) -> None:
        """Now and then: the lag, and whether the topics are still the same ones."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            for (topic, partition), behind in self._consumer.lag().items():
                lag_records.labels(topic, str(partition)).set(behind)
        if now - self._identified_at >= IDENTITY_SECONDS:
            before = self._ids
            try:
                self._identify()
            except Unavailable:
                self._identified_at = now
            if self._ids != before:
                self._progress.start_over()

    def _rest(self, on: str, away: Unavailable) -> None:
        """A dependency is away: say so once, and wait a growing moment."""
        if on not in self._rests:
            self._rests[on] = delays(ceiling=REST_SECONDS)
            worker_waiting.labels(on).set(1)
            log.warning(f"{on}_away", reason=str(away))
        self._stop.wait(next(self._rests[on]))

    def _back(self, on: str) -> None:
        if self._rests.pop(on, None) is not None:
            worker_waiting.labels(on).set(0)
            log.info(f"{on}_back")

    def _finish(self) -> None:
        """Wait for the batch in hand and commit its offsets; what was only read is read again by whoever comes next."""
        if not self._applier.idle(STOP_SECONDS):
            self._applier.drop()
        self._settle()

    def _say(self, what: str, partitions: Sequence[Partition]) -> None:
        worker_partitions.set(len(self._progress.partitions))
        log.info(what, partitions=[f"{topic}/{partition}" for topic, partition in partitions])


class _DatabaseAway(Unavailable):
    """It was the database that did not answer, not the broker."""


def _forget_lag(partitions: Iterable[Partition]) -> None:
    for topic, partition in partitions:
        with suppress(KeyError):
            lag_records.remove(topic, str(partition))
