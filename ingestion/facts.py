"""The facts of a batch into their tables, each once: steps 1 and 3 of ``store.apply``.

    insert_facts(connection, batch, seen, secrets) -> Inserted     what was new, repeated, contradictory, forgotten, sealed
    stamp(connection, batch, inserted, seen, held) -> Facts        from now on these count, under the next number

Every insert is sorted by key, so that two writers wait for each other and never in a circle. A key that is stored gives
nobody the right to a second fact: the first committed body stays, another one under the same id is a conflict.

*Sealed* is a new decision that was made before the horizon (``join/seals.py``), and a new event that happened before events are
kept, names a sealed decision, or is about an order whose events are gone. It is not stored; of an event the key is, so the same
again is a duplicate. An unsubscribe still suppresses.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
from sqlalchemy import (
    BigInteger,
    Connection,
    Delete,
    Integer,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    delete,
    exists,
    literal_column,
    select,
    tuple_,
    update,
)

from infra.database import Cells, Hash, cut, insert_all, insert_new, insert_once, insert_told, key_kinds, new_numbers
from infra.dialect import Run, as_list, listed, prepared
from infra.secrets import Secrets
from infra.tables import (
    campaigns,
    contents,
    decisions,
    event_keys,
    event_labels,
    events,
    forgotten_units,
    historical_results,
    sealed_facts,
)
from ingestion.events import (
    DIGEST_VERSION,
    Batch,
    Decision,
    Event,
    HistoricalResult,
    Label,
    Rejected,
    event_digest,
    hash_id,
)
from ingestion.join.rejoin import Facts
from ingestion.join.seals import is_sealed
from ingestion.ledger import Standing
from ingestion.quarantine import FIRST_IS_THE_FACT, conflict_of

State = Literal["applied", "duplicate", "ignored", "sealed"] | Rejected
"""What became of one decision or event, as far as its key tells. Rejected: it contradicts a stored one."""
Fact = TypeVar("Fact", Decision, Event)
Item = TypeVar("Item")


class _Brought(NamedTuple):
    """The facts of a batch that are new, each once."""

    decisions: list[Decision]
    events: list[Event]
    labels: list[Label]
    results: list[HistoricalResult]


class Inserted(msgspec.Struct, kw_only=True):
    """Which facts were new, and which contradict stored ones. Lists are aligned with the batch's.

    ``numbers``: of the events that were new, in their order.
    """

    decisions: list[State]
    events: list[State]
    numbers: list[int]
    labels: list[bool]
    results: list[bool]


def insert_facts(connection: Connection, batch: Batch, seen: Standing, secrets: Secrets) -> Inserted:
    """Step 1: insert each fact once, under the number after the newest that was seen."""
    batch_no = seen.batch_no + 1
    insert_once(connection, campaigns, _cells(sorted(batch.campaigns, key=attrgetter("campaign_id"))))
    copy = sorted(batch.contents, key=attrgetter("content_id"))
    insert_once(connection, contents, _cells(copy, fingerprint=[content.fingerprint for content in copy]))
    forgotten = _forgotten(connection, batch, secrets)
    choices, happening = _known(batch.decisions, forgotten), _known(batch.events, forgotten)
    decided = _decide(connection, choices, batch_no, seen.horizon)
    past = {choice.decision_id for choice, state in zip(choices, decided, strict=True) if state == "sealed"}
    happened, numbers = _insert_events(connection, happening, batch_no, _late(connection, happening, seen, past))
    return Inserted(
        decisions=_with_ignored(batch.decisions, forgotten, decided),
        events=_with_ignored(batch.events, forgotten, happened),
        numbers=numbers,
        labels=_insert(connection, event_labels, batch.labels, batch_no),
        results=_insert(connection, historical_results, batch.results, batch_no),
    )


def stamp(connection: Connection, batch: Batch, inserted: Inserted, seen: Standing, held: Standing) -> Facts:
    """Step 3: from now on these facts count, under the number after the newest that is there under the lock."""
    batch_no = held.batch_no + 1
    brought = _Brought(
        [fact for fact, state in zip(batch.decisions, inserted.decisions, strict=True) if state == "applied"],
        [fact for fact, state in zip(batch.events, inserted.events, strict=True) if state == "applied"],
        [fact for fact, new in zip(batch.labels, inserted.labels, strict=True) if new],
        [fact for fact, new in zip(batch.results, inserted.results, strict=True) if new],
    )
    if held.batch_no != seen.batch_no:
        _number_again(connection, decisions, map(_key_of(decisions), brought.decisions), batch_no)
        _number_again(connection, events, ((number,) for number in inserted.numbers), batch_no)
        _number_again(connection, event_labels, map(_key_of(event_labels), brought.labels), batch_no)
        _number_again(connection, historical_results, map(_key_of(historical_results), brought.results), batch_no)
    _drop_forgotten(connection)
    waiting = update(decisions).where(decisions.c.batch_no.is_(None)).values(batch_no=batch_no)
    stored_since = connection.execute(waiting.returning(decisions.c.decision_id)).scalars()
    new_decisions = [*(decision.decision_id for decision in brought.decisions), *stored_since]
    return Facts(batch_no, brought.events, inserted.numbers, brought.labels, new_decisions, held.horizon)


def sealed_of(batch: Batch, inserted: Inserted) -> list[Event]:
    """The events of the batch that are past retention."""
    return [event for event, state in zip(batch.events, inserted.events, strict=True) if state == "sealed"]


def _cells(facts: Sequence[Any], **more: Sequence[Any]) -> Cells:
    """The facts by column, with ``more`` columns."""
    if not facts:
        return {}
    names = facts[0].__struct_fields__
    return dict(zip(names, zip(*map(msgspec.structs.astuple, facts), strict=True), strict=True)) | more


def _insert(connection: Connection, table: Table, facts: Sequence[Any], batch_no: int) -> list[bool]:
    """Insert facts whose first body is as good as any other; True for each that was new."""
    keys = list(map(_key_of(table), facts))
    first = _first_of_each(keys, facts)
    new = insert_new(connection, table, _cells(first, batch_no=[batch_no] * len(first)))
    return _taken_in_turn(keys, new)


def _key_of(table: Table) -> Callable[[Any], tuple[Any, ...]]:
    """A fact's key, as :func:`insert_new` tells it."""
    names = _key(table)
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda fact: (get(fact),)


