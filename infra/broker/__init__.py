"""Kafka, in our words: records, messages, a producer, a consumer, topics.

*Publishing* waits until every in-sync copy of a record is written: ``producer.py``. *Reading* is at least once, from
positions that the caller keeps: ``consumer.py``. What can be asked of a log without a group: ``log.py``; topics:
``topics.py``. kafka-python is imported in ``client.py`` alone, where its errors become ours.
"""

from infra.broker.consumer import Assignment, Consumer
from infra.broker.log import log_bounds, offsets_at, read_ranges
from infra.broker.producer import Producer
from infra.broker.shapes import Message, Partition, Record, Topic, TopicState
from infra.broker.topics import ensure_topics, list_topics, partitions_of, reachable, topic_ids

__all__ = [
    "Assignment",
    "Consumer",
    "Message",
    "Partition",
    "Producer",
    "Record",
    "Topic",
    "TopicState",
    "ensure_topics",
    "list_topics",
    "log_bounds",
    "offsets_at",
    "partitions_of",
    "reachable",
    "read_ranges",
    "topic_ids",
]
