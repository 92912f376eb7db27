"""The training set of a loop out of the database: decisions with the join's outcomes, and past results.

    load_training_set(connection, definition, version, *, as_of, now, before=None, since=None, censored=False)

``before`` and ``since`` bound ``decided_at`` (since ≤ decided_at < before). Rebuilding with the same ``as_of`` and ``now``
gives the same ``digest`` (invariant 6). Sealed decisions, past retention, have their last outcome whatever ``as_of`` is, and are
left out where that was measured under other metrics.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Row, Select, Text, literal, select, type_coerce

from infra import tables
from infra.clock import MICROS
from ingestion.copy.stored import copy_of
from ingestion.events import Content
from ingestion.join.attribution import start_of
from ingestion.join.outcomes import outcomes_query
from ingestion.join.seals import Seals, is_sealed, load_seals, open_outcomes
from ingestion.loops import LoopDefinition
from ingestion.metrics import Metric
from reward_models.choices import Choices
from reward_models.contexts import Contexts
from reward_models.dataset import LISTS, Arrivals, Floats, History, Ints, Timing, TrainingSet
from reward_models.reading import COLUMNS, Chunk, chunks
from reward_models.rewards import mean_reward_of, reward_of
from reward_models.vectors import load_vectors, newest_model

_CHUNK = 5_000
_NEWEST = 10_000
"""Events whose time on the way is looked at, per type."""
_LAGS = 20
_PARTS = {
    "decided_at": np.int64,
    "start": np.int64,
    "position": np.int64,
    "propensity": np.float64,
    "holdout": np.float64,
}


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
    choices_since: int | None = None,
) -> TrainingSet:
    """The training set of a loop as of batch ``as_of``, with decisions mature at ``now`` (microseconds).

    ``censored``: the others that have started, too, each with its age (``timing.mature`` tells them apart).
    ``choices_since``: candidates are read of decisions from then on; learning needs none, valuing a policy does.
    Reads each table once, in chunks; memory holds the result only.
    """
    seals = load_seals(connection)
    rows = _Rows(copy_of(connection, definition.loop).values(), _outcomes(connection, definition, as_of, seals))

    def kept(start: Floats) -> npt.NDArray[np.bool_]:
        mature = start + definition.maturity <= now
        rows.immature += int((~mature).sum())
        return mature | (start <= now) if censored else mature

    queries = _decisions(definition.loop, as_of, before, since, choices_since)
    known = [query.where(seals.known(definition)) for query in queries] if seals.horizon else queries
    for chunk in chunks(connection, known, kept):
        rows.add(chunk)
    metrics = rows.values(definition)
    history = _history(connection, definition, rows, as_of)
    lists: dict[str, Any] = {name: tuple(values) for name, values in rows.lists.items()}
    arrays: dict[str, Any] = rows.arrays()
    return TrainingSet(
        loop_id=definition.loop,
        loop_version=version,
        as_of=as_of,
        contents=tuple(rows.contents),
        **lists,
        contexts=Contexts.joined(rows.contexts),
        candidates=Choices.joined(rows.candidates),
        **arrays,
        metrics=metrics,
        reward=reward_of(definition, metrics),
        history=history,
        immature=rows.immature,
        timing=Timing(
            age=np.minimum(now - rows.start, definition.maturity).astype(np.float64),
            maturity=definition.maturity,
            arrivals=rows.arrivals(definition),
            lags=_lags(connection, definition, as_of),
        ),
        vectors=load_vectors(connection, definition.loop, newest_model(connection)),
    )


class Found(NamedTuple):
    """An outcome: its value in millionths, and the times of its first and last event."""

    value: int
    first_at: int
    last_at: int


Outcomes = Mapping[str, Mapping[str, Mapping[str, Found]]]
"""By decision, content and metric."""


class _Rows:
    """Rows under construction."""

    def __init__(self, contents: Iterable[Content], outcomes: Outcomes) -> None:
        self.known = {(content.campaign_id, content.content_id): content for content in contents}
        self.outcomes = outcomes
        self.contents: list[Content] = []
        self.index: dict[tuple[str, str], int] = {}
        self.lists: dict[str, list[Any]] = {name: [] for name in LISTS}
        self.content: list[Ints] = []
        self.contexts: list[Contexts] = []
        self.candidates: list[Choices] = []
        self.parts: dict[str, list[npt.NDArray[Any]]] = {
            name: [np.zeros(0, dtype=kind)] for name, kind in _PARTS.items()
        }
        self.found: list[tuple[int, Mapping[str, Found]]] = []
        """Rows that have outcomes, with them."""
        self.immature = 0
        self.same: dict[str | None, str | None] = {}
        """One object for equal texts."""

    def add(self, chunk: Chunk) -> None:
        """The rows of a chunk."""
        before = len(self.lists["decision_id"])
        for row, decision_id in enumerate(chunk.decision_id):
            if decision_id in self.outcomes:
                self.found.append((before + row, self.outcomes[decision_id].get(chunk.content_id[row], {})))
        for name in LISTS:
            values = getattr(chunk, name)
            self.lists[name] += values if name == "decision_id" else map(self.same.setdefault, values, values)
        for name in _PARTS:
            self.parts[name].append(getattr(chunk, name))
        self.contexts.append(chunk.contexts)
        self.candidates.append(chunk.candidates)
        self.content.append(self.indices(chunk))

    def indices(self, chunk: Chunk) -> Ints:
        """Content of each row; the candidates of every row come first."""
        of_row, sets = chunk.candidates.sets()
        for campaign_id, number in dict.fromkeys(zip(chunk.campaign_id, of_row.tolist(), strict=True)):
            for content_id in sets[number]:
                self.content_index(campaign_id, content_id)
        pairs = list(zip(chunk.campaign_id, chunk.content_id, strict=True))
        for pair in dict.fromkeys(pairs):
            self.content_index(*pair)
        return np.fromiter(map(self.index.__getitem__, pairs), dtype=np.int64, count=len(pairs))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The columns of numbers, whole."""
        whole = {name: np.concatenate(parts) for name, parts in self.parts.items() if name != "start"}
        return {**whole, "content": np.concatenate([np.zeros(0, dtype=np.int64), *self.content])}

    @cached_property
    def start(self) -> Ints:
        """Start of each row's decision, once all rows are there."""
        return np.concatenate(self.parts["start"])

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
        """Value of each metric, in units."""
        values = {metric.name: np.zeros(len(self.lists["decision_id"])) for metric in definition.metrics}
        for row, outcome in self.found:
            for name, found in outcome.items():
                values[name][row] = found.value / MICROS
        return values

    def arrivals(self, definition: LoopDefinition) -> dict[str, Arrivals]:
        return {metric.name: self.arrivals_of(metric) for metric in definition.metrics}

    def arrivals_of(self, metric: Metric) -> Arrivals:
        """The first event completes an ``any``; what adds up came with the last one, too, if that is another."""
        found = [(row, outcome[metric.name]) for row, outcome in self.found if metric.name in outcome]
        moments = [(row, each.first_at) for row, each in found]
        if metric.aggregate in ("count", "sum"):
            moments += [(row, each.last_at) for row, each in found if each.last_at > each.first_at]
        row = np.array([row for row, _ in moments], dtype=np.int64)
        at = np.array([at for _, at in moments], dtype=np.float64)
        return Arrivals(row, at - self.start[row])


