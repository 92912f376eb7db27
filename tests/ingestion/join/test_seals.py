"""Decisions past retention: their outcomes are final, their events go, and nothing open notices."""

import os
from collections.abc import Iterator, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from infra import tables
from infra.clock import DAY
from infra.database import lock_join, open_database, reading, writing
from infra.errors import BadInput
from infra.exact import PARTS
from infra.migrations import migrate
from infra.secrets import Secrets
from ingestion import retention, store
from ingestion.audit import read_audit
from ingestion.events import Batch, Decision, Event
from ingestion.exchange import Rate
from ingestion.join.backfill import backfill, redefine
from ingestion.join.restating import import_rates
from ingestion.join.seals import load_seals
from ingestion.ledger import conservation, newest_batch
from ingestion.loops import load_loops, parse_definition, put_loop
from ingestion.people.withdrawing import withdraw
from ingestion.retention import Sealed, seal, seal_before, sweep
from tests.ingestion.histories import LOOPS, ORIGIN, SIZE, Reader, facts_of
from tests.ingestion.join.test_join_histories import LOOP, decision, event, live, purchase, refund
from tests.ingestion.join.test_join_properties import (
    Delivery,
    arbitrary,
    deliver,
    deliveries,
    pending_by_the_ledger,
    pending_in_the_store,
)
from tests.ingestion.tables import attributed, empty, rows

