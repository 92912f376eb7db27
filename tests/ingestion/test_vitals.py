"""The gauges about the ledger, against what is in the tables."""

from collections import Counter

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import Engine, exists, func, select, update
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.exc import OperationalError

from infra.database import reading, writing
from infra.secrets import Secrets
from infra.tables import attributions, batches, events, quarantine
from ingestion import vitals
from ingestion.events import Batch, Decision, Event, Rejected
from ingestion.ledger import STATES
from ingestion.loops import put_loop
from ingestion.quarantine import drop, list_held
from ingestion.store import apply
from ingestion.vitals import Vitals
from tests.ingestion.join.test_join_histories import LOOP, SECOND, decision, event, purchase

NOW = 1_000


@pytest.fixture
def database(any_engine: Engine) -> Engine:
    """An empty store with one loop."""
    with writing(any_engine) as connection:
        put_loop(connection, LOOP, 0)
    return any_engine


@pytest.fixture
def look(database: Engine) -> Vitals:
    """Whoever looks; it is 1,000 seconds past the origin of time."""
    return Vitals(database, lambda: NOW * SECOND)


def take(engine: Engine, secrets: Secrets, *facts: Decision | Event | Rejected) -> None:
    """Apply facts in one batch."""
    batch = Batch(
        decisions=tuple(fact for fact in facts if isinstance(fact, Decision)),
        events=tuple(fact for fact in facts if isinstance(fact, Event)),
        rejected=tuple(fact for fact in facts if isinstance(fact, Rejected)),
    )
    apply(engine, batch, secrets, NOW * SECOND)


def came(seconds: int, id_: str, decision_id: str) -> Event:
    """A click on this decision that came then."""
    return event(id_, "click", 5, decision_id=decision_id, received_at=seconds * SECOND)


def gauge(name: str, **labels: str) -> float | None:
    """What `/metrics` would say."""
    return REGISTRY.get_sample_value(f"rewardloop_{name}", labels)


def spoilt(position: str) -> Rejected:
    """A record nobody can use."""
    return Rejected(source="http", position=position, reason="No type: name one.", raw=b"{}")


def test_pending_and_quarantine_are_what_the_tables_hold(database: Engine, secrets: Secrets, look: Vitals) -> None:
    """After every batch, and after decisions and people took records out again, the gauges equal a count of the rows."""
    steps: list[tuple[Decision | Event | Rejected, ...]] = [
        (event("e1", "click", 5), came(0, "e2", "d2"), purchase("p", 7, 30), spoilt("1"), spoilt("2")),
        (decision("d1", 0),),
        (decision("d2", 0), spoilt("2"), event("stranger", "click", 5, unit="u1:bob")),
    ]
    for facts in steps:
        take(database, secrets, *facts)
        look.look()
        assert (gauge("pending_records"), gauge("quarantine_held_records")) == counted(database)
    drop(database, [min(record.id for record in list_held(database))], 0)
    look.look()

    assert (gauge("pending_records"), gauge("quarantine_held_records")) == counted(database) == (1, 1)


def counted(engine: Engine) -> tuple[int, int]:
    """Events without an attribution, and records that are held, by asking the tables themselves."""
    same = attributions.c.event_no == events.c.event_no
    with reading(engine) as connection:
        pending = connection.scalar(select(func.count()).select_from(events).where(~exists().where(same)))
        held = connection.scalar(select(func.count()).where(quarantine.c.state == "held"))
    return pending or 0, held or 0


def test_one_who_comes_later_sees_the_same(database: Engine, secrets: Secrets, look: Vitals) -> None:
    """A process that starts now shows what one shows that has watched every batch."""
    for facts in ((came(400, "e1", "unknown"),), (decision("d", 0),), (event("e2", "click", 5), spoilt("1"))):
        take(database, secrets, *facts)
        look.look()
    watched = shown()
    Vitals(database, lambda: NOW * SECOND).look()

    assert shown() == watched
    assert watched["pending_records"] == 1


def shown() -> dict[str, float | None]:
    """The gauges without labels."""
    names = ("conservation_error", "pending_records", "pending_oldest_seconds", "quarantine_held_records")
    return {name: gauge(name) for name in names}


