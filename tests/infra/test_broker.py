"""The broker module without a broker: settings, and faults in our words."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from kafka import OffsetAndMetadata, TopicPartition
from kafka import errors as faults

from infra.broker import Consumer, Message, Partition, Producer, reachable
from infra.broker import client as connecting
from infra.broker import consumer as reading
from infra.broker import producer as writing
from infra.errors import BadInput, Misconfigured, OutOfLog, RewardloopError, Unavailable
from infra.settings import Settings

NOWHERE = "127.0.0.1:1"
PARTITION = TopicPartition("t", 0)


def faults_of_kafka() -> list[type[faults.KafkaError]]:
    """Every fault kafka-python can raise that carries no arguments of its own."""
    waiting, found = [faults.KafkaError], []
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        found.append(kind)
    return [kind for kind in dict.fromkeys(found) if kind is not faults.LogTruncationError]


@pytest.mark.parametrize("kind", faults_of_kafka(), ids=lambda kind: kind.__name__)
def test_a_fault_that_kafka_calls_retriable_is_retriable_here(kind: type[faults.KafkaError]) -> None:
    """No fault changes its nature: what may be tried again stays so, and nothing else becomes so."""
    assert connecting.translated(kind()).retriable is kind.retriable


@pytest.mark.parametrize(
    ("fault", "ours"),
    [
        (faults.SaslAuthenticationFailedError("wrong"), Misconfigured),
        (faults.TopicAuthorizationFailedError("no"), Misconfigured),
        (faults.MessageSizeTooLargeError("2 MB"), BadInput),
        (faults.KafkaTimeoutError("late"), Unavailable),
        (faults.CorruptRecordError("crc"), RewardloopError),
    ],
)
def test_faults_in_our_words(fault: Exception, ours: type[RewardloopError]) -> None:
    """A wrong password is a setting to mend, a large message bad input, silence something to try again."""
    assert type(connecting.translated(fault)) is ours


def test_without_kafka_the_setting_is_named() -> None:
    """A command that needs Kafka says how to name it."""
    with pytest.raises(Misconfigured, match="REWARDLOOP_KAFKA_BOOTSTRAP_SERVERS"):
        reachable(Settings())


@pytest.mark.parametrize(
    "given",
    [
        {"kafka_security_protocol": "SSL", "kafka_ssl_cafile": "missing.pem"},
        {
            "kafka_security_protocol": "SASL_PLAINTEXT",
            "kafka_sasl_mechanism": "PLAIN",
            "kafka_sasl_username": "ann",
            "kafka_sasl_password_file": "missing.pem",
        },
    ],
)
def test_a_file_that_cannot_be_read_is_named(given: dict[str, object]) -> None:
    """The message names the setting and the file."""
    settings = Settings(kafka_bootstrap_servers=NOWHERE, **given)  # type: ignore[arg-type]
    with pytest.raises(Misconfigured, match=r"REWARDLOOP_KAFKA_\w+='missing.pem': No such file"):
        reachable(settings)


def test_a_password_is_the_file_without_its_last_line_break(tmp_path: Path) -> None:
    """Editors end files with a line break; spaces belong to the password."""
    (tmp_path / "password").write_text("two words \n")
    settings = Settings(
        kafka_bootstrap_servers=NOWHERE,
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_mechanism="SCRAM-SHA-512",
        kafka_sasl_username="ann",
        kafka_sasl_password_file=tmp_path / "password",
    )
    assert connecting._connection(settings)["sasl_plain_password"] == "two words "


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says where was asked and what was heard, and no thread stays behind."""
    monkeypatch.setattr(connecting, "START_SECONDS", 1)
    settings = Settings(kafka_bootstrap_servers=NOWHERE)
    for attempt in (reachable, Producer):
        with pytest.raises(Unavailable, match=rf"{NOWHERE} with PLAINTEXT.*ECONNREFUSED"):
            attempt(settings)
    assert [thread.name for thread in threading.enumerate() if "kafka" in thread.name] == []


class Named(NamedTuple):
    """The name of one of kafka-python's measurements."""

    name: str


