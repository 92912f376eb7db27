"""Units as they were assigned, with all they did: what an intention-to-treat lift is measured on.

    load_assigned(connection, definition, since, until) -> Assigned       a period: all units up to one date
    load_register(connection, definition, since) -> Register              always on: each unit for the same time
    Register.matured(definition, window, now) -> Matured

A unit belongs to the group of its first decision in the period, activated or not, whatever happens later. Everything
it did from that decision on counts, inside a decision's window or not, attributed or not: for a period until the
widest window after it, always on for ``window``. What is no fact about the customer stays out: labelled events, what a
source is not believed in, other currencies that the metric does not convert, second reports of one order, what was refunded,
more than a metric counts of one customer. Events are aggregated per decision they belong to (an event without one stands
alone), capped as the metric says, then added up per unit.

Always on, a unit matures once its window, lateness and refunds have passed; units are in the order of their first
decisions, which is the order of maturing. Covariates are what was known before the *very first* decision of the loop
about the unit: what comes later may already be the policy's doing.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, and_, case, func, literal, null, select

from infra.dialect import bytewise
from infra.exact import scale
from infra.tables import attributions, decisions, events
from ingestion.events import REFUND
from ingestion.join.attribution import stamped
from ingestion.join.converting import rate_of
from ingestion.join.outcomes import ONE, is_labelled, judged
from ingestion.join.seals import horizon_of
from ingestion.loops import LoopDefinition
from ingestion.metrics import Metric
from reward_models.covariates import context_columns, varying
from reward_models.sequences import Dealt

Floats = npt.NDArray[np.float64]

GROUPS = ("holdout", "treatment")
"""``customer_managed`` decisions were not assigned by us."""
COUNTED = (None, "outside_window", "before_activation")
"""Reasons that concern a decision, not the customer: such events count here."""
_EVERYTHING = 10**18
"""More than any purchase, millionths."""
LOOK_BACK = 4
"""Windows before the first decision whose deeds are covariates."""


@dataclass(frozen=True)
class Assigned:
    """n units with at least one decision in the period."""

    units: tuple[str, ...]
    treatment: npt.NDArray[np.bool_]
    decisions: npt.NDArray[np.int64]
    """Decisions of each unit in the period, shape (n,)."""
    values: Mapping[str, Floats]
    """Per metric, in units (one click is 1.0), summed over the unit, shape (n,)."""

    def __len__(self) -> int:
        return len(self.units)


@dataclass(frozen=True)
class Matured:
    """n units whose window has passed, in the order of their first decisions."""

    units: tuple[str, ...]
    treatment: npt.NDArray[np.bool_]
    held_out: Floats
    """Probability with which each had been held out, shape (n,); 0 where chance did not deal it."""
    first_at: npt.NDArray[np.int64]
    values: Mapping[str, Floats]
    """Per metric, in units (one click is 1.0), summed over the unit's window, shape (n,)."""
    uncapped: Mapping[str, Floats]
    """The same without the metrics' caps."""
    covariates: Floats
    """Shape (n, p)."""
    waiting: int
    """Units whose window has not passed yet."""

    def __len__(self) -> int:
        return len(self.units)

    def by_chance(self) -> "Matured":
        """Only the units that could have been in either group."""
        kept = (self.held_out > 0.0) & (self.held_out < 1.0)
        return Matured(
            tuple(unit for unit, keep in zip(self.units, kept, strict=True) if keep),
            self.treatment[kept],
            self.held_out[kept],
            self.first_at[kept],
            {name: values[kept] for name, values in self.values.items()},
            {name: values[kept] for name, values in self.uncapped.items()},
            self.covariates[kept],
            self.waiting,
        )

    def dealt(self, total: Floats) -> Dealt:
        """These units with one total each, for a confidence sequence."""
        return Dealt(self.treatment, self.held_out, total, self.covariates)


class _First(NamedTuple):
    """A unit's first decision."""

    unit: str
    group: str
    decided_at: int
    context: Mapping[str, Any]
    constraints: Mapping[str, Any]


