"""What an outcome is worth: the reward is a weighted sum of metrics, a silent decision earns the default.

    reward = Σ_metric weight · value      (some metric is not 0)
    reward = default_reward               (every metric of the loop is 0)

Facts are kept, rewards are recomputed: changing a weight re-scores history. The default applies to mature rows
only (invariant 13); callers pass no others.

    reward_of(definition, values) -> np.ndarray
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
    missing = [metric.name for metric in definition.metrics if metric.name not in values]
    if missing:
        raise BadInput(f"The reward of loop {definition.loop!r} needs the metric {missing[0]!r}, which was not given")
    columns = {metric.name: np.asarray(values[metric.name], dtype=np.float64) for metric in definition.metrics}
    weighted = sum((weight * columns[name] for name, weight in definition.reward.items()), np.float64(0.0))
    silent = np.logical_and.reduce([column == 0.0 for column in columns.values()])
    return np.where(silent, definition.default_reward, weighted)
