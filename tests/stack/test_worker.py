"""The worker against a real Kafka and real databases: shared, stopped, started, and always the same outcomes."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from kafka import KafkaAdminClient, TopicPartition
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine

from infra import tables
from infra.broker import (
    Consumer,
    Message,
    Partition,
    Producer,
    Record,
    log_bounds,
    partitions_of,
    read_ranges,
    topic_ids,
)
from infra.clock import system_clock
from infra.database import open_database
from infra.secrets import Secrets, load_secrets
from infra.settings import Settings
from ingestion.store import apply
from ingestion.stream.announcements import Announcer
from ingestion.stream.decoding import TopicDecoder
from ingestion.stream.messages import batch_of
from ingestion.stream.topics import Topics, topics
from ingestion.stream.worker import Worker
from pipelines import cli
from tests.ingestion.streaming import bought, column, decided, happened, left_in, positions, prepared
from tests.pipelines.processes import running, wait_for_words

pytestmark = pytest.mark.stack

DECISIONS = 60
SECONDS = 40.0
"""Longest wait for anything here."""


@pytest.fixture
def settings(kafka_settings: Settings) -> Settings:
    """Batches so small that a history is many."""
    return kafka_settings.model_copy(
        update={"worker_batch_records": 25, "sources": ("shop",), "worker_batch_wait_ms": 5}
    )


@pytest.fixture
def named(settings: Settings) -> Topics:
    """This test's topics."""
    return topics(settings.kafka_topic_prefix)


@pytest.fixture
def store(any_engine: Engine) -> Engine:
    """A store with the loop and campaign of the history; once SQLite, once PostgreSQL."""
    return prepared(any_engine)


def history(named: Topics, numbers: Sequence[int]) -> list[Message]:
    """For each number a decision, a click twice, and for every third a purchase; events before decisions."""
    events = [
        Message(named.events.name, b"%d" % n, happened(f"c{n}", "click", 3, decision_id=f"d{n}")) for n in numbers
    ]
    sales = [
        Message(named.events.name, None, bought(f"p{n}", 9, n + 1, decision_id=f"d{n}")) for n in numbers if not n % 3
    ]
    choices = [Message(named.decisions.name, b"%d" % n, decided(f"d{n}", 0)) for n in numbers]
    return [*sales, *events, *choices, *events]


def publish(settings: Settings, messages: Sequence[Message]) -> None:
    producer = Producer(settings)
    assert producer.publish(messages) == [None] * len(messages)
    producer.close()


