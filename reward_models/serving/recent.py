"""The newest decisions of a campaign, for the layer that learns contexts between two retrains (``contextual.py``).

One campaign is looked at in one refresh, the one whose counts have moved most since it was looked at last, and not
more often than ``SECONDS``: reading and fitting 5,000 decisions takes about a tenth of a second.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from infra import tables
from infra.clock import MICROS
from infra.database import chunks
from ingestion.events import Content
from ingestion.loops import LoopDefinition
from reward_models.boosted import RewardModel
from reward_models.contextual import WINDOW, Contextual, fit_contextual
from reward_models.statistics import StatRow

Floats = npt.NDArray[np.float64]

SECONDS = 5.0
"""Least time between two fits, of all campaigns together."""
_MOVED, _MANY = 0.02, WINDOW // 5
"""Share, and number, of new exposures that is worth another look."""


@dataclass(frozen=True)
class Layer:
    """What contexts say about a campaign's contents, from decisions of one model version; null: nothing."""

    version: str
    exposures: int
    """Of the campaign, when it was fitted."""
    known: Contextual | None


class Looks:
    """When the last look was."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self._last = -float("inf")

    def due(self) -> bool:
        """Whether it is time for the next."""
        return time.monotonic() - self._last >= self.seconds

    def looked(self) -> None:
        """One was made now."""
        self._last = time.monotonic()


def most_moved(
    statistics: Mapping[str, Mapping[str, Sequence[StatRow]]], versions: Mapping[str, str], layers: Mapping[str, Layer]
) -> str | None:
    """The campaign to look at next; null where nothing has moved. ``versions``: of the models served."""
    moved = []
    for campaign_id, version in versions.items():
        exposures = exposures_of(statistics.get(campaign_id, {}).get(version, ()))
        before = layers.get(campaign_id)
        seen = before.exposures if before is not None and before.version == version else 0
        if exposures - seen > min(_MOVED * seen, _MANY):
            moved.append(((exposures - seen) / (seen + 1.0), campaign_id))
    return max(moved)[1] if moved else None


def exposures_of(rows: Sequence[StatRow]) -> int:
    """Of all contents; each metric repeats them."""
    by_metric: dict[str, int] = {}
    for row in rows:
        by_metric[row.metric] = by_metric.get(row.metric, 0) + row.exposures
    return max(by_metric.values(), default=0)


def load_layer(
    connection: Connection,
    definition: LoopDefinition,
    model: RewardModel | None,
    version: str,
    contents: Sequence[Content],
    exposures: int,
) -> Layer:
    """Fit the layer of one campaign from its newest decisions under ``version`` (empty: of no model).

    The first position of each counts, with the outcome as it stands. ``definition``: whose reward the model predicts.
    """
    c = tables.decisions.c
    ours = c.model_version == version if version else c.model_version.is_(None)
    query = (
        select(c.decision_id, c.context, c.chosen)
        .where(c.loop_id == definition.loop, c.campaign_id == contents[0].campaign_id, ours)
        .where(c.batch_no.is_not(None), c.deferred.is_(False))
        .order_by(c.decided_at.desc(), c.decision_id)
        .limit(WINDOW)
    )
    place = {content.content_id: index for index, content in enumerate(contents)}
    rows = [
        (decision_id, context, chosen[0]["content_id"])
        for decision_id, context, chosen in connection.execute(query)
        if chosen and chosen[0]["content_id"] in place
    ]
    if not any(context for _, context, _ in rows):
        return Layer(version, exposures, None)
    contexts: list[Mapping[str, Any]] = [context for _, context, _ in rows]
    content = np.array([place[name] for _, _, name in rows], dtype=np.int64)
    reward = _rewards(connection, definition, [(decision_id, name) for decision_id, _, name in rows])
    if model is not None:
        reward = reward - model.rows(contexts, [contents[index] for index in content])
    ids = [one.content_id for one in contents]
    return Layer(version, exposures, fit_contextual(contexts, content, reward, ids, [one.features for one in contents]))


def _rewards(connection: Connection, definition: LoopDefinition, shown: Sequence[tuple[str, str]]) -> Floats:
    """Weighted outcome of each (decision, content) as it stands, reward units, shape (n,)."""
    weights = {
        (metric.name, metric.version): definition.reward[metric.name] / MICROS
        for metric in definition.metrics
        if metric.name in definition.reward
    }
    c, total = tables.outcomes.c, dict.fromkeys(shown, 0.0)
    for some in chunks([decision_id for decision_id, _ in shown], 500):
        query = select(c.decision_id, c.content_id, c.metric, c.metric_version, c.value).where(c.decision_id.in_(some))
        for decision_id, content_id, metric, version, value in connection.execute(query):
            if (decision_id, content_id) in total:
                total[decision_id, content_id] += weights.get((metric, version), 0.0) * value
    return np.array([total[key] for key in shown])