@dataclass(frozen=True)
class Register:
    """Everybody who was decided on, with all deeds: read once, cut for any window."""

    first: tuple[_First, ...]
    """First decisions in the period, by time and unit."""
    ever: Mapping[str, _First]
    """The very first decision of each unit."""
    deeds: Mapping[tuple[str, str], Sequence[Sequence["_Deed"]]]
    """By unit and metric; one list per decision, and per event without one."""

    def matured(self, definition: LoopDefinition, window: int, now: int) -> Matured:
        """The units whose ``window``, lateness and refund horizon have passed by ``now``, all in microseconds."""
        last = now - window - definition.lateness - definition.refund_horizon
        ripe = [each for each in self.first if each.decided_at <= last]
        metrics = {metric.name: metric for metric in definition.metrics}
        values, uncapped = ({name: np.zeros(len(ripe)) for name in metrics} for _ in range(2))
        for row, each in enumerate(ripe):
            end = each.decided_at + window
            for name, metric in metrics.items():
                for deeds in self.deeds.get((each.unit, name), ()):
                    counted = [deed for deed in deeds if each.decided_at <= deed.occurred_at < end]
                    values[name][row] += _aggregate(metric, counted) / ONE
                    uncapped[name][row] += _added(metric, counted) / ONE
        return Matured(
            units=tuple(each.unit for each in ripe),
            treatment=np.array([each.group == "treatment" for each in ripe], dtype=np.bool_),
            held_out=np.array([each.constraints.get("holdout", 0.0) for each in ripe], dtype=np.float64),
            first_at=np.array([each.decided_at for each in ripe], dtype=np.int64),
            values=values,
            uncapped=uncapped,
            covariates=self._covariates(ripe, metrics, window),
            waiting=len(self.first) - len(ripe),
        )

    def _covariates(self, ripe: Sequence[_First], metrics: Mapping[str, Metric], window: int) -> Floats:
        firsts = [self.ever[each.unit] for each in ripe]
        table = [context_columns([each.context for each in firsts])]
        for name, metric in metrics.items():
            before = np.zeros(len(firsts))
            for row, each in enumerate(firsts):
                for deeds in self.deeds.get((each.unit, name), ()):
                    begin = each.decided_at - LOOK_BACK * window
                    earlier = [deed for deed in deeds if begin <= deed.occurred_at < each.decided_at]
                    before[row] += _added(metric, earlier) / ONE
            table.append(np.sign(before)[:, None] * np.log1p(np.abs(before))[:, None])
        return varying(np.hstack(table))


@dataclass(frozen=True)
class _Deed:
    """One event of a unit under one metric; ``group`` names the decision, or the event itself."""

    unit: str
    metric: str
    group: str
    occurred_at: int
    value: int


def load_assigned(connection: Connection, definition: LoopDefinition, since: int, until: int) -> Assigned:
    """Units decided on in [since, until), microseconds, with their deeds until ``until`` + the loop's reach.

    Nobody counts from before the horizon (:func:`load_register`).
    """
    since = max(since, horizon_of(connection))
    first, group, count = _first_decisions(connection, definition.loop, since, until)
    metrics = {metric.name: metric for metric in definition.metrics}
    names = tuple(sorted(first))
    place = {unit: index for index, unit in enumerate(names)}
    values = {name: np.zeros(len(names)) for name in metrics}
    for (unit, name, _), deeds in _grouped(_deeds(connection, definition)).items():
        if unit in place:
            counted = [deed for deed in deeds if first[unit] <= deed.occurred_at < until + definition.reach]
            values[name][place[unit]] += _aggregate(metrics[name], counted) / ONE
    return Assigned(
        names,
        np.array([group[unit] == "treatment" for unit in names], dtype=np.bool_),
        np.array([count[unit] for unit in names], dtype=np.int64),
        values,
    )


