"""Invariant 2: the join is a pure function of the accepted facts.

Each example is a history in an arbitrary order, with repetitions, cut into batches, with crashes at any step of
``apply``. What is left in the tables must be, row for row, what the oracle computes from the facts alone, and what
the join query computes from scratch: so any two ways through the same history lead to the same rows.

``REWARDLOOP_PROPERTY_EXAMPLES`` sets how many examples run on SQLite; PostgreSQL runs a tenth of them.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Engine, Select, bindparam, select

from infra import tables
from infra.database import insert_once, open_database, reading, writing
from infra.dialect import Run, prepared
from infra.migrations import migrate
from infra.secrets import Secrets
from ingestion import store
from ingestion.events import Batch, Decision, Event, Label
from ingestion.exchange import Rate
from ingestion.join.attribution import all_attributions
from ingestion.join.outcomes import is_converting, is_guarded, joining, parameters
from ingestion.join.restating import import_rates
from ingestion.ledger import conservation
from ingestion.loops import LoopDefinition, put_loop
from tests.ingestion.histories import GUARDED, LOOPS, SIZE, TRADING, ByApi, Fact, Reader, crowded, facts_of, traded
from tests.ingestion.oracle import Truth, World
from tests.ingestion.tables import attributed, empty, named, rows

EXAMPLES = int(os.environ.get("REWARDLOOP_PROPERTY_EXAMPLES", "2000"))
SECRETS = Secrets(b"m" * 32, {1: b"u" * 32}, {1: b"t" * 32})
STEPS = ("insert_facts", "lock_join", "stamp", "rejoin", "keep_ledger")
"""The numbered steps of ``apply``; a crash comes just after one of them, or just before the commit."""


class Crash(Exception):
    """The process dies here."""


@dataclass(frozen=True)
class Delivery:
    """A batch, and the step after which its first try dies, if any."""

    facts: tuple[Fact, ...]
    crash: str | None


@pytest.fixture(scope="module")
def sqlite_in_memory() -> Iterator[Engine]:
    """One SQLite database in memory for all examples."""
    engine = open_database("sqlite://")
    migrate(engine)
    yield engine
    engine.dispose()


def arbitrary(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_any_way_through_a_history_gives_the_same_rows(sqlite_in_memory: Engine) -> None:
    """Order, repetition, batches and crashes leave no trace in attributions, outcomes and content statistics."""
    check_examples(sqlite_in_memory, EXAMPLES, LOOPS)


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.timeout(3600)
def test_any_way_through_a_history_gives_the_same_rows_on_postgres(postgres: Engine) -> None:
    """The same on PostgreSQL."""
    check_examples(postgres, max(EXAMPLES // 10, 1), LOOPS)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_limits_of_sources_and_customers_are_facts_alone_too(sqlite_in_memory: Engine) -> None:
    """What a source is not believed in, and what is more than a customer may do, is the same on any way."""
    check_examples(sqlite_in_memory, max(EXAMPLES // 80, 1), GUARDED, crowded)


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.timeout(3600)
def test_limits_of_sources_and_customers_are_facts_alone_too_on_postgres(postgres: Engine) -> None:
    """The same on PostgreSQL."""
    check_examples(postgres, max(EXAMPLES // 400, 1), GUARDED, crowded)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_rates_are_facts_too(sqlite_in_memory: Engine) -> None:
    """Whenever rates come and are corrected, outcomes are those of all facts under the last words about each time."""
    check_examples(sqlite_in_memory, max(EXAMPLES // 20, 1), TRADING, traded)


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.timeout(3600)
def test_rates_are_facts_too_on_postgres(postgres: Engine) -> None:
    """The same on PostgreSQL."""
    check_examples(postgres, max(EXAMPLES // 200, 1), TRADING, traded)


def check_examples(
    engine: Engine,
    examples: int,
    loops: dict[str, LoopDefinition],
    history: Callable[[Reader], list[Fact]] = facts_of,
) -> None:
    with writing(engine) as connection:
        for definition in loops.values():
            put_loop(connection, definition, 0)

    @arbitrary(examples)
    @given(st.binary(min_size=SIZE, max_size=SIZE))
    def check(data: bytes) -> None:
        read = Reader(data)
        facts = history(read)
        empty(engine)
        delivered = deliveries(read, facts)
        half = len(delivered) // 2 if is_converting(loops.values()) else 0
        for delivery in delivered[:half]:
            deliver(engine, delivery)
        then = store.apply(engine, Batch(), SECRETS, 0).batch_no, rows(engine, tables.outcomes)
        for delivery in delivered[half:]:
            deliver(engine, delivery)
        last = store.apply(engine, Batch(), SECRETS, 0)

        told = [fact for delivery in delivered for fact in delivery.facts if isinstance(fact, Rate)]
        truth = world_of(facts, loops, told).truth()
        assert truth == stored(engine)
        assert (truth.attributions, truth.outcomes) == from_scratch(engine, last.batch_no, loops)
        if half:
            assert then[1] == from_scratch(engine, then[0], loops)[1]
        if is_guarded(loops.values()):
            assert truth.outcomes == one_by_one(engine, loops)
        assert conservation(engine) == 0
        assert pending_by_the_ledger(engine) == pending_in_the_store(engine)

    check()


def deliveries(read: Reader, facts: Sequence[Fact]) -> list[Delivery]:
    """The facts in any order, some repeated, cut anywhere, each batch perhaps dying once."""
    repeated = [fact for fact in facts if read.below(4) == 0]
    order = sorted([*facts, *repeated], key=lambda _: read.below(256))
    batches: list[list[Fact]] = [[]]
    for fact in order:
        if read.below(4) == 0:
            batches.append([])
        batches[-1].append(fact)
    return [Delivery(tuple(batch), STEPS[read.below(5)] if read.below(3) == 0 else None) for batch in batches]


def deliver(engine: Engine, delivery: Delivery) -> None:
    """Store what the API stored, then apply the rest: at least once."""
    with writing(engine) as connection:
        for fact in delivery.facts:
            if isinstance(fact, ByApi):
                insert_once(connection, tables.decisions, [msgspec.structs.asdict(fact.decision)])
    batch = Batch(
        decisions=tuple(fact for fact in delivery.facts if isinstance(fact, Decision)),
        events=tuple(fact for fact in delivery.facts if isinstance(fact, Event)),
        labels=tuple(fact for fact in delivery.facts if isinstance(fact, Label)),
    )
    if delivery.crash is not None and batch != Batch():
        with pytest.raises(Crash):
            apply_and_die(engine, batch, delivery.crash)
    store.apply(engine, batch, SECRETS, 0)
    for fact in delivery.facts:
        if isinstance(fact, Rate):
            import_rates(engine, [fact], "bank", "test", 0)


def apply_and_die(engine: Engine, batch: Batch, step: str) -> None:
    """Apply a batch up to the end of ``step``."""
    whole = getattr(store, step)

    def die(*arguments: object) -> None:
        whole(*arguments)
        raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, step, die)
        store.apply(engine, batch, SECRETS, 0)


def world_of(facts: Sequence[Fact], loops: dict[str, LoopDefinition], rates: Sequence[Rate]) -> World:
    """The facts as the oracle takes them; ``rates`` as they were said, one after the other."""
    world = World(loops, rates=list(rates))
    for fact in facts:
        if isinstance(fact, ByApi | Decision):
            decision = fact.decision if isinstance(fact, ByApi) else fact
            world.decisions[decision.decision_id] = decision
        elif isinstance(fact, Event):
            world.events[fact.source, fact.event_id] = fact
        elif isinstance(fact, Label):
            world.labels.append(fact)
    return world


def stored(engine: Engine) -> Truth:
    """What the store says."""
    return Truth(attributed(engine), rows(engine, tables.outcomes), rows(engine, tables.content_stats))


def from_scratch(engine: Engine, as_of: int, loops: dict[str, LoopDefinition]) -> tuple[list[Any], list[Any]]:
    """What the join query says of all facts up to a batch, reading nothing that was computed before."""
    values = parameters(loops.values(), as_of=as_of)
    join = joined_anew(is_guarded(loops.values()), is_converting(loops.values()))
    with reading(engine) as connection:
        attributed = attributed_anew(connection, as_of=as_of, reach=values["reach"]).all()
        joined = join(connection, **values).all()
    return sorted(tuple(row) for row in attributed), sorted(tuple(row) for row in joined)


def one_by_one(engine: Engine, loops: dict[str, LoopDefinition]) -> list[Any]:
    """What the join query says when it is asked for each decision alone."""
    found: list[Any] = []
    with reading(engine) as connection:
        for decision_id in connection.scalars(select(tables.decisions.c.decision_id)).all():
            values = parameters(loops.values(), [decision_id])
            found += (tuple(row) for row in joined_alone(is_converting(loops.values()))(connection, **values))
    return sorted(found)


@prepared
def attributed_anew() -> Select[Any]:
    return named(all_attributions(bindparam("as_of", type_=BigInteger)))


@cache
def joined_anew(guarded: bool, converting: bool) -> Run:
    return prepared(lambda: joining(restricted=False, at_a_batch=True, guarded=guarded, converting=converting))


@cache
def joined_alone(converting: bool) -> Run:
    return prepared(lambda: joining(restricted=True, at_a_batch=False, guarded=True, converting=converting))


def pending_by_the_ledger(engine: Engine) -> int:
    """Events pending now, by the counts of the batches."""
    with reading(engine) as connection:
        line = connection.execute(select(tables.batches)).all()
    return sum(batch.pending + batch.became_pending - batch.left_pending for batch in line)


def pending_in_the_store(engine: Engine) -> int:
    """Events pending now, by the tables."""
    found = {row[:2] for row in attributed(engine)}
    with reading(engine) as connection:
        events = connection.execute(select(tables.events.c.source, tables.events.c.event_id)).all()
    return len({tuple(event) for event in events} - found)
