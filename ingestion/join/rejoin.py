"""The incremental join: which events and decisions a batch touches, and their attributions, outcomes and sums anew.

Called under the join lock, after the batch's facts are stamped:

1. *touched events*: the new ones; those that name a decision that is new or newly activated; the events of such a
   decision's unit it might win or lose; those newly labelled; then every event tied to these by a fact key, as
   another report, a refund or the refunded purchase (twice: a refund can itself be reported twice).
2. their attributions are computed anew; those the older ones had before are remembered, the new ones had none.
3. *touched decisions*: all that touched events of a type with a metric belong to now or belonged to before. Events of
   other types cannot change an outcome. Where a metric limits customers, with all decisions of their customers.
4. their outcomes are computed anew by the one query of ``ingestion/join/outcomes.py``, and the differences written.
5. ``content_stats`` moves by what the decisions add now, less what they added before: decisions that are new or newly
   activated, and those whose outcomes differ.

Sealed decisions (``seals.py``) keep what is attributed to them, and their outcomes are not computed. What else happens to be
attributed to one waits for its own retention.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Connection,
    CursorResult,
    Delete,
    Select,
    Text,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    or_,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.sql.dml import ReturningDelete, ReturningInsert

from infra.database import Hash, cut, upsert
from infra.dialect import Run, as_list, listed, prepared
from infra.tables import attributions, decisions, event_keys, events, outcomes
from ingestion.events import ACTIVATION, REFUND, Event, Label, hash_id
from ingestion.join import statistics
from ingestion.join.attribution import (
    COLUMNS,
    attributions_at_hand,
    is_activation,
    names_no_decision,
    reach_of,
    reversals,
    start_of,
    unattributed,
)
from ingestion.join.outcomes import is_converting, is_guarded, joining, parameters, same_customers
from ingestion.join.seals import is_sealed, open_decisions
from ingestion.loops import LoopDefinition

Rules = Mapping[str, LoopDefinition]
"""Definitions in force, by loop."""


@dataclass(frozen=True)
class Facts:
    """What a batch brought, as stored and stamped; ``numbers`` are those of the events."""

    batch_no: int
    events: Sequence[Event]
    numbers: Sequence[int]
    labels: Sequence[Label]
    decisions: Sequence[str]
    horizon: int = 0
    """Decisions made before it are sealed."""


@dataclass(frozen=True)
class Rejoined:
    """Numbers of the new events without a decision, and how many earlier ones found or lost theirs."""

    pending: frozenset[int]
    left_pending: int
    became_pending: int


class _AtHand(NamedTuple):
    """What attribution reads of an event, by the names of its columns."""

    event_no: int
    type: str
    decision_id: str | None
    link: str | None
    unit: str | None
    unit_before: str | None
    fact_key: str | None
    reverses: str | None
    occurred_at: int

    @property
    def is_reversal(self) -> bool:
        """A refund that names what it takes back."""
        return self.type == REFUND and self.reverses is not None


_Touched = dict[int, _AtHand]
"""Events by their numbers."""

_COLUMNS = tuple(events.c[name] for name in _AtHand._fields)


def rejoin(connection: Connection, rules: Rules, facts: Facts) -> Rejoined:
    """Bring attributions, outcomes and content statistics up to date with a batch's facts."""
    activated = {event.decision_id for event in facts.events if event.type == ACTIVATION and event.decision_id}
    moved = activated.union(facts.decisions)
    new = set(facts.numbers)
    touched = _touched_events(connection, rules, facts, moved)
    old = touched.keys() - new
    before = _belonging(_taken(connection, old, facts.horizon), touched, rules)
    final = _still_attributed(connection, old) if facts.horizon else set()
    after = _belonging(_attribute(connection, rules, touched, facts.horizon), touched, rules)
    concerned = with_those_of_their_customers(connection, rules, before.decisions | after.decisions)
    refresh(connection, rules, facts.batch_no, moved, concerned, facts.horizon)
    return Rejoined(
        frozenset(new - after.events),
        len((old & after.events) - before.events - final),
        len((old & before.events) - after.events - final),
    )


