"""Histories of a worker: what is on the topics, what goes wrong while it is read.

What is left must always be the same: what a worker leaves with which nothing went wrong (the fixture ``expected``).
"""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from infra.broker import Partition
from infra.secrets import Secrets
from infra.settings import Settings
from ingestion import store
from ingestion.stream import worker
from ingestion.stream.decoding import TopicDecoder
from ingestion.stream.worker import Worker
from tests.ingestion.fake_kafka import FakeConsumer, Happening, Log
from tests.ingestion.streaming import bought, decided, happened, positions

DECISIONS, EVENTS, CONTENTS = (f"rewardloop.{name}.v1" for name in ("decisions", "events", "contents"))
NOW = 1_790_000_000_000_000


def history() -> Log:
    """Twelve decisions, their clicks and purchases on two partitions out of order, a duplicate, a lonely click, poison."""
    first = [happened(f"c{n}", "click", 5 * n + 3, decision_id=f"d{n}") for n in range(12)]
    second = [bought(f"p{n}", 5 * n + 4, n + 1, decision_id=f"d{n}") for n in reversed(range(0, 12, 2))]
    second[2:2] = [b"no json", first[3], happened("lonely", "click", 9, decision_id="unknown"), None]  # type: ignore[list-item]
    second.append(happened("e", "refund", 30, reverses="p4"))
    return Log(
        {
            (DECISIONS, 0): [decided(f"d{n}", 5 * n) for n in range(12)],
            (EVENTS, 0): list(first),
            (EVENTS, 1): list(second),
        }
    )


def quick(home: Path) -> Settings:
    return Settings(home=home, worker_batch_records=5, worker_batch_wait_ms=0, sources=("shop",))


class Story:
    """Workers over one log and one database; ``run`` runs one until all is read, or something ends it."""

    def __init__(self, engine: Engine, secrets: Secrets, settings: Settings, log: Log) -> None:
        self.engine, self.secrets, self.settings, self.log = engine, secrets, settings, log
        self.decoder = TopicDecoder(engine, secrets, settings, lambda: NOW)
        self.stop = threading.Event()
        self.announced: list[store.Applied] = []

    def run(
        self,
        history: dict[int, Happening] | None = None,
        *,
        step: Callable[[str], None] = worker.nothing,
        partitions: Sequence[Partition] | None = None,
        done: Callable[[], bool] | None = None,
    ) -> FakeConsumer:
        """One worker's life. It ends when the database stands at the end of its partitions, or ``done`` says so."""
        self.stop = stop = threading.Event()
        mine = list(self.log.values) if partitions is None else partitions
        deadline = time.monotonic() + 60
        consumers: list[FakeConsumer] = []

        def look() -> None:
            assert time.monotonic() < deadline, "the worker does not get to the end"
            if done() if done is not None else self.at_the_end(consumers[0].positions.keys() | consumers[0].unplaced):
                stop.set()

        def consume(assignment: Any) -> FakeConsumer:
            consumers.append(FakeConsumer(self.log, assignment, history, look, mine))
            return consumers[0]

        Worker(
            self.engine,
            self.secrets,
            self.settings,
            lambda: NOW,
            consume,
            self.decoder,
            self.log.topic_ids,
            announce=self.announced.append,
            step=step,
        ).run(stop)
        assert consumers[0].closed
        return consumers[0]

    def at_the_end(self, partitions: Any) -> bool:
        """Whether the database has read these partitions to their end."""
        stored = positions(self.engine)
        return all(stored.get(partition) == self.log.bounds(partition)[1] for partition in partitions)
