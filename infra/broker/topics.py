"""Topics: made where they are missing, described where they are there."""

from collections.abc import Sequence
from typing import Any

from infra.broker.client import admin_client, kafka
from infra.broker.shapes import Topic, TopicState
from infra.settings import Settings

NO_TOPIC_ID = "00000000-0000-0000-0000-000000000000"


def ensure_topics(settings: Settings, topics: Sequence[Topic], replication: int = -1) -> list[TopicState]:
    """Make the topics that are missing and say how the others differ; nothing that exists is changed.

    ``replication`` is the number of copies of a new topic; -1: what the brokers do by themselves.
    """
    with admin_client(settings) as admin:
        there = {found["name"] for found in _described(admin, [topic.name for topic in topics])}
        missing = {topic.name: _wanted(topic, replication) for topic in topics if topic.name not in there}
        if missing:
            admin.create_topics(missing, wait_for_metadata=True)
        return [_state(admin, topic, topic.name in missing) for topic in topics]


def list_topics(settings: Settings, topics: Sequence[Topic]) -> list[TopicState | None]:
    """How each topic is; None: it does not exist."""
    with admin_client(settings) as admin:
        there = {found["name"] for found in _described(admin, [topic.name for topic in topics])}
        return [_state(admin, topic, False) if topic.name in there else None for topic in topics]


def topic_ids(settings: Settings, topics: Sequence[str]) -> dict[str, str | None]:
    """Kafka's own id of each topic, which changes when a topic is made anew; None: no such topic."""
    with admin_client(settings) as admin:
        found = {topic["name"]: str(topic["topic_id"]) for topic in _described(admin, topics)}
    return {name: None if found.get(name, NO_TOPIC_ID) == NO_TOPIC_ID else found[name] for name in topics}


def partitions_of(settings: Settings, topic: str) -> list[int]:
    """Numbers of the topic's partitions; empty: no such topic."""
    with admin_client(settings) as admin:
        return sorted(part["partition_index"] for found in _described(admin, [topic]) for part in found["partitions"])


def reachable(settings: Settings) -> str:
    """What answers, in words, or :class:`Unavailable`."""
    with admin_client(settings) as admin:
        cluster = admin.describe_cluster()
        release = ".".join(map(str, admin._manager.broker_version))
        return f"Kafka {release}, cluster {cluster['cluster_id']}, {len(cluster['brokers'])} brokers"


def _wanted(topic: Topic, replication: int) -> dict[str, object]:
    configs = {"retention.ms": str(topic.retention_ms), "cleanup.policy": "delete"}
    return {"num_partitions": topic.partitions, "replication_factor": replication, "configs": configs}


def _state(admin: Any, topic: Topic, created: bool) -> TopicState:
    (found,) = _described(admin, [topic.name])
    resource = kafka().admin.ConfigResource(kafka().admin.ConfigResourceType.TOPIC, topic.name)
    configs = admin.describe_configs([resource], config_filter="all")["topic"][topic.name]
    pairs = [
        ("partitions", len(found["partitions"]), topic.partitions),
        ("retention.ms", configs["retention.ms"]["value"], str(topic.retention_ms)),
        ("cleanup.policy", configs["cleanup.policy"]["value"], "delete"),
    ]
    differences = tuple(f"{name} is {found}, not {asked}" for name, found, asked in pairs if found != asked)
    copies = len(found["partitions"][0]["replica_nodes"])
    return TopicState(topic.name, created, len(found["partitions"]), copies, differences)


def _described(admin: Any, topics: Sequence[str]) -> list[dict[str, Any]]:
    """What Kafka knows of those topics that exist."""
    return [found for found in admin.describe_topics(list(topics)) if not found["error_code"]]
