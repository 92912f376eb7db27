"""What goes to and comes from Kafka, in our words."""

from typing import NamedTuple

Partition = tuple[str, int]
"""Topic and number."""


class Record(NamedTuple):
    """One record as it was read. ``value`` is None for a tombstone; times are milliseconds since 1970 UTC."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class Message(NamedTuple):
    """One record to be written. Messages with the same key stay in order; ``value`` None is a tombstone."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Topic(NamedTuple):
    """One topic as it should be. ``key`` says what a record's key is, ``holds`` what a record is, in words."""

    name: str
    key: str
    partitions: int
    retention_ms: int
    holds: str


class TopicState(NamedTuple):
    """One topic as it is: whether it was made just now, and how it differs from what was asked for."""

    name: str
    created: bool
    partitions: int
    replication: int
    differences: tuple[str, ...]