def _number_again(connection: Connection, table: Table, keys: Iterable[tuple[Any, ...]], batch_no: int) -> None:
    """Give facts of this batch, which nobody else can see, another batch number."""
    if these := list(keys):
        _renumber(table)(connection, keys=as_list(these), batch_no=batch_no)


def _key(table: Table) -> list[str]:
    return [column.name for column in table.primary_key.columns]


def _first_of_each(keys: Sequence[tuple[Any, ...]], items: Sequence[Item]) -> list[Item]:
    """The first item under each key, in the order of the keys: two writers insert in the same order."""
    first = dict(zip(reversed(keys), reversed(items), strict=True))
    return [first[key] for key in sorted(first)]


def _taken_in_turn(keys: Iterable[Any], new: set[Any]) -> list[bool]:
    """True for the first of each new key; the same key again in one batch is a repetition."""
    left = set(new)
    taken = []
    for key in keys:
        taken.append(key in left)
        left.discard(key)
    return taken


@dataclass(frozen=True)
class _Forgotten:
    """Customers who asked to be deleted and decisions that were made for them, of those that a batch names."""

    units: set[str]
    decisions: set[str]

    def concerns(self, fact: Decision | Event) -> bool:
        """Whether the fact is about one of them."""
        return not self.units.isdisjoint(_units(fact)) or fact.decision_id in self.decisions

    def __bool__(self) -> bool:
        return bool(self.units or self.decisions)


def _known(facts: Sequence[Fact], forgotten: _Forgotten) -> Sequence[Fact]:
    """Without those about forgotten units: these are ignored, and leave nothing behind."""
    return [fact for fact in facts if not forgotten.concerns(fact)] if forgotten else facts


def _with_ignored(facts: Sequence[Fact], forgotten: _Forgotten, states: list[State]) -> list[State]:
    """What became of the facts, from what became of the known ones."""
    if not forgotten:
        return states
    of_known = iter(states)
    return ["ignored" if forgotten.concerns(fact) else next(of_known) for fact in facts]


