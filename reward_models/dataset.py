"""The training set: decisions with what came of them, as of one batch, and aggregated past results.

One row per shown content of a mature decision (a slate of three is three rows). Mature: it has a start, and its
outcome is final by ``now`` (invariant 13); the others are counted in ``immature`` and left out, unless ``censored``
asks for them: those that have started are then rows with what has come so far, for training alone. Rebuilding with
the same ``as_of`` and ``now`` gives the same ``digest`` (invariant 6).

    load_training_set(connection, definition, version, *, as_of, now, before=None, since=None, censored=False)
    TrainingSet.subset(rows, history)   a part of it: masks or indices
    TrainingSet.digest                  SHA-256 of everything in it

``before`` and ``since`` bound ``decided_at`` (since ≤ decided_at < before).
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Row, Select, Text, select, type_coerce

from infra import tables
from infra.clock import MICROS
from infra.database import canonical_json
from ingestion.attribution import start_of
from ingestion.events import Candidate, Content, Placement
from ingestion.loops import LoopDefinition
from ingestion.metrics import Metric
from ingestion.outcomes import matured_at, outcomes_query
from reward_models.rewards import mean_reward_of, reward_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_CHUNK = 5_000
_NEWEST = 10_000
"""Events whose time on the way is looked at, per type."""
_LAGS = 20
_candidates = msgspec.json.Decoder(tuple[Candidate, ...])
_placements = msgspec.json.Decoder(tuple[Placement, ...])


@dataclass(frozen=True)
class History:
    """Aggregated past results, m rows. ``reward``: mean per exposure. ``metrics``: sums, in units."""

    content: Ints
    exposures: Floats
    metrics: Mapping[str, Floats]
    reward: Floats
    noise: Floats
    """Variance of the reward of one exposure, shape (m,); nan where an aggregate does not tell."""
    trusted: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.content)


@dataclass(frozen=True)
class Arrivals:
    """Outcomes of one metric, m of them: the row they belong to, and how long after its start. Shape (m,)."""

    row: Ints
    delay: Floats
    """Microseconds from the start of the decision to the event."""

    def subset(self, place: Ints) -> "Arrivals":
        """Those of the rows that are kept: ``place`` is a row's new index, -1 for one that goes."""
        kept = place[self.row] >= 0
        return Arrivals(place[self.row[kept]], self.delay[kept])


@dataclass(frozen=True)
class Timing:
    """When the outcomes came, by which ``delays.py`` learns how many are still to come."""

    age: Floats
    """Microseconds from the start of each row's decision to ``now``, shape (n,)."""
    maturity: int
    arrivals: Mapping[str, Arrivals]
    """By metric: of ``count`` and ``sum`` the first and the last event, else the one that counts."""
    lags: Mapping[str, tuple[float, ...]]
    """By metric: equally likely times from event to us, microseconds."""

    @property
    def mature(self) -> npt.NDArray[np.bool_]:
        """Rows whose outcome is final, shape (n,)."""
        return np.asarray(self.age >= self.maturity)

    def subset(self, kept: Ints) -> "Timing":
        """Of some rows, by index."""
        place = np.full(len(self.age), -1, dtype=np.int64)
        place[kept] = np.arange(len(kept))
        arrivals = {name: came.subset(place) for name, came in self.arrivals.items()}
        return replace(self, age=self.age[kept], arrivals=arrivals)


