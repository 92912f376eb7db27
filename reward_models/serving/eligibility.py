"""Whether a customer may be sent anything now: suppression and frequency caps. For one request and for thousands alike.

    suppressed(connection, loop_id, units) -> {unit: reason}              nothing may be sent
    capped(connection, definition, campaign_id, units, now) -> {unit: Capped}

``units``: the hash in use of each customer, with every hash the customer is known under (``Secrets.every_unit``);
customers with nothing to say of are left out of the answers. The ranker takes the answers: a suppressed customer gets
``no_send`` (the list is in the snapshot too, so that this holds without the database), a content that is capped is
excluded, and where every content is capped the answer is ``no_send`` or, in a loop that does not allow it, a conflict.

A send counts once it has started: when it was decided, or when it was activated, which a deferred one has to be.
Decisions are found by customer and time, whether a batch has counted them or not; those activated more than ``SLACK``
after they were made are overlooked. Two requests for one customer at the same time do not see each other: a cap may be
passed by as many as are under way.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
from sqlalchemy import (
    BigInteger,
    CompoundSelect,
    Connection,
    Select,
    Text,
    bindparam,
    func,
    or_,
    select,
    type_coerce,
    union_all,
)

from infra.clock import DAY, format_time
from infra.dialect import as_list, listed, prepared
from infra.tables import decisions, suppressions
from ingestion.events import NO_SEND
from ingestion.join.attribution import start_of
from ingestion.loops import LoopDefinition
from ingestion.metrics import format_duration
from ingestion.people.suppressions import EVERY_LOOP
from ingestion.sending import FrequencyCap

SLACK = 30 * DAY
"""How long after a decision its activation is looked for."""

Units = Mapping[str, Sequence[str]]
"""Every hash of a customer, by the hash in use."""


class Sent(NamedTuple):
    """A send that started: when, in which campaign, and what it showed."""

    started_at: int
    campaign_id: str
    contents: frozenset[str]


class Capped(NamedTuple):
    """What a customer may not be sent now. ``everything``: why no content may be, ``until`` when; ``contents``: each
    content that may not be, and why."""

    everything: str | None = None
    until: int | None = None
    contents: tuple[tuple[str, str], ...] = ()


OPEN = Capped()
"""Nothing is capped."""


def suppressed(connection: Connection, loop_id: str, units: Units) -> dict[str, str]:
    """Reason by customer, of those who must not be sent anything in this loop."""
    if not units:
        return {}
    owner = {known: unit for unit, every in units.items() for known in every}
    rows = _listed(connection, units=as_list((unit,) for unit in owner), loop=loop_id, every=EVERY_LOOP)
    return {owner[unit]: reason for unit, reason in rows}


def capped(
    connection: Connection, definition: LoopDefinition, campaign_id: str, units: Units, now: int
) -> dict[str, Capped]:
    """What is capped, by customer, in this campaign; a loop without caps reads nothing."""
    if not definition.frequency or not units:
        return {}
    owner = {known: unit for unit, every in units.items() for known in every}
    oldest = now - SLACK - max(cap.window for cap in definition.frequency)
    rows = _decided(connection, units=as_list((unit,) for unit in owner), loop=definition.loop, oldest=oldest)
    sends: dict[str, list[Sent]] = {}
    for row in rows:
        if row.start is not None and (shown := _shown(row.chosen, row.constraints)):
            sends.setdefault(owner[row.unit], []).append(Sent(row.start, row.campaign_id, shown))
    found = {unit: reached(definition.frequency, sent, campaign_id, now) for unit, sent in sends.items()}
    return {unit: one for unit, one in found.items() if one != OPEN}


def reached(caps: Iterable[FrequencyCap], sends: Sequence[Sent], campaign_id: str, now: int) -> Capped:
    """The caps that these sends of one customer have reached."""
    everything: tuple[int, str] | None = None
    contents: dict[str, str] = {}
    for cap in caps:
        recent = [sent for sent in sends if sent.started_at > now - cap.window]
        if cap.per == "content":
            for content_id in sorted({name for sent in recent for name in sent.contents}):
                if _free_at(cap, [sent for sent in recent if content_id in sent.contents]) is not None:
                    contents.setdefault(content_id, _words(cap))
            continue
        free_at = _free_at(cap, [sent for sent in recent if cap.per == "loop" or sent.campaign_id == campaign_id])
        if free_at is not None:
            everything = max(everything or (free_at, ""), (free_at, _words(cap)))
    until, reason = everything or (None, None)
    return Capped(reason, until, tuple(sorted(contents.items())))


def refusal(reason: str, until: int | None) -> str:
    """What to tell a caller whose loop does not allow sending nothing."""
    again = "" if until is None else f" before {format_time(until)}"
    return (
        f"The customer may not be sent anything{again} ({reason}), and the loop does not allow sending nothing: leave the "
        "customer out, or set no_send in the loop to have that answered"
    )


def _free_at(cap: FrequencyCap, sends: Sequence[Sent]) -> int | None:
    """When the next send is allowed; null: now."""
    newest = sorted((sent.started_at for sent in sends), reverse=True)
    return newest[cap.most - 1] + cap.window if len(newest) >= cap.most else None


def _words(cap: FrequencyCap) -> str:
    what = {"loop": "sends", "campaign": "sends of the campaign", "content": "sends of this content"}[cap.per]
    return f"frequency cap: at most {cap.most} {what} in {format_duration(cap.window)}"


class _Placed(msgspec.Struct):
    position: int
    content_id: str


class _Constraints(msgspec.Struct):
    slots: int | None = None


_placed = msgspec.json.Decoder(list[_Placed])
_constraints = msgspec.json.Decoder(_Constraints)


def _shown(chosen: str, constraints: str) -> frozenset[str]:
    """What a decision showed; sending nothing shows nothing."""
    slots = _constraints.decode(constraints).slots
    placed = (one for one in _placed.decode(chosen) if slots is None or one.position <= slots)
    return frozenset(one.content_id for one in placed) - {NO_SEND}


@prepared
def _listed() -> Select[tuple[str, str]]:
    units, c = listed("units", unit=Text()), suppressions.c
    holds = or_(c.lifted_at.is_(None), c.suppressed_at > c.lifted_at)
    scope = or_(c.scope == bindparam("loop", type_=Text()), c.scope == bindparam("every", type_=Text()))
    found = units.join(suppressions, c.unit == units.c.unit)
    wanted = select(c.unit, c.reason).select_from(found).where(scope, c.suppressed_at.is_not(None), holds)
    return wanted.order_by(c.suppressed_at, c.scope)


@prepared
def _decided() -> CompoundSelect[tuple[str, str, str, str, int]]:
    """Decisions of these customers, counted or not: each kind has an index by customer and time."""
    units, c = listed("units", unit=Text()), decisions.c
    this_loop = func.coalesce(c.loop_id, "") == bindparam("loop", type_=Text())  # not by the index of all its decisions
    texts = (type_coerce(c[name], Text).label(name) for name in ("chosen", "constraints"))
    wanted = (
        select(c.unit, c.campaign_id, *texts, start_of(decisions).label("start"))
        .select_from(units.join(decisions, c.unit == units.c.unit))
        .where(c.decided_at >= bindparam("oldest", type_=BigInteger), this_loop)
    )
    return union_all(wanted.where(c.batch_no.is_not(None)), wanted.where(c.batch_no.is_(None)))