def _touched_events(connection: Connection, rules: Rules, facts: Facts, moved: set[str]) -> _Touched:
    found = {number: _at_hand(number, event) for number, event in zip(facts.numbers, facts.events, strict=True)}
    if moved:
        reach = max((rule.reach for rule in rules.values()), default=0)
        tolerance = max((rule.tolerance for rule in rules.values()), default=0)
        named = as_list((decision_id,) for decision_id in sorted(moved))
        found |= _keyed(_events_of(connection, moved=named, reach=reach, tolerance=tolerance))
    if facts.labels:
        labelled = as_list((label.source, cut(hash_id(label.event_id))) for label in facts.labels)
        found |= _keyed(_labelled(connection, labelled=labelled))
    known: set[str] = set()
    for _ in range(2):
        keys = {key for event in found.values() for key in (event.fact_key, event.reverses) if key} - known
        if keys:
            found |= _keyed(_tied_by(connection, keys=as_list((key,) for key in sorted(keys))))
        known |= keys
    return found


def _keyed(rows: CursorResult[Any]) -> _Touched:
    return {row[0]: _AtHand._make(row) for row in rows.all()}


def _at_hand(number: int, event: Event) -> _AtHand:
    return _AtHand(
        number,
        event.type,
        event.decision_id,
        event.link,
        event.unit,
        event.unit_before,
        event.fact_key,
        event.reverses,
        event.occurred_at,
    )


@prepared
def _events_of() -> CompoundSelect[Any]:
    """Events that name a moved decision, and those of its unit near enough to belong to it at any of its starts."""
    moved = listed("moved", decision_id=Text())
    unit_events = [
        select(*_COLUMNS)
        .select_from(moved)
        .join(decisions, decisions.c.decision_id == moved.c.decision_id)
        .join(events, and_(unit == decisions.c.unit, _near()))
        .where(names_no_decision(events))
        for unit in (events.c.unit, events.c.unit_before)
    ]
    naming = select(*_COLUMNS).select_from(moved).join(events, events.c.decision_id == moved.c.decision_id)
    return union_all(naming, *unit_events)


def _near() -> ColumnElement[bool]:
    first, last = _activated(func.min), _activated(func.max)
    earliest = case((first < decisions.c.decided_at, first), else_=decisions.c.decided_at)
    latest = case((last > decisions.c.decided_at, last), else_=decisions.c.decided_at)
    return and_(
        events.c.occurred_at >= earliest - bindparam("tolerance", type_=BigInteger),
        events.c.occurred_at < latest + bindparam("reach", type_=BigInteger),
    )


def _activated(extreme: Any) -> ColumnElement[int]:
    activation = events.alias("activating")
    found = select(extreme(activation.c.occurred_at)).where(
        activation.c.decision_id == decisions.c.decision_id, is_activation(activation)
    )
    return found.correlate(decisions).scalar_subquery()


@prepared
def _labelled() -> Select[Any]:
    labelled = listed("labelled", source=Text(), id_hash=Hash())
    key = and_(event_keys.c.source == labelled.c.source, event_keys.c.id_hash == labelled.c.id_hash)
    found = labelled.join(event_keys, key).join(events, events.c.event_no == event_keys.c.event_no)
    return select(*_COLUMNS).select_from(found)


@prepared
def _tied_by() -> CompoundSelect[Any]:
    keys = listed("keys", key=Text())
    ties = [
        select(*_COLUMNS).select_from(keys).join(events, column == keys.c.key)
        for column in (events.c.fact_key, events.c.reverses)
    ]
    return union_all(*ties)


class _Belonging(NamedTuple):
    """Events that belong to a decision, and the decisions whose outcomes these can change."""

    events: set[int]
    decisions: set[str]


def _belonging(rows: Iterable[Any], touched: _Touched, rules: Rules) -> _Belonging:
    """What attributions say. Only events of a type with a metric, and activations, can change an outcome."""
    types = {metric.event for rule in rules.values() for metric in rule.metrics} | {ACTIVATION}
    found = _Belonging(set(), set())
    for number, decision_id in rows:
        found.events.add(number)
        if touched[number].type in types:
            found.decisions.add(decision_id)
    return found


