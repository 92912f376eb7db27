"""Reading as a member of a group, at least once, from the positions that the caller knows.

Kafka's own offsets decide nothing: where a partition is read from is asked of the caller, who keeps positions in the
database, in one transaction with what the records caused. A position that is not in the log raises
:class:`infra.errors.OutOfLog`; nothing is ever skipped. Only records of committed transactions are returned.

Order of one :meth:`Consumer.poll`: 1 ask the caller for the position of each newly assigned partition, and let it be
read; 2 take part in the group, fetch, and pass on what came. A partition is held back until 1 succeeded, so that an
absent database delays its partitions and costs the group nothing.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from infra.broker.client import faults, kafka, opened, ours, record_of, theirs, translated
from infra.broker.shapes import Partition, Record
from infra.errors import OutOfLog, RewardloopError, Unavailable
from infra.logs import log
from infra.settings import Settings

SESSION_SECONDS = 20
STEP_SECONDS = 0.2
CONNECTIONS = "connection-count"


class Assignment(Protocol):
    """What a reader is told about its partitions. ``assigned`` runs in the thread that polls.

    ``revoked`` and ``lost`` run while :meth:`Consumer.poll` or :meth:`Consumer.close` waits, in another thread that
    also keeps the membership alive: they return within a few seconds.
    """

    def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        """The offset to read next, for each; None: the beginning. Raises ``Unavailable`` to be asked again."""

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """Another reader takes these over: finish or drop their work before returning."""

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Another reader may have taken these over already: drop their work."""


