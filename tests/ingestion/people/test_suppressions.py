"""Who must not be sent anything: by their own events, and by a list."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete

from infra import tables
from infra.database import lock_join, open_database, reading, writing
from infra.secrets import Secrets
from ingestion.events import Batch, Event
from ingestion.loops import parse_definition, put_loop
from ingestion.people.suppressions import (
    EVERY_LOOP,
    FORGOTTEN,
    Entry,
    changed_since,
    keep_forgotten,
    lift,
    newest_change,
    suppress,
    suppress_by_events,
)
from ingestion.store import apply
from tests.ingestion.join.test_join_histories import LOOP, decision, event
from tests.ingestion.test_store import stored_by_the_api

OWN = parse_definition(
    LOOP.model_dump(mode="json") | {"loop": "own", "suppression": {"events": ["stop"], "scope": "loop"}}
)
RULES = {loop.loop: loop for loop in (LOOP, OWN)}


def listed(engine: Engine) -> dict[tuple[str, str], str]:
    """Reason by customer and scope, of those who are suppressed."""
    with reading(engine) as connection:
        entries = [entry for some in changed_since(connection, 0) for entry in some]
    return {(one.unit, one.scope): one.reason for one in entries if one.holds}


@pytest.fixture
def database(any_engine: Engine) -> Engine:
    """An empty store with two loops."""
    with writing(any_engine) as connection:
        for loop in RULES.values():
            put_loop(connection, loop, 0)
    return any_engine


@pytest.mark.parametrize("kind", ["unsubscribe", "complaint", "spam_report"])
def test_who_unsubscribes_is_suppressed_everywhere(database: Engine, secrets: Secrets, kind: str) -> None:
    """An unsubscribe or a complaint suppresses its customer in every loop; a click does nothing."""
    batch = Batch(events=(event("e1", kind, 5), event("e2", "click", 6, unit="u1:bob")))
    apply(database, batch, secrets, 0)

    assert listed(database) == {("u1:ann", EVERY_LOOP): kind}


@pytest.mark.parametrize("first", ["decision", "event", "together", "by the API"])
def test_a_token_leads_to_the_customer(database: Engine, secrets: Secrets, first: str) -> None:
    """An unsubscribe that names a decision only suppresses that decision's customer, whichever comes first."""
    made, said = decision("d1", 0), event("e1", "unsubscribe", 5, decision_id="d1", unit=None)
    batches = {
        "decision": [Batch(decisions=(made,)), Batch(events=(said,))],
        "event": [Batch(events=(said,)), Batch(decisions=(made,))],
        "together": [Batch(decisions=(made,), events=(said,))],
        "by the API": [Batch(events=(said,)), Batch()],
    }[first]
    for batch in batches:
        apply(database, batch, secrets, 0)
        if first == "by the API":
            stored_by_the_api(database, [made])

    apply(database, Batch(), secrets, 0)
    assert listed(database) == {("u1:ann", EVERY_LOOP): "unsubscribe"}


def test_a_loop_may_keep_it_to_itself(database: Engine, secrets: Secrets) -> None:
    """With the scope of a loop, its own types of events suppress in that loop only."""
    made = decision("d1", 0, loop_id="own")
    named = {"decision_id": "d1", "unit": None}
    apply(database, Batch(decisions=(made,), events=(event("e1", "unsubscribe", 5, **named),)), secrets, 0)
    assert listed(database) == {}

    apply(database, Batch(events=(event("e2", "stop", 6, **named),)), secrets, 0)
    assert listed(database) == {("u1:ann", "own"): "stop"}


def test_who_was_lifted_is_not_put_back_by_an_older_event(database: Engine, secrets: Secrets) -> None:
    """An event from before the customer was lifted changes nothing, in any scope; a later one does."""
    with writing(database) as connection:
        both = suppress(connection, ["u1:ann", "u1:ann", "u1:bob"], EVERY_LOOP, "on paper", 10_000_000)
        assert both == {"u1:ann", "u1:bob"}
        assert suppress(connection, ["u1:ann"], "own", "on paper", 10_000_000) == {"u1:ann"}
        assert lift(connection, ["u1:ann", "u1:eve"], None, 20_000_000) == {"u1:ann"}
    old = (event("e1", "unsubscribe", 15), event("e2", "stop", 15), event("e3", "unsubscribe", 15, unit="u1:eve"))
    apply(database, Batch(events=old), secrets, 0)
    assert listed(database) == {("u1:bob", EVERY_LOOP): "on paper"}

    apply(database, Batch(events=(event("e4", "complaint", 25),)), secrets, 0)
    assert listed(database)["u1:ann", EVERY_LOOP] == "complaint"


