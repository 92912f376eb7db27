"""The broker module against a real Kafka: nothing here is simulated."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from infra.broker import (
    Consumer,
    Message,
    Partition,
    Producer,
    Record,
    ensure_topics,
    list_topics,
    log_bounds,
    offsets_at,
    partitions_of,
    reachable,
    topic_ids,
)
from infra.errors import BadInput, Misconfigured, OutOfLog, Unavailable
from infra.settings import Settings
from ingestion.topics import all_topics, topics

pytestmark = pytest.mark.stack


class Positions:
    """Stands for the database: gives positions and notes what the reader was told."""

    def __init__(self, positions: Mapping[Partition, int] | None = None) -> None:
        self.positions = dict(positions or {})
        self.told: list[tuple[str, list[Partition]]] = []
        self.absent = False

    def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        if self.absent:
            raise Unavailable("no database")
        self.told.append(("assigned", list(partitions)))
        return {partition: self.positions.get(partition) for partition in partitions}

    def revoked(self, partitions: Sequence[Partition]) -> None:
        self.told.append(("revoked", list(partitions)))

    def lost(self, partitions: Sequence[Partition]) -> None:
        self.told.append(("lost", list(partitions)))


def test_publish_then_poll(kafka_settings: Settings) -> None:
    """Keys, values, headers and tombstones arrive as they were sent, in order within a key."""
    topic = topics(kafka_settings.kafka_topic_prefix).events.name
    sent = [Message(topic, b"a", f"{n}".encode(), (("ce_id", b"1"), ("empty", b""))) for n in range(50)]
    sent += [Message(topic, b"a", None), Message(topic, None, b"no key")]

    assert publish(kafka_settings, sent) == [None] * 52

    with reading(kafka_settings, [topic], Positions()) as consumer:
        got = take(consumer, 52)
    assert [(r.value, r.headers) for r in got if r.key == b"a"] == [(m.value, m.headers) for m in sent if m.key == b"a"]
    assert [r.value for r in got if r.key is None] == [b"no key"]


@contextmanager
def reading(
    settings: Settings, names: Sequence[str], positions: Positions, group: str | None = None
) -> Iterator[Consumer]:
    """A member of this test's group."""
    consumer = Consumer(settings, names, group or settings.kafka_group, positions)
    yield consumer
    consumer.close()


def take(consumer: Consumer, count: int) -> list[Record]:
    """Poll until ``count`` records came."""
    got: list[Record] = []
    until(lambda: len(got) >= count, lambda: got.extend(consumer.poll(500, 0.5)))
    return got


def until(done: Callable[[], bool], step: Callable[[], object], seconds: float = 60.0) -> None:
    """Repeat ``step`` until ``done``; fail after a deadline."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "the condition never came true"
        step()


def publish(settings: Settings, messages: Sequence[Message]) -> list[object]:
    """Send through a producer of its own."""
    producer = Producer(settings)
    try:
        return list(producer.publish(messages))
    finally:
        producer.close()
