"""Forged events: whatever a thief sends, the outcomes move by no more than the loop's limits say."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, Select

from infra import tables
from infra.database import open_database, reading, writing
from infra.dialect import prepared
from infra.migrations import migrate
from ingestion import store
from ingestion.events import Batch, Decision, Event
from ingestion.join.backfill import redefine
from ingestion.join.outcomes import judged, judging, parameters
from ingestion.loops import LoopDefinition, put_loop
from tests.ingestion.histories import BANNERS, EMAILS, SIZE, Reader, a_decision, a_time, an_event, limited
from tests.ingestion.records import SECRETS
from tests.ingestion.tables import empty, rows

MOST, PER, LARGEST = 2, 5_000_000, 3
"""Events of one customer per period, its length in microseconds, and the largest value of one."""
LIMIT = {"most": MOST, "per": "5s"}
DISTRUSTED: dict[str, LoopDefinition] = {
    "emails": limited(EMAILS, {}, {"shop": {}, "bank": {}, "*": {"trusted": False}}),
    "banners": limited(BANNERS, {}, {"thief": {"trusted": False}}),
}
CAPPED: dict[str, LoopDefinition] = {
    loop.loop: limited(loop, {metric.name: LIMIT for metric in loop.metrics}, {"*": {"largest": LARGEST}})
    for loop in (EMAILS, BANNERS)
}
EXAMPLES = settings(max_examples=30, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def engine_in_memory() -> Iterator[Engine]:
    """One SQLite database in memory for all examples."""
    engine = open_database("sqlite://")
    migrate(engine)
    yield engine
    engine.dispose()


def begin(
    engine: Engine, loops: dict[str, LoopDefinition], decisions: Sequence[Decision], events: Sequence[Any]
) -> None:
    """A store that holds this and nothing else."""
    with writing(engine) as connection:
        for definition in loops.values():
            put_loop(connection, definition, 0)
    empty(engine)
    store.apply(engine, Batch(decisions=tuple(decisions), events=tuple(events)), SECRETS, 0)


@prepared
def judged_now() -> Select[Any]:
    return judging(restricted=False, at_a_batch=False, guarded=True)


def by_the_thief(read: Reader, number: int) -> Event:
    """Any event: of any kind, value and time, about any decision, customer or order."""
    event = an_event(read, number)
    return msgspec.structs.replace(
        event, source="thief", event_id=f"forged-{number}", link=event.link and "decision_id"
    )


def outcomes(engine: Engine) -> list[tuple[Any, ...]]:
    """Outcomes but those of refunds: what a refund is credited to is for its purchase to say, not for trust."""
    return [row for row in rows(engine, tables.outcomes) if row[2] != "refunded"]


@EXAMPLES
@given(data=st.binary(min_size=SIZE, max_size=SIZE))
def test_a_distrusted_source_moves_nothing(engine_in_memory: Engine, data: bytes) -> None:
    """Any forged clicks, purchases and refunds of a distrusted source leave every outcome as it was."""
    read = Reader(data)
    decisions = [a_decision(read, number) for number in range(4)]
    honest = [an_event(read, number) for number in range(6)]
    forged = [by_the_thief(read, number) for number in range(8)]
    begin(engine_in_memory, DISTRUSTED, decisions, honest)
    before = outcomes(engine_in_memory)
    attack = tuple(event for event in forged if event.type != "activation")
    store.apply(engine_in_memory, Batch(events=attack), SECRETS, 0)
    assert outcomes(engine_in_memory) == before


@EXAMPLES
@given(data=st.binary(min_size=SIZE, max_size=SIZE))
def test_nobody_adds_more_than_the_limit_for_one_customer(engine_in_memory: Engine, data: bytes) -> None:
    """Whatever is sent, activations and other people's orders too, the events of one customer that count in one period
    are at most ``most``, and no outcome of a decision exceeds what they are worth."""
    read = Reader(data)
    decisions = [a_decision(read, number) for number in range(4)]
    events = [an_event(read, number) for number in range(4)] + [by_the_thief(read, number) for number in range(12)]
    begin(engine_in_memory, CAPPED, decisions, events)
    person = {decision.decision_id: decision.unit or decision.decision_id for decision in decisions}
    counting: dict[Any, int] = defaultdict(int)
    worth: dict[Any, int] = defaultdict(int)
    with reading(engine_in_memory) as connection:
        for row in judged_now(connection, **parameters(CAPPED.values())):
            if row.reason is None:
                counting[row.loop_id, row.metric, person[row.decision_id], row.occurred_at // PER] += 1
                worth[row.decision_id, row.metric] += LARGEST * 1_000_000
    assert max(counting.values(), default=0) <= MOST
    for decision_id, _, metric, _, value, count, *_ in rows(engine_in_memory, tables.outcomes):
        assert value <= worth[decision_id, metric], (metric, count)


def test_a_theft_is_undone_by_one_change(any_engine: Engine) -> None:
    """Events of a key that was stolen count until the loop distrusts their source; then history is as without them,
    and trusting it again brings them back."""
    loops = {"emails": EMAILS, "banners": BANNERS}
    read = Reader(bytes([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 4]))
    decision = msgspec.structs.replace(a_decision(read, 1), loop_id="emails", unit="u2:ann", deferred=False)
    click = Event(
        source="thief",
        event_id="f",
        type="click",
        occurred_at=decision.decided_at + 1_000_000,
        received_at=0,
        decision_id=decision.decision_id,
        link="decision_id",
    )
    begin(any_engine, loops, [decision], [])
    without = rows(any_engine, tables.content_stats)
    store.apply(any_engine, Batch(events=(click,)), SECRETS, 0)
    stolen = rows(any_engine, tables.content_stats), rows(any_engine, tables.outcomes)
    assert [row[2] for row in stolen[1]] == ["clicked"]
    redefine(any_engine, limited(EMAILS, {}, {"thief": {"trusted": False}}), 1)
    assert (rows(any_engine, tables.content_stats), rows(any_engine, tables.outcomes)) == (without, [])
    with reading(any_engine) as connection:
        definition = limited(EMAILS, {}, {"thief": {"trusted": False}})
        assert [row.reason for row in connection.execute(judged([definition]))] == ["untrusted"]
    redefine(any_engine, EMAILS, 2)
    assert (rows(any_engine, tables.content_stats), rows(any_engine, tables.outcomes)) == stolen


def test_signed_events_count_before_others(any_engine: Engine) -> None:
    """Where a customer's events are limited, forged ones without a token never push out one that carries it, however
    early they are dated."""
    definition = limited(EMAILS, {"clicked": {"most": 1, "per": "16s"}}, {})
    read = Reader(b"")
    first, second = (
        msgspec.structs.replace(
            a_decision(read, number), loop_id="emails", unit="u2:ann", deferred=False, decided_at=at
        )
        for number, at in ((1, 1_000_000_000), (2, 1_000_500_000))
    )
    honest = Event(
        source="shop",
        event_id="honest",
        type="click",
        occurred_at=second.decided_at + 2_000_000,
        received_at=0,
        decision_id=second.decision_id,
        link="token",
    )
    forged = msgspec.structs.replace(
        honest,
        source="thief",
        event_id="forged",
        link="decision_id",
        decision_id=first.decision_id,
        occurred_at=first.decided_at,
    )
    begin(any_engine, {"emails": definition}, [first, second], [honest])
    before = rows(any_engine, tables.outcomes)
    store.apply(any_engine, Batch(events=(forged,)), SECRETS, 0)
    assert rows(any_engine, tables.outcomes) == before
    with reading(any_engine) as connection:
        reasons = {row.event_id: row.reason for row in connection.execute(judged([definition]))}
    assert reasons == {"honest": None, "forged": "over_limit"}
    store.apply(
        any_engine,
        Batch(events=(msgspec.structs.replace(forged, event_id="later", occurred_at=a_time(read)),)),
        SECRETS,
        0,
    )
    assert rows(any_engine, tables.outcomes) == before
