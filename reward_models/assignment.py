"""Units as they were assigned, with all they did: what an intention-to-treat lift is measured on.

    load_assigned(connection, definition, since, until) -> Assigned

A unit belongs to the group of its first decision in the period, activated or not, whatever happens later. Everything
it did from that decision until the widest window after the period counts, inside a decision's window or not,
attributed or not. What is no fact about the customer stays out: labelled events, other currencies, second reports of
one order, what was refunded. Events are aggregated per decision they belong to (an event without one stands alone),
capped as the metric says, then added up per unit.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, and_, select

from infra.tables import attributions, decisions, events
from ingestion.attribution import stamped
from ingestion.events import REFUND
from ingestion.loops import LoopDefinition
from ingestion.metrics import Metric
from ingestion.outcomes import ONE, is_labelled, judged

Floats = npt.NDArray[np.float64]

GROUPS = ("holdout", "treatment")
"""``customer_managed`` decisions were not assigned by us."""
COUNTED = (None, "outside_window", "before_activation")
"""Reasons that concern a decision, not the customer: such events count here."""


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
class _Deed:
    """One event of a unit under one metric; ``group`` names the decision, or the event itself."""

    unit: str
    metric: str
    group: str
    occurred_at: int
    value: int


def load_assigned(connection: Connection, definition: LoopDefinition, since: int, until: int) -> Assigned:
    """Units decided on in [since, until), microseconds, with their deeds until ``until`` + the loop's reach."""
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
    yield from _joined(connection, definition)
    for metric in definition.metrics:
        yield from _unjoined(connection, definition.loop, metric)


def _joined(connection: Connection, definition: LoopDefinition) -> Iterator[_Deed]:
    """Events that belong to a decision of the loop, within its window or not."""
    found = judged([definition]).subquery("judged")
    query = select(
        decisions.c.unit, found.c.metric, found.c.decision_id, found.c.occurred_at, found.c.value, found.c.reason
    ).join(decisions, decisions.c.decision_id == found.c.decision_id)
    for unit, metric, decision_id, occurred_at, value, reason in connection.execute(query):
        if unit is not None and reason in COUNTED:
            yield _Deed(unit, metric, decision_id, occurred_at, value or 0)


def _unjoined(connection: Connection, loop_id: str, metric: Metric) -> Iterator[_Deed]:
    """Events of units that belong to no decision of the loop: another loop's, or too long after the last one."""
    query = (
        select(events)
        .outerjoin(
            attributions,
            and_(
                attributions.c.source == events.c.source,
                attributions.c.event_id == events.c.event_id,
                attributions.c.loop_id == loop_id,
            ),
        )
        .where(
            attributions.c.event_id.is_(None),
            events.c.type == metric.event,
            events.c.unit.is_not(None),
            stamped(events, None),
            ~is_labelled(events, None),
        )
    )
    back = _taken_back(connection)
    for row in connection.execute(query):
        if metric.currency in (None, row.currency):
            group = row.fact_key or f"{row.source}\x00{row.event_id}"
            left = max(0, (row.value_micros or 0) - back.get(row.fact_key, 0))
            yield _Deed(row.unit, metric.name, group, row.occurred_at, left)


def _taken_back(connection: Connection) -> dict[str | None, int]:
    """Micros refunded by fact key of the purchase, refunds reported under one fact key once."""
    query = select(events.c.reverses, events.c.source, events.c.event_id, events.c.fact_key, events.c.value_micros)
    seen: dict[tuple[str, str], int] = {}
    for row in connection.execute(query.where(events.c.type == REFUND, events.c.reverses.is_not(None))):
        seen[row.reverses, row.fact_key or f"{row.source}\x00{row.event_id}"] = row.value_micros or 0
    total: dict[str | None, int] = defaultdict(int)
    for (reverses, _), value in seen.items():
        total[reverses] += value
    return total


def _grouped(deeds: Iterable[_Deed]) -> dict[tuple[str, str, str], list[_Deed]]:
    found: dict[tuple[str, str, str], list[_Deed]] = defaultdict(list)
    for deed in deeds:
        found[deed.unit, deed.metric, deed.group].append(deed)
    return found


def _aggregate(metric: Metric, deeds: list[_Deed]) -> int:
    """One number in millionths, as the join would make it of these events."""
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
    return total if metric.cap_micros is None else min(total, metric.cap_micros)
