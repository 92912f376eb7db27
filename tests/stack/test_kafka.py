"""The broker module against a real Kafka: nothing here is simulated."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from infra.deploy.kafka import LocalKafka, Security
from infra.errors import BadInput, Misconfigured, OutOfLog, Unavailable
from infra.settings import Settings
from ingestion.stream.topics import all_topics, topics
from tests.conftest import need_local_kafka

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


def test_a_message_that_is_too_large_is_named_and_the_others_are_stored(kafka_settings: Settings) -> None:
    """Each message has its own outcome."""
    topic = topics(kafka_settings.kafka_topic_prefix).events.name
    found = publish(kafka_settings, [Message(topic, b"a", b"x" * 2_000_000), Message(topic, b"a", b"small")])

    assert isinstance(found[0], BadInput)
    assert found[1] is None


def test_a_message_to_no_topic_is_unavailable(kafka_settings: Settings) -> None:
    """The error names the command that makes the topic, and nothing makes it by accident."""
    (error,) = publish(kafka_settings, [Message("no-such-topic", None, b"1")])

    assert isinstance(error, Unavailable)
    assert "rewardloop topics ensure" in str(error)
    assert topic_ids(kafka_settings, ["no-such-topic"]) == {"no-such-topic": None}


def test_reading_starts_where_the_database_says(kafka_settings: Settings) -> None:
    """The position given at assignment rules, whatever was committed to Kafka."""
    topic = topics(kafka_settings.kafka_topic_prefix).contents.name
    publish(kafka_settings, [Message(topic, b"a", f"{n}".encode()) for n in range(10)])

    with reading(kafka_settings, [topic], Positions()) as consumer:
        assert len(take(consumer, 10)) == 10
        consumer.commit({(topic, 0): 10})
    with reading(kafka_settings, [topic], Positions({(topic, 0): 7})) as consumer:
        assert [record.offset for record in take(consumer, 3)] == [7, 8, 9]
        assert consumer.lag() == {(topic, 0): 0}


def test_a_partition_waits_for_its_position(kafka_settings: Settings) -> None:
    """While the database is away nothing is read, polls say so, and reading begins as soon as it is back."""
    topic = topics(kafka_settings.kafka_topic_prefix).contents.name
    publish(kafka_settings, [Message(topic, b"a", b"1")])
    positions = Positions()
    positions.absent = True

    with reading(kafka_settings, [topic], positions) as consumer:
        until(lambda: bool(consumer.assigned()), lambda: ignoring(Unavailable, lambda: consumer.poll(10, 0.5)))
        with pytest.raises(Unavailable, match="no database"):
            consumer.poll(10, 0.5)
        positions.absent = False
        assert [record.value for record in take(consumer, 1)] == [b"1"]


def test_a_paused_partition_keeps_its_records(kafka_settings: Settings) -> None:
    """Nothing of a paused partition comes, and after it is resumed nothing is missing."""
    topic = topics(kafka_settings.kafka_topic_prefix).contents.name
    publish(kafka_settings, [Message(topic, b"a", f"{n}".encode()) for n in range(10)])

    with reading(kafka_settings, [topic], Positions()) as consumer:
        first: list[Record] = []
        until(lambda: bool(first), lambda: first.extend(consumer.poll(4, 0.5)))
        consumer.pause(consumer.assigned())
        assert consumer.poll(10, 0.5) == []
        consumer.resume(consumer.assigned())
        assert [r.offset for r in first + take(consumer, 10 - len(first))] == list(range(10))


@pytest.mark.parametrize("position", [0, 99])
def test_a_position_outside_the_log_stops(position: int, kafka_settings: Settings) -> None:
    """Records deleted before they were read, or a log that ends too soon, are an error at every poll, never a gap."""
    topic = topics(kafka_settings.kafka_topic_prefix).contents.name
    publish(kafka_settings, [Message(topic, b"a", f"{n}".encode()) for n in range(10)])
    delete_before(kafka_settings, topic, 5)

    with reading(kafka_settings, [topic], Positions({(topic, 0): position})) as consumer:
        for _ in range(2):
            with pytest.raises(OutOfLog, match="5 to 10") as caught:
                take(consumer, 1)
            found = caught.value
            assert (found.partition, found.position, found.earliest, found.latest) == ((topic, 0), position, 5, 10)
            assert not found.retriable
        consumer.seek((topic, 0), 8)
        assert [record.offset for record in take(consumer, 2)] == [8, 9]


def test_records_of_aborted_transactions_are_not_seen(kafka_settings: Settings) -> None:
    """What a writer took back never happened; what it kept is there."""
    topic = topics(kafka_settings.kafka_topic_prefix).contents.name
    write_in_a_transaction(kafka_settings, topic, b"taken back", keep=False)
    write_in_a_transaction(kafka_settings, topic, b"kept", keep=True)

    with reading(kafka_settings, [topic], Positions()) as consumer:
        assert [record.value for record in take(consumer, 1)] == [b"kept"]
        assert consumer.poll(10, 1.0) == []


def test_two_members_share_the_partitions(kafka_settings: Settings) -> None:
    """A second member takes some partitions over, the first keeps reading the rest, and every record is read once."""
    topic = topics(kafka_settings.kafka_topic_prefix).events.name
    sent = [Message(topic, f"{n}".encode(), f"{n}".encode()) for n in range(300)]
    one, two = Positions(), Positions()
    with reading(kafka_settings, [topic], one) as first:
        until(lambda: len(first.assigned()) == 6, lambda: first.poll(10, 0.2))
        kept = dict.fromkeys(first.assigned())
        with member_in_a_thread(kafka_settings, topic, two) as second:
            until(lambda: len(first.assigned()) == 3 and len(second.assigned) == 3, lambda: first.poll(10, 0.2))
            publish(kafka_settings, sent)
            got: list[Record] = []
            until(lambda: len(got) + len(second.records) >= 300, lambda: got.extend(first.poll(500, 0.2)))
            assert {(r.topic, r.partition) for r in got}.isdisjoint(second.assigned)
            assert sorted(r.value or b"" for r in got + second.records) == sorted(m.value or b"" for m in sent)
        (revoked,) = [partitions for what, partitions in one.told if what == "revoked"]
        assert len(revoked) == 3
        assert set(revoked) < set(kept)
        until(lambda: len(first.assigned()) == 6, lambda: first.poll(10, 0.2))


def test_topics_are_made_once_and_differences_are_told(kafka_settings: Settings) -> None:
    """A second run changes nothing; what differs is said, not mended."""
    wanted = [topic._replace(name=f"{topic.name}.again") for topic in all_topics(kafka_settings.kafka_topic_prefix)]
    assert list_topics(kafka_settings, wanted) == [None] * 4
    made = ensure_topics(kafka_settings, wanted)
    again = ensure_topics(kafka_settings, [wanted[0]._replace(partitions=12, retention_ms=1000), *wanted[1:]])

    assert [state.created for state in made] == [True] * 4
    assert [state.differences for state in made] == [()] * 4
    assert [state.created for state in again] == [False] * 4
    assert again[0].differences == ("partitions is 6, not 12", f"retention.ms is {14 * 86_400_000}, not 1000")
    assert [state.differences for state in again[1:]] == [()] * 3
    assert partitions_of(kafka_settings, wanted[0].name) == list(range(6))


def test_a_topic_made_anew_has_another_id(kafka_settings: Settings) -> None:
    """The id tells a topic from an older one of the same name."""
    topic = topics(kafka_settings.kafka_topic_prefix).contents
    before = topic_ids(kafka_settings, [topic.name])[topic.name]
    with admin_of(kafka_settings) as admin:
        admin.delete_topics([topic.name])
    until(lambda: topic_ids(kafka_settings, [topic.name])[topic.name] is None, lambda: time.sleep(0.05))
    until(lambda: ensure_topics(kafka_settings, [topic])[0].partitions == 1, lambda: time.sleep(0.05))
    after = topic_ids(kafka_settings, [topic.name])[topic.name]

    assert before is not None
    assert after is not None
    assert before != after


def test_where_a_time_is_in_the_log(kafka_settings: Settings) -> None:
    """A replay from a time finds the first record written then; beyond the newest record there is none."""
    topic = topics(kafka_settings.kafka_topic_prefix).contents.name
    publish(kafka_settings, [Message(topic, b"a", f"{n}".encode()) for n in range(3)])
    with reading(kafka_settings, [topic], Positions()) as consumer:
        first = take(consumer, 3)[0].timestamp_ms

    assert offsets_at(kafka_settings, [(topic, 0)], first) == {(topic, 0): 0}
    assert offsets_at(kafka_settings, [(topic, 0)], first + 3_600_000) == {(topic, 0): None}
    assert log_bounds(kafka_settings, [(topic, 0)]) == {(topic, 0): (0, 3)}


def test_what_answers_is_told(kafka_settings: Settings) -> None:
    """`doctor` shows the broker's release and how many brokers there are."""
    assert re.fullmatch(r"Kafka [0-9]+\.[0-9]+(\.[0-9]+)?, cluster \S+, [0-9]+ brokers", reachable(kafka_settings))