def test_the_oldest_is_the_one_that_names_an_unknown_decision(
    database: Engine, secrets: Secrets, look: Vitals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its wait is found however far back it is, a stride at a time, and ends when its decision comes.

    A customer's event without a decision is no lost one: most customers were never written to.
    """
    monkeypatch.setattr(vitals, "STRIDE", 2)
    waits = []
    for number in range(5):
        take(database, secrets, event(f"stranger-{number}", "click", 5, unit="u1:bob"))
    take(database, secrets, came(400, "e1", "late"))
    take(database, secrets, came(300, "e2", "never"))
    for _ in range(3):
        look.look()
        waits.append(gauge("pending_oldest_seconds"))
    take(database, secrets, decision("late", 0))
    for _ in range(2):
        look.look()
        waits.append(gauge("pending_oldest_seconds"))
    take(database, secrets, decision("never", 0))
    look.look()

    assert waits == [0, 0, 600, 700, 700]
    assert gauge("pending_oldest_seconds") == 0


def test_methods_are_those_of_the_attributions(database: Engine, secrets: Secrets) -> None:
    """Each new event is counted by how it found its decision, as the join says; what waits is `none`, and stays so."""
    before = methods()
    take(
        database,
        secrets,
        decision("d", 0),
        came(0, "named", "d"),
        event("token", "click", 5, decision_id="d", link="token"),
        purchase("last", 6, 30),
        event("back", "refund", 7, reverses="last", decision_id="d", value_micros=1, currency="EUR"),
        came(0, "lonely", "late"),
    )
    with reading(database) as connection:
        stored = Counter(connection.scalars(select(attributions.c.method)))
    take(database, secrets, decision("late", 0), came(0, "named", "d"))

    assert Counter(methods()) - Counter(before) == stored + Counter(none=1)
    assert set(stored) == {"decision_id", "token", "last_touch", "reversal"}


def methods() -> dict[str, float]:
    """Events counted so far."""
    found = {metric.name: metric for metric in REGISTRY.collect()}["rewardloop_joined_events"].samples
    return {one.labels["method"]: one.value for one in found if one.name.endswith("_total")}


def test_a_ledger_that_does_not_add_up_is_seen(database: Engine, secrets: Secrets, look: Vitals) -> None:
    """A record that is in no state shows as an error, in whichever batch it went missing."""
    take(database, secrets, decision("d", 0))
    with writing(database) as connection:
        connection.execute(update(batches).values(read=batches.c.read + 2))
    look.look()

    assert gauge("conservation_error") == 2


def test_a_database_that_is_away_is_a_gauge(database: Engine, secrets: Secrets, look: Vitals) -> None:
    """Away shows as 0 and back as 1; what the ledger held is shown meanwhile as it was seen last."""
    take(database, secrets, came(0, "e", "unknown"))
    look.look()

    def fail(_connection: object) -> None:
        raise OperationalError("BEGIN", None, Exception("connection refused"))

    sqlalchemy_event.listen(database, "begin", fail, insert=True)
    look.look()
    away = gauge("database_up"), gauge("pending_records")
    sqlalchemy_event.remove(database, "begin", fail)
    look.look()

    assert away == (0, 1)
    assert gauge("database_up") == 1


def test_counters_move_with_the_batch(database: Engine, secrets: Secrets) -> None:
    """What was read is what ended in a state; a conflict is told from what was rejected; decisions are counted."""
    names: list[tuple[str, dict[str, str]]] = [
        ("read_records_total", {}),
        *(("records_total", {"state": str(state)}) for state in STATES),
        ("quarantined_total", {"reason": "conflict"}),
        ("quarantined_total", {"reason": "rejected"}),
        ("counted_decisions_total", {}),
    ]
    take(database, secrets, decision("d", 0), came(0, "e", "d"))
    before = [gauge(name, **labels) or 0 for name, labels in names]
    take(database, secrets, decision("d2", 0), came(0, "e", "d"), came(0, "e", "d2"), came(0, "l", "x"), spoilt("1"))
    moved = [(gauge(name, **labels) or 0) - was for (name, labels), was in zip(names, before, strict=True)]

    read, applied, duplicate, ignored, pending, held, conflicts, rejected, counted_ = moved
    assert (applied, duplicate, ignored, pending, held) == (1, 1, 0, 1, 2)
    assert read == 5
    assert (conflicts, rejected, counted_) == (1, 1, 1)


def test_no_table_of_facts_is_read_whole(engine: Engine) -> None:
    """A look finds its few rows by an index, however many events there are."""
    query = vitals._waiting_in([1, 2]).compile(engine, compile_kwargs={"literal_binds": True})
    with reading(engine) as connection:
        steps = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")]

    assert "SEARCH events USING INDEX ix_events_watched (batch_no=?)" in steps
    assert not [step for step in steps if step.startswith("SCAN")]