def _forgotten(connection: Connection, batch: Batch, secrets: Secrets) -> _Forgotten:
    """Whom of the batch nothing may be kept of any more. Decisions are asked for once one was forgotten."""
    facts: tuple[Decision | Event, ...] = (*batch.decisions, *batch.events)
    units = {unit for fact in facts for unit in _units(fact)}
    named = {fact.decision_id for fact in facts if fact.decision_id is not None}
    marked = {secrets.mark(one): one for one in named} if named and _any_marks(connection).first() else {}
    asked = as_list((one,) for one in sorted({*units, *marked}))
    gone = set(_gone(connection, units=asked).scalars()) if units or marked else set()
    return _Forgotten(gone & units, {marked[mark] for mark in gone & marked.keys()})


def _units(fact: Decision | Event) -> list[str]:
    """The hashes a fact's customer is known under."""
    named = (fact.unit, fact.unit_before) if isinstance(fact, Event) else (fact.unit,)
    return [unit for unit in named if unit is not None]


@dataclass(frozen=True)
class _Late:
    """What is past retention, of what a batch names."""

    events_before: int
    decisions: set[str]
    facts: set[str]

    def concerns(self, event: Event) -> bool:
        """Whether the event is past retention."""
        return (
            event.occurred_at < self.events_before
            or event.decision_id in self.decisions
            or event.fact_key in self.facts
            or event.reverses in self.facts
        )


def _late(connection: Connection, batch: Sequence[Event], seen: Standing, past: set[str]) -> _Late | None:
    """``past``: sealed decisions of the same batch. None: nothing is sealed."""
    if not seen.horizon:
        return None
    named = as_list((one,) for one in sorted({event.decision_id for event in batch if event.decision_id}))
    keys = as_list(
        (key,) for key in sorted({key for event in batch for key in (event.fact_key, event.reverses) if key})
    )
    stored = _sealed_ones(connection, named=named, horizon=seen.horizon).scalars()
    return _Late(seen.events_before, past.union(stored), set(_sealed_facts(connection, keys=keys).scalars()))


def _decide(connection: Connection, batch: Sequence[Decision], batch_no: int, horizon: int) -> list[State]:
    """Insert decisions; those that were made before the horizon only if they are stored already."""
    past = {decision.decision_id for decision in batch if decision.decided_at < horizon}
    if not past:
        return _insert_decisions(connection, batch, batch_no)
    stored = _stored_requests(connection, known=as_list((id_,) for id_ in sorted(past))).all()
    late = past - {row.decision_id for row in stored}
    known = iter(_insert_decisions(connection, [one for one in batch if one.decision_id not in late], batch_no))
    return ["sealed" if one.decision_id in late else next(known) for one in batch]


def _insert_decisions(connection: Connection, batch: Sequence[Decision], batch_no: int) -> list[State]:
    new = _insert(connection, decisions, batch, batch_no)
    known = [decision.decision_id for decision, is_new in zip(batch, new, strict=True) if not is_new]
    digests = dict(map(tuple, _stored_requests(connection, known=as_list((id_,) for id_ in known)))) if known else {}
    return [
        "applied"
        if is_new
        else "duplicate"
        if digests[decision.decision_id] == decision.request_digest
        else conflict_of(
            decision,
            f"Decision {decision.decision_id!r} is stored with another request: {FIRST_IS_THE_FACT}; "
            "send this one under an id of its own",
        )
        for decision, is_new in zip(batch, new, strict=True)
    ]


