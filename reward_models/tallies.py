"""What the log health report counts, read once from the log.

    decisions   streamed: who was drawn with which probabilities, groups, activations, ages
    events      added up by the database: those of the loop's metrics, by decision's content and day, and why not used
    strays      events that name a decision nobody stored

Counts are kept by campaign, content and day of decision: contents are compared with each other on the same day only,
so that a content that is new, or that a bandit shows more often lately, is not taken for one that loses events.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Row, Select, Text, case, func, select, type_coerce

from infra import tables
from infra.clock import DAY
from ingestion.join.attribution import start_of
from ingestion.join.outcomes import judged, matured_at
from ingestion.loops import LoopDefinition

Floats = npt.NDArray[np.float64]

_CHUNK = 5_000
_FAIR = 1e-6
"""How far probabilities may be from adding up to 1."""


class Key(NamedTuple):
    """Where a count belongs."""

    campaign_id: str
    content_id: str
    day: int


class Draws(NamedTuple):
    """Decisions drawn with known probabilities that showed a content, and how many had been expected to."""

    shown: float
    expected: float
    variance: float


@dataclass
class Counted:
    """A part of a whole, by content and day: activated of deferred, used of joined …"""

    part: dict[Key, int] = field(default_factory=dict)
    whole: dict[Key, int] = field(default_factory=dict)

    def add(self, key: Key, part: int, whole: int = 1) -> None:
        """Count ``part`` of ``whole``."""
        self.part[key] = self.part.get(key, 0) + part
        self.whole[key] = self.whole.get(key, 0) + whole

    @property
    def share(self) -> float | None:
        """Over everything; None without any."""
        whole = sum(self.whole.values())
        return sum(self.part.values()) / whole if whole else None


@dataclass
class Tallies:
    """Everything that is counted."""

    decisions: int = 0
    drawn: int = 0
    """With probabilities known for every candidate."""
    unknown: int = 0
    """Online treatment decisions without a known propensity."""
    broken: int = 0
    """Whose probabilities do not add up to 1, or that played what they say was impossible."""
    shown: dict[tuple[str, str], int] = field(default_factory=dict)
    units: dict[str, tuple[bool, float]] = field(default_factory=dict)
    """Held out or not, and the chance of that, by unit."""
    draws: dict[tuple[str, str], Draws] = field(default_factory=dict)
    """By campaign and content."""
    weight: Floats = field(default_factory=lambda: np.zeros(3))
    """Of the policy that draws evenly: Σ w, Σ w², Σ of the variance of w as expected before the draw."""
    least: float = 1.0
    """Smallest probability of a candidate."""
    activated: Counted = field(default_factory=Counted)
    waiting: Counted = field(default_factory=Counted)
    used: Counted = field(default_factory=Counted)
    bots: Counted = field(default_factory=Counted)
    named: int = 0
    """Events that name a decision."""
    strays: int = 0
    """Those whose decision nobody stored."""


class _Candidate(msgspec.Struct):
    content_id: str
    policy_p: float | None = None
    behaviour_p: float | None = None


class _Placed(msgspec.Struct):
    content_id: str
    propensity: float | None = None


_candidates = msgspec.json.Decoder(list[_Candidate])
_placed = msgspec.json.Decoder(list[_Placed])


def tally(
    connection: Connection,
    definition: LoopDefinition,
    *,
    as_of: int,
    now: int,
    since: int | None = None,
    before: int | None = None,
) -> Tallies:
    """Counts of a loop's decisions with since ≤ decided_at < before, as of batch ``as_of``, at ``now``."""
    found, drawn = Tallies(), _Drawn()
    for row in _decisions(connection, definition.loop, as_of, since, before):
        chosen, candidates = _placed.decode(row.chosen)[0], _candidates.decode(row.candidates)
        key = Key(row.campaign_id, chosen.content_id, row.decided_at // DAY)
        found.decisions += 1
        found.shown[key[:2]] = found.shown.get(key[:2], 0) + 1
        _count(found, definition, row, key, now)
        if not _adds_up(candidates, chosen):
            found.broken += 1
        elif all(one.behaviour_p is not None for one in candidates):
            drawn.add(row.campaign_id, candidates, chosen)
        elif row.group == "treatment" and row.learning_mode == "online" and chosen.propensity is None:
            found.unknown += 1
    drawn.settle(found)
    _events(connection, definition, found, as_of, since, before)
    return found


def _count(found: Tallies, definition: LoopDefinition, row: Row[Any], key: Key, now: int) -> None:
    if row.unit is not None and row.group != "customer_managed":
        found.units.setdefault(row.unit, (row.group == "holdout", float(row.constraints.get("holdout", 0.0))))
    if row.deferred:
        found.activated.add(key, int(row.start is not None))
    if row.start is not None:
        found.waiting.add(key, int(matured_at(definition, row.start) > now))


def _adds_up(candidates: list[_Candidate], chosen: _Placed) -> bool:
    """What is stored may be unknown, but not wrong."""
    for name in ("behaviour_p", "policy_p"):
        known = [getattr(one, name) for one in candidates]
        if known and None not in known and abs(sum(known) - 1.0) > _FAIR:
            return False
    if chosen.propensity is None:
        return True
    stored = {one.content_id: one.behaviour_p for one in candidates}.get(chosen.content_id)
    return chosen.propensity > 0.0 and (stored is None or abs(stored - chosen.propensity) <= _FAIR)


class _Drawn:
    """Draws by campaign and candidates, to be added up as matrices."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, ...], tuple[list[list[float]], list[int]]] = {}

    def add(self, campaign_id: str, candidates: list[_Candidate], chosen: _Placed) -> None:
        ids = [one.content_id for one in candidates]
        if chosen.content_id not in ids:
            return
        probabilities, places = self.rows.setdefault((campaign_id, *ids), ([], []))
        probabilities.append([one.behaviour_p or 0.0 for one in candidates])
        places.append(ids.index(chosen.content_id))

    def settle(self, found: Tallies) -> None:
        for (campaign_id, *ids), (probabilities, places) in self.rows.items():
            drawn_from, chosen = np.array(probabilities), np.array(places)
            found.drawn += len(chosen)
            shown = np.bincount(chosen, minlength=len(ids)).astype(np.float64)
            expected, variance = drawn_from.sum(axis=0), (drawn_from * (1.0 - drawn_from)).sum(axis=0)
            for content_id, *more in zip(ids, shown, expected, variance, strict=True):
                before = found.draws.get((campaign_id, content_id), (0.0, 0.0, 0.0))
                total = (old + float(new) for old, new in zip(before, more, strict=True))
                found.draws[campaign_id, content_id] = Draws(*total)
            _weigh(found, drawn_from, chosen)


def _weigh(found: Tallies, drawn_from: Floats, chosen: npt.NDArray[np.int64]) -> None:
    """Weights of drawing evenly among what could be drawn."""
    possible = drawn_from > 0.0
    even = possible / possible.sum(axis=1, keepdims=True)
    weights = np.divide(even, drawn_from, out=np.zeros_like(even), where=possible)
    weight = weights[np.arange(len(chosen)), chosen]
    spread = (drawn_from * weights**2).sum(axis=1) - 1.0
    found.weight += np.array([weight.sum(), (weight**2).sum(), spread.sum()])
    found.least = min(found.least, float(drawn_from[possible].min()))


def _decisions(
    connection: Connection, loop_id: str, as_of: int, since: int | None, before: int | None
) -> Iterator[Row[Any]]:
    c = tables.decisions.c
    query = select(
        *(c.campaign_id, c.unit, c.decided_at, c.group, c.learning_mode, c.deferred, c.constraints),
        start_of(tables.decisions, as_of).label("start"),
        type_coerce(c.candidates, Text).label("candidates"),
        type_coerce(c.chosen, Text).label("chosen"),
    ).where(c.loop_id == loop_id, c.batch_no <= as_of, *_between(since, before))
    yield from connection.execution_options(yield_per=_CHUNK).execute(query.order_by(c.decided_at, c.decision_id))


def _events(
    connection: Connection,
    definition: LoopDefinition,
    found: Tallies,
    as_of: int,
    since: int | None,
    before: int | None,
) -> None:
    for row in connection.execute(_by_content(definition, as_of, since, before)):
        key = Key(row.campaign_id, row.content_id, row.day)
        found.bots.add(key, row.bots, row.events)
        found.used.add(key, row.used, row.events - row.bots)
    c, types = tables.events.c, {metric.event for metric in definition.metrics}
    named = [c.batch_no <= as_of, c.decision_id.is_not(None), c.type.in_(types)]
    named += [c.occurred_at >= since] if since is not None else []
    named += [c.occurred_at < before] if before is not None else []
    stored = select(tables.decisions.c.decision_id).where(tables.decisions.c.decision_id == c.decision_id).exists()
    query = select(func.count(), func.count().filter(~stored)).select_from(tables.events).where(*named)
    found.named, found.strays = connection.execute(query).one()


def _by_content(
    definition: LoopDefinition, as_of: int, since: int | None, before: int | None
) -> Select[tuple[str, str, int, int, int, int]]:
    """Events by the content and day of their decision: how many, how many of a bot or a test, how many used."""
    each = judged([definition], as_of=as_of).subquery("judged")
    key = (each.c.source, each.c.event_id, each.c.decision_id, each.c.content_id)
    event = (
        select(
            *key,
            func.max(case((each.c.reason.is_(None), 1), else_=0)).label("used"),
            func.max(case((each.c.reason == "labelled", 1), else_=0)).label("bot"),
        )
        .group_by(*key)
        .subquery("event")
    )
    c = tables.decisions.c
    where = (c.campaign_id, event.c.content_id, (c.decided_at // DAY).label("day"))
    return (
        select(
            *where,
            func.count().label("events"),
            func.sum(event.c.bot).label("bots"),
            func.sum(event.c.used).label("used"),
        )
        .join(event, event.c.decision_id == c.decision_id)
        .where(c.loop_id == definition.loop, *_between(since, before))
        .group_by(*where)
    )


def _between(since: int | None, before: int | None) -> list[Any]:
    c = tables.decisions.c
    wanted = [c.decided_at >= since] if since is not None else []
    return wanted + ([c.decided_at < before] if before is not None else [])
