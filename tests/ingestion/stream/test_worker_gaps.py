"""The worker told as histories: positions that the log does not hold stop it, until a person says so."""

from typing import Any

import pytest
from sqlalchemy import Engine, select

from infra import tables
from infra.broker import Partition
from infra.database import insert_once, reading, writing
from infra.errors import Conflict
from infra.telemetry import offset_gap_records
from ingestion.ledger import stored_offsets
from ingestion.stream import worker
from ingestion.stream.gaps import GapFound, accept_gap, find_gaps
from tests.ingestion.fake_kafka import FakeConsumer
from tests.ingestion.stream.story import EVENTS, NOW, Story
from tests.ingestion.streaming import left_in, positions


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
