"""Reading again: records of topics from quarantine, and ranges."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from infra import tables
from infra.broker import Record
from infra.database import writing
from infra.errors import BadInput
from infra.secrets import Secrets
from infra.settings import Settings
from ingestion import quarantine, store
from ingestion.contents import put_campaign
from ingestion.events import Batch, Campaign
from ingestion.ledger import conservation
from ingestion.stream.decoding import TopicDecoder
from ingestion.stream.messages import batch_of, held_record
from ingestion.stream.replay import apply_again, decode_again, parse_offset
from tests.ingestion.streaming import column, decided, happened, prepared

NOW = 1_790_000_000_000_000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A source of its own."""
    return Settings(home=tmp_path, sources=("shop",))


@pytest.fixture
def database(any_engine: Engine) -> Engine:
    """A store with the loop and the campaign that records name."""
    return prepared(any_engine)


def decoder_of(engine: Engine, secrets: Secrets, settings: Settings) -> TopicDecoder:
    return TopicDecoder(engine, secrets, settings, lambda: NOW)


def records(topic: str, *values: bytes) -> list[Record]:
    return [
        Record(f"rewardloop.{topic}.v1", 0, offset, 1_700_000_000_000, None, value, ())
        for offset, value in enumerate(values)
    ]


def replayed(engine: Engine, secrets: Secrets, settings: Settings, ids: list[int]) -> dict[int, str]:
    """What `rewardloop quarantine replay` does; what is refused and why."""
    decoder = decoder_of(engine, secrets, settings)

    def decode(held: quarantine.Held) -> Any:
        record = held_record(held.position, held.raw or b"")
        assert record is not None
        return decode_again(record, decoder)

    batch, refused = quarantine.replay(engine, secrets, ids, decode)
    if batch != Batch():
        store.apply(engine, batch, secrets, NOW)
    return refused


def test_records_of_topics_leave_quarantine(database: Engine, secrets: Secrets, settings: Settings) -> None:
    """Once what was missing is there, a decision, a labelled event and a content are applied from their kept bytes."""
    decoder = decoder_of(database, secrets, settings)
    found = [
        *records("decisions", decided("d1", 5, campaign="winter")),
        *records("events", happened("c1", "click", 8, decision_id="d1", source="till", labels={"bot": "a scanner"})),
        *records("contents", b'{"campaign": "winter", "id": "snow", "slots": {"subject": "Snow"}}'),
    ]
    store.apply(database, batch_of(decoder.settle(found, decoder.decode(found))), secrets, NOW)
    ids = [row[0] for row in column(database, tables.quarantine, "id")]

    still = replayed(database, secrets, settings, ids)
    with writing(database) as connection:
        put_campaign(connection, Campaign(campaign_id="winter", loop_id="emails"))
    mended = settings.model_copy(update={"sources": ("shop", "till")})
    after = replayed(database, secrets, mended, ids)

    assert sorted(still) == ids
    assert "No campaign 'winter'" in still[ids[0]]
    assert after == {}
    assert {row[0] for row in column(database, tables.quarantine, "state")} == {"replayed"}
    assert column(database, tables.decisions, "decision_id", "campaign_id") == [("d1", "winter")]
    assert column(database, tables.event_labels, "event_id", "label") == [("c1", "bot")]
    assert column(database, tables.contents, "content_id") == [("snow",)]
    assert conservation(database) == 0


def test_a_range_is_applied_once(
    database: Engine, secrets: Secrets, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading a range again finds duplicates; a record the database refuses is put aside, its neighbours count."""
    decoder = decoder_of(database, secrets, settings)
    some = records("events", *(happened(f"c{n}", "click", n, decision_id="d") for n in range(6)))

    def write(batch: Batch) -> store.Applied:
        if any(event.event_id == "c3" for event in batch.events):
            raise ValueError("no such value")
        return store.apply(database, batch, secrets, NOW)

    (first,) = apply_again([some], decoder, write)
    (again,) = apply_again([some], decoder, write)

    assert {state: count for state, count in first.items() if count} == {"read": 6, "pending": 5, "quarantined": 1}
    assert {state: count for state, count in again.items() if count} == {"read": 6, "duplicate": 6}
    assert column(database, tables.offsets, "topic") == []


def test_what_an_offset_is() -> None:
    """Digits are an offset, anything else is a time; a negative one is refused."""
    assert (parse_offset("17"), parse_offset("2026-11-22"), parse_offset("earliest")) == (17, None, None)
    with pytest.raises(BadInput, match="negative"):
        parse_offset("-1")