def load_register(connection: Connection, definition: LoopDefinition, since: int = 0) -> Register:
    """Everybody whose first decision from ``since`` on (microseconds) was made by the loop, with all they did.

    Events of before the horizon may be gone (``ingestion/retention.py``): nobody counts from earlier than it.
    """
    since = max(since, horizon_of(connection))
    ever = {each.unit: each for each in _firsts(connection, definition.loop, 0)}
    first = tuple(_firsts(connection, definition.loop, since)) if since else tuple(ever.values())
    deeds: dict[tuple[str, str], list[list[_Deed]]] = defaultdict(list)
    for (unit, name, _), together in _grouped(_deeds(connection, definition)).items():
        deeds[unit, name].append(together)
    return Register(first, ever, deeds)


def _firsts(connection: Connection, loop_id: str, since: int) -> Iterator[_First]:
    c = decisions.c
    place = func.row_number().over(partition_by=c.unit, order_by=(c.decided_at, bytewise(c.decision_id)))
    ranked = (
        select(c.unit, c.group, c.decided_at, c.context, c.constraints, place.label("place"))
        .where(c.loop_id == loop_id, c.unit.is_not(None), c.group.in_(GROUPS), c.decided_at >= since)
        .subquery()
    )
    query = select(*(ranked.c[name] for name in _First._fields)).where(ranked.c.place == 1)
    for row in connection.execute(query.order_by(ranked.c.decided_at, bytewise(ranked.c.unit))):
        yield _First(*row)


def _first_decisions(
    connection: Connection, loop_id: str, since: int, until: int
) -> tuple[dict[str, int], dict[str, str], dict[str, int]]:
    """Time and group of each unit's first decision in the period, and how many it had."""
    query = (
        select(decisions.c.unit, decisions.c.group, decisions.c.decided_at)
        .where(
            decisions.c.loop_id == loop_id,
            decisions.c.unit.is_not(None),
            decisions.c.group.in_(GROUPS),
            decisions.c.decided_at >= since,
            decisions.c.decided_at < until,
        )
        .order_by(decisions.c.decided_at, decisions.c.decision_id)
    )
    first: dict[str, int] = {}
    group: dict[str, str] = {}
    count: dict[str, int] = defaultdict(int)
    for unit, of_decision, decided_at in connection.execute(query):
        first.setdefault(unit, decided_at)
        group.setdefault(unit, of_decision)
        count[unit] += 1
    return first, group, count


