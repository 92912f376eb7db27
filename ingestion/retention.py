"""What is kept for a time only: the further fields of events, and events.

    clear_fields(engine, before) -> how many events          fields of events that arrived before a time are emptied
    seal(engine, now, days) -> Sealed                        outcomes of decisions older than that are final from now on
    sweep(engine, now) -> how many events                    events that nothing open needs are deleted

An event's further fields (``events.raw``: the page of a click, the client that made it) explain and help to find machines;
the join never reads them. So they may go, and outcomes, sums and training sets stay what they are to the last digit.

Events go once the decisions they belong to are sealed (``join/seals.py``):

1. *The horizon* moves to the beginning of a day, at most ``days`` ago. It stops before the first decision that is not mature
   yet, which one that was activated late may be. It says what the outcomes were measured under.
2. *An event goes* if it happened before the horizon, less the room that tolerances and limits per period need, unless it belongs to
   an open decision, or another report, refund or purchase of its order does. Activations stay: a decision starts with its own.
3. Of orders a hash stays in ``sealed_facts``: a late refund or second report is known by it. ``event_keys`` stay for ever.
4. Pending events of that age leave pending, counted.

What is left is all that open decisions need: what the join makes of them is what it made before.

What else expires has its own place: bytes of quarantined records (``ingestion/quarantine.py``), audiences of sends
(``pipelines/audiences/folders.py``), topics (``ingestion/stream/topics.py``). Decisions, outcomes and ``event_keys`` stay.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Delete,
    Engine,
    FromClause,
    Select,
    Text,
    and_,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
    tuple_,
    update,
)

from infra.clock import DAY
from infra.database import insert_once, lock_join, reading, search_by_keys, writing
from infra.dialect import as_list, listed, prepared
from infra.errors import BadInput
from infra.tables import attributions, decisions, event_labels, events, sealed_facts, seals
from ingestion import audit
from ingestion.events import ACTIVATION
from ingestion.join.attribution import first_activation
from ingestion.join.seals import horizon_of, is_sealed
from ingestion.ledger import Counts, Standing, newest_batch, record_batch, standing
from ingestion.loops import LoopDefinition, load_loops

SOME = 20_000
"""Events that are read together; their fields are emptied 500 per transaction."""
AT_ONCE = 5_000
"""Events that are looked at, and deleted, in one transaction: whoever applies batches meanwhile waits for one of these."""


def clear_fields(engine: Engine, before: int) -> int:
    """Empty the further fields of events that arrived before ``before``, microseconds; returns how many had any.

    Interrupted and called again, it goes on. Numbers of events count up with their arrival, so what is old is at the front.
    """
    cleared, place = 0, 0
    while True:
        with reading(engine) as connection:
            query = select(events.c.event_no, events.c.received_at, events.c.raw).where(events.c.event_no > place)
            rows = connection.execute(query.order_by(events.c.event_no).limit(SOME)).all()
        due = [row.event_no for row in rows if row.received_at < before and row.raw]
        for start in range(0, len(due), 500):
            with writing(engine) as connection:
                connection.execute(update(events).where(events.c.event_no.in_(due[start : start + 500])).values(raw={}))
        cleared += len(due)
        if len(rows) < SOME or all(row.received_at >= before for row in rows):
            return cleared
        place = rows[-1].event_no


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """Where the horizon stands, microseconds; ``moved``: it does since this call. ``held_back``: a decision that is not mature
    yet stopped it."""

    horizon: int
    moved: bool = False
    held_back: bool = False


def seal(engine: Engine, now: int, days: int, actor: str = "flow") -> Sealed:
    """Make the outcomes of decisions that are more than ``days`` old final.

    Raises :class:`BadInput` where outcomes of that age may still change: ``days`` is less than a loop takes to mature.
    """
    with writing(engine) as connection:
        lock_join(connection)
        rules = [definition for definition, _ in load_loops(connection).values()]
        for rule in rules:
            if rule.maturity > days * DAY:
                raise BadInput(
                    f"Events are to be kept for {days} days, but outcomes of loop {rule.loop!r} take "
                    f"{-(-rule.maturity // DAY)} days to mature: set REWARDLOOP_EVENT_DAYS to that or more, or 0"
                )
        before, wanted = horizon_of(connection), (now - days * DAY) // DAY * DAY
        unripe = _unripe(connection, rules, before, wanted, now)
        horizon = wanted if unripe is None else min(wanted, unripe // DAY * DAY)
        if horizon <= before:
            return Sealed(horizon=before, held_back=unripe is not None)
        seal_before(connection, rules, horizon, now)
        audit.record(connection, actor, "seal", "events", {"days": days, "horizon": horizon}, now)
    return Sealed(horizon=horizon, moved=True, held_back=horizon < wanted)


def _unripe(connection: Connection, rules: Iterable[LoopDefinition], since: int, until: int, now: int) -> int | None:
    """When the first of these decisions was made that was activated so late that it is not mature."""
    maturity = max((rule.maturity for rule in rules), default=0)
    c = decisions.c
    query = select(func.min(c.decided_at)).where(
        c.decided_at >= since, c.decided_at < until, first_activation(decisions, None) > now - maturity
    )
    found = connection.scalar(query)
    return None if found is None else int(found)


def seal_before(connection: Connection, rules: Sequence[LoopDefinition], horizon: int, now: int) -> None:
    """Seal decisions made before ``horizon``, in a batch of its own, under the join lock."""
    batch_no = newest_batch(connection) + 1
    limits = [metric.per_unit_limit.per for rule in rules for metric in rule.metrics if metric.per_unit_limit]
    room = max((rule.tolerance for rule in rules), default=0) + max(limits, default=0)
    measured = {rule.loop: {metric.name: metric.version for metric in rule.metrics} for rule in rules}
    row = {
        "batch_no": batch_no,
        "horizon": horizon,
        "events_before": horizon - room,
        "metrics": measured,
        "sealed_at": now,
    }
    connection.execute(seals.insert().values(**row))
    record_batch(connection, batch_no, now, Counts())


def sweep(engine: Engine, now: int) -> int:
    """Delete the events that nothing open needs, some at a time; returns how many. Called again, it goes on."""
    swept, place = 0, 0
    while True:
        with writing(engine) as connection:
            lock_join(connection)
            held = standing(connection)
            if not held.events_before:
                return swept
            seen = _old(connection, held, place)
            due = _due(connection, [row.event_no for row in seen], held)
            _drop(connection, due)
            if pending := sum(not row.belongs for row in due):
                record_batch(connection, held.batch_no + 1, now, Counts(left_pending=pending))
        swept += len(due)
        if len(seen) < AT_ONCE:
            return swept
        place = seen[-1].event_no


def _old(connection: Connection, held: Standing, place: int) -> Sequence[Any]:
    """The next events that happened long enough ago, by their numbers."""
    c = events.c
    old = and_(c.event_no > place, c.occurred_at < held.events_before, c.type != ACTIVATION, c.batch_no.is_not(None))
    return connection.execute(select(c.event_no).where(old).order_by(c.event_no).limit(AT_ONCE)).all()


def _due(connection: Connection, numbers: Sequence[int], held: Standing) -> Sequence[Any]:
    """Those of these events that nothing open needs."""
    if not numbers:
        return []
    search_by_keys(connection)
    given = as_list((number,) for number in numbers)
    return _unneeded(connection, numbers=given, horizon=held.horizon, events_before=held.events_before).all()


@prepared
def _unneeded() -> Select[Any]:
    numbers = listed("numbers", event_no=BigInteger())
    belongs = exists().where(attributions.c.event_no == events.c.event_no).correlate(events)
    query = select(events.c.event_no, events.c.source, events.c.event_id, events.c.fact_key, belongs.label("belongs"))
    found = query.select_from(numbers.join(events, events.c.event_no == numbers.c.event_no))
    ties = [_tied(column, key) for key in (events.c.fact_key, events.c.reverses) for column in ("fact_key", "reverses")]
    return found.where(~_is_open(events), *(~tie for tie in ties))


def _tied(column: str, key: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether an event about the same order or refund is needed."""
    other = events.alias("other")
    young = other.c.occurred_at >= bindparam("events_before", type_=BigInteger)
    return exists().where(other.c[column] == key, or_(young, _is_open(other))).correlate(events)


