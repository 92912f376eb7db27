"""A person deleted from the database: nothing of them is left, and what is left is what the join makes of the rest."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, select

from infra import tables
from infra.database import insert_once, open_database, reading, writing
from infra.errors import BadInput
from infra.migrations import migrate
from infra.secrets import Secrets
from infra.settings import Settings
from ingestion import store
from ingestion.events import Batch, Label, Rejected
from ingestion.feedback import add_feedback
from ingestion.http.bodies import FeedbackBody
from ingestion.join.backfill import backfill
from ingestion.ledger import conservation
from ingestion.loops import put_loop
from ingestion.people.forgetting import Forgotten, forget, forget_again
from ingestion.people.mentions import Mentions
from ingestion.people.suppressions import EVERY_LOOP, suppress
from ingestion.quarantine import held_with_bytes, list_held
from ingestion.stream.topics import DAY_MS, topics
from ingestion.tokens import make_token
from tests.ingestion.histories import LOOPS, SIZE, Reader, facts_of
from tests.ingestion.join.test_join_histories import LOOP, decision, event, purchase, refund
from tests.ingestion.join.test_join_properties import (
    SECRETS,
    arbitrary,
    deliver,
    deliveries,
    from_scratch,
    pending_by_the_ledger,
    pending_in_the_store,
)
from tests.ingestion.tables import attributed, empty, rows
from tests.ingestion.test_store import stored_by_the_api

ANN = "canary-4711"
KEPT = {"forgotten_units", "suppressions"}
"""Tables in which the hash of a forgotten person stays."""


@pytest.fixture
def database(any_engine: Engine) -> Engine:
    """An empty store with one loop."""
    with writing(any_engine) as connection:
        put_loop(connection, LOOP, 0)
    return any_engine


def everything(secrets: Secrets, user: str) -> Batch:
    """A customer on every path into the store: decisions, events of every kind, labels, conflicts, what was refused."""
    unit = secrets.unit(user)
    return Batch(
        decisions=(decision("d1", 0, unit=unit), decision("d2", 5, unit=unit, deferred=True)),
        events=(
            event("named", "click", 5, decision_id="d1"),
            event("touched", "click", 6, unit=unit),
            event("waits", "click", 900, unit=unit),
            event("started", "activation", 7, decision_id="d2"),
            purchase("o1", 8, 40, decision_id="d1"),
            purchase("o1", 9, 40, source="bank", unit=unit),
            refund("r1", 10, 10, of="o1"),
            event("before", "click", 6, unit="u2:other", unit_before=unit),
        ),
        labels=(Label(source="shop", event_id="touched", label="bot", labelled_at=1),),
        rejected=(
            Rejected(
                source="http", position="1", reason=f"What {user} did has no type", raw=f'{{"unit":"{user}"}}'.encode()
            ),
            Rejected(source="http", position="2", reason="No time", raw=make_token(secrets, "d1", 1).encode()),
            Rejected(source="http", position="3", reason="No time", raw=b'{"unit":"canary-47110"}'),
            Rejected(source="conflict", position="conflict/event/named", reason="Another body", raw=unit.encode()),
        ),
    )


def others() -> Batch:
    """What is about another customer, and must stay to the last digit."""
    return Batch(
        decisions=(decision("b1", 0, unit="u1:bob"),),
        events=(
            event("b-click", "click", 5, unit="u1:bob"),
            purchase("b-order", 6, 30, decision_id="b1"),
            event("b-waits", "click", 5, decision_id="unknown"),
        ),
    )


def names(engine: Engine, words: list[str]) -> set[str]:
    """Tables in which one of these words stands."""
    found = set()
    with reading(engine) as connection:
        for table in tables.metadata.sorted_tables:
            text = msgspec.json.encode([list(row) for row in connection.execute(select(table))], enc_hook=str).decode()
            found |= {table.name} if any(word in text for word in words) else set()
    return found


def facts(engine: Engine) -> dict[str, Any]:
    """All that is about somebody."""
    kept = ("decisions", "outcomes", "feedback", "event_labels")
    found: dict[str, Any] = {name: rows(engine, tables.metadata.tables[name]) for name in kept}
    with reading(engine) as connection:
        found["events"] = sorted(connection.scalars(select(tables.events.c.event_id)))
    found["content_stats"] = [row for row in rows(engine, tables.content_stats) if any(row[5:])]
    return found | {"attributions": attributed(engine), "pending": pending_in_the_store(engine)}


def test_nothing_of_a_person_is_left(database: Engine, secrets: Secrets, settings: Settings) -> None:
    """After forget the store is as if the person had never been, but for hashes in two tables; the ledger is whole, and
    the same again deletes nothing."""
    store.apply(database, others(), secrets, 0)
    alone = {name: value for name, value in facts(database).items() if name != "decisions"}
    store.apply(database, everything(secrets, ANN), secrets, 0)
    with writing(database) as connection:
        said = FeedbackBody(kind="comment", source="HUMAN", decision_id="d1", value={"text": "fine"})
        add_feedback(connection, "f1", said, 1_000, 0)
        named = FeedbackBody(kind="comment", source="HUMAN", value={"text": f"{ANN}, by phone"})
        add_feedback(connection, "f2", named, 1_000, 0)
        suppress(connection, [secrets.unit(ANN)], "emails", "complaint", 5)

    plan = forget(database, secrets, [ANN], 7, home=settings.home, dry_run=True)
    assert {"decisions", "events", "quarantine"} < names(database, [secrets.unit(ANN), "d1", ANN])
    done = forget(database, secrets, [ANN], 7, home=settings.home)
    again = forget(database, secrets, [ANN], 8, home=settings.home)

    assert done == plan == Forgotten(decisions=2, events=8, quarantined=3, feedback=2)
    assert again == Forgotten()
    assert names(database, [ANN, secrets.unit(ANN), '"d1"', '"d2"']) == KEPT
    assert {name: value for name, value in facts(database).items() if name in alone} == alone
    assert len(list_held(database)) == 1
    assert conservation(database) == 0
    assert pending_by_the_ledger(database) == pending_in_the_store(database)


def test_what_comes_late_is_ignored(database: Engine, secrets: Secrets, settings: Settings) -> None:
    """A replayed topic, a click on an old link and a decision that the API stores bring nothing back."""
    store.apply(database, everything(secrets, ANN), secrets, 0)
    forget(database, secrets, [ANN], 7, home=settings.home)
    late = Batch(
        events=(event("late", "click", 12, decision_id="d1"), event("late-2", "click", 12, decision_id="else"))
    )

    again = store.apply(database, everything(secrets, ANN), secrets, 9)
    clicked = store.apply(database, late, secrets, 9)
    stored_by_the_api(database, [decision("d9", 20, unit=secrets.unit(ANN)), decision("d8", 20, unit="u1:bob")])
    counted = store.apply(database, Batch(), secrets, 10)

    assert (again.applied, again.ignored) == (1, 9)  # the label, which is about nothing now
    assert (clicked.ignored, clicked.pending) == (1, 1)
    assert counted.decisions == 1
    assert [row[0] for row in rows(database, tables.decisions)] == ["d8"]
    assert names(database, [secrets.unit(ANN)]) == KEPT


def test_what_a_backup_brings_back_is_deleted_again(database: Engine, secrets: Secrets, settings: Settings) -> None:
    """Facts that are there although their customer was forgotten go with ``forget_again``; without any it does nothing."""
    forget(database, secrets, [ANN], 7, home=settings.home)
    marks = rows(database, tables.forgotten_units)
    with writing(database) as connection:
        connection.execute(delete(tables.forgotten_units))
    store.apply(database, everything(secrets, ANN), secrets, 0)
    with writing(database) as connection:
        insert_once(connection, tables.forgotten_units, [{"unit": unit, "forgotten_at": at} for unit, at in marks])

    assert forget_again(database, secrets, 9).decisions == 2
    assert forget_again(database, secrets, 9) == Forgotten()
    assert names(database, [secrets.unit(ANN)]) == KEPT


def test_a_record_named_by_its_place_alone_goes_too(database: Engine, secrets: Secrets, settings: Settings) -> None:
    """Its bytes cannot be read under another position, so they go with the name, and nobody stumbles over them later."""
    records = tuple(Rejected(raw=b"{", source="shop", position=position, reason="no JSON") for position in (ANN, "7"))
    store.apply(database, Batch(rejected=records), secrets, 0)
    done = forget(database, secrets, [ANN], 1, home=settings.home)
    forget(database, secrets, ["somebody"], 2, home=settings.home)
    with reading(database) as connection:
        left = [record.position for record in held_with_bytes(connection, secrets)]

    assert (done.quarantined, left) == (1, ["7"])
    assert conservation(database) == 0


def test_every_secret_that_is_kept_is_asked(database: Engine, settings: Settings) -> None:
    """What was stored under an older unit secret is found too."""
    before = Secrets(b"m" * 32, {1: b"a" * 32}, {1: b"t" * 32})
    rotated = Secrets(b"m" * 32, {1: b"a" * 32, 2: b"b" * 32}, {1: b"t" * 32})
    store.apply(database, Batch(decisions=(decision("d1", 0, unit=before.unit(ANN)),)), before, 0)

    assert forget(database, rotated, [ANN], 7, home=settings.home).decisions == 1


def test_a_forgotten_customer_is_sent_nothing(database: Engine, secrets: Secrets, settings: Settings) -> None:
    """The person is suppressed in every loop, and what the list said before is gone."""
    with writing(database) as connection:
        suppress(connection, [secrets.unit(ANN)], "emails", "complaint", 5)
    forget(database, secrets, [ANN], 7, home=settings.home)

    assert [row[:3] for row in rows(database, tables.suppressions)] == [(secrets.unit(ANN), EVERY_LOOP, "forgotten")]


def test_it_is_audited_without_a_name(database: Engine, secrets: Secrets, settings: Settings) -> None:
    """Who forgot somebody, when and how much is on record; whom is not."""
    store.apply(database, everything(secrets, ANN), secrets, 0)
    forget(database, secrets, [ANN], 7, home=settings.home, actor="desk")

    ((_, at, actor, action, subject, details),) = rows(database, tables.audit)
    assert (at, actor, action, subject) == (7, "desk", "forget", "customer")
    assert details == {"decisions": 2, "events": 8, "feedback": 0, "quarantined": 3}


@pytest.mark.parametrize("users", [[], [""], ["x" * 257], ["half \ud800"]])
def test_what_is_no_id_is_refused(database: Engine, secrets: Secrets, settings: Settings, users: list[str]) -> None:
    """An empty id would be found everywhere."""
    with pytest.raises(BadInput, match="ids of customers"):
        forget(database, secrets, users, 0, home=settings.home)


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (b'{"unit": "ann@example.com"}', True),
        (b"unit=ann%40example.com&x=1", True),
        (b"x,ann@example.com\r\n", True),
        (b'{"unit": "joann@example.com"}', False),
        (b'{"unit": "ann@example.community"}', False),
        (b'{"unit": "Jo\\u00e9"}', True),
        ('{"unit": "Joé"}'.encode(), True),
        (b"u1:abc", True),
        (b"nobody", False),
    ],
)
def test_an_id_is_found_as_others_write_it(secrets: Secrets, raw: bytes, named: bool) -> None:
    """As text, JSON and addresses write it; not as a part of another id."""
    assert Mentions(secrets, ["ann@example.com", "Joé"], ["u1:abc"], ()).named(raw) is named


def test_topics_expire() -> None:
    """What is on topics about customers is gone after 30 days."""
    found = topics()
    assert max(topic.retention_ms for topic in (found.decisions, found.events, found.quarantine)) <= 30 * DAY_MS


@pytest.mark.timeout(900)
def test_the_rest_is_what_the_join_makes_of_it() -> None:
    """Whoever is forgotten after whatever history: attributions, outcomes and sums of the others are those of the facts
    that are left, and the ledger counts what left pending."""
    engine = open_database("sqlite://")
    migrate(engine)
    check_histories(engine, 80)
    engine.dispose()


@pytest.mark.postgres
@pytest.mark.timeout(900)
def test_the_rest_is_what_the_join_makes_of_it_on_postgres(postgres: Engine) -> None:
    """The same on PostgreSQL."""
    check_histories(postgres, 4)


def check_histories(engine: Engine, examples: int) -> None:
    """Forget one of the customers of arbitrary histories."""
    with writing(engine) as connection:
        for definition in LOOPS.values():
            put_loop(connection, definition, 0)

    @arbitrary(examples)
    @given(st.binary(min_size=SIZE, max_size=SIZE))
    def check(data: bytes) -> None:
        read = Reader(data)
        history = facts_of(read)
        empty(engine)
        for delivery in deliveries(read, history):
            deliver(engine, replace(delivery, crash=None))
        store.apply(engine, Batch(), SECRETS, 0)
        with reading(engine) as connection:
            units = sorted({unit for unit in connection.scalars(select(tables.decisions.c.unit)) if unit})
        if not units:
            return
        with writing(engine) as connection:
            insert_once(
                connection, tables.forgotten_units, [{"unit": units[read.below(len(units))], "forgotten_at": 0}]
            )

        forget_again(engine, SECRETS, 1)
        left = attributed(engine), rows(engine, tables.outcomes)
        sums = [row for row in rows(engine, tables.content_stats) if any(row[5:])]
        with reading(engine) as connection:
            newest = connection.scalars(
                select(tables.batches.c.batch_no).order_by(tables.batches.c.batch_no.desc())
            ).first()

        assert newest is not None
        assert left == from_scratch(engine, newest, LOOPS)
        assert conservation(engine) == 0
        assert pending_by_the_ledger(engine) == pending_in_the_store(engine)
        for loop_id in LOOPS:
            backfill(engine, loop_id, 2)
        assert sums == [row for row in rows(engine, tables.content_stats) if any(row[5:])]

    check()
