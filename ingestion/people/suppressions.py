"""Who must not be sent anything: customers who unsubscribed or complained, and those on the team's own list.

One row per customer (unit hash) and scope (a loop, or every loop). Suppressed: said, and not lifted since.

1. ``suppress_by_events``: events of the types that a loop's ``suppression`` names, in the transaction that stores them.
   An event that names a decision is about the customer of that decision, in its loop; one that names a customer only,
   or a decision that nobody knows, is about that customer in every loop whose rule has its type.
2. ``suppress`` and ``lift``: a person's word, or a list from elsewhere.
3. ``keep_forgotten``: customers who asked to be deleted (``ingestion/people/forgetting.py``).

Times only move forward: an event from before the customer was lifted, or the same one again, changes nothing. Changes
are numbered under the join lock, so whoever has seen number n has seen all up to n. Labels do not matter here: an
unsubscribe that looks like a machine's still holds until somebody lifts it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, Text, delete, func, select

from infra.database import lock_join, upsert
from infra.dialect import as_list, listed, prepared
from infra.tables import decisions, events, suppressions
from ingestion.events import Event
from ingestion.loops import LoopDefinition

EVERY_LOOP = ""
"""The scope that holds everywhere."""

FORGOTTEN = "forgotten"
"""The reason of customers who asked to be deleted."""

CHUNK = 10_000
"""Most customers in one change."""


class Entry(NamedTuple):
    """A row of the list. Times are microseconds; null: never."""

    unit: str
    scope: str
    reason: str
    suppressed_at: int | None
    lifted_at: int | None

    @property
    def holds(self) -> bool:
        """Whether the customer is suppressed by it."""
        return self.suppressed_at is not None and (self.lifted_at is None or self.suppressed_at > self.lifted_at)


def suppress(connection: Connection, units: Sequence[str], scope: str, reason: str, now: int) -> set[str]:
    """Put customers on the list; returns those who were not on it before."""
    lock_join(connection)
    known = _known(connection, units)
    new = [one for one in dict.fromkeys(units) if not _entry(known, one, scope).holds]
    entries = (_entry(known, one, scope) for one in new)
    _write(connection, [one._replace(reason=reason, suppressed_at=_after(one.lifted_at, now)) for one in entries])
    return set(new)


def lift(connection: Connection, units: Sequence[str], scope: str | None, now: int) -> set[str]:
    """Take customers off the list of one scope, or (null) off every one; returns those who were on it.

    It is remembered: an event of before, if it comes late, does not put them back. Who asked to be deleted stays on the
    list: nobody knows any more what they agreed to.
    """
    lock_join(connection)
    known = _known(connection, units)
    lifted: list[Entry] = []
    were: set[str] = set()
    for unit in dict.fromkeys(units):
        scopes = {EVERY_LOOP, *known.get(unit, {})} if scope is None else {scope}
        entries = [_entry(known, unit, each) for each in sorted(scopes)]
        entries = [entry for entry in entries if entry.reason != FORGOTTEN]
        were |= {unit} if any(entry.holds for entry in entries) else set()
        lifted += [entry._replace(lifted_at=max(now, entry.suppressed_at or now)) for entry in entries]
    _write(connection, lifted)
    return were


def keep_forgotten(connection: Connection, units: Sequence[str], now: int) -> None:
    """Suppress forgotten customers everywhere; what else the list said of them is deleted. Under the join lock."""
    _write(connection, [Entry(unit, EVERY_LOOP, FORGOTTEN, now, None) for unit in units])
    said = suppressions.c
    connection.execute(delete(suppressions).where(said.unit.in_(units), said.scope != EVERY_LOOP))


def suppress_by_events(
    connection: Connection,
    rules: Mapping[str, LoopDefinition],
    new: Iterable[Event],
    decided: Sequence[str],
    found_earlier: bool,
) -> None:
    """Suppress by a batch's facts, under the join lock. ``decided``: ids of its decisions; ``found_earlier``: events of
    before may have waited for them."""
    types = {kind for rule in rules.values() for kind in rule.suppression.events}
    said = [(event.type, event.decision_id, event.unit, event.occurred_at) for event in new if event.type in types]
    if found_earlier and types and decided:
        named = as_list((decision_id,) for decision_id in decided)
        said += map(tuple, _naming(connection, named=named, types=as_list((kind,) for kind in sorted(types))))
    if said:
        _merge(connection, _told(connection, rules, said))


def changed_since(connection: Connection, change_no: int) -> Iterator[Sequence[Entry]]:
    """Entries that were changed after this change, some at a time; after 0: all of them."""
    columns = suppressions.c
    query = select(*(columns[name] for name in Entry._fields)).where(columns.change_no > change_no)
    for rows in connection.execute(query.execution_options(yield_per=CHUNK)).partitions():
        yield [Entry._make(row) for row in rows]


def newest_change(connection: Connection) -> int:
    """Number of the last change; 0 when the list was never used."""
    return int(connection.scalar(select(func.max(suppressions.c.change_no))) or 0)


_Said = tuple[str, str | None, str | None, int]
"""Type, decision, customer and time of an event."""
_Known = Mapping[str, Mapping[str, Entry]]
"""Entries by customer and scope."""


def _told(
    connection: Connection, rules: Mapping[str, LoopDefinition], said: Iterable[_Said]
) -> dict[tuple[str, str], tuple[int, str]]:
    """Time and reason by customer and scope: the latest word of each."""
    said = list(said)
    named = as_list((decision_id,) for decision_id in sorted({one[1] for one in said if one[1] is not None}))
    of_decision = {row.decision_id: row for row in _customers(connection, named=named)}
    told: dict[tuple[str, str], tuple[int, str]] = {}
    for kind, decision_id, unit, occurred_at in said:
        decision = of_decision.get(decision_id)
        loops = rules if decision is None else [decision.loop_id]
        owner: str | None = None if decision is None else decision.unit
        units = {one for one in (unit, owner) if one is not None}
        for key in {(each, scope) for each in units for scope in _scopes(rules, loops, kind)}:
            told[key] = max(told.get(key, (occurred_at, kind)), (occurred_at, kind))
    return told


def _scopes(rules: Mapping[str, LoopDefinition], loops: Iterable[str], kind: str) -> set[str]:
    found = {name: rules[name].suppression for name in loops if name in rules}
    return {EVERY_LOOP if one.scope == "all" else name for name, one in found.items() if kind in one.events}


def _merge(connection: Connection, told: Mapping[tuple[str, str], tuple[int, str]]) -> None:
    """Move the times of these entries forward. Who was lifted everywhere was lifted in each loop."""
    known = _known(connection, sorted({unit for unit, _ in told}))
    changed = []
    for (unit, scope), (at, reason) in told.items():
        entry, everywhere = _entry(known, unit, scope), _entry(known, unit, EVERY_LOOP)
        if (at, reason) > (entry.suppressed_at or 0, entry.reason):
            lifts = [one for one in (entry.lifted_at, everywhere.lifted_at) if one is not None]
            changed.append(entry._replace(reason=reason, suppressed_at=at, lifted_at=max(lifts, default=None)))
    _write(connection, changed)


def _entry(known: _Known, unit: str, scope: str) -> Entry:
    return known.get(unit, {}).get(scope) or Entry(unit, scope, "", None, None)


def _after(lifted_at: int | None, now: int) -> int:
    """A time that holds against what was lifted before, also where the clock stands still."""
    return now if lifted_at is None else max(now, lifted_at + 1)


def _known(connection: Connection, units: Sequence[str]) -> _Known:
    found: dict[str, dict[str, Entry]] = {}
    for row in _stored(connection, units=as_list((unit,) for unit in units)):
        found.setdefault(row.unit, {})[row.scope] = Entry._make(row)
    return found


def _write(connection: Connection, entries: Sequence[Entry]) -> None:
    if entries:
        number = newest_change(connection) + 1
        upsert(connection, suppressions, [entry._asdict() | {"change_no": number} for entry in entries])


@prepared
def _stored() -> Select[Any]:
    units = listed("units", unit=Text())
    columns = [suppressions.c[name] for name in Entry._fields]
    return select(*columns).select_from(units.join(suppressions, suppressions.c.unit == units.c.unit))


@prepared
def _customers() -> Select[Any]:
    named = listed("named", decision_id=Text())
    found = named.join(decisions, decisions.c.decision_id == named.c.decision_id)
    return select(decisions.c.decision_id, decisions.c.loop_id, decisions.c.unit).select_from(found)


@prepared
def _naming() -> Select[Any]:
    """Events of these types that name one of these decisions."""
    named, types = listed("named", decision_id=Text()), listed("types", type=Text())
    found = named.join(events, events.c.decision_id == named.c.decision_id).join(types, types.c.type == events.c.type)
    return select(events.c.type, events.c.decision_id, events.c.unit, events.c.occurred_at).select_from(found)