def with_those_of_their_customers(connection: Connection, rules: Rules, ids: set[str]) -> set[str]:
    """These decisions; and, in loops that limit customers, all of the same customers: what counts in one of them depends
    on the others."""
    limited = [(rule.loop,) for rule in rules.values() if rule.limits_customers]
    if not limited or not ids:
        return ids
    wanted = as_list((decision_id,) for decision_id in sorted(ids))
    return set(_together(connection, wanted=wanted, limited=as_list(limited)).scalars())


@prepared
def _together() -> CompoundSelect[Any]:
    return same_customers(_wanted(), listed("limited", loop_id=Text()))


_RETURNED = (attributions.c.event_no, attributions.c.decision_id)


def _touched() -> CTE:
    return listed("touched", event_no=BigInteger())


def _taken(connection: Connection, numbers: set[int], horizon: int) -> Sequence[Any]:
    """Take the attributions of these events away, but for those to sealed decisions; what they were is the answer."""
    if not numbers:
        return ()
    touched = as_list((number,) for number in sorted(numbers))
    return (
        _forget_open(connection, touched=touched, horizon=horizon).all()
        if horizon
        else _forget(connection, touched=touched).all()
    )


@prepared
def _forget() -> ReturningDelete[Any]:
    touched = _touched()
    these = attributions.c.event_no.in_(select(touched.c.event_no))
    return delete(attributions).where(these).returning(*_RETURNED)


@prepared
def _forget_open() -> ReturningDelete[Any]:
    touched = _touched()
    these = attributions.c.event_no.in_(select(touched.c.event_no))
    final = exists().where(decisions.c.decision_id == attributions.c.decision_id, is_sealed(decisions))
    return delete(attributions).where(these, ~final.correlate(attributions)).returning(*_RETURNED)


def _still_attributed(connection: Connection, numbers: set[int]) -> set[int]:
    """Those of these events that have an attribution."""
    touched = as_list((number,) for number in sorted(numbers))
    return set(_attributed(connection, touched=touched).scalars()) if numbers else set()


@prepared
def _attributed() -> Select[Any]:
    touched = _touched()
    found = touched.join(attributions, attributions.c.event_no == touched.c.event_no)
    return select(attributions.c.event_no).select_from(found)


def _attribute(connection: Connection, rules: Rules, touched: _Touched, horizon: int) -> list[Any]:
    named, unnamed, refunds = _sorted_out(touched)
    found: list[Any] = []
    some = horizon > 0
    if named or unnamed:
        at_hand = {"named": as_list(named), "unnamed": as_list(unnamed)}
        found += _attribute_directly(some)(connection, **at_hand, reach=reach_of(rules.values())).all()
    if refunds:
        found += _attribute_reversals(some)(connection, touched=as_list(refunds)).all()
    return found


def _sorted_out(touched: _Touched) -> tuple[list[Any], list[Any], list[Any]]:
    """Events by the way they find their decision: they name it, they have a unit, they reverse a purchase."""
    named: list[Any] = []
    unnamed: list[Any] = []
    refunds: list[Any] = []
    for event in touched.values():
        if event.is_reversal:
            refunds.append((event.event_no,))
        elif event.decision_id:
            named.append((event.event_no, event.decision_id, event.link))
        elif event.unit or event.unit_before:
            unnamed.append((event.event_no, event.unit, event.unit_before, event.occurred_at))
    return named, unnamed, refunds


@cache
def _attribute_directly(some_are_kept: bool) -> Run:
    return prepared(lambda: _inserted(attributions_at_hand(), some_are_kept))


@cache
def _attribute_reversals(some_are_kept: bool) -> Run:
    """Reversals take over what is stored for their purchases, so they come after it."""
    return prepared(lambda: _inserted(reversals(attributions, only=_touched()), some_are_kept))


def _inserted(query: Select[Any], some_are_kept: bool) -> ReturningInsert[Any]:
    """``some_are_kept``: events may be attributed in a loop already, to a sealed decision."""
    wanted = unattributed(query) if some_are_kept else query
    return attributions.insert().from_select(COLUMNS, wanted).returning(*_RETURNED)


_OUTCOME_KEY = ("decision_id", "content_id", "metric", "metric_version")
_Row = tuple[Any, ...]
"""A row of ``outcomes``; the value is its fifth."""
_ContentMetric = tuple[Any, ...]
"""(content, metric, metric version)"""
_ByDecision = dict[str, dict[_ContentMetric, _Row]]


