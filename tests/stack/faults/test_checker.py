"""The checker finds what it is there to find: each test breaks one thing in a faultless store and names the complaint."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, delete, insert, select, text, update

from infra import tables
from infra.database import reading, writing
from infra.secrets import Secrets
from ingestion import store
from ingestion.events import Batch, Decision, Event, Label, Rejected
from ingestion.loops import put_loop
from tests.stack.faults.checker import Verdict, check
from tests.stack.faults.ledger import Ledger, Sending
from tests.stack.faults.world import LOOPS, customers

SEED = 11
CUSTOMERS = 60
POISON = b"{not json"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    yield ledger
    ledger.close()


@pytest.fixture
def stored(engine: Engine, ledger: Ledger, secrets: Secrets) -> Engine:
    """A store that holds a small world, a conflict and an unusable record, without a fault; the ledger says so."""
    with writing(engine) as connection:
        for definition in LOOPS.values():
            put_loop(connection, definition, 0)
    sendings = [sending(fact) for fact in facts()]
    sendings += [sending(other_body()), Sending("events", None, POISON, None)]
    ledger.acknowledge(ledger.intend(sendings))
    rejected = Rejected(source="shop", position="events/0/17", reason="no JSON", raw=POISON)
    for batch in (
        Batch(decisions=tuple(fact for fact in facts() if isinstance(fact, Decision))),
        Batch(events=tuple(fact for fact in facts() if isinstance(fact, Event)), labels=words(), rejected=(rejected,)),
        Batch(events=(other_body(),)),
    ):
        store.apply(engine, batch, secrets, 0)
    return engine


def facts() -> list[Decision | Event]:
    return [fact for customer in customers(SEED, CUSTOMERS) for fact in customer.facts]


def bots() -> frozenset[str]:
    return frozenset().union(*(customer.bots for customer in customers(SEED, CUSTOMERS)))


def words() -> tuple[Label, ...]:
    """What is said about the events of bots."""
    return tuple(
        Label(source=fact.source, event_id=fact.event_id, label="bot", labelled_at=5)
        for fact in facts()
        if isinstance(fact, Event) and fact.event_id in bots()
    )


def other_body() -> Event:
    """The first event again, with another value."""
    event = next(fact for fact in facts() if isinstance(fact, Event))
    return msgspec.structs.replace(event, value_micros=123)


def sending(fact: Decision | Event) -> Sending:
    if isinstance(fact, Decision):
        return Sending("decisions", None, b"{}", fact)
    return Sending("events", None, b"{}", fact, labels=("bot",) if fact.event_id in bots() else ())


def change(engine: Engine, statement: Any) -> None:
    """Break something; it must really have been there."""
    with writing(engine) as connection:
        assert connection.execute(statement).rowcount > 0


def first(engine: Engine, table: Any) -> dict[str, Any]:
    with reading(engine) as connection:
        return dict(connection.execute(select(table).order_by(*table.primary_key.columns)).mappings().first() or {})


def this(table: Any, row: dict[str, Any]) -> list[Any]:
    """Where the row is."""
    return [column == row[column.name] for column in table.primary_key.columns]


def kinds(verdict: Verdict) -> set[str]:
    return {sentence.partition(":")[0] for sentence in verdict.wrong}


def test_a_faultless_store_has_nothing_wrong(stored: Engine, ledger: Ledger, secrets: Secrets) -> None:
    """A store that took every record once agrees with the ledger and the oracle in every row."""
    records = len(facts()) + 2

    verdict = check(stored, ledger.path, secrets, read=records + len(words()))

    assert verdict.wrong == []
    assert verdict.records == records


def test_a_world_exercises_the_whole_join(stored: Engine) -> None:
    """The generated world has outcomes of every metric, every way of attribution and pending events."""
    with reading(stored) as connection:
        metrics = set(connection.scalars(select(tables.outcomes.c.metric)))
        methods = set(connection.scalars(select(tables.attributions.c.method)))
        pending = connection.scalar(select(tables.batches.c.pending).order_by(tables.batches.c.pending.desc()))

    assert metrics == {metric.name for loop in LOOPS.values() for metric in loop.metrics}
    assert methods == {"decision_id", "token", "last_touch", "reversal"}
    assert pending is not None
    assert pending > 0


def test_an_event_that_is_gone_is_lost(stored: Engine, ledger: Ledger, secrets: Secrets) -> None:
    """A confirmed event without its row is lost."""
    change(stored, delete(tables.events).where(*this(tables.events, first(stored, tables.events))))

    assert "lost" in kinds(check(stored, ledger.path, secrets))


def test_a_decision_that_is_gone_is_lost(stored: Engine, ledger: Ledger, secrets: Secrets) -> None:
    """A confirmed decision without its row is lost."""
    change(stored, delete(tables.decisions).where(*this(tables.decisions, first(stored, tables.decisions))))

    assert "lost" in kinds(check(stored, ledger.path, secrets))


def test_a_fact_no_batch_counts_is_lost(stored: Engine, ledger: Ledger, secrets: Secrets) -> None:
    """A row without a batch is stored and still lost."""
    change(
        stored, update(tables.events).where(*this(tables.events, first(stored, tables.events))).values(batch_no=None)
    )

    assert "lost" in kinds(check(stored, ledger.path, secrets))


def test_a_key_that_is_gone_is_lost(stored: Engine, ledger: Ledger, secrets: Secrets) -> None:
    """An event whose key is not kept could be counted again one day."""
    change(stored, delete(tables.event_keys).where(*this(tables.event_keys, first(stored, tables.event_keys))))

    assert kinds(check(stored, ledger.path, secrets)) == {"lost"}


@pytest.mark.parametrize("position", ["events/%", "conflict/%"])
def test_a_quarantined_record_that_is_gone_is_lost(
    stored: Engine, ledger: Ledger, secrets: Secrets, position: str
) -> None:
    """A record that cannot be used, and the second body of an event, must be in quarantine with their bytes."""
    change(stored, delete(tables.quarantine).where(tables.quarantine.c.position.like(position)))

    assert kinds(check(stored, ledger.path, secrets)) == {"lost"}


def test_a_label_that_is_gone_is_lost(stored: Engine, ledger: Ledger, secrets: Secrets) -> None:
    """What was said about an event is kept with it."""
    change(stored, delete(tables.event_labels).where(*this(tables.event_labels, first(stored, tables.event_labels))))

    assert kinds(check(stored, ledger.path, secrets)) == {"lost"}


def test_a_record_held_twice_is_doubled(stored: Engine, ledger: Ledger, secrets: Secrets) -> None:
    """One record is in quarantine once."""
    row = first(stored, tables.quarantine)
    change(stored, insert(tables.quarantine).values({**row, "id": row["id"] + 100}))

    assert "doubled" in kinds(check(stored, ledger.path, secrets))


def test_an_outcome_counted_twice_is_doubled(stored: Engine, ledger: Ledger, secrets: Secrets) -> None:
    """An outcome with one event more than it has is doubled."""
    table = tables.outcomes
    doubled = update(table).where(*this(table, first(stored, table))).values(count=table.c["count"] + 1)
    change(stored, doubled)

    assert kinds(check(stored, ledger.path, secrets)) == {"doubled"}


def test_an_exposure_counted_twice_is_doubled(stored: Engine, ledger: Ledger, secrets: Secrets) -> None:
    """Content statistics with one exposure more than were shown are doubled."""
    table = tables.content_stats
    change(stored, update(table).where(*this(table, first(stored, table))).values(exposures=table.c.exposures + 1))

    assert kinds(check(stored, ledger.path, secrets)) == {"doubled"}


@pytest.mark.parametrize(
    ("table", "made_up"),
    [
        (tables.events, {"event_no": 1_000_000, "event_id": "made-up"}),
        (tables.decisions, {"decision_id": "made-up"}),
    ],
)
def test_a_fact_nobody_sent_is_a_phantom(
    stored: Engine, ledger: Ledger, secrets: Secrets, table: Any, made_up: dict[str, Any]
) -> None:
    """A stored fact that is not in the ledger was made up."""
    change(stored, insert(table).values({**first(stored, table), **made_up}))

    assert "phantom" in kinds(check(stored, ledger.path, secrets))


def test_an_outcome_out_of_nothing_is_a_phantom(stored: Engine, ledger: Ledger, secrets: Secrets) -> None:
    """An outcome the facts do not give is made up."""
    change(stored, insert(tables.outcomes).values({**first(stored, tables.outcomes), "content_id": "made-up"}))

    assert kinds(check(stored, ledger.path, secrets)) == {"phantom"}


def test_an_attribution_that_moved_is_misjoined(stored: Engine, ledger: Ledger, secrets: Secrets) -> None:
    """An event that belongs to one decision and is attributed to another is joined wrongly."""
    table = tables.attributions
    change(stored, update(table).where(*this(table, first(stored, table))).values(decision_id="d-b-0-99"))

    assert kinds(check(stored, ledger.path, secrets)) == {"misjoined"}


def test_an_attribution_that_is_gone_is_misjoined(stored: Engine, ledger: Ledger, secrets: Secrets) -> None:
    """An event that belongs to a decision and is attributed to none is joined wrongly."""
    change(stored, delete(tables.attributions).where(*this(tables.attributions, first(stored, tables.attributions))))

    assert "misjoined" in kinds(check(stored, ledger.path, secrets))


def test_an_outcome_of_another_value_is_misjoined(stored: Engine, ledger: Ledger, secrets: Secrets) -> None:
    """A value off by a millionth is wrong."""
    table = tables.outcomes
    change(stored, update(table).where(*this(table, first(stored, table))).values(value=table.c.value + 1))

    assert kinds(check(stored, ledger.path, secrets)) == {"misjoined"}


def test_another_body_than_the_first_is_altered(stored: Engine, ledger: Ledger, secrets: Secrets) -> None:
    """A stored event that is not as it was sent first is altered."""
    table = tables.events
    change(stored, update(table).where(*this(table, first(stored, table))).values(occurred_at=table.c.occurred_at + 1))

    assert kinds(check(stored, ledger.path, secrets)) == {"altered"}


def test_a_batch_that_counts_wrongly_is_unaccounted(stored: Engine, ledger: Ledger, secrets: Secrets) -> None:
    """Records read that are in no state break the conservation law."""
    change(stored, update(tables.batches).where(tables.batches.c.batch_no == 1).values(read=tables.batches.c.read + 1))

    assert kinds(check(stored, ledger.path, secrets)) == {"unaccounted"}


def test_a_skipped_record_is_unaccounted(stored: Engine, ledger: Ledger, secrets: Secrets) -> None:
    """If the log held more records than the batches read, something was skipped."""
    verdict = check(stored, ledger.path, secrets, read=len(facts()) + len(words()) + 3)

    assert kinds(verdict) == {"unaccounted"}


def test_pending_events_that_no_batch_names_are_unaccounted(stored: Engine, ledger: Ledger, secrets: Secrets) -> None:
    """The batches' count of pending events is the number of events without a decision."""
    change(
        stored,
        update(tables.batches)
        .where(tables.batches.c.pending > 0)
        .values(pending=tables.batches.c.pending - 1, applied=tables.batches.c.applied + 1),
    )

    assert kinds(check(stored, ledger.path, secrets)) == {"unaccounted"}