def _is_open(event: FromClause) -> ColumnElement[bool]:
    """Whether the event belongs to a decision that is not sealed."""
    owned = attributions.join(decisions, decisions.c.decision_id == attributions.c.decision_id)
    found = select(attributions.c.event_no).select_from(owned).where(attributions.c.event_no == event.c.event_no)
    return found.where(~is_sealed(decisions)).correlate(event).exists()


def _drop(connection: Connection, due: Sequence[Any]) -> None:
    """Delete events with what is about them; of their orders a hash stays."""
    if not due:
        return
    keys = sorted({row.fact_key for row in due if row.fact_key is not None})
    insert_once(connection, sealed_facts, [{"fact_key": key} for key in keys])
    numbers = as_list((row.event_no,) for row in due)
    _drop_labels(connection, names=as_list((row.source, row.event_id) for row in due))
    _drop_attributions(connection, numbers=numbers)
    _drop_events(connection, numbers=numbers)


@prepared
def _drop_attributions() -> Delete:
    return delete(attributions).where(attributions.c.event_no.in_(_numbers()))


@prepared
def _drop_events() -> Delete:
    return delete(events).where(events.c.event_no.in_(_numbers()))


def _numbers() -> Select[Any]:
    numbers = listed("numbers", event_no=BigInteger())
    return select(numbers.c.event_no)


@prepared
def _drop_labels() -> Delete:
    names = listed("names", source=Text(), event_id=Text())
    labelled = tuple_(event_labels.c.source, event_labels.c.event_id)
    return delete(event_labels).where(labelled.in_(select(names)))


def oldest_kept(now: int, days: int) -> int:
    """Events that arrived before this time lose their further fields; with 0 days none ever does."""
    return now - days * DAY if days else 0