def test_a_list_is_put_and_taken_back(database: Engine) -> None:
    """Who is listed twice is on the list once, also while the clock stands still; lifting one scope leaves the other."""
    with writing(database) as connection:
        for change in (suppress, suppress):
            change(connection, ["u1:ann"], EVERY_LOOP, "on paper", 5)
        assert suppress(connection, ["u1:ann"], "own", "on paper", 5) == {"u1:ann"}
        assert lift(connection, ["u1:ann"], "own", 5) == {"u1:ann"}
        assert lift(connection, ["u1:ann"], "own", 5) == set()
    assert listed(database) == {("u1:ann", EVERY_LOOP): "on paper"}

    with writing(database) as connection:
        assert lift(connection, ["u1:ann"], None, 5) == {"u1:ann"}
        assert suppress(connection, ["u1:ann"], EVERY_LOOP, "again", 5) == {"u1:ann"}
    assert listed(database) == {("u1:ann", EVERY_LOOP): "again"}


def test_who_asked_to_be_deleted_is_never_lifted(database: Engine) -> None:
    """Neither everywhere nor in one loop: they stay on the list, and nobody is told that they left it."""
    with writing(database) as connection:
        lock_join(connection)
        keep_forgotten(connection, ["u1:ann"], 5)
    with writing(database) as connection:
        assert lift(connection, ["u1:ann"], None, 6) == set()
        assert lift(connection, ["u1:ann"], EVERY_LOOP, 6) == set()
        lift(connection, ["u1:ann"], "own", 6)
    assert listed(database) == {("u1:ann", EVERY_LOOP): FORGOTTEN}


def test_changes_are_numbered(database: Engine) -> None:
    """A reader that asks for what changed since a number gets that, and nothing is written that changes nothing."""
    with writing(database) as connection:
        suppress(connection, ["u1:ann"], EVERY_LOOP, "on paper", 5)
        seen = newest_change(connection)
        suppress(connection, ["u1:bob"], EVERY_LOOP, "on paper", 6)
        changed = [entry.unit for some in changed_since(connection, seen) for entry in some]
        newest = newest_change(connection)
        suppress(connection, ["u1:bob"], EVERY_LOOP, "once more", 7)

        assert (changed, newest_change(connection)) == (["u1:bob"], newest)


SAID = st.lists(
    st.builds(
        event,
        st.sampled_from([f"e{number}" for number in range(9)]),
        st.sampled_from(["unsubscribe", "complaint", "stop", "click"]),
        st.integers(1, 6),
        unit=st.sampled_from(["u1:ann", "u1:bob"]),
    ),
    max_size=6,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, migrated_file: Path) -> Engine:
    """A store for many small histories."""
    path = tmp_path_factory.mktemp("suppressions") / "rewardloop.db"
    path.write_bytes(migrated_file.read_bytes())
    return open_database(f"sqlite:///{path}")


@settings(max_examples=20, deadline=None)
@given(said=SAID, cuts=st.tuples(st.integers(0, 6), st.integers(0, 8)), lifted_at=st.integers(1, 6), data=st.data())
def test_any_order_leaves_the_same_list(
    shared: Engine, said: Sequence[Event], cuts: tuple[int, int], lifted_at: int, data: st.DataObject
) -> None:
    """However events are ordered, repeated and cut into batches after a customer was lifted, the same are suppressed."""
    again = data.draw(st.permutations([*said, *said[:2]]))

    assert outcome(shared, said, cuts[0], lifted_at) == outcome(shared, again, cuts[1], lifted_at)


def outcome(engine: Engine, said: Sequence[Event], cut: int, lifted_at: int) -> set[Entry]:
    """The list after these events, in two batches."""
    with writing(engine) as connection:
        connection.execute(delete(tables.suppressions))
        lift(connection, ["u1:ann"], None, lifted_at * 1_000_000)
        for some in (said[:cut], said[cut:]):
            suppress_by_events(connection, RULES, some, (), False)
        return {entry for some in changed_since(connection, 0) for entry in some}