def _decisions(
    loop_id: str, as_of: int, before: int | None, since: int | None, choices_since: int | None
) -> list[Select[Any]]:
    """Those before ``choices_since`` by a query that does not name their candidates, which are the larger part of a
    stored decision: a database that sorts rows carries along what is named."""
    c = tables.decisions.c
    wanted = [c.loop_id == loop_id, c.batch_no <= as_of]
    wanted += [c.decided_at < before] if before is not None else []
    wanted += [c.decided_at >= since] if since is not None else []
    found = {
        **{name: c[name] for name in COLUMNS if name != "start"},
        "start": start_of(tables.decisions, as_of),
        **{name: type_coerce(c[name], Text) for name in ("context", "candidates", "chosen", "constraints")},
    }
    without = {**found, "candidates": literal("[]", Text)}
    if choices_since is None:
        parts = [(found, wanted)]
    else:
        parts = [
            (without, [*wanted, c.decided_at < choices_since]),
            (found, [*wanted, c.decided_at >= choices_since]),
        ]
    return [
        select(*(columns[name].label(name) for name in COLUMNS)).where(*these).order_by(c.decided_at, c.decision_id)
        for columns, these in parts
    ]


def _outcomes(connection: Connection, definition: LoopDefinition, as_of: int, seals: Seals) -> Outcomes:
    """What the join says as of the batch; of sealed decisions, whose events may be gone, what it said last."""
    joined, stored = outcomes_query([definition], as_of=as_of), tables.outcomes
    queries: list[Any] = [joined]
    if seals.horizon:
        versions = stored.c.metric_version.in_([metric.version for metric in definition.metrics])
        sealed = select(stored).join(tables.decisions, tables.decisions.c.decision_id == stored.c.decision_id)
        of_loop = tables.decisions.c.loop_id == definition.loop
        queries = [open_outcomes(joined), sealed.where(of_loop, versions, is_sealed(tables.decisions))]
        queries = [query.params(horizon=seals.horizon) for query in queries]
    found: dict[str, dict[str, dict[str, Found]]] = {}
    for row in (row for query in queries for row in _stream(connection, query)):
        outcome = Found(int(row.value), row.first_at, row.last_at)
        found.setdefault(row.decision_id, {}).setdefault(row.content_id, {})[row.metric] = outcome
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
