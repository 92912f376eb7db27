"""The worker told as histories: crashes, absences, partitions that come and go.

What is left must always be the same: what a worker leaves with which nothing went wrong.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from infra import tables
from infra.broker import Partition, Record
from infra.database import insert_once, writing
from infra.errors import Unavailable
from infra.telemetry import lag_records, worker_batches
from ingestion import store
from ingestion.stream import worker
from tests.ingestion.fake_kafka import FakeConsumer, Log, away
from tests.ingestion.join.test_join_histories import decision
from tests.ingestion.stream.story import DECISIONS, EVENTS, Story
from tests.ingestion.streaming import column, left_in, positions

STEPS = ("polled", "decoded", "before_apply", "applied", "before_commit", "committed")


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


def test_a_tick_counts_decisions_that_wait(story: Story) -> None:
    """Decisions the API stored become exposures although no record comes."""
    story.log = Log({(EVENTS, 0): []})
    story.settings = story.settings.model_copy(update={"tick_seconds": 0.01})
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