class TruncatedOnce:
    """Stands for kafka-python after an unclean election: it tells of a truncated log once, then reads on."""

    def __init__(self, told: Exception) -> None:
        self.told = [told]
        self._coordinator = SimpleNamespace(rejoining=False)

    def poll(self, **_: object) -> dict[object, list[object]]:
        if self.told:
            raise self.told.pop()
        return {}

    def assignment(self) -> set[object]:
        return {PARTITION}

    def position(self, *_: object, **__: object) -> int:
        return 9

    def beginning_offsets(self, *_: object, **__: object) -> dict[object, int]:
        return {PARTITION: 0}

    def end_offsets(self, *_: object, **__: object) -> dict[object, int]:
        return {PARTITION: 12}

    def seek(self, *_: object) -> None:
        """Where to is of no interest here."""

    def metrics(self, **_: object) -> dict[object, object]:
        return {Named(reading.CONNECTIONS): SimpleNamespace(value=lambda: 1)}


def test_a_truncated_log_stops_until_told_where_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read records that were replaced by others are an error at every poll, although the position is in the log."""
    told = faults.LogTruncationError({PARTITION: OffsetAndMetadata(7, "", 1)})
    monkeypatch.setattr(reading, "opened", lambda *_, **__: TruncatedOnce(told))
    monkeypatch.setattr(TruncatedOnce, "subscribe", lambda *_, **__: None, raising=False)
    consumer = Consumer(Settings(), ["t"], "g", Nobody())

    for _ in range(3):
        with pytest.raises(OutOfLog, match="next position to read is 9"):
            consumer.poll(10, 0.0)
    consumer.seek(("t", 0), 7)
    assert consumer.poll(10, 0.0) == []


class Nobody:
    """An assignment that is told nothing."""

    def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        return {}

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """Nothing to do."""

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Nothing to do."""


def test_a_join_that_outlasts_a_poll_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """A join under way is asked for again before every poll, because kafka-python may have forgotten that it needs it."""
    asked: list[str] = []
    coordinator = SimpleNamespace(rejoining=True, request_rejoin=lambda: asked.append("join"))

    def poll(**_: object) -> dict[TopicPartition, list[object]]:
        asked.append("poll")
        coordinator.rejoining = False
        return {}

    client = SimpleNamespace(_coordinator=coordinator, poll=poll, subscribe=lambda *_, **__: None, assignment=set)
    client.metrics = lambda raw: {Named(reading.CONNECTIONS): SimpleNamespace(value=lambda: 1)}
    monkeypatch.setattr(reading, "opened", lambda *_, **__: client)
    consumer = Consumer(Settings(), ["t"], "g", Nobody())

    consumer.poll(10, 0.0)
    consumer.poll(10, 0.0)

    assert asked == ["join", "poll", "poll"]


class Client:
    """A producer of kafka-python that confirms everything, or nothing ever."""

    def __init__(self, confirms: bool) -> None:
        self.confirms = confirms
        self.closed = threading.Event()

    def partitions_for(self, topic: str) -> set[int]:
        """One partition, whatever the topic."""
        return {0}

    def send(self, *_: object) -> "Client":
        """The message's future is the client itself."""
        return self

    def get(self, timeout: float) -> None:
        """What the future says."""
        if not self.confirms:
            raise faults.KafkaTimeoutError("never")

    def close(self, timeout: float) -> None:
        """Remembered."""
        self.closed.set()


def test_a_client_that_confirms_nothing_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """kafka-python's producer may never send again; the next call has a new one, and one that works is kept."""
    silent, sound = Client(confirms=False), Client(confirms=True)
    clients = iter([silent, sound])
    monkeypatch.setattr(writing, "opened", lambda *_, **__: next(clients))
    producer = Producer(Settings(kafka_bootstrap_servers="there:9092"))
    message = Message("events", None, b"1")
    assert isinstance(producer.publish([message])[0], Unavailable)
    assert [producer.publish([message]) for _ in range(2)] == [[None], [None]]
    assert silent.closed.wait(5)
    assert not sound.closed.is_set()
