"""The worker told as histories: what is on the topics, what goes wrong while it is read, and what is left at the end.

What is left must always be the same: what a worker leaves with which nothing went wrong.
"""

import json
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError

from infra import tables
from infra.broker import Message, Partition, Record
from infra.database import insert_once, open_database, reading, writing
from infra.errors import Conflict, RewardloopError, Unavailable
from infra.secrets import Secrets
from infra.settings import Settings
from infra.telemetry import announcement_failures, lag_records, offset_gap_records, worker_batches, worker_refused
from ingestion import quarantine, store
from ingestion.events import Batch
from ingestion.ledger import stored_offsets
from ingestion.stream import applier, decoding, worker
from ingestion.stream.announcements import Announcer
from ingestion.stream.decoding import TopicDecoder
from ingestion.stream.gaps import GapFound, accept_gap, find_gaps
from ingestion.stream.messages import decode_record
from ingestion.stream.worker import Worker
from tests.ingestion.fake_kafka import FakeConsumer, Happening, Log, away
from tests.ingestion.join.test_join_histories import decision
from tests.ingestion.streaming import bought, column, decided, happened, left_in, positions, prepared

DECISIONS, EVENTS, CONTENTS = (f"rewardloop.{name}.v1" for name in ("decisions", "events", "contents"))
NOW = 1_790_000_000_000_000
STEPS = ("polled", "decoded", "before_apply", "applied", "before_commit", "committed")


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


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting costs milliseconds in these tests."""
    monkeypatch.setattr(worker, "PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.005)
    monkeypatch.setattr(worker, "REST_SECONDS", 0.002)
    monkeypatch.setattr(worker, "REVOKE_SECONDS", 5.0)
    monkeypatch.setattr(applier, "delays", lambda: iter(lambda: 0.001, None))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Small batches that are applied at once."""
    return quick(tmp_path)


def quick(home: Path) -> Settings:
    return Settings(home=home, worker_batch_records=5, worker_batch_wait_ms=0, sources=("shop",))


@pytest.fixture
def database(engine: Engine) -> Engine:
    """A store with one loop and one campaign."""
    return prepared(engine)


