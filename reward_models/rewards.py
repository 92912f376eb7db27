"""What an outcome is worth: the reward is a weighted sum of metrics, a silent decision earns the default.

    reward = Σ_metric weight · value      (some metric is not 0)
    reward = default_reward               (every metric of the loop is 0)

Facts are kept, rewards are recomputed: changing a weight re-scores history. The default applies to mature rows
only (invariant 13); callers pass no others.

    reward_of(definition, values) -> np.ndarray             of decisions
    mean_reward_of(definition, means) -> np.ndarray         of many decisions each, as past results are
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from infra.errors import BadInput
from ingestion.loops import LoopDefinition

Floats = npt.NDArray[np.float64]


def reward_of(definition: LoopDefinition, values: Mapping[str, Floats]) -> Floats:
    """Rewards, shape (n,). ``values``: one array (n,) per metric of the loop, in units (one click is 1.0).

    Raises :class:`BadInput` when a metric of the loop is not among the values.
    """
    columns = _columns(definition, values)
    silent = np.logical_and.reduce([column == 0.0 for column in columns.values()])
    return np.where(silent, definition.default_reward, _weighted(definition, columns))


def mean_reward_of(definition: LoopDefinition, means: Mapping[str, Floats]) -> Floats:
    """Mean rewards from the means of the metrics, shape (n,) each.

    Silent are those that the metrics of type ``any`` do not account for: the largest of these, because a purchase
    follows a click. Without such a metric all count as silent: few decisions end in money.
    """
    columns = _columns(definition, means)
    happened = [columns[metric.name] for metric in definition.metrics if metric.aggregate == "any"]
    silent = 1.0 - np.maximum.reduce(happened) if happened else 1.0
    return np.asarray(_weighted(definition, columns) + definition.default_reward * np.maximum(silent, 0.0))


def _columns(definition: LoopDefinition, values: Mapping[str, Floats]) -> dict[str, Floats]:
    missing = [metric.name for metric in definition.metrics if metric.name not in values]
    if missing:
        raise BadInput(f"The reward of loop {definition.loop!r} needs the metric {missing[0]!r}, which was not given")
    return {metric.name: np.asarray(values[metric.name], dtype=np.float64) for metric in definition.metrics}


def _weighted(definition: LoopDefinition, columns: Mapping[str, Floats]) -> Floats:
    return np.asarray(sum((weight * columns[name] for name, weight in definition.reward.items()), np.float64(0.0)))