def _deeds(connection: Connection, definition: LoopDefinition) -> Iterator[_Deed]:
    """What units did. Of several reports of one fact one counts: a joined one before others, then the first. Where a
    metric limits customers, joined ones come first too."""
    told: set[tuple[str, str]] = set()
    counted: Counter[tuple[str, str, int]] = Counter()
    limits = {metric.name: metric.per_unit_limit for metric in definition.metrics}
    for deed, fact_key in _reports(connection, definition):
        if fact_key is not None:
            if (deed.metric, fact_key) in told:
                continue
            told.add((deed.metric, fact_key))
        limit = limits[deed.metric]
        if limit is not None:
            period = (deed.unit, deed.metric, deed.occurred_at // limit.per)
            counted[period] += 1
            if counted[period] > limit.most:
                continue
        yield deed


def _reports(connection: Connection, definition: LoopDefinition) -> Iterator[tuple[_Deed, str | None]]:
    """Deeds with the key of their fact, in the order in which they count."""
    yield from _joined(connection, definition)
    for metric in definition.metrics:
        yield from _unjoined(connection, definition, metric)


def _joined(connection: Connection, definition: LoopDefinition) -> Iterator[tuple[_Deed, str | None]]:
    """Events that belong to a decision of the loop, those within its window first."""
    found = judged([definition]).subquery("judged")
    key = (found.c.occurred_at, bytewise(found.c.source), bytewise(found.c.event_id))
    query = (
        select(decisions.c.unit, found.c.metric, found.c.decision_id, found.c.occurred_at, found.c.value)
        .add_columns(found.c.reason, events.c.fact_key, events.c.currency)
        .join(decisions, decisions.c.decision_id == found.c.decision_id)
        .join(events, and_(events.c.source == found.c.source, events.c.event_id == found.c.event_id))
        .order_by(found.c.reason.is_not(None), *key)
    )
    metrics = {metric.name: metric for metric in definition.metrics}
    for unit, metric, decision_id, occurred_at, value, reason, fact_key, currency in connection.execute(query):
        if unit is None or reason not in COUNTED:
            continue
        if reason is None or _counts(metrics[metric], currency, value):
            yield _Deed(unit, metric, decision_id, occurred_at, int(value or 0)), fact_key


def _counts(metric: Metric, currency: str | None, value: int | None) -> bool:
    """Whether an amount that nobody looked at, because it is outside of its window, is in the metric's currency. ``value``:
    what it is worth there; null without a rate."""
    if metric.currency in (None, currency):
        return True
    return metric.convert and currency is not None and value is not None


def _unjoined(connection: Connection, definition: LoopDefinition, metric: Metric) -> Iterator[tuple[_Deed, str | None]]:
    """Events of units that belong to no decision of the loop: another loop's, or too long after the last one."""
    foreign = events.c.currency != literal(metric.currency)
    rate = case((foreign, rate_of(events, literal(metric.currency), None))) if metric.convert else null()
    query = (
        select(events, rate.label("rate"))
        .outerjoin(
            attributions,
            and_(
                attributions.c.event_no == events.c.event_no,
                attributions.c.loop_id == definition.loop,
            ),
        )
        .where(
            attributions.c.event_no.is_(None),
            events.c.type == metric.event,
            events.c.unit.is_not(None),
            stamped(events, None),
            ~is_labelled(events, None),
        )
        .order_by(events.c.occurred_at, bytewise(events.c.source), bytewise(events.c.event_id))
    )
    back, believed = _taken_back(connection, definition), definition.believed
    for row in connection.execute(query):
        known = believed.event(row.source, row.type, row.link, row.value_micros)
        left = max(0, (row.value_micros or 0) - back.get(row.fact_key, 0))
        value = left if metric.currency in (None, row.currency) else scale(left, row.rate)
        if known and value is not None:
            group = row.fact_key or f"{row.source}\x00{row.event_id}"
            yield _Deed(row.unit, metric.name, group, row.occurred_at, value), row.fact_key


def _taken_back(connection: Connection, definition: LoopDefinition) -> dict[str | None, int]:
    """Micros refunded by fact key of the purchase; of refunds reported under one fact key the largest, once. A refund
    without an amount takes back everything."""
    query = select(events.c.reverses, events.c.source, events.c.event_id, events.c.fact_key, events.c.value_micros)
    query = query.add_columns(events.c.link)
    refunds = query.where(
        events.c.type == REFUND, events.c.reverses.is_not(None), stamped(events, None), ~is_labelled(events, None)
    )
    most: dict[tuple[str, str], int] = {}
    believed = definition.believed
    for row in connection.execute(refunds):
        if not believed.event(row.source, REFUND, row.link, row.value_micros):
            continue
        key = row.reverses, row.fact_key or f"{row.source}\x00{row.event_id}"
        most[key] = max(most.get(key, 0), _EVERYTHING if row.value_micros is None else row.value_micros)
    total: dict[str | None, int] = defaultdict(int)
    for (reverses, _), value in most.items():
        total[reverses] += value
    return total


def _grouped(deeds: Iterable[_Deed]) -> dict[tuple[str, str, str], list[_Deed]]:
    found: dict[tuple[str, str, str], list[_Deed]] = defaultdict(list)
    for deed in deeds:
        found[deed.unit, deed.metric, deed.group].append(deed)
    return found


def _aggregate(metric: Metric, deeds: Sequence[_Deed]) -> int:
    """One number in millionths, as the join would make it of these events."""
    total = _added(metric, deeds)
    return total if metric.cap_micros is None else min(total, metric.cap_micros)


def _added(metric: Metric, deeds: Sequence[_Deed]) -> int:
    """The same without the cap."""
    if not deeds:
        return 0
    values = [deed.value for deed in deeds]
    match metric.aggregate:
        case "any":
            total = ONE
        case "count":
            total = ONE * len(deeds)
        case "sum":
            total = sum(values)
        case "max":
            total = max(values)
        case "first":
            total = min(deeds, key=lambda deed: deed.occurred_at).value
    return total
