"""A topic's log in memory, and a consumer of it that tells a worker a history: records, rebalances, absences.

The consumer stands for ``infra.broker.Consumer``: ``assigned`` is asked in the polling thread and again after
``Unavailable``; ``revoked`` and ``lost`` are called by another thread while ``poll`` waits.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from infra.broker import Assignment, Partition, Record
from infra.errors import OutOfLog, Unavailable

Happening = Callable[["FakeConsumer"], None]
"""What happens in a poll, before records are returned. It may raise what a poll raises."""


@dataclass
class Log:
    """What the brokers hold: values by partition, the first of them at the partition's ``first`` offset."""

    values: dict[Partition, list[bytes | None]]
    first: dict[Partition, int] = field(default_factory=dict)
    topic_id: str = "topic-1"

    def bounds(self, partition: Partition) -> tuple[int, int]:
        """First offset, and the one after the last."""
        first = self.first.get(partition, 0)
        return first, first + len(self.values[partition])

    def read(self, partition: Partition, position: int, most: int) -> list[Record]:
        """Records from ``position`` on; raises ``OutOfLog`` like a broker."""
        first, end = self.bounds(partition)
        if not first <= position <= end:
            raise OutOfLog(partition, position, first, end)
        values = self.values[partition][position - first : position - first + most]
        return [
            Record(*partition, offset, 1_700_000_000_000, None, value, ())
            for offset, value in enumerate(values, position)
        ]

    def topic_ids(self) -> dict[str, str | None]:
        """Every topic's id."""
        return {topic: self.topic_id for topic, _ in self.values}


class FakeConsumer:
    """Reads a :class:`Log`. ``history[n]`` happens in the n-th poll; ``done`` is asked in every poll."""

    def __init__(
        self,
        log: Log,
        assignment: Assignment,
        history: Mapping[int, Happening] | None = None,
        done: Callable[[], None] = lambda: None,
        partitions: Iterable[Partition] | None = None,
    ) -> None:
        self.log, self.assignment, self.history, self.done = log, assignment, dict(history or {}), done
        self.positions: dict[Partition, int] = {}
        self.unplaced: set[Partition] = set(log.values if partitions is None else partitions)
        self.paused: set[Partition] = set()
        self.committed: dict[Partition, int] = {}
        self.served: list[Record] = []
        self.polls = self.paused_polls = 0
        self.closed = False

    def poll(self, most: int, timeout: float) -> list[Record]:
        """Up to ``most`` records, of one partition after the other."""
        self.polls += 1
        self.done()
        happening = self.history.pop(self.polls, None)
        if happening is not None:
            happening(self)
        self._place()
        self.paused_polls += bool(self.positions) and self.paused >= self.positions.keys()
        found: list[Record] = []
        for partition in sorted(self.positions.keys() - self.paused):
            try:
                some = self.log.read(partition, self.positions[partition], most - len(found))
            except OutOfLog:
                if found:
                    break  # raised by the next poll
                raise
            self.positions[partition] += len(some)
            found += some
        self.served += found
        if not found:
            threading.Event().wait(min(timeout, 0.005))
        return found

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Remember them."""
        assert all(self.committed.get(partition, 0) <= at for partition, at in positions.items())
        self.committed.update(positions)

    def pause(self, partitions: Iterable[Partition]) -> None:
        """Return nothing of these."""
        self.paused |= set(partitions)

    def resume(self, partitions: Iterable[Partition]) -> None:
        """Return them again."""
        self.paused -= set(partitions)

    def seek(self, partition: Partition, position: int) -> None:
        """Read on from here."""
        assert partition in self.positions
        self.positions[partition] = position

    def lag(self) -> dict[Partition, int]:
        """Records not read yet."""
        return {partition: self.log.bounds(partition)[1] - at for partition, at in self.positions.items()}

    def close(self) -> None:
        """Give everything back."""
        self.take_away(list(self.positions))
        self.closed = True

    def take_away(self, partitions: Sequence[Partition], *, lost: bool = False) -> None:
        """Another worker gets these partitions."""
        tell = self.assignment.lost if lost else self.assignment.revoked
        with ThreadPoolExecutor(1) as other_thread:
            other_thread.submit(tell, partitions).result(timeout=60)
        for partition in partitions:
            del self.positions[partition]
            self.paused.discard(partition)

    def give(self, partitions: Sequence[Partition]) -> None:
        """This worker gets these partitions."""
        self.unplaced |= set(partitions)

    def _place(self) -> None:
        if not self.unplaced:
            return
        asked = sorted(self.unplaced)
        for partition, position in self.assignment.assigned(asked).items():
            self.positions[partition] = self.log.bounds(partition)[0] if position is None else position
        self.unplaced.clear()


def away(_: FakeConsumer) -> None:
    """No broker answers."""
    raise Unavailable("No Kafka broker is connected")
