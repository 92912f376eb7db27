"""The store: every record in exactly one state, in the transaction that stored it."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, select

from infra import tables
from infra.database import insert_once, reading, writing
from infra.errors import Conflict
from infra.secrets import Secrets
from ingestion import store
from ingestion.events import (
    Batch,
    Campaign,
    Content,
    Decision,
    HistoricalResult,
    Label,
    Offset,
    Rejected,
    hash_id,
)
from ingestion.ledger import STATES, conservation
from ingestion.loops import put_loop
from ingestion.store import apply
from tests.ingestion.join.test_join_histories import LOOP, decision, event, purchase
from tests.ingestion.tables import rows


@pytest.fixture
def database(any_engine: Engine) -> Engine:
    """An empty store with one loop."""
    with writing(any_engine) as connection:
        put_loop(connection, LOOP, 0)
    return any_engine


def states(applied: store.Applied) -> dict[str, int]:
    return {state: getattr(applied, state) for state in STATES if getattr(applied, state)}


def stored_by_the_api(engine: Engine, decisions: Sequence[Decision]) -> None:
    with writing(engine) as connection:
        insert_once(connection, tables.decisions, [msgspec.structs.asdict(one) for one in decisions])


def test_every_record_of_a_batch_is_in_one_state(database: Engine, secrets: Secrets) -> None:
    """Applied, duplicate, ignored, pending and quarantined add up to what was read, and the ledger says so."""
    apply(database, Batch(events=(event("c", "click", 5, decision_id="d"),)), secrets, 0)
    batch = Batch(
        decisions=(decision("d", 0), decision("d", 0)),
        events=(
            event("c", "click", 5, decision_id="d"),
            event("c", "click", 6, decision_id="d"),
            event("lonely", "click", 5, decision_id="unknown"),
            event("new", "click", 7),
        ),
        labels=(Label(source="shop", event_id="new", label="bot", labelled_at=1),),
        results=(
            HistoricalResult(
                import_id="i", row=1, loop_id="emails", campaign_id="spring", content_id="a", exposures=9, metrics={}
            ),
        ),
        rejected=(Rejected(source="http", position="1", reason="No type: name one.", raw=b"{}"),),
        ignored={"a ping": 2},
    )

    applied = apply(database, batch, secrets, 7)

    assert states(applied) == {"applied": 4, "duplicate": 2, "ignored": 2, "pending": 1, "quarantined": 2}
    assert applied.read == 11
    assert (applied.left_pending, applied.decisions) == (1, 1)
    assert (applied.events[0], applied.events[2:]) == ("duplicate", ("pending", "applied"))
    assert "another body" in applied.events[1].reason  # type: ignore[union-attr]
    with reading(database) as connection:
        line = connection.execute(select(tables.batches).where(tables.batches.c.batch_no == 2)).one()
    assert (line.at, line.read, line.ignored, line.quarantined) == (7, 11, 2, 2)
    assert line.reasons["ignored"] == {"a ping": 2}
    assert "No type: name one." in line.reasons["quarantined"]
    assert conservation(database) == 0


def test_a_second_delivery_changes_nothing(database: Engine, secrets: Secrets) -> None:
    """Every fact delivered again is a duplicate: no row of any table but the ledger changes."""
    batch = Batch(
        decisions=(decision("d", 0),),
        events=(purchase("p", 5, 30, decision_id="d"), event("lonely", "click", 5, decision_id="unknown")),
        labels=(Label(source="shop", event_id="p", label="vip", labelled_at=1),),
        rejected=(Rejected(source="http", position="1", reason="No type: name one.", raw=b"{}"),),
    )
    apply(database, batch, secrets, 0)
    before = everything(database)

    again = apply(database, batch, secrets, 0)

    assert states(again) == {"duplicate": 5}
    assert everything(database) == before


def everything(engine: Engine) -> dict[str, list[Any]]:
    left_out = ("batches", "loops")
    return {
        name: [str(row) for row in rows(engine, table)]
        for name, table in tables.metadata.tables.items()
        if name not in left_out
    }


def test_a_crash_leaves_nothing_behind(database: Engine, secrets: Secrets, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch whose transaction dies at its last step has stored nothing, and can be applied again."""
    batch = Batch(decisions=(decision("d", 0),), events=(event("c", "click", 5),), offsets=(offset(0, 2),))
    before = everything(database)

    def die(*arguments: object) -> None:
        raise RuntimeError("the process dies")

    with monkeypatch.context() as patch:
        patch.setattr(store, "record_batch", die)
        with pytest.raises(RuntimeError, match="dies"):
            apply(database, batch, secrets, 0)
    assert everything(database) == before

    assert states(apply(database, batch, secrets, 0)) == {"applied": 2}


def test_the_same_decision_with_another_request_is_quarantined(database: Engine, secrets: Secrets) -> None:
    """Of two bodies under one id the first committed is the fact; the other is kept aside with the reason."""
    apply(database, Batch(decisions=(decision("d", 0),)), secrets, 0)
    other = decision("d", 1, request_digest="another")

    applied = apply(database, Batch(decisions=(other,)), secrets, 0)

    assert states(applied) == {"quarantined": 1}
    with reading(database) as connection:
        held = connection.execute(select(tables.quarantine)).one()
        stored = connection.execute(select(tables.decisions.c.request_digest)).scalar_one()
    assert stored == "request of d"
    assert "stored with another request" in held.reason