@pytest.mark.parametrize("security", ["sasl", "ssl"])
def test_signing_in_and_encryption(security: Security, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the right password or authority records travel; with a wrong one the error says which setting to mend."""
    need_local_kafka()
    with LocalKafka(security=security) as brokers:
        settings = Settings(**brokers.client_settings())
        topic = topics().contents
        ensure_topics(settings, [topic])
        assert publish(settings, [Message(topic.name, b"a", b"1")]) == [None]
        with reading(settings, [topic.name], Positions()) as consumer:
            assert [record.value for record in take(consumer, 1)] == [b"1"]
        monkeypatch.setattr("infra.broker.client.START_SECONDS", 2)
        with pytest.raises(Misconfigured, match=r"invalid credentials|_PASSWORD_FILE|_SSL_CAFILE") as caught:
            reachable(with_something_wrong(settings, tmp_path))
    assert "wrong-password" not in str(caught.value)


def test_a_frozen_server_among_several(kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts connections and says nothing does not take the whole time to start: another is asked."""
    asked: list[bool] = []
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        port = frozen.getsockname()[1]

        def first_the_frozen(servers: Sequence[Any]) -> Any:
            asked.append(not asked)
            return next(one for one in servers if (str(port) in str(one)) == asked[-1])

        monkeypatch.setattr("kafka.net.manager.random.choice", first_the_frozen)
        monkeypatch.setattr("infra.broker.client.START_SECONDS", 8)
        servers = f"127.0.0.1:{port},{kafka_settings.kafka_bootstrap_servers}"
        assert reachable(kafka_settings.model_copy(update={"kafka_bootstrap_servers": servers})).startswith("Kafka ")
    assert len(asked) > 1


def test_a_broker_that_goes_away_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a broker polls and publishing are Unavailable; with it back, the same clients go on, nothing is lost.

    A producer is closed in between though not all it sent is confirmed, and leaves no thread behind.
    """
    need_local_kafka()
    monkeypatch.setattr("infra.broker.producer.CLOSE_SECONDS", 1)
    with LocalKafka() as brokers:
        settings = Settings(**brokers.client_settings())
        topic = topics().contents
        ensure_topics(settings, [topic])
        producer, closed_early = Producer(settings), Producer(settings)
        assert producer.publish([Message(topic.name, b"a", b"1")]) == [None]
        assert closed_early.publish([Message(topic.name, b"a", b"0")]) == [None]
        with reading(settings, [topic.name], Positions()) as consumer:
            take(consumer, 2)
            brokers.kill_broker(1)
            closed_early._producer.send(topic.name, b"never confirmed")
            closed_early.close()
            until(lambda: not closed_early._producer._sender.is_alive(), lambda: None)
            with pytest.raises(Unavailable):
                until(lambda: False, lambda: consumer.poll(10, 0.5))
            assert isinstance(producer.publish([Message(topic.name, b"a", b"2")], timeout=1.0)[0], Unavailable)
            brokers.start_broker(1)
            until(lambda: producer.publish([Message(topic.name, b"a", b"3")]) == [None], lambda: None)
            got: list[Record] = []
            until(
                lambda: b"3" in [record.value for record in got],
                lambda: ignoring(Unavailable, lambda: got.extend(consumer.poll(10, 0.5))),
            )
        producer.close()


def with_something_wrong(settings: Settings, folder: Path) -> Settings:
    """The same settings with a wrong password, or without the authority that signed the certificate."""
    (folder / "wrong").write_text("wrong-password")
    if settings.kafka_security_protocol == "SASL_PLAINTEXT":
        return settings.model_copy(update={"kafka_sasl_password_file": folder / "wrong"})
    return settings.model_copy(update={"kafka_ssl_cafile": None})


@dataclass
class Member:
    """What a member in another thread has."""

    assigned: set[Partition] = field(default_factory=set)
    records: list[Record] = field(default_factory=list)


@contextmanager
def member_in_a_thread(settings: Settings, topic: str, positions: Positions) -> Iterator[Member]:
    """A second member of the group, which polls in a thread until the block ends."""
    member, stop = Member(), threading.Event()

    def read() -> None:
        with reading(settings, [topic], positions) as consumer:
            while not stop.is_set():
                member.records.extend(consumer.poll(500, 0.2))
                member.assigned = consumer.assigned()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield member
    finally:
        stop.set()
        thread.join()


@contextmanager
def admin_of(settings: Settings) -> Iterator[KafkaAdminClient]:
    """Kafka's own administration, for what the product never does."""
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    yield admin
    admin.close()


def delete_before(settings: Settings, topic: str, offset: int) -> None:
    """Delete the beginning of the log, as retention does."""
    with admin_of(settings) as admin:
        admin.delete_records({TopicPartition(topic, 0): offset})


def write_in_a_transaction(settings: Settings, topic: str, value: bytes, keep: bool) -> None:
    """Another program's transaction, committed or aborted."""
    producer = KafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers, transactional_id=f"{topic}-{keep}")
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(topic, value, b"a").get(timeout=30)
    (producer.commit_transaction if keep else producer.abort_transaction)()
    producer.close()


def ignoring(kind: type[Exception], step: Callable[[], object]) -> None:
    """Run ``step``; one kind of error is expected."""
    with suppress(kind):
        step()


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