def refresh(
    connection: Connection, rules: Rules, batch_no: int, moved: set[str], concerned: set[str], horizon: int
) -> None:
    """Outcomes of the concerned decisions that are not sealed, and content statistics of these and the moved ones."""
    before, after = _outcomes(connection, rules, sorted(open_decisions(connection, concerned, horizon)))
    _write_difference(connection, before, after)
    differing = {id_ for id_ in before.keys() | after.keys() if before.get(id_) != after.get(id_)}
    ids = sorted(moved | differing)
    if not ids:
        return
    movement = statistics.Movement(rules.values())
    for decision in _counted(connection, wanted=as_list((id_,) for id_ in ids), batch_no=batch_no).all():
        old = _values(before.get(decision.decision_id, {})) if decision.before else None
        new = _values(after.get(decision.decision_id, {})) if decision.after else None
        movement.move(decision, old, new)
    statistics.add_to_stats(connection, movement)


def _outcomes(connection: Connection, rules: Rules, ids: Sequence[str]) -> tuple[_ByDecision, _ByDecision]:
    """What is stored of these decisions, and what it should be."""
    if not ids:
        return {}, {}
    stored = _stored_of(connection, ids)
    joined = _joined(is_guarded(rules.values()), is_converting(rules.values()))
    return stored, _by_decision(joined(connection, **parameters(rules.values(), ids)).all())


def stored_values(connection: Connection, ids: Sequence[str]) -> dict[str, statistics.Values]:
    """The stored outcomes of these decisions; one without any is left out."""
    return {id_: _values(rows) for id_, rows in _stored_of(connection, ids).items()}


def _stored_of(connection: Connection, ids: Sequence[str]) -> _ByDecision:
    return _by_decision(_stored(connection, wanted=as_list((id_,) for id_ in ids)).all())


@prepared
def _stored() -> Select[Any]:
    wanted = _wanted()
    return select(outcomes).select_from(wanted.join(outcomes, outcomes.c.decision_id == wanted.c.decision_id))


@cache
def _joined(guarded: bool, converting: bool) -> Run:
    return prepared(lambda: joining(True, False, guarded, converting))


def _wanted() -> CTE:
    return listed("wanted", decision_id=Text())


def _by_decision(rows: Iterable[Any]) -> _ByDecision:
    found: _ByDecision = {}
    for row in map(tuple, rows):
        found.setdefault(row[0], {})[row[1:4]] = row
    return found


def _write_difference(connection: Connection, before: _ByDecision, after: _ByDecision) -> None:
    old = {row[:4]: row for rows in before.values() for row in rows.values()}
    new = {row[:4]: row for rows in after.values() for row in rows.values()}
    gone = sorted(set(old) - set(new))
    if gone:
        _drop_outcomes(connection, gone=as_list(gone))
    changed = sorted(row for key, row in new.items() if old.get(key) != row)
    names = [column.name for column in outcomes.columns]
    upsert(connection, outcomes, dict(zip(names, zip(*changed, strict=True), strict=True)) if changed else {})


@prepared
def _drop_outcomes() -> Delete:
    gone = listed("gone", **dict.fromkeys(_OUTCOME_KEY, Text()))
    return delete(outcomes).where(tuple_(*(outcomes.c[name] for name in _OUTCOME_KEY)).in_(select(gone)))


@prepared
def _counted() -> Select[Any]:
    """Decisions with whether they counted before this batch, and whether they do now."""
    wanted, batch_no = _wanted(), bindparam("batch_no", type_=BigInteger)
    activation = events.alias("earlier")
    activated_before = exists().where(
        activation.c.decision_id == decisions.c.decision_id,
        is_activation(activation),
        activation.c.batch_no < batch_no,
    )
    counted_before = and_(
        decisions.c.batch_no < batch_no, or_(decisions.c.deferred.is_(False), activated_before.correlate(decisions))
    )
    query = statistics.shown(counted_before.label("before"), start_of(decisions).is_not(None).label("after"))
    return query.select_from(wanted.join(decisions, decisions.c.decision_id == wanted.c.decision_id)).where(
        decisions.c.batch_no.is_not(None)
    )


def _values(rows: Mapping[_ContentMetric, _Row]) -> statistics.Values:
    return {key: row[4] for key, row in rows.items()}
