"""Facts taken back: the decisions of customers who asked to be deleted, and the events about them.

What is left is what the join would make of the facts that are left: outcomes of other decisions are computed anew, and
``content_stats`` moves by the exact difference. Called under the join lock:

1. which decisions go: those of the customer's hashes, counted or not
2. which events go: those that carry one of the hashes, name one of the decisions or belong to it, and every other report
   of their orders, with the refunds
3. the decisions leave the sums
4. the rows go
5. decisions of others that lose an event are joined anew; where an activation of theirs goes, which may move anything, the
   whole loop is
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    CompoundSelect,
    Connection,
    Delete,
    Row,
    Select,
    Text,
    delete,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.types import TypeEngine

from infra.database import chunks
from infra.dialect import Run, as_list, listed, prepared
from infra.tables import attributions, decisions, event_labels, events, outcomes
from ingestion.events import ACTIVATION
from ingestion.join import statistics
from ingestion.join.attribution import start_of
from ingestion.join.rejoin import refresh, stored_values, with_those_of_their_customers
from ingestion.join.seals import load_seals
from ingestion.loops import LoopDefinition

_SOME = 2_000
"""Rows per statement."""


@dataclass(frozen=True)
class Withdrawn:
    """What went: ids of decisions, how many events, and how many of these were pending. ``unsettled``: loops of others'
    decisions that lost an activation; they are to be joined anew (``backfill.rescore``)."""

    decisions: tuple[str, ...] = ()
    events: int = 0
    pending: int = 0
    unsettled: tuple[str, ...] = ()


def decisions_of(connection: Connection, units: Iterable[str]) -> list[str]:
    """Ids of the decisions made for these hashes, sorted."""
    return sorted(_decisions_of(connection, units=_listed(units)).scalars())


def units_with_rows(connection: Connection, units: Sequence[str]) -> set[str]:
    """Those of these hashes that decisions or events are stored under."""
    owners = _in_runs(connection, _owners, "units", units)
    return {unit for row in owners for unit in row if unit is not None}.intersection(units)


def withdraw(
    connection: Connection, rules: Mapping[str, LoopDefinition], units: Sequence[str], batch_no: int
) -> Withdrawn:
    """Take back what is about these hashes, under the batch that says so."""
    gone = decisions_of(connection, units)
    found = _events_about(connection, units, gone)
    if not gone and not found:
        return Withdrawn()
    numbers, owned = sorted(found), set(gone)
    belonged = _in_runs(connection, _belonging, "numbers", numbers)
    others = {row.decision_id for row in belonged} - owned
    moved = {row.decision_id for row in found.values() if row.type == ACTIVATION and row.decision_id} - owned
    unsettled = _in_runs(connection, _loops, "ids", sorted(moved))
    _leave_the_sums(connection, rules, gone)
    _delete(connection, gone, numbers, [(row.source, row.event_id) for row in found.values()])
    concerned = with_those_of_their_customers(connection, rules, others)
    refresh(connection, rules, batch_no, set(), concerned, load_seals(connection).horizon)
    return Withdrawn(
        decisions=tuple(gone),
        events=len(numbers),
        pending=len(found.keys() - {row.event_no for row in belonged}),
        unsettled=tuple(sorted({row.loop_id for row in unsettled} & rules.keys())),
    )


def _events_about(connection: Connection, units: Sequence[str], gone: Sequence[str]) -> dict[int, Any]:
    """Events by number: the customer's, those of the decisions, then (twice: a refund can be reported twice) those tied to
    them by an order."""
    rows = [*_in_runs(connection, _carrying, "units", units), *_in_runs(connection, _concerning, "ids", gone)]
    found = {row.event_no: row for row in rows}
    known: set[str] = set()
    for _ in range(2):
        keys = {key for row in found.values() for key in (row.fact_key, row.reverses) if key} - known
        found |= {row.event_no: row for row in _in_runs(connection, _tied, "keys", sorted(keys))}
        known |= keys
    return found


def _leave_the_sums(connection: Connection, rules: Mapping[str, LoopDefinition], gone: Sequence[str]) -> None:
    """What these decisions add to the sums, they add no more."""
    movement, seals = statistics.Movement(rules.values()), load_seals(connection)
    for some in chunks(gone, _SOME):
        values = stored_values(connection, some)
        for decision in _started(connection, ids=_listed(some)).all():
            rule = rules.get(decision.loop_id)
            if rule is None or (seals.horizon and not seals.knows(rule, decision.decided_at)):
                continue  # it is in no sum
            movement.move(decision, values.get(decision.decision_id, {}), None)
    statistics.add_to_stats(connection, movement)


def _delete(
    connection: Connection, gone: Sequence[str], numbers: Sequence[int], names: Sequence[tuple[str, str]]
) -> None:
    for some in chunks(numbers, _SOME):
        _drop_attributions(connection, numbers=_listed(some))
        _drop_events(connection, numbers=_listed(some))
    for named in chunks(names, _SOME):
        _drop_labels(connection, names=as_list(named))
    for owned in chunks(gone, _SOME):
        _drop_outcomes(connection, ids=_listed(owned))
        _drop_decisions(connection, ids=_listed(owned))


def _in_runs(connection: Connection, query: Run, name: str, values: Sequence[Any]) -> list[Row[Any]]:
    """The rows that a prepared query finds for these values, some of them at a time."""
    return [row for some in chunks(values, _SOME) for row in query(connection, **{name: _listed(some)}).all()]


def _listed(values: Iterable[Any]) -> str:
    return as_list((value,) for value in values)


_READ = tuple(
    events.c[name] for name in ("event_no", "source", "event_id", "type", "decision_id", "fact_key", "reverses")
)


@prepared
def _decisions_of() -> CompoundSelect[tuple[str]]:
    """Each kind has an index by customer."""
    units = listed("units", unit=Text())
    owned = select(decisions.c.decision_id).select_from(units.join(decisions, decisions.c.unit == units.c.unit))
    return union_all(owned.where(decisions.c.batch_no.is_not(None)), owned.where(decisions.c.batch_no.is_(None)))


@prepared
def _owners() -> CompoundSelect[Any]:
    units = listed("units", unit=Text())
    owned = select(decisions.c.unit, decisions.c.unit).select_from(
        units.join(decisions, decisions.c.unit == units.c.unit)
    )
    return union_all(
        owned.where(decisions.c.batch_no.is_not(None)),
        owned.where(decisions.c.batch_no.is_(None)),
        *(
            select(events.c.unit, events.c.unit_before).select_from(units.join(events, hashed == units.c.unit))
            for hashed in (events.c.unit, events.c.unit_before)
        ),
    )


@prepared
def _carrying() -> CompoundSelect[Any]:
    units = listed("units", unit=Text())
    return union_all(
        *(
            select(*_READ).select_from(units.join(events, hashed == units.c.unit))
            for hashed in (events.c.unit, events.c.unit_before)
        )
    )


@prepared
def _concerning() -> CompoundSelect[Any]:
    """Events that name one of these decisions, or belong to one."""
    ids = listed("ids", decision_id=Text())
    belonging = ids.join(attributions, attributions.c.decision_id == ids.c.decision_id)
    return union_all(
        select(*_READ).select_from(ids.join(events, events.c.decision_id == ids.c.decision_id)),
        select(*_READ).select_from(belonging.join(events, events.c.event_no == attributions.c.event_no)),
    )


@prepared
def _tied() -> CompoundSelect[Any]:
    keys = listed("keys", key=Text())
    return union_all(
        *(
            select(*_READ).select_from(keys.join(events, column == keys.c.key))
            for column in (events.c.fact_key, events.c.reverses)
        )
    )


@prepared
def _belonging() -> Select[tuple[int, str]]:
    numbers = listed("numbers", event_no=BigInteger())
    found = numbers.join(attributions, attributions.c.event_no == numbers.c.event_no)
    return select(attributions.c.event_no, attributions.c.decision_id).select_from(found)


@prepared
def _loops() -> Select[tuple[str]]:
    ids = listed("ids", decision_id=Text())
    found = ids.join(decisions, decisions.c.decision_id == ids.c.decision_id)
    return select(decisions.c.loop_id).select_from(found)


@prepared
def _started() -> Select[Any]:
    """Decisions that count now."""
    ids = listed("ids", decision_id=Text())
    found = ids.join(decisions, decisions.c.decision_id == ids.c.decision_id)
    return (
        statistics.shown().select_from(found).where(decisions.c.batch_no.is_not(None), start_of(decisions).is_not(None))
    )


@prepared
def _drop_attributions() -> Delete:
    return _without(attributions.c.event_no, "numbers", BigInteger())


@prepared
def _drop_events() -> Delete:
    return _without(events.c.event_no, "numbers", BigInteger())


@prepared
def _drop_outcomes() -> Delete:
    return _without(outcomes.c.decision_id, "ids", Text())


@prepared
def _drop_decisions() -> Delete:
    return _without(decisions.c.decision_id, "ids", Text())


@prepared
def _drop_labels() -> Delete:
    names = listed("names", source=Text(), event_id=Text())
    labelled = tuple_(event_labels.c.source, event_labels.c.event_id)
    return delete(event_labels).where(labelled.in_(select(names)))


def _without(column: Column[Any], name: str, kind: TypeEngine[Any]) -> Delete:
    given = listed(name, value=kind)
    return delete(column.table).where(column.in_(select(given.c.value)))