def test_what_was_not_confirmed_may_be_missing(stored: Engine, ledger: Ledger, secrets: Secrets) -> None:
    """A record sent and never confirmed is no loss."""
    stray = Event(source="shop", event_id="e-b-7-999", type="click", occurred_at=1, received_at=0, unit="u1:00")
    ledger.intend([sending(stray)])

    assert check(stored, ledger.path, secrets).wrong == []


def test_what_was_not_confirmed_may_be_there(stored: Engine, ledger: Ledger, secrets: Secrets) -> None:
    """A record whose confirmation was cut off may be stored, and then counts."""
    stray = Event(source="shop", event_id="e-b-7-999", type="click", occurred_at=1, received_at=0, unit="u1:00")
    ledger.intend([sending(stray)])
    store.apply(stored, Batch(events=(stray,)), secrets, 0)

    assert check(stored, ledger.path, secrets).wrong == []


def test_a_record_that_is_ignored_is_nowhere(stored: Engine, ledger: Ledger, secrets: Secrets) -> None:
    """An empty record is counted, and neither lost nor kept."""
    ledger.acknowledge(ledger.intend([Sending("events", None, None, None, ignored=True)]))

    assert check(stored, ledger.path, secrets).wrong == []


@pytest.mark.parametrize("name", ["attributions", "outcomes", "content_stats"])
def test_the_digest_sees_every_row(stored: Engine, ledger: Ledger, secrets: Secrets, name: str) -> None:
    """Taking one row away from what the join made changes the digest."""
    before = check(stored, ledger.path, secrets).digest
    table = tables.metadata.tables[name]
    change(stored, delete(table).where(*this(table, first(stored, table))))

    assert check(stored, ledger.path, secrets).digest != before


def test_the_digest_does_not_see_batches(stored: Engine, ledger: Ledger, secrets: Secrets) -> None:
    """How the records were cut into batches is no part of what they mean."""
    before = check(stored, ledger.path, secrets).digest
    change(stored, text("UPDATE batches SET batch_no = batch_no + 10"))

    assert check(stored, ledger.path, secrets).digest == before