@pytest.fixture(scope="module")
def expected(migrated_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a worker leaves of the history with which nothing goes wrong."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copy(migrated_file, folder / "rewardloop.db")
    engine = prepared(open_database(f"sqlite:///{folder / 'rewardloop.db'}"))
    Story(engine, Secrets(b"m" * 32, {1: b"u" * 32}, {1: b"t" * 32}), quick(folder), history()).run()
    left = left_in(engine)
    engine.dispose()
    assert len(left["outcomes"]) == 12 + 6 + 6
    assert len(left["quarantine"]) == 1
    return left


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


@pytest.fixture
def story(database: Engine, secrets: Secrets, settings: Settings) -> Story:
    """The history, not read yet."""
    return Story(database, secrets, settings, history())


class Crash(BaseException):
    """The process dies."""


def crash_at(name: str, time_: int) -> Callable[[str], None]:
    """A hook that dies the n-th time this step is taken."""
    left = time_

    def step(taken: str) -> None:
        nonlocal left
        left -= taken == name
        if taken == name and left == 0:
            raise Crash(name)

    return step


@pytest.mark.parametrize("time_", [1, 3])
@pytest.mark.parametrize("name", STEPS)
def test_a_crash_at_any_step_changes_nothing(story: Story, expected: dict[str, Any], name: str, time_: int) -> None:
    """A worker that dies at any step of the commit order, and is started again, leaves what it would have left."""
    with pytest.raises(Crash):
        story.run(step=crash_at(name, time_))

    story.run()

    assert left_in(story.engine) == expected


def test_a_worker_that_dies_again_and_again_gets_there(story: Story, expected: dict[str, Any]) -> None:
    """Progress is kept in the database: a worker that dies after every commit still reads everything once."""
    lives = 0
    while not story.at_the_end(story.log.values):
        lives += 1
        with pytest.raises(Crash):
            story.run(step=crash_at("applied", 1))

    assert left_in(story.engine) == expected
    assert lives >= 6


def test_offsets_go_to_kafka_after_the_database(story: Story) -> None:
    """Nothing is committed to Kafka that the database does not have; in the end both say the same."""
    seen: list[tuple[dict[Partition, int], dict[Partition, int]]] = []
    consumer: list[FakeConsumer] = []

    def step(name: str) -> None:
        if name in ("before_commit", "committed"):
            seen.append((dict(consumer[0].committed), positions(story.engine)))

    finished = story.run({1: consumer.append}, step=step)

    assert finished.committed == positions(story.engine)
    assert seen
    assert all(there.get(partition, 0) >= said for committed, there in seen for partition, said in committed.items())


def test_the_database_says_where_to_read(story: Story, expected: dict[str, Any]) -> None:
    """Partitions that were read before go on at the stored position, whatever the group's offsets are."""
    with pytest.raises(Crash):
        story.run(step=crash_at("before_commit", 2))
    before = positions(story.engine)

    again = story.run()

    assert before
    assert all(record.offset >= before.get((record.topic, record.partition), 0) for record in again.served)
    assert left_in(story.engine) == expected


def test_another_worker_was_faster(story: Story, expected: dict[str, Any]) -> None:
    """A batch that another worker has applied is dropped, and reading goes on where the database stands now."""
    other = Story(story.engine, story.secrets, story.settings, story.log)
    conflicts = worker_batches.labels("conflict")._value.get()
    overtaken = False

    def step(name: str) -> None:
        nonlocal overtaken
        if name == "before_apply" and not overtaken:
            overtaken = True
            other.run(done=lambda: len(positions(story.engine)) == 2 or other.at_the_end(story.log.values))

    story.run(step=step)

    assert worker_batches.labels("conflict")._value.get() > conflicts
    assert left_in(story.engine) == expected


def absent(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, times: int) -> list[int]:
    """Let a function of the database fail so many times; returns a list that grows with each call."""
    real, calls = getattr(module, name), [0]

    def sometimes(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] <= times:
            raise Unavailable("The database does not answer: connection refused")
        return real(*arguments, **named)

    monkeypatch.setattr(module, name, sometimes)
    return calls


def test_the_database_is_away(story: Story, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """While the database is away the group is polled, nothing is committed and no more than three batches are read."""
    gone = threading.Event()
    gone.set()
    real = store.apply

    def apply(*arguments: Any, **named: Any) -> store.Applied:
        if gone.is_set():
            raise Unavailable("The database does not answer: connection refused")
        return real(*arguments, **named)

    monkeypatch.setattr(worker, "apply", apply)
    seen: dict[str, Any] = {}

    def comes_back(consumer: FakeConsumer) -> None:
        seen.update(served=len(consumer.served), committed=dict(consumer.committed), paused=consumer.paused_polls)
        gone.clear()

    story.run({60: comes_back})

    assert seen["committed"] == {}
    assert seen["served"] <= 3 * story.settings.worker_batch_records
    assert seen["paused"] > 10
    assert left_in(story.engine) == expected


def test_the_database_is_away_when_partitions_come(
    story: Story, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Partitions given to a worker whose database is away are read once it is back, from where it says."""
    calls = absent(monkeypatch, worker, "stored_offsets", 3)

    story.run()

    assert calls[0] > 3
    assert left_in(story.engine) == expected


def test_the_database_is_away_while_decoding(story: Story, expected: dict[str, Any]) -> None:
    """Records whose loop cannot be looked up are read again; none is skipped or rejected for it."""
    real, failures = story.decoder.decode, iter(range(2))

    def decode(records: Sequence[Record]) -> Any:
        if next(failures, None) is not None:
            raise Unavailable("The database does not answer: connection refused")
        return real(records)

    story.decoder.decode = decode  # type: ignore[method-assign]
    story.run()

    assert left_in(story.engine) == expected


def test_the_broker_is_away(story: Story, expected: dict[str, Any]) -> None:
    """Polls that fail are tried again; nothing is lost between them."""
    story.run(dict.fromkeys((1, 3, 4, 5), away))

    assert left_in(story.engine) == expected


def test_a_commit_whose_answer_was_lost(
    story: Story, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that was committed although the connection broke is not applied again: its offsets have moved."""
    broken = iter(range(1))

    def apply(*arguments: Any, **named: Any) -> store.Applied:
        applied = store.apply(*arguments, **named)
        if applied.read and next(broken, None) is not None:
            raise Unavailable("The database went away: server closed the connection unexpectedly")
        return applied

    monkeypatch.setattr(worker, "apply", apply)
    story.run()

    assert left_in(story.engine) == expected


@pytest.mark.parametrize("lost", [False, True])
def test_partitions_go_to_another_worker(story: Story, expected: dict[str, Any], lost: bool) -> None:
    """What is taken away in the middle is read on by the other worker, and nothing is read twice or left out."""
    gone = [(EVENTS, 1), (DECISIONS, 0)]

    story.run({3: lambda consumer: consumer.take_away(gone, lost=lost)})
    other = story.run(partitions=gone)

    assert {(record.topic, record.partition) for record in other.served} <= set(gone)
    assert left_in(story.engine) == expected


def test_partitions_come_back(story: Story, expected: dict[str, Any]) -> None:
    """Partitions that go and come back, again and again, are read on from where the database stands."""

    def change(consumer: FakeConsumer) -> None:
        there = sorted(consumer.positions)
        consumer.take_away(there[:2])
        consumer.give(there[:2])

    story.run(dict.fromkeys(range(2, 30, 2), change))

    assert left_in(story.engine) == expected


def test_a_rebalance_waits_for_the_batch_in_hand(story: Story, expected: dict[str, Any]) -> None:
    """A partition is given away when the batch being applied is in the database, not before."""
    applying, events = threading.Event(), []

    def step(name: str) -> None:
        if name == "before_apply" and not applying.is_set():
            applying.set()
            time.sleep(0.05)
        if name == "applied":
            events.append("applied")

    def take_away(consumer: FakeConsumer) -> None:
        assert applying.wait(10)
        consumer.take_away([(EVENTS, 0)])
        events.append("given away")
        consumer.give([(EVENTS, 0)])

    story.run({2: take_away}, step=step)

    assert events.index("applied") < events.index("given away")
    assert left_in(story.engine) == expected


def test_a_rebalance_does_not_wait_for_an_absent_database(
    story: Story, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work that cannot be finished is dropped, so that the group goes on; its records are read again."""
    monkeypatch.setattr(worker, "REVOKE_SECONDS", 0.02)
    gone = threading.Event()
    gone.set()

    def apply(*arguments: Any, **named: Any) -> store.Applied:
        if gone.is_set():
            raise Unavailable("The database does not answer: connection refused")
        return store.apply(*arguments, **named)

    def take_away(consumer: FakeConsumer) -> None:
        consumer.take_away([(EVENTS, 0)])
        gone.clear()
        consumer.give([(EVENTS, 0)])

    monkeypatch.setattr(worker, "apply", apply)
    story.run({20: take_away})

    assert left_in(story.engine) == expected


def test_a_record_that_breaks_the_decoder(
    story: Story, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record on which the decoder fails in a way nobody foresaw is quarantined with its bytes; the others count."""

    def decode(record: Record, place: Any) -> Any:
        if record.value == b"no json":
            raise ZeroDivisionError("a mistake of ours")
        return decode_record(record, place)

    monkeypatch.setattr(decoding, "decode_record", decode)
    story.run()

    left = left_in(story.engine)
    (held,) = quarantine.list_held(story.engine)
    assert "ZeroDivisionError" in held.reason
    assert quarantine.show(story.engine, story.secrets, held.id).raw == b"no json"
    assert left | {"quarantine": []} == expected | {"quarantine": []}


@pytest.mark.parametrize(
    "error",
    [
        DataError("INSERT", {}, Exception("value out of range")),
        IntegrityError("INSERT", {}, Exception("a constraint")),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
        KeyError("a mistake of ours"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_database_refuses_a_record(
    story: Story, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The one record the database refuses ends in quarantine with its bytes; no other is lost, and the line goes on."""
    refused = happened("cursed", "click", 7, decision_id="d1")
    story.log.values[EVENTS, 0].insert(6, refused)
    before = worker_refused._value.get()

    def apply(engine: Engine, batch: Batch, *arguments: Any, **named: Any) -> store.Applied:
        if any(event.event_id == "cursed" for event in batch.events):
            raise error
        return store.apply(engine, batch, *arguments, **named)

    monkeypatch.setattr(worker, "apply", apply)
    story.run()

    left = left_in(story.engine)
    (held,) = set(left["quarantine"]) - set(expected["quarantine"])
    assert held[1] == f"{EVENTS}/0/6"
    assert type(error).__name__ in held[2]
    assert worker_refused._value.get() == before + 1
    for name in ("decisions", "events", "attributions", "outcomes", "content_stats", "conservation"):
        assert left[name] == expected[name]


def test_a_fault_of_the_machinery_quarantines_nothing(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement that is wrong is no fault of the records: the worker stops, and nothing was stored or committed."""

    def apply(*arguments: Any, **named: Any) -> store.Applied:
        raise ProgrammingError("INSERT", {}, Exception("no such table: events"))

    monkeypatch.setattr(worker, "apply", apply)
    with pytest.raises(ProgrammingError):
        story.run(done=lambda: False)

    assert positions(story.engine) == {}
    assert column(story.engine, tables.quarantine, "id") == []


def test_a_refused_record_that_cannot_be_quarantined_ends_the_worker(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If even the quarantine refuses, the worker stops instead of trying for ever."""
    calls = []

    def apply(*arguments: Any, **named: Any) -> store.Applied:
        calls.append(1)
        raise ValueError("nothing is taken")

    monkeypatch.setattr(worker, "apply", apply)
    with pytest.raises(ValueError, match="nothing is taken"):
        story.run(done=lambda: False)

    assert len(calls) < 20


def test_a_tick_counts_decisions_that_wait(story: Story, settings: Settings) -> None:
    """Decisions the API stored become exposures although no record comes."""
    story.log = Log({(EVENTS, 0): []})
    story.settings = settings.model_copy(update={"tick_seconds": 0.01})
    with writing(story.engine) as connection:
        insert_once(connection, tables.decisions, [msgspec.structs.asdict(decision("by the API", 5))])

    story.run(done=lambda: column(story.engine, tables.decisions, "batch_no") == [(1,)])

    assert set(column(story.engine, tables.content_stats, "content_id")) == {("a",)}


def test_a_partition_never_seen_begins_at_its_earliest_record(story: Story) -> None:
    """Without a stored position a partition is read from the first record there is, and that is no gap."""
    story.log.first = {(EVENTS, 1): 1_000}

    finished = story.run()

    assert min(record.offset for record in finished.served if record.partition == 1) == 1_000
    assert positions(story.engine)[EVENTS, 1] == 1_000 + len(story.log.values[EVENTS, 1])


def test_a_partition_never_seen_is_read_again_after_a_conflict(story: Story, expected: dict[str, Any]) -> None:
    """Starting over before anything was stored goes back to the earliest record, wherever the log begins."""
    story.log.first = dict.fromkeys(story.log.values, 1_000)

    story.run({2: lambda consumer: consumer.assignment.lost([])})

    left = left_in(story.engine)
    assert left["outcomes"] == expected["outcomes"]
    assert left["offsets"] == {partition: end + 1_000 for partition, end in expected["offsets"].items()}


def stand_at(engine: Engine, partition: Partition, position: int, topic_id: str | None = None) -> None:
    topic, number = partition
    row = {"topic": topic, "partition": number, "position": position, "batch_no": 0, "topic_id": topic_id}
    with writing(engine) as connection:
        insert_once(connection, tables.offsets, [row])


def test_records_deleted_before_they_were_read_stop_the_worker(story: Story) -> None:
    """A position before the log's beginning is an alarm that counts the records; nothing is skipped."""
    stand_at(story.engine, (EVENTS, 1), 990)
    story.log.first = {(EVENTS, 1): 1_000}
    missing = offset_gap_records._value.get()

    with pytest.raises(GapFound, match=r"10 records from 990 to 999 were deleted.*offsets accept-gap") as stopped:
        story.run()

    assert stopped.value.gap.missing == 10
    assert offset_gap_records._value.get() == missing + 10
    assert positions(story.engine)[EVENTS, 1] == 990


def test_records_deleted_while_the_worker_reads_stop_it(story: Story) -> None:
    """A log that is cut in front of the reader is a gap too; what was read before is kept."""

    def cut(consumer: FakeConsumer) -> None:
        log = consumer.log
        log.first[EVENTS, 0] = 8
        log.values[EVENTS, 0] = log.values[EVENTS, 0][8:]

    with pytest.raises(GapFound, match=rf"{EVENTS}/0: [0-9]+ records from [0-9]+ to 7 were deleted") as stopped:
        story.run({4: cut})

    assert positions(story.engine).get((EVENTS, 0), 0) == stopped.value.gap.position == 3


def test_a_log_that_lost_its_end_stops_the_worker(story: Story) -> None:
    """A position beyond the log's end is an alarm: the brokers have lost what was read, or more."""
    stand_at(story.engine, (EVENTS, 1), 99)

    with pytest.raises(GapFound, match="read up to 99, the log ends at 11: it lost its end"):
        story.run()

    assert positions(story.engine)[EVENTS, 1] == 99


def test_a_topic_made_anew_stops_the_worker(story: Story) -> None:
    """A topic with another id is another topic: its offsets mean something else, although they look alike."""
    stand_at(story.engine, (EVENTS, 0), 4, "topic-0")

    with pytest.raises(GapFound, match="deleted and made anew"):
        story.run()

    assert positions(story.engine)[EVENTS, 0] == 4


def test_a_topic_made_anew_while_the_worker_reads(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ids of topics are looked at now and then, so that a new one is noticed without a rebalance."""
    monkeypatch.setattr(worker, "IDENTITY_SECONDS", 0.0)

    def make_anew(consumer: FakeConsumer) -> None:
        consumer.log.topic_id = "topic-2"

    with pytest.raises(GapFound, match="deleted and made anew"):
        story.run({6: make_anew}, done=lambda: False)


def test_an_accepted_gap_is_on_record(story: Story, expected: dict[str, Any]) -> None:
    """After a person accepts the gap the partition is read from its beginning, and the audit says what is missing."""
    stand_at(story.engine, (EVENTS, 1), 990, "topic-1")
    story.log.first = {(EVENTS, 1): 1_000}
    with reading(story.engine) as connection:
        stored = stored_offsets(connection)
    (gap,) = find_gaps(stored, {(EVENTS, 1): story.log.bounds((EVENTS, 1))}, story.log.topic_ids())

    accept_gap(story.engine, gap, "topic-1", "ann", NOW)
    story.run()

    with reading(story.engine) as connection:
        entry = connection.execute(select(tables.audit)).one()
    assert (entry.actor, entry.action, entry.subject) == ("ann", "offsets.accept_gap", f"{EVENTS}/1")
    assert (entry.details["position"], entry.details["missing"]) == (990, 10)
    assert left_in(story.engine)["outcomes"] == expected["outcomes"]


def test_a_gap_is_accepted_once(story: Story) -> None:
    """A partition that has moved since the gap was found is left where it is."""
    stand_at(story.engine, (EVENTS, 1), 990)
    with reading(story.engine) as connection:
        (gap,) = find_gaps(stored_offsets(connection), {(EVENTS, 1): (1_000, 1_005)}, {})
    accept_gap(story.engine, gap, None, "ann", NOW)

    with pytest.raises(Conflict, match="stands at 1000 now"):
        accept_gap(story.engine, gap, None, "ann", NOW)


def test_a_stop_finishes_the_batch_in_hand(story: Story, expected: dict[str, Any]) -> None:
    """A worker told to stop applies what it is applying, commits it to Kafka too, and leaves the group."""

    def step(name: str) -> None:
        if name == "before_apply":
            story.stop.set()

    stopped = story.run(step=step)

    assert stopped.committed == positions(story.engine) != {}
    story.run()
    assert left_in(story.engine) == expected


def test_a_stop_does_not_wait_for_an_absent_database(
    story: Story, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the database away the batch in hand is given up; whoever comes next reads it again."""
    monkeypatch.setattr(worker, "STOP_SECONDS", 0.05)
    with monkeypatch.context() as patch:
        absent(patch, worker, "apply", 10**9)

        polls = iter(range(20))
        stopped = story.run(done=lambda: next(polls, None) is None)

    assert stopped.committed == {}
    story.run()
    assert left_in(story.engine) == expected


def test_the_lag_is_of_the_partitions_that_are_read(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lag gauge shows the partitions of this worker while it reads them, and no others afterwards."""
    monkeypatch.setattr(worker, "LOOK_SECONDS", 0.0)
    seen: dict[tuple[str, ...], float] = {}

    def look(name: str) -> None:
        (gauge,) = lag_records.collect()
        seen.update({tuple(sample.labels.values()): sample.value for sample in gauge.samples})

    story.run(step=look, partitions=[(EVENTS, 0)])

    assert set(seen) == {(EVENTS, "0")}
    assert lag_records._metrics == {}


class Listener:
    """A producer that keeps what is published, or refuses it."""

    def __init__(self, error: RewardloopError | None = None) -> None:
        self.error, self.messages = error, []  # type: ignore[var-annotated]

    def publish(self, messages: list[Message], timeout: float = 30.0) -> list[RewardloopError | None]:
        self.messages += messages
        return [self.error] * len(messages)

    def close(self) -> None:
        self.error = RewardloopError("closed")


def test_quarantined_records_are_announced(story: Story) -> None:
    """The quarantine topic says which record was put aside and why, and never holds its bytes."""
    story.log.values[EVENTS, 0].append(b'{"secret": "of a customer"')
    producer = Listener()
    story.run()
    announcer = Announcer(story.engine, "quarantine", lambda: producer)

    for applied in story.announced:
        announcer(applied)

    said = [json.loads(message.value or b"") for message in producer.messages]
    assert sorted((one["id"], one["position"]) for one in said) == column(
        story.engine, tables.quarantine, "id", "position"
    )
    assert {frozenset(one) for one in said} == {frozenset(("id", "source", "position", "reason", "batch_no"))}
    assert not any(b"customer" in (message.value or b"") for message in producer.messages)


@pytest.mark.parametrize("refuses", [True, False])
def test_an_announcement_that_fails_is_counted(story: Story, refuses: bool) -> None:
    """A broker that is away, or refuses, costs the announcement and nothing else."""
    before = announcement_failures._value.get()

    def connect() -> Listener:
        if refuses:
            raise Unavailable("No Kafka broker answers")
        return Listener(Unavailable("Kafka: timed out"))

    story.run()
    announcer = Announcer(story.engine, "quarantine", connect)
    for applied in story.announced:
        announcer(applied)

    assert announcement_failures._value.get() == before + 1