@dataclass(frozen=True)
class TrainingSet:
    """Mature decisions (n rows) and past results (m rows) of a loop. ``content``: index into ``contents``."""

    loop_id: str
    loop_version: int
    as_of: int
    contents: tuple[Content, ...]
    decision_id: tuple[str, ...]
    unit: tuple[str | None, ...]
    decided_at: Ints
    contexts: tuple[Mapping[str, Any], ...]
    content: Ints
    position: Ints
    propensity: Floats
    """Shape (n,); nan where it is unknown."""
    holdout: Floats
    """Probability with which the row's unit had been held out, shape (n,); 0 where nobody was."""
    group: tuple[str, ...]
    learning_mode: tuple[str, ...]
    candidates: tuple[tuple[Candidate, ...], ...]
    metrics: Mapping[str, Floats]
    """Value per row, in units: one click is 1.0."""
    reward: Floats
    history: History
    immature: int = 0
    """Decisions whose outcome is not final; they are rows only of a set that was loaded with ``censored``."""
    timing: Timing | None = None
    """None: every row is mature, and nobody knows when its outcome came."""
    exposures: Floats | None = None
    """Share of each row's reward that has come in, shape (n,), ``reward`` being scaled up by it; None: all of it."""

    def __len__(self) -> int:
        return len(self.decision_id)

    @property
    def campaign_id(self) -> list[str]:
        """Campaign of each row."""
        return [self.contents[index].campaign_id for index in self.content]

    @property
    def chosen(self) -> list[str]:
        """Content id of each row."""
        return [self.contents[index].content_id for index in self.content]

    @cached_property
    def index(self) -> dict[tuple[str, str], int]:
        """Index into ``contents`` by campaign and content id."""
        return {(content.campaign_id, content.content_id): index for index, content in enumerate(self.contents)}

    @property
    def mature(self) -> npt.NDArray[np.bool_]:
        """Rows whose outcome is final, shape (n,)."""
        return np.ones(len(self), dtype=np.bool_) if self.timing is None else self.timing.mature

    def candidate_contents(self, row: int) -> list[Content]:
        """The contents that could have been chosen in a row, in the order of its ``candidates``."""
        campaign = self.contents[self.content[row]].campaign_id
        return [self.contents[self.index[campaign, candidate.content_id]] for candidate in self.candidates[row]]

    def subset(self, rows: npt.NDArray[Any] | None = None, history: npt.NDArray[Any] | None = None) -> "TrainingSet":
        """Only these rows of decisions and of history, each a mask or indices; None keeps all."""
        kept = np.arange(len(self)) if rows is None else np.arange(len(self))[rows]
        past = self.history if history is None else _part_of(self.history, history)
        parts: dict[str, Any] = {name: tuple(getattr(self, name)[row] for row in kept) for name in _LISTS}
        parts |= {name: getattr(self, name)[kept] for name in _ARRAYS}
        metrics = {name: values[kept] for name, values in self.metrics.items()}
        parts["timing"] = None if self.timing is None else self.timing.subset(kept)
        parts["exposures"] = None if self.exposures is None else self.exposures[kept]
        return replace(self, **parts, metrics=metrics, history=past)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything in the set, in order."""
        state = hashlib.sha256(canonical_json([self.loop_id, self.loop_version, self.as_of]))
        for content in self.contents:
            state.update(canonical_json([content.campaign_id, content.content_id, content.fingerprint]))
        for name in _LISTS:
            state.update(canonical_json(getattr(self, name)))
        for name in _ARRAYS:
            state.update(getattr(self, name).tobytes())
        _update(state, self.metrics)
        past = self.history
        for values in (past.content, past.exposures, past.reward, past.noise, past.trusted):
            state.update(values.tobytes())
        _update(state, past.metrics)
        if self.timing is not None:
            _update(
                state, {"age": self.timing.age, **{name: came.delay for name, came in self.timing.arrivals.items()}}
            )
            state.update(canonical_json(self.timing.lags))
        _update(state, {} if self.exposures is None else {"exposures": self.exposures})
        return state.hexdigest()


_LISTS = ("decision_id", "unit", "contexts", "group", "learning_mode", "candidates")
_ARRAYS = ("decided_at", "content", "position", "propensity", "holdout", "reward")


def load_training_set(
    connection: Connection,
    definition: LoopDefinition,
    version: int,
    *,
    as_of: int,
    now: int,
    before: int | None = None,
    since: int | None = None,
    censored: bool = False,
) -> TrainingSet:
    """The training set of a loop as of batch ``as_of``, with decisions mature at ``now`` (microseconds).

    ``censored``: the others that have started, too, each with its age (``timing.mature`` tells them apart).
    Reads each table once, in chunks; memory holds the result only.
    """
    rows = _Rows(_contents(connection, definition.loop))
    values = _outcomes(connection, definition, as_of)
    for decision in _decisions(connection, definition.loop, as_of, before, since):
        mature = decision.start is not None and matured_at(definition, decision.start) <= now
        rows.immature += not mature
        if mature or (censored and decision.start is not None and decision.start <= now):
            rows.add(decision, values)
    metrics = rows.values(definition)
    history = _history(connection, definition, rows, as_of)
    lists: dict[str, Any] = {name: tuple(values) for name, values in rows.lists.items()}
    return TrainingSet(
        loop_id=definition.loop,
        loop_version=version,
        as_of=as_of,
        contents=tuple(rows.contents),
        **lists,
        decided_at=np.array(rows.decided_at, dtype=np.int64),
        content=np.array(rows.content, dtype=np.int64),
        position=np.array(rows.position, dtype=np.int64),
        propensity=np.array(rows.propensity, dtype=np.float64),
        holdout=np.array(rows.holdout, dtype=np.float64),
        metrics=metrics,
        reward=reward_of(definition, metrics),
        history=history,
        immature=rows.immature,
        timing=Timing(
            age=np.minimum(now - np.array(rows.start, dtype=np.float64), definition.maturity),
            maturity=definition.maturity,
            arrivals=rows.arrivals(definition),
            lags=_lags(connection, definition, as_of),
        ),
    )


class Found(NamedTuple):
    """An outcome: its value in millionths, and the times of its first and last event."""

    value: int
    first_at: int
    last_at: int


Values = Mapping[tuple[str, str], Mapping[str, Found]]
"""Outcomes by metric, by (decision, content)."""

_NOTHING = Found(0, 0, 0)


class _Rows:
    """Rows under construction."""

    def __init__(self, contents: Iterable[Content]) -> None:
        self.known = {(content.campaign_id, content.content_id): content for content in contents}
        self.contents: list[Content] = []
        self.index: dict[tuple[str, str], int] = {}
        self.lists: dict[str, list[Any]] = {name: [] for name in _LISTS}
        self.decided_at: list[int] = []
        self.content: list[int] = []
        self.position: list[int] = []
        self.propensity: list[float] = []
        self.holdout: list[float] = []
        self.start: list[int] = []
        self.outcomes: list[Mapping[str, Found]] = []
        self.immature = 0

    def add(self, decision: Row[Any], values: Values) -> None:
        chosen = _placements.decode(decision.chosen)
        candidates = _candidates.decode(decision.candidates)
        slots = decision.constraints.get("slots", len(chosen))
        for candidate in candidates:
            self.content_index(decision.campaign_id, candidate.content_id)
        for placed in chosen:
            if placed.position <= slots:
                self.add_row(decision, candidates, placed, values)

    def add_row(self, decision: Row[Any], candidates: tuple[Candidate, ...], placed: Placement, values: Values) -> None:
        named = {
            "decision_id": decision.decision_id,
            "unit": decision.unit,
            "contexts": decision.context,
            "group": decision.group,
            "learning_mode": decision.learning_mode,
            "candidates": candidates,
        }
        for name, value in named.items():
            self.lists[name].append(value)
        self.decided_at.append(decision.decided_at)
        self.start.append(decision.start)
        self.content.append(self.content_index(decision.campaign_id, placed.content_id))
        self.position.append(placed.position)
        self.propensity.append(np.nan if placed.propensity is None else placed.propensity)
        self.holdout.append(decision.constraints.get("holdout", 0.0))
        self.outcomes.append(values.get((decision.decision_id, placed.content_id), {}))

    def content_index(self, campaign_id: str, content_id: str) -> int:
        """Of a content; ``no_send`` and ids that were never registered get a content without text.

        Copy that no row names stays out: what is registered later must not change an earlier set.
        """
        key = (campaign_id, content_id)
        if key not in self.index:
            self.index[key] = len(self.contents)
            self.contents.append(
                self.known.get(key) or Content(content_id=content_id, campaign_id=campaign_id, slots={})
            )
        return self.index[key]

    def values(self, definition: LoopDefinition) -> dict[str, Floats]:
        return {
            metric.name: np.array(
                [outcome.get(metric.name, _NOTHING).value for outcome in self.outcomes], dtype=np.float64
            )
            / MICROS
            for metric in definition.metrics
        }

    def arrivals(self, definition: LoopDefinition) -> dict[str, Arrivals]:
        return {metric.name: self.arrivals_of(metric) for metric in definition.metrics}

    def arrivals_of(self, metric: Metric) -> Arrivals:
        """The first event completes an ``any``; what adds up came with the last one, too, if that is another."""
        found = [(row, outcome[metric.name]) for row, outcome in enumerate(self.outcomes) if metric.name in outcome]
        moments = [(row, each.first_at) for row, each in found]
        if metric.aggregate in ("count", "sum"):
            moments += [(row, each.last_at) for row, each in found if each.last_at > each.first_at]
        row = np.array([row for row, _ in moments], dtype=np.int64)
        at = np.array([at for _, at in moments], dtype=np.float64)
        return Arrivals(row, at - np.array(self.start, dtype=np.float64)[row])


def _contents(connection: Connection, loop_id: str) -> list[Content]:
    c, campaigns = tables.contents.c, tables.campaigns
    query = (
        select(c.content_id, c.campaign_id, c.slots, c.features, c.locale)
        .join(campaigns, campaigns.c.campaign_id == c.campaign_id)
        .where(campaigns.c.loop_id == loop_id)
        .order_by(c.content_id)
    )
    return [Content(**row._mapping) for row in _stream(connection, query)]


def _decisions(
    connection: Connection, loop_id: str, as_of: int, before: int | None, since: int | None
) -> Iterator[Row[Any]]:
    c = tables.decisions.c
    wanted = [c.loop_id == loop_id, c.batch_no <= as_of]
    wanted += [c.decided_at < before] if before is not None else []
    wanted += [c.decided_at >= since] if since is not None else []
    query = (
        select(
            c.decision_id,
            c.unit,
            c.campaign_id,
            c.decided_at,
            c.context,
            c.group,
            c.learning_mode,
            start_of(tables.decisions, as_of).label("start"),
            c.constraints,
            type_coerce(c.candidates, Text).label("candidates"),
            type_coerce(c.chosen, Text).label("chosen"),
        )
        .where(*wanted)
        .order_by(c.decided_at, c.decision_id)
    )
    return _stream(connection, query)


def _outcomes(
    connection: Connection, definition: LoopDefinition, as_of: int
) -> dict[tuple[str, str], dict[str, Found]]:
    found: dict[tuple[str, str], dict[str, Found]] = {}
    for row in _stream(connection, outcomes_query([definition], as_of=as_of)):
        outcome = Found(int(row.value), row.first_at, row.last_at)
        found.setdefault((row.decision_id, row.content_id), {})[row.metric] = outcome
    return found


def _lags(connection: Connection, definition: LoopDefinition, as_of: int) -> dict[str, tuple[float, ...]]:
    """By metric, of the newest events of its type. What came later than the loop's lateness was not on its way but
    imported: it says nothing."""
    c = tables.events.c
    found = {}
    for event in {metric.event for metric in definition.metrics}:
        query = (
            select(c.received_at - c.occurred_at)
            .where(c.type == event, c.batch_no <= as_of, c.received_at - c.occurred_at <= definition.lateness)
            .order_by(c.batch_no.desc(), c.source, c.event_id)
            .limit(_NEWEST)
        )
        found[event] = np.maximum(np.array(connection.scalars(query).all(), dtype=np.float64), 0.0)
    return {metric.name: lag_quantiles(found[metric.event]) for metric in definition.metrics}


def lag_quantiles(lags: Floats) -> tuple[float, ...]:
    """Equally likely times on the way, from those seen, shape (m,); no time at all without any."""
    if not len(lags):
        return (0.0,)
    return tuple(np.quantile(lags, (np.arange(_LAGS) + 0.5) / _LAGS).tolist())


def _history(connection: Connection, definition: LoopDefinition, rows: _Rows, as_of: int) -> History:
    c = tables.historical_results.c
    query = (
        select(c.campaign_id, c.content_id, c.exposures, c.metrics, c.trusted)
        .where(c.loop_id == definition.loop, c.batch_no <= as_of, c.exposures > 0)
        .order_by(c.import_id, c.row)
    )
    results = list(_stream(connection, query))
    exposures = np.array([row.exposures for row in results], dtype=np.float64)
    sums = {
        metric.name: np.array([row.metrics.get(metric.name, 0) for row in results], dtype=np.float64) / MICROS
        for metric in definition.metrics
    }
    return History(
        content=np.array([rows.content_index(row.campaign_id, row.content_id) for row in results], dtype=np.int64),
        exposures=exposures,
        metrics=sums,
        reward=mean_reward_of(definition, {name: total / exposures for name, total in sums.items()}),
        noise=_noise(definition, sums, exposures),
        trusted=np.array([row.trusted for row in results], dtype=np.bool_),
    )


def _noise(definition: LoopDefinition, sums: Mapping[str, Floats], exposures: Floats) -> Floats:
    """Events that are counted are Poisson: their variance is their mean. Sums of money do not tell theirs."""
    variance = np.zeros_like(exposures)
    for name, weight in definition.reward.items():
        counted = definition.metric(name).aggregate in ("any", "count")
        variance += weight**2 * sums[name] / exposures if counted else np.nan
    return variance


def _stream(connection: Connection, query: Select[Any]) -> Iterator[Row[Any]]:
    yield from connection.execution_options(yield_per=_CHUNK).execute(query)


def _part_of(history: History, rows: npt.NDArray[Any]) -> History:
    return History(
        history.content[rows],
        history.exposures[rows],
        {name: values[rows] for name, values in history.metrics.items()},
        history.reward[rows],
        history.noise[rows],
        history.trusted[rows],
    )


def _update(state: Any, metrics: Mapping[str, Floats]) -> None:
    for name in sorted(metrics):
        state.update(name.encode())
        state.update(metrics[name].tobytes())