EXAMPLES = max(int(os.environ.get("REWARDLOOP_PROPERTY_EXAMPLES", "2000")) // 40, 1)
YEAR = 31_536_000
"""Seconds: the days of these histories are of different years."""
NOW = 3 * YEAR * 1_000_000
NEW = 2 * YEAR + 86_400 * 20
"""When what stays open happens."""


@pytest.fixture
def database(any_engine: Engine) -> Engine:
    """An old decision with a click, an order of 30 euros and a refund of 10; one of the other day with an order of 7."""
    with writing(any_engine) as connection:
        put_loop(connection, LOOP, 0)
    return any_engine


def history(engine: Engine, secrets: Secrets) -> None:
    """What the fixture promises."""
    live(
        engine,
        secrets,
        [
            decision("old", 1_000),
            event("c", "click", 1_010),
            purchase("p", 1_020, 30),
            refund("r", 1_030, 10, "p"),
            event("stray", "click", 1_040, decision_id="of nobody"),
            decision("new", NEW),
            purchase("q", NEW + 10, 7),
        ],
    )


def joined(engine: Engine) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    """Outcomes and sums."""
    return rows(engine, tables.outcomes), rows(engine, tables.content_stats)


def apply(engine: Engine, secrets: Secrets, *facts: Decision | Event) -> store.Applied:
    """One batch of facts."""
    batch = Batch(
        decisions=tuple(fact for fact in facts if isinstance(fact, Decision)),
        events=tuple(fact for fact in facts if isinstance(fact, Event)),
    )
    return store.apply(engine, batch, secrets, NOW)


def retire(engine: Engine, days: int = 365) -> int:
    """What maintenance does; returns how many events went."""
    seal(engine, NOW, days)
    return sweep(engine, NOW)


def kept(engine: Engine) -> set[str]:
    """Ids of the events that are there."""
    with reading(engine) as connection:
        return set(connection.scalars(select(tables.events.c.event_id)))


def test_old_events_go_and_nothing_notices(database: Engine, secrets: Secrets) -> None:
    """Outcomes and sums are the same to the last digit, also computed anew; keys stay; what was pending leaves pending."""
    history(database, secrets)
    before = joined(database)

    assert retire(database) == 4
    assert kept(database) == {"q"}
    assert joined(database) == before
    backfill(database, "emails", NOW)
    assert joined(database) == before
    assert len(rows(database, tables.event_keys)) == 5
    assert pending_by_the_ledger(database) == pending_in_the_store(database) == 0
    assert conservation(database) == 0
    assert retire(database) == 0
    with reading(database) as connection:
        assert [line.action for line in read_audit(connection, action="seal")] == ["seal"]


def test_events_go_some_at_a_time(database: Engine, secrets: Secrets, monkeypatch: pytest.MonkeyPatch) -> None:
    """In transactions of few events each, the same ones."""
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    history(database, secrets)
    assert retire(database) == 4
    assert kept(database) == {"q"}


def test_what_is_past_retention_is_known_and_not_used(database: Engine, secrets: Secrets) -> None:
    """A repetition is a duplicate; a late refund, a second report, a late click and a late decision are sealed, with the
    reason in the ledger, and then duplicates too."""
    history(database, secrets)
    before = joined(database)
    retire(database)

    assert apply(database, secrets, purchase("p", 1_020, 30)).events == ("duplicate",)
    late = (
        refund("r2", NEW + 5, 20, "p"),
        msgspec.structs.replace(purchase("p again", NEW + 5, 30, source="bank", decision_id="new"), fact_key="p"),
        event("named", "click", NEW + 5, decision_id="old"),
        event("ancient", "click", 1_050),
        event("of the late", "click", NEW + 5, decision_id="late"),
    )
    found = apply(database, secrets, *late, decision("late", 2_000))
    assert found.events == ("sealed",) * 5
    assert (found.read, found.ignored, found.decisions) == (6, 6, 0)
    with reading(database) as connection:
        reasons = connection.scalar(select(tables.batches.c.reasons).where(tables.batches.c.batch_no == found.batch_no))
    assert reasons is not None
    assert reasons["ignored"] == {store.SEALED: 6}
    assert apply(database, secrets, *late).events == ("duplicate",) * 5
    assert apply(database, secrets, decision("old", 1_000)).duplicate == 1
    assert joined(database) == before
    assert conservation(database) == 0


def test_a_late_unsubscribe_still_suppresses(database: Engine, secrets: Secrets) -> None:
    """Whoever clicks it in a letter of years ago is sent nothing any more."""
    history(database, secrets)
    retire(database)
    assert apply(database, secrets, event("u", "unsubscribe", NEW + 20, decision_id="old")).events == ("sealed",)
    assert [row[0] for row in rows(database, tables.suppressions)] == ["u1:ann"]


def test_an_order_that_something_open_needs_stays(database: Engine, secrets: Secrets) -> None:
    """The old report of an order whose other report belongs to an open decision decides which of them counts."""
    history(database, secrets)
    again = purchase("q", 1_015, 7, decision_id="old", source="bank")
    apply(database, secrets, again)
    before = joined(database)
    assert retire(database) == 4
    assert kept(database) == {"q"}
    assert len(rows(database, tables.events)) == 2
    backfill(database, "emails", NOW)
    assert joined(database) == before


def test_activations_stay(database: Engine, secrets: Secrets) -> None:
    """A deferred decision started with its activation: without it there would have been no exposure."""
    live(
        database,
        secrets,
        [
            decision("d", 1_000, deferred=True),
            event("sent", "activation", 1_005, decision_id="d"),
            purchase("p", 1_020, 30),
        ],
    )
    before = joined(database)
    assert retire(database) == 1
    assert kept(database) == {"sent"}
    backfill(database, "emails", NOW)
    assert joined(database) == before


def test_a_decision_that_was_activated_late_holds_the_horizon(database: Engine, secrets: Secrets) -> None:
    """It is not mature yet, so it is not sealed, however long ago it was decided."""
    history(database, secrets)
    just_now = NOW // 1_000_000 - 50
    live(
        database,
        secrets,
        [decision("d", 500_000, deferred=True), event("sent", "activation", just_now, decision_id="d")],
    )
    assert seal(database, NOW, 365) == Sealed(horizon=500_000_000_000 // DAY * DAY, moved=True, held_back=True)
    assert sweep(database, NOW) == 4


def test_retention_is_longer_than_maturing(database: Engine) -> None:
    """Outcomes that may still change are not made final: the sentence says how long they take."""
    with writing(database) as connection:
        put_loop(connection, parse_definition(LOOP.model_dump(mode="json") | {"refund_horizon": "30d"}), 0)
    with pytest.raises(BadInput, match="31 days to mature"):
        seal(database, NOW, 30)
    assert seal(database, NOW, 31).moved


def test_new_metrics_are_not_measured_on_what_is_gone(database: Engine, secrets: Secrets) -> None:
    """Sealed decisions that were measured otherwise leave the sums, instead of counting as silent; with the metrics of then
    they are back."""
    history(database, secrets)
    retire(database)
    before = joined(database)
    other = LOOP.model_dump(mode="json")
    other["metrics"][1]["window"] = "50s"

    redefine(database, parse_definition(other), NOW)
    assert {row[5] for row in rows(database, tables.content_stats)} == {1}
    with reading(database) as connection:
        seals = load_seals(connection)
    assert seals.readable(parse_definition(other)) == []
    assert seals.readable(LOOP) == [(0, seals.horizon)]

    redefine(database, LOOP, NOW)
    assert joined(database) == before


def test_a_forgotten_person_leaves_the_sums_once(database: Engine, secrets: Secrets) -> None:
    """Sealed decisions that another definition left out of the sums are not taken out of them again."""
    history(database, secrets)
    apply(database, secrets, decision("other", 1_000, unit="u1:bob"), decision("later", NEW, unit="u1:bob"))
    retire(database)
    other = LOOP.model_dump(mode="json")
    other["metrics"][1]["window"] = "50s"
    redefine(database, parse_definition(other), NOW)

    with writing(database) as connection:
        lock_join(connection)
        rules = {loop_id: definition for loop_id, (definition, _) in load_loops(connection).items()}
        gone = withdraw(connection, rules, ["u1:ann"], newest_batch(connection) + 1)
    assert (set(gone.decisions), gone.events) == ({"old", "new"}, 1)
    before = joined(database)
    backfill(database, "emails", NOW)
    assert joined(database) == before


def test_a_rate_restates_open_decisions_only(database: Engine, secrets: Secrets) -> None:
    """Final is final, also where the event is still there."""
    document = LOOP.model_dump(mode="json")
    document["metrics"][1]["convert"] = True
    redefine(database, parse_definition(document), 0)
    history(database, secrets)
    apply(database, secrets, *(_in_dollars(f"usd {at}", at) for at in (1_050, NEW + 30)))
    seal(database, NOW, 365)
    before = rows(database, tables.outcomes)

    found = import_rates(database, [Rate("USD", "EUR", 0, PARTS // 2)], "bank", "ann", NOW)
    assert found.restated == 1
    changed = set(rows(database, tables.outcomes)) ^ set(before)
    assert {row[0] for row in changed} == {"new"}


def _in_dollars(id_: str, at: int) -> Event:
    return msgspec.structs.replace(purchase(id_, at, 8), currency="USD")


@pytest.fixture(scope="module")
def twins() -> Iterator[tuple[Engine, Engine]]:
    """Two SQLite databases in memory: in one of them events go."""
    engines = open_database("sqlite://"), open_database("sqlite://")
    for engine in engines:
        migrate(engine)
        with writing(engine) as connection:
            for definition in LOOPS.values():
                put_loop(connection, definition, 0)
    yield engines
    for engine in engines:
        engine.dispose()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_whatever_happens_only_the_events_are_missing(twins: tuple[Engine, Engine]) -> None:
    """Any history, sealed at any moment and time, and swept: outcomes and sums are those of a store that kept everything, now
    and after whatever comes, also computed anew; sealed outcomes never change."""

    @arbitrary(EXAMPLES)
    @given(st.binary(min_size=SIZE, max_size=SIZE))
    def check(data: bytes) -> None:
        read = Reader(data)
        delivered = deliveries(read, facts_of(read))
        half, horizon = read.below(len(delivered) + 1), ORIGIN + read.below(16) * 1_000_000
        final = [through(engine, delivered, half, horizon, swept=engine is twins[0]) for engine in twins]

        assert final[0] == final[1]
        lean, whole = twins
        assert joined(lean) == joined(whole)
        assert set(attributed(lean)) <= set(attributed(whole))
        assert final[0] == sealed_outcomes(lean, horizon)
        assert conservation(lean) == 0
        assert pending_by_the_ledger(lean) == pending_in_the_store(lean)
        for engine in twins:
            before = joined(engine)
            for loop in LOOPS:
                backfill(engine, loop, 0)
            assert joined(engine) == before

    check()


def through(
    engine: Engine, delivered: Sequence[Delivery], half: int, horizon: int, *, swept: bool
) -> list[tuple[object, ...]]:
    """Live through a history, sealed in the middle; returns what was sealed."""
    empty(engine)
    for delivery in delivered[:half]:
        deliver(engine, delivery)
    with writing(engine) as connection:
        lock_join(connection)
        seal_before(connection, [definition for definition, _ in load_loops(connection).values()], horizon, 0)
    final = sealed_outcomes(engine, horizon)
    with pytest.MonkeyPatch.context() as patch:
        if not swept:
            for drop in ("_drop_events", "_drop_attributions", "_drop_labels"):
                patch.setattr(retention, drop, lambda *_, **__: None)
        sweep(engine, 0)
    for delivery in delivered[half:]:
        deliver(engine, delivery)
    return final


def sealed_outcomes(engine: Engine, horizon: int) -> list[tuple[object, ...]]:
    """Outcomes of decisions made before the horizon."""
    with reading(engine) as connection:
        c = tables.decisions.c
        ids = set(connection.scalars(select(c.decision_id).where(c.decided_at < horizon)))
    return [row for row in rows(engine, tables.outcomes) if row[0] in ids]