def test_an_event_under_a_new_unit_hash_is_the_same_fact(database: Engine, secrets: Secrets) -> None:
    """The unit's hash is no part of an event's body: a repetition after a rotation is a duplicate."""
    apply(database, Batch(events=(event("c", "click", 5),)), secrets, 0)

    applied = apply(database, Batch(events=(event("c", "click", 5, unit="u2:ann"),)), secrets, 0)

    assert applied.events == ("duplicate",)


def test_facts_about_a_forgotten_unit_are_ignored(database: Engine, secrets: Secrets) -> None:
    """Decisions and events under any hash of the unit are counted as ignored, with the reason, and stored nowhere."""
    with writing(database) as connection:
        insert_once(connection, tables.forgotten_units, [{"unit": "u1:gone", "forgotten_at": 0}])
    batch = Batch(
        decisions=(decision("d", 0, unit="u1:gone"), decision("e", 0, unit="u1:here")),
        events=(
            event("a", "click", 5, unit="u1:gone"),
            event("b", "click", 5, unit="u1:here"),
            event("c", "click", 5, unit="u2:gone", unit_before="u1:gone"),
        ),
    )

    applied = apply(database, batch, secrets, 0)

    assert states(applied) == {"applied": 2, "ignored": 3}
    assert applied.events == ("ignored", "applied", "ignored")
    assert conservation(database) == 0
    assert [row[0] for row in rows(database, tables.decisions)] == ["e"]
    assert [row[2] for row in rows(database, tables.events)] == ["b"]
    assert len(rows(database, tables.event_keys)) == 1
    with reading(database) as connection:
        assert connection.scalars(select(tables.batches.c.reasons)).one()["ignored"] == {"forgotten unit": 3}


def test_event_keys_outlive_the_events(database: Engine, secrets: Secrets) -> None:
    """An event whose row was deleted stays known by the hash of its id."""
    apply(database, Batch(events=(event("c", "click", 5),)), secrets, 0)
    with writing(database) as connection:
        connection.execute(tables.events.delete())

    applied = apply(database, Batch(events=(event("c", "click", 5),)), secrets, 0)

    assert applied.events == ("duplicate",)
    assert rows(database, tables.event_keys)[0][:2] == ("shop", hash_id("c")[:32])


def test_the_same_id_from_another_source_is_another_event(database: Engine, secrets: Secrets) -> None:
    """Events are unique by source and id together."""
    batch = Batch(events=(event("c", "click", 5), event("c", "click", 5, source="bank")))

    assert states(apply(database, batch, secrets, 0)) == {"pending": 2}


def test_an_empty_batch_counts_the_decisions_that_wait(database: Engine, secrets: Secrets) -> None:
    """Decisions the API stored count from the next batch on, also when nothing else comes."""
    stored_by_the_api(database, [decision("d", 0), decision("e", 1)])
    assert rows(database, tables.content_stats) == []

    applied = apply(database, Batch(), secrets, 0)

    assert (applied.batch_no, applied.decisions, applied.read) == (1, 2, 0)
    assert {row[5] for row in rows(database, tables.content_stats)} == {2}


def test_an_empty_batch_with_nothing_waiting_writes_nothing(database: Engine, secrets: Secrets) -> None:
    """It answers the number of the newest batch."""
    assert apply(database, Batch(), secrets, 0).batch_no == 0
    apply(database, Batch(decisions=(decision("d", 0),)), secrets, 0)

    assert apply(database, Batch(), secrets, 0).batch_no == 1
    assert len(rows(database, tables.batches)) == 1


def test_a_decision_the_api_stored_before_is_a_duplicate(database: Engine, secrets: Secrets) -> None:
    """Delivered by a topic as well, it is counted once, by this batch."""
    stored_by_the_api(database, [decision("d", 0)])

    applied = apply(database, Batch(decisions=(decision("d", 0),)), secrets, 0)

    assert (states(applied), applied.decisions) == ({"duplicate": 1}, 1)


def offset(begin: int, end: int) -> Offset:
    return Offset(topic="events", partition=0, begin=begin, end=end)


def test_offsets_move_with_the_facts(database: Engine, secrets: Secrets) -> None:
    """A batch moves its partitions from where it began to where it ended."""
    apply(database, Batch(events=(event("c", "click", 5),), offsets=(offset(0, 1),)), secrets, 0)
    apply(database, Batch(offsets=(offset(1, 4),), ignored={"noise": 3}), secrets, 0)

    assert rows(database, tables.offsets) == [("events", 0, 4, 2, None)]


def test_a_batch_another_worker_applied_is_refused_whole(database: Engine, secrets: Secrets) -> None:
    """When a partition no longer stands where the batch began, nothing of the batch is stored."""
    apply(database, Batch(offsets=(offset(0, 3),), ignored={"noise": 3}), secrets, 0)
    before = everything(database)

    with pytest.raises(Conflict, match="events/0 stands at 3, this batch began at 0"):
        apply(database, Batch(events=(event("c", "click", 5),), offsets=(offset(0, 1),)), secrets, 0)
    assert everything(database) == before


def test_campaigns_and_contents_are_stored_and_not_counted(database: Engine, secrets: Secrets) -> None:
    """They are definitions, not records; the same copy twice in a campaign is stored once."""
    batch = Batch(
        campaigns=(Campaign(campaign_id="spring", loop_id="emails"),),
        contents=(
            Content(content_id="a", campaign_id="spring", slots={"subject": "Hello"}),
            Content(content_id="b", campaign_id="spring", slots={"subject": "Hi"}),
        ),
    )

    first, second = apply(database, batch, secrets, 0), apply(database, batch, secrets, 0)

    assert (first.read, second.read) == (0, 0)
    assert [row[0] for row in rows(database, tables.contents)] == ["a", "b"]
