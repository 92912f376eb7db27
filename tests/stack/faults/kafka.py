"""Kafka for the fault suite: a broker that notices dead members fast, and a plain reader of what a log really holds."""

import json
import signal
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from infra.broker import Partition
from infra.deploy.kafka import LocalKafka
from infra.settings import Settings
from ingestion.stream.topics import topics

SESSION_SECONDS = 2
"""How long a killed worker stays in the group; production takes longer, and the join does not care."""


class QuickKafka(LocalKafka):
    """A local Kafka that allows short sessions and deletes topics and old records at once."""

    def _properties(self, broker: Any) -> dict[str, object]:
        return {
            **super()._properties(broker),
            "group.min.session.timeout.ms": 500,
            "log.retention.check.interval.ms": 1_000,
            "log.segment.delete.delay.ms": 1_000,
        }

    def stop(self) -> None:
        """End at once: nobody needs the data any more, and a quorum that goes down in good order takes its time."""
        for broker in self._brokers:
            self._signal(broker, signal.SIGKILL)
        super().stop()


class Held(NamedTuple):
    """What the logs of an installation hold: records, and words said in them about events."""

    records: int
    labels: int


class Log:
    """What the topics of an installation really hold, as somebody sees it who knows nothing of Rewardloop.

    One connection, opened while all is well: a client that is new cannot be sure to get past a frozen broker.
    """

    def __init__(self, settings: Settings) -> None:
        self._read = [topic.name for topic in topics(settings.kafka_topic_prefix).read]
        self._reader: Any = KafkaConsumer(
            bootstrap_servers=settings.kafka_bootstrap_servers.split(","),
            enable_auto_commit=False,
            request_timeout_ms=5_000,
            metadata_max_age_ms=1_000,
        )

    def close(self) -> None:
        """Close the connection."""
        self._reader.close()

    def ends(self, seconds: float = 240.0) -> dict[Partition, int]:
        """The offset after the last record, for every partition that holds any; asked until somebody answers."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return {partition: end for partition, end in self._ends().items() if end > 0}
            except KafkaError:
                if time.monotonic() > deadline:
                    raise

    def held(self) -> Held:
        """Everything, read from beginning to end."""
        upto = {TopicPartition(*partition): end for partition, end in self.ends().items()}
        self._reader.assign(list(upto))
        self._reader.seek_to_beginning()
        records = labels = 0
        while any(self._reader.position(partition) < end for partition, end in upto.items()):
            for found in self._reader.poll(timeout_ms=500).values():
                records += len(found)
                labels += sum(map(_labels, found))
        return Held(records, labels)

    def _ends(self) -> dict[Partition, int]:
        parts = [
            TopicPartition(topic, n) for topic in self._read for n in self._reader.partitions_for_topic(topic) or ()
        ]
        found = self._reader.end_offsets(parts, timeout_ms=10_000)
        return {(partition.topic, partition.partition): end for partition, end in found.items()}


def publish_compressed(settings: Settings, topic: str, value: bytes) -> None:
    """Write one record that is large only when it is unpacked, which the product's producer would refuse."""
    servers = settings.kafka_bootstrap_servers.split(",")
    producer: Any = KafkaProducer(bootstrap_servers=servers, compression_type="gzip", max_request_size=2 * len(value))
    try:
        producer.send(topic, value).get(timeout=30)
    finally:
        producer.close()


def admin(settings: Settings) -> Any:
    """The broker's administrator; close it."""
    return KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers.split(","))


def lose_group_offsets(settings: Settings) -> None:
    """Make Kafka forget how far the group had read, as when offsets expire. The group must be empty."""
    client = admin(settings)
    try:
        client.delete_groups([settings.kafka_group])
    finally:
        client.close()


def lose_records(settings: Settings, before: dict[Partition, int]) -> None:
    """Delete records below these offsets, as retention does."""
    client = admin(settings)
    try:
        client.delete_records({TopicPartition(*partition): offset for partition, offset in before.items()})
    finally:
        client.close()


def delete_topics(settings: Settings, names: Sequence[str]) -> None:
    """Delete topics; they can be made anew under the same names."""
    client = admin(settings)
    try:
        client.delete_topics(list(names))
    finally:
        client.close()


def _labels(record: Any) -> int:
    if record.value is None or b'"labels"' not in record.value:
        return 0
    try:
        labels = json.loads(record.value).get("labels")
    except (ValueError, AttributeError):
        return 0
    return len(labels) if isinstance(labels, dict) else 0
