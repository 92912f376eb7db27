"""The worker told as histories: records that break the decoder, or that the database refuses."""

from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError

from infra import tables
from infra.broker import Record
from infra.telemetry import worker_refused
from ingestion import quarantine, store
from ingestion.events import Batch
from ingestion.stream import decoding, worker
from ingestion.stream.messages import decode_record
from tests.ingestion.stream.story import EVENTS, Story
from tests.ingestion.streaming import column, happened, left_in, positions


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