def _insert_events(
    connection: Connection, batch: Sequence[Event], batch_no: int, late: _Late | None
) -> tuple[list[State], list[int]]:
    """What became of each event, and the numbers of those that were new and are not late."""
    ids = [(event.source, cut(hash_id(event.event_id))) for event in batch]
    digests = [cut(event_digest(event)) for event in batch]
    numbers = new_numbers(connection, events, len(batch)) if batch else []
    taken = _insert_keys(connection, batch, ids, digests, numbers)
    new = [number in taken for number in numbers]
    sealed = [is_new and late is not None and late.concerns(one) for one, is_new in zip(batch, new, strict=True)]
    places = [place for place, is_new in enumerate(new) if is_new and not sealed[place]]
    accepted, kept = [batch[place] for place in places], [numbers[place] for place in places]
    insert_all(connection, events, _cells(accepted, event_no=kept, batch_no=[batch_no] * len(kept)))
    known = [(place, *ids[place], digests[place]) for place, is_new in enumerate(new) if not is_new]
    alike = set(_stored_alike(connection, known=as_list(known)).scalars()) if known else set()
    states: list[State] = [
        "sealed"
        if sealed[place]
        else "applied"
        if is_new
        else "duplicate"
        if place in alike
        else conflict_of(
            batch[place],
            f"Event {batch[place].event_id!r} of {batch[place].source!r} is stored with another body: "
            f"{FIRST_IS_THE_FACT}; send a correction under an id of its own",
        )
        for place, is_new in enumerate(new)
    ]
    return states, kept


def _insert_keys(
    connection: Connection,
    batch: Sequence[Event],
    ids: Sequence[tuple[str, str]],
    digests: Sequence[str],
    numbers: Sequence[int],
) -> set[int]:
    """Insert the keys, sorted; returns the numbers of those that are new: they give the right to insert the event, and
    nobody else has it. The same key again in one batch is a repetition."""
    first = dict(zip(reversed(ids), reversed(range(len(ids))), strict=True))
    keys = sorted(first)
    places = [first[key] for key in keys]
    if not places:
        return set()
    cells: Cells = {
        "source": [source for source, _ in keys],
        "id_hash": [id_hash for _, id_hash in keys],
        "digest": [digests[place] for place in places],
        "digest_version": [DIGEST_VERSION] * len(places),
        "fact_key": [batch[place].fact_key for place in places],
        "event_no": [numbers[place] for place in places],
    }
    return {number for (number,) in insert_told(connection, event_keys, cells, ("event_no",))}


@cache
def _renumber(table: Table) -> Run:
    keys = listed("keys", **key_kinds(table))
    these = tuple_(*table.primary_key.columns).in_(select(keys))
    return prepared(lambda: update(table).where(these).values(batch_no=bindparam("batch_no", type_=BigInteger)))


@prepared
def _gone() -> Select[Any]:
    units = listed("units", unit=Text())
    return select(forgotten_units.c.unit).select_from(
        units.join(forgotten_units, forgotten_units.c.unit == units.c.unit)
    )


@prepared
def _any_marks() -> Select[tuple[str]]:
    """One mark of a forgotten decision (``Secrets.mark``)."""
    unit = forgotten_units.c.unit
    return select(unit).where(unit >= literal_column("'d:'"), unit < literal_column("'d;'")).limit(literal_column("1"))


@prepared
def _sealed_ones() -> Select[Any]:
    named = listed("named", decision_id=Text())
    found = named.join(decisions, decisions.c.decision_id == named.c.decision_id)
    return select(decisions.c.decision_id).select_from(found).where(is_sealed(decisions))


@prepared
def _sealed_facts() -> Select[Any]:
    keys = listed("keys", key=Text())
    return select(sealed_facts.c.fact_key).select_from(keys.join(sealed_facts, sealed_facts.c.fact_key == keys.c.key))


@prepared
def _drop_forgotten() -> Delete:
    """Decisions that were stored for a forgotten customer since, and count for nothing."""
    forgotten = exists().where(forgotten_units.c.unit == decisions.c.unit)
    return delete(decisions).where(decisions.c.batch_no.is_(None), decisions.c.unit.is_not(None), forgotten)


@prepared
def _stored_requests() -> Select[Any]:
    known = listed("known", decision_id=Text())
    stored = known.join(decisions, decisions.c.decision_id == known.c.decision_id)
    return select(decisions.c.decision_id, decisions.c.request_digest).select_from(stored)


@prepared
def _stored_alike() -> Select[Any]:
    """Places of the known events whose stored body is the same."""
    known = listed("known", place=Integer(), source=Text(), id_hash=Hash(), digest=Hash())
    same = and_(event_keys.c.source == known.c.source, event_keys.c.id_hash == known.c.id_hash)
    return select(known.c.place).select_from(known.join(event_keys, same)).where(event_keys.c.digest == known.c.digest)