class Consumer:
    """Reads topics as a member of a group, from the positions its ``assignment`` gives. For one thread."""

    def __init__(self, settings: Settings, topics: Sequence[str], group: str, assignment: Assignment) -> None:
        self._assignment = assignment
        self._unplaced: set[Partition] = set()
        self._paused: set[Partition] = set()
        self._truncated: dict[Partition, int] = {}
        self._consumer = opened(
            kafka().KafkaConsumer,
            settings,
            group_id=group,
            auto_offset_reset="none",
            enable_auto_commit=False,
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            partition_assignment_strategy=[kafka().coordinator.assignors.cooperative_sticky.CooperativeStickyAssignor],
            session_timeout_ms=SESSION_SECONDS * 1000,
            heartbeat_interval_ms=1_000,
            metadata_max_age_ms=30_000,
            max_partition_fetch_bytes=2 * 1024 * 1024,
            fetch_max_bytes=16 * 1024 * 1024,
        )
        kafka().ConsumerRebalanceListener.register(_Listener)
        self._consumer.subscribe(list(topics), listener=_Listener(self))

    def poll(self, most: int, timeout: float) -> list[Record]:
        """At most ``most`` records, in order within a partition; empty after ``timeout`` seconds without any.

        Raises ``OutOfLog`` (nothing is skipped; the next poll raises it again), ``Unavailable`` when no broker answers
        or positions cannot be asked for, and whatever else ``assigned`` raises.
        """
        deadline = time.monotonic() + timeout
        while True:
            self._stop_at_a_truncated_log()
            absent = self._place()
            left = deadline - time.monotonic()
            records = self._read(most, max(0.0, min(left, STEP_SECONDS)))
            if records:
                return records
            if left <= STEP_SECONDS:
                self._complain(absent)
                return []

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Tell Kafka how far each partition was read, for those who watch the lag; nobody waits for the answer."""
        offsets = {theirs(partition): kafka().OffsetAndMetadata(at, "", -1) for partition, at in positions.items()}
        try:
            if offsets:
                self._consumer.commit_async(offsets, callback=_noted)
        except faults().KafkaError as error:
            _noted(offsets, error)

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Return nothing of these partitions until they are resumed. Ends when a partition is given away."""
        self._paused |= set(partitions) & self.assigned()
        self._consumer.pause(*map(theirs, self._paused))

    def resume(self, partitions: Iterable[Partition]) -> None:
        """Read these partitions again."""
        self._paused -= set(partitions)
        self._consumer.resume(*map(theirs, (set(partitions) & self.assigned()) - self._unplaced))

    def seek(self, partition: Partition, position: int) -> None:
        """Read this partition from another offset."""
        self._truncated.pop(partition, None)
        self._consumer.seek(theirs(partition), position)

    def assigned(self) -> set[Partition]:
        """The partitions this member reads now."""
        return {ours(partition) for partition in self._consumer.assignment()}

    def lag(self) -> dict[Partition, int]:
        """Records not yet read, for each partition of which the end is known."""
        found = {}
        for partition in self.assigned() - self._unplaced:
            end, position = self._consumer.highwater(theirs(partition)), self._position(partition)
            if end is not None and position is not None:
                found[partition] = max(0, end - position)
        return found

    def close(self) -> None:
        """Give every partition back (``revoked`` is called) and leave the group."""
        try:
            self._consumer.close(autocommit=False, timeout_ms=5_000)
        except faults().KafkaError as error:
            raise self._explained(error) from error

    def _place(self) -> Unavailable | None:
        """Give each newly assigned partition its position; what made that impossible for now."""
        asked = sorted(self._unplaced & self.assigned())
        if not asked:
            return None
        try:
            positions = self._assignment.assigned(asked)
        except Unavailable as error:
            return error
        for partition in asked:
            self._start(partition, positions.get(partition))
        return None

    def _start(self, partition: Partition, position: int | None) -> None:
        place = theirs(partition)
        if position is None:
            self._consumer.seek_to_beginning(place)
        else:
            self._consumer.seek(place, position)
        self._unplaced.discard(partition)
        if partition not in self._paused:
            self._consumer.resume(place)

    def _read(self, most: int, timeout: float) -> list[Record]:
        self._finish_joining()
        try:
            found = self._consumer.poll(timeout_ms=int(timeout * 1000), max_records=most)
        except faults().KafkaError as error:
            raise self._explained(error) from error
        return [record_of(one) for records in found.values() for one in records]

    def _finish_joining(self) -> None:
        """Let a join that outlasted a poll be finished by the next.

        kafka-python asks again whether a join is needed. For one that new metadata made necessary the answer turns to
        no while it is under way; then its result is never looked at, and the member is silent for ever.
        """
        coordinator = self._consumer._coordinator
        if coordinator.rejoining:
            coordinator.request_rejoin()

    def _complain(self, absent: Unavailable | None) -> None:
        """Nothing came: say so if that is not because nothing was written."""
        if absent is not None:
            raise absent
        connections = [m.value() for name, m in self._consumer.metrics(raw=True).items() if name.name == CONNECTIONS]
        if not any(connections):
            raise Unavailable("No Kafka broker is connected")

    def _explained(self, error: Exception) -> RewardloopError:
        if isinstance(error.__cause__, RewardloopError):
            return error.__cause__
        if isinstance(error, faults().OffsetOutOfRangeError):
            return self._out_of_log(*next(iter(error.args[0].items())))
        if isinstance(error, faults().LogTruncationError):
            self._truncated |= {ours(at): self._position(ours(at)) or 0 for at in error.divergent_offsets}
            partition, position = next(iter(self._truncated.items()))
            return self._out_of_log(theirs(partition), position, certain=True)
        return translated(error)

    def _stop_at_a_truncated_log(self) -> None:
        """Records that were read are gone and others stand in their place. kafka-python says so once; we go on."""
        for partition, position in self._truncated.items():
            raise self._out_of_log(theirs(partition), position, certain=True)

    def _position(self, partition: Partition) -> int | None:
        try:
            position: int | None = self._consumer.position(theirs(partition), timeout_ms=0)
        except faults().KafkaError as error:
            raise self._explained(error) from error
        return position

    def _out_of_log(self, partition: Any, position: int, certain: bool = False) -> RewardloopError:
        try:
            earliest = self._consumer.beginning_offsets([partition], timeout_ms=5_000)[partition]
            latest = self._consumer.end_offsets([partition], timeout_ms=5_000)[partition]
        except faults().KafkaError as error:
            return translated(error)
        if earliest <= position <= latest and not certain:
            return Unavailable(f"Kafka: {ours(partition)} is changing its leader")
        return OutOfLog(ours(partition), position, earliest, latest)

    def _arrived(self, partitions: Iterable[Any]) -> None:
        """Hold new partitions back until their position is known. The zero is never read from."""
        for partition in partitions:
            self._consumer.pause(partition)
            self._consumer.seek(partition, 0)
            self._unplaced.add(ours(partition))

    def _gone(self, partitions: Iterable[Any], tell: Callable[[Sequence[Partition]], None]) -> None:
        gone = {ours(partition) for partition in partitions}
        told = sorted(gone - self._unplaced)
        self._unplaced -= gone
        self._paused -= gone
        for partition in gone:
            self._truncated.pop(partition, None)
        if told:
            tell(told)


class _Listener:
    """Passes what the group decides to the consumer; runs in kafka-python's own thread while ``poll`` waits."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        self._consumer._arrived(assigned)

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        self._consumer._gone(revoked, self._consumer._assignment.revoked)

    def on_partitions_lost(self, lost: Iterable[Any]) -> None:
        self._consumer._gone(lost, self._consumer._assignment.lost)


def _noted(_: object, answer: object) -> None:
    if isinstance(answer, Exception):
        log.info("kafka_commit_failed", reason=str(answer))