class Member:
    """A worker in a thread of this process."""

    def __init__(self, engine: Engine, secrets: Secrets, settings: Settings) -> None:
        named = topics(settings.kafka_topic_prefix)
        read = [topic.name for topic in named.read]
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self.worker = Worker(
            engine,
            secrets,
            settings,
            system_clock,
            lambda assignment: Consumer(settings, read, settings.kafka_group, assignment),
            TopicDecoder(engine, secrets, settings, system_clock),
            lambda: topic_ids(settings, read),
            announce=Announcer(engine, named.quarantine.name, lambda: Producer(settings)),
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        assert self.error is None, self.error

    def _run(self) -> None:
        try:
            self.worker.run(self._stop)
        except BaseException as error:
            self.error = error


@contextmanager
def working(engine: Engine, secrets: Secrets, settings: Settings) -> Iterator[Member]:
    member = Member(engine, secrets, settings)
    try:
        yield member
    finally:
        member.stop()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {SECONDS:.0f} s: {what}"
        time.sleep(0.05)


def ends(settings: Settings, named: Topics) -> dict[Partition, int]:
    """Where the log of each partition that holds records ends."""
    places = [(topic.name, number) for topic in named.read for number in partitions_of(settings, topic.name)]
    return {place: last for place, (_, last) in log_bounds(settings, places).items() if last}


def wait_for_all(engine: Engine, settings: Settings, named: Topics) -> None:
    there = ends(settings, named)
    wait_until(lambda: positions(engine) == there, "the database stands at the end of every partition")


def facts_of(left: dict[str, Any]) -> dict[str, Any]:
    return {name: left[name] for name in ("decisions", "events", "attributions", "outcomes", "content_stats")}


@pytest.fixture
def expected(migrated_file: Path, tmp_path: Path, secrets: Secrets, settings: Settings) -> dict[str, Any]:
    """The facts and outcomes of the whole history, applied without Kafka, in one batch."""
    shutil.copy(migrated_file, tmp_path / "direct.db")
    engine = prepared(open_database(f"sqlite:///{tmp_path / 'direct.db'}"))
    decoder = TopicDecoder(engine, secrets, settings, system_clock)
    messages = history(topics(settings.kafka_topic_prefix), range(DECISIONS))
    records = [Record(m.topic, 0, n, 1_700_000_000_000, m.key, m.value, ()) for n, m in enumerate(messages)]
    apply(engine, batch_of(decoder.settle(records, decoder.decode(records))), secrets, system_clock())
    left = facts_of(left_in(engine))
    engine.dispose()
    assert len(left["outcomes"]) == DECISIONS + 2 * (DECISIONS // 3)
    return left


def test_from_the_topics_to_outcomes(
    store: Engine, secrets: Secrets, settings: Settings, named: Topics, expected: dict[str, Any]
) -> None:
    """What is on the topics is in the database as if it had been stored directly; what is unusable is announced."""
    publish(settings, [*history(named, range(DECISIONS)), Message(named.events.name, None, b'{"secret": "of ann"')])

    with working(store, secrets, settings):
        wait_for_all(store, settings, named)
        wait_until(lambda: log_bounds(settings, [(named.quarantine.name, 0)])[named.quarantine.name, 0][1] == 1, "told")

    left = left_in(store)
    (announced,) = [one for some in read_ranges(settings, {(named.quarantine.name, 0): (0, 1)}) for one in some]
    assert facts_of(left) == expected
    assert (left["conservation"], left["uncounted"], len(left["quarantine"])) == (0, 0, 1)
    assert json.loads(announced.value or b"")["position"] == left["quarantine"][0][1]
    assert b"ann" not in (announced.value or b"")


def test_offsets_that_kafka_forgot(
    store: Engine, secrets: Secrets, settings: Settings, named: Topics, expected: dict[str, Any]
) -> None:
    """A worker goes on where the database stands, although the group's committed offsets were deleted."""
    publish(settings, history(named, range(0, DECISIONS, 2)))
    with working(store, secrets, settings):
        wait_for_all(store, settings, named)
    before = column(store, tables.batches, "read")
    forget(settings)

    publish(settings, history(named, range(1, DECISIONS, 2)))
    with working(store, secrets, settings):
        wait_for_all(store, settings, named)

    read_later = sum(row[0] for row in column(store, tables.batches, "read")) - sum(row[0] for row in before)
    assert facts_of(left_in(store)) == expected
    assert read_later == len(history(named, range(1, DECISIONS, 2)))


def forget(settings: Settings) -> None:
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    admin.delete_groups([settings.kafka_group])
    admin.close()


def test_three_workers_share_the_partitions(
    store: Engine, secrets: Secrets, settings: Settings, named: Topics, expected: dict[str, Any]
) -> None:
    """While workers come and go, each record is counted once and nothing waits for the one that left."""
    members = [Member(store, secrets, settings) for _ in range(3)]
    for start in range(0, DECISIONS, 20):
        publish(settings, history(named, range(start, start + 10)))
        wait_until(lambda: shared(members, settings, named), "each of three workers reads partitions of its own")
        publish(settings, history(named, range(start + 10, start + 20)))
        members.pop(0).stop()
        members.append(Member(store, secrets, settings))

    wait_for_all(store, settings, named)
    for member in members:
        member.stop()

    left = left_in(store)
    assert facts_of(left) == expected
    assert (left["conservation"], left["quarantine"]) == (0, [])


def shared(members: Sequence[Member], settings: Settings, named: Topics) -> bool:
    assert [member.error for member in members] == [None] * len(members)
    shares = [member.worker.partitions for member in members]
    all_of_them = sum(len(partitions_of(settings, topic.name)) for topic in named.read)
    return all(shares) and sum(map(len, shares)) == len(set().union(*shares)) == all_of_them


@pytest.fixture
def installation(
    engine: Engine, settings: Settings, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """An installation for commands: its environment, set in this process and returned for others."""
    load_secrets(settings)
    prepared(engine)
    variables = {
        "REWARDLOOP_HOME": str(settings.home),
        "REWARDLOOP_DATABASE_URL": sqlite_url,
        "REWARDLOOP_LOG_LEVEL": "info",
        "REWARDLOOP_SOURCES": '["shop"]',
        "REWARDLOOP_WORKER_PORT": "0",
        "REWARDLOOP_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "REWARDLOOP_KAFKA_TOPIC_PREFIX": settings.kafka_topic_prefix,
        "REWARDLOOP_KAFKA_GROUP": settings.kafka_group,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any, str]:
    """Exit code, JSON and complaints of a command."""
    capsys.readouterr()
    code = cli.run([*arguments, "--json"] if arguments[:2] != ("offsets", "accept-gap") else arguments)
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if captured.out.startswith(("[", "{")) else captured.out, captured.err


def test_a_worker_process_stops_when_asked(
    installation: dict[str, str], engine: Engine, settings: Settings, named: Topics, expected: dict[str, Any]
) -> None:
    """`rewardloop worker` serves its metrics, ends on SIGTERM with 0 and all it applied, and goes on when started."""
    publish(settings, history(named, range(0, DECISIONS, 2)))
    with running(settings.home, "worker", **installation) as (process, log):
        said_first = wait_for_words(process, log, "/metrics")
        wait_for_all(engine, settings, named)
        origin = said_first.split("http://")[1].split("/metrics")[0]
        found = httpx2.get(f"http://{origin}/metrics").text
        health = httpx2.get(f"http://{origin}/healthz").text
        process.terminate()
        assert process.wait(30) == 0, log.read_text()
    read = {
        sample.labels["topic"]: sample.value
        for family in text_string_to_metric_families(found)
        for sample in family.samples
        if sample.name == "rewardloop_worker_records_total"
    }

    publish(settings, history(named, range(1, DECISIONS, 2)))
    with running(settings.home, "worker", **installation) as (process, log):
        wait_for_all(engine, settings, named)

    assert health == "ok"
    assert read == {named.decisions.name: 30.0, named.events.name: 70.0}
    assert facts_of(left_in(engine)) == expected


def test_a_replay_changes_nothing(
    installation: dict[str, str],
    engine: Engine,
    secrets: Secrets,
    settings: Settings,
    named: Topics,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Reading everything again finds duplicates only; facts, outcomes and offsets stay as they are."""
    publish(settings, [*history(named, range(10)), Message(named.events.name, None, b"no json")])
    with working(engine, load_secrets(settings), settings):
        wait_for_all(engine, settings, named)
    before = left_in(engine)

    code, counts, _ = said(capsys, "replay", "--from", "earliest")

    assert code == 0
    assert counts == {"read": 35, "applied": 0, "duplicate": 35, "ignored": 0, "pending": 0, "quarantined": 0}
    assert left_in(engine) == before


def test_a_replay_applies_what_was_missed(
    installation: dict[str, str], engine: Engine, settings: Settings, named: Topics, capsys: pytest.CaptureFixture[str]
) -> None:
    """A range named by time, or by offsets of one partition, is applied without a worker and without moving offsets."""
    publish(
        settings, [Message(named.contents.name, None, copy("first")), Message(named.contents.name, None, copy("b"))]
    )
    publish(settings, history(named, range(10)))

    one = said(capsys, "replay", "--from", "1", "--until", "2", "--topic", "contents", "--partition", "0")
    later = said(capsys, "replay", "--from", "2999-01-01T00:00:00Z")
    all_of_it = said(capsys, "replay", "--from", "2020-01-01T00:00:00Z")

    assert (one[0], one[1]["read"], later[1]["read"], all_of_it[1]["read"]) == (0, 1, 0, 36)
    assert all_of_it[1]["applied"] == 24
    assert len(column(engine, tables.contents, "content_id")) == 2
    assert positions(engine) == {}


def copy(subject: str) -> bytes:
    return json.dumps({"campaign": "spring", "id": subject, "slots": {"subject": subject}}).encode()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--from", "5"), "name it with --topic and --partition"),
        (("--from", "-5", "--topic", "events", "--partition", "0"), "negative"),
        (("--from", "yesterday"), "is not `earliest`"),
        (("--from", "earliest", "--topic", "nope"), "No topic 'nope'"),
        (("--from", "earliest", "--topic", "contents", "--partition", "7"), "No partition 7"),
    ],
)
def test_a_range_that_makes_no_sense(
    installation: dict[str, str], capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], sentence: str
) -> None:
    """A range that cannot be meant is refused with a sentence that says what to write."""
    code, _, complaint = said(capsys, "replay", *arguments)

    assert code == 1
    assert sentence in complaint


def test_a_gap_stops_the_worker_until_it_is_accepted(
    installation: dict[str, str], engine: Engine, settings: Settings, named: Topics, capsys: pytest.CaptureFixture[str]
) -> None:
    """Records deleted before they were read: exit code 4 and what to do; once accepted, the worker goes on."""
    place = (named.contents.name, 0)
    publish(settings, [Message(place[0], None, copy("a"))])
    with running(settings.home, "worker", **installation) as (process, log):
        wait_for_all(engine, settings, named)
    publish(settings, [Message(place[0], None, copy(f"lost {n}")) for n in range(3)])
    delete_before(settings, place, 4)
    publish(settings, [Message(place[0], None, copy("b"))])

    with running(settings.home, "worker", **installation) as (process, log):
        assert process.wait(SECONDS) == 4, log.read_text()
        complaint = log.read_text()
    listed = next(one for one in said(capsys, "offsets", "list")[1] if one["topic"] == place[0])
    sick = said(capsys, "doctor")
    accepted = said(capsys, "offsets", "accept-gap", place[0], "0")
    again = said(capsys, "offsets", "accept-gap", "contents", "0")
    with running(settings.home, "worker", **installation) as (process, log):
        wait_for_all(engine, settings, named)

    assert f"offsets accept-gap {place[0]} 0" in " ".join(complaint.split())
    assert (listed["position"], listed["earliest"], listed["latest"], listed["behind"]) == (1, 4, 5, 1)
    assert "3 records from 1 to 3 were deleted" in listed["gap"]
    assert sick[0] == 1
    assert "3 records" in {one["check"]: one["found"] for one in sick[1]}["gaps"]
    assert accepted[0] == 0
    assert again[0] == 1
    assert "no gap to accept" in again[2]
    assert column(engine, tables.contents, "content_id") == [("a",), ("b",)]
    assert [row[0] for row in column(engine, tables.audit, "action")] == ["offsets.accept_gap"]


def delete_before(settings: Settings, place: Partition, offset: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    admin.delete_records({TopicPartition(*place): offset})
    admin.close()


def test_a_healthy_installation(
    installation: dict[str, str], engine: Engine, settings: Settings, named: Topics, capsys: pytest.CaptureFixture[str]
) -> None:
    """The check-up names the broker, the topics as in the table, and how far each is behind."""
    publish(settings, history(named, range(3)))

    code, checks, _ = said(capsys, "doctor")

    found = {one["check"]: one for one in checks}
    assert code == 0, checks
    assert "cluster" in found["kafka"]["found"]
    assert found["kafka"]["milliseconds"] >= 0
    assert found["topics"]["found"] == "as in the table"
    assert found[f"behind on {named.events.name}"]["found"].startswith("7 records")


def test_a_broker_that_is_away(
    installation: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 4 when Kafka does not answer; everything else is still checked."""
    monkeypatch.setenv("REWARDLOOP_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setattr("infra.broker.client.START_SECONDS", 2)

    code, checks, _ = said(capsys, "doctor")

    found = {one["check"]: one for one in checks}
    assert code == 4
    assert (found["kafka"]["down"], found["ledger"]["ok"]) == (True, True)


def test_topics_that_do_not_exist(installation: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """A worker whose topics are missing says how to make them, and does not wait for ever."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARDLOOP_KAFKA_TOPIC_PREFIX", "nobody-made-these")
        capsys.readouterr()
        code = cli.run(["worker"])

    assert code == 1
    assert "rewardloop topics ensure" in capsys.readouterr().err
