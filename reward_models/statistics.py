"""From the running sums of ``content_stats`` (per metric, in millionths) to counts in reward units.

    sums = Σ_m w_m·sum_m        sum_squares ≤ n·(Σ_m |w_m|·√(sum_squares_m / n))²

The second is the triangle inequality: how metrics go together within a decision is not stored, so their squares are
bounded from above, exactly when there is one metric. The default reward of silent decisions is left out: before
maturity nobody knows who is silent, and what all contents share is the shift's business (``posterior``).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from reward_models.posterior import ArmCounts, FloatArray

_SUM_UNIT = 1e-6
_SQUARE_UNIT = 1e-8


class StatRow(NamedTuple):
    """The columns of ``content_stats`` that count here, summed over any of the others."""

    content_id: str
    metric: str
    exposures: int
    sum: int
    sum_squares: int
    expected: int


def arm_counts(rows: Iterable[StatRow], content_ids: Sequence[str], weights: Mapping[str, float]) -> ArmCounts:
    """Counts aligned with ``content_ids``, shape (k,), of the reward ``{metric: weight}``.

    Rows of other contents and of metrics that are not in the reward are skipped. Rows must be of one model version:
    the predictions of another are not comparable. The rows of every metric repeat exposures and prediction; those
    of the metric that has counted longest are taken.
    """
    index = {content_id: position for position, content_id in enumerate(content_ids)}
    column = {metric: position for position, metric in enumerate(weights)}
    table = np.zeros((4, len(column), len(index)))
    for row in rows:
        if row.metric in column and row.content_id in index:
            table[:, column[row.metric], index[row.content_id]] += row[2:]
    exposures, sums, squares, expected = table
    weight = np.array(list(weights.values()))
    return ArmCounts(
        exposures=exposures.max(axis=0),
        sums=_SUM_UNIT * (weight @ sums),
        sum_squares=_bound(np.abs(weight), _SQUARE_UNIT * squares, exposures.max(axis=0)),
        expected=_SUM_UNIT * np.take_along_axis(expected, exposures.argmax(axis=0)[None, :], axis=0)[0],
    )


def _bound(weight: FloatArray, squares: FloatArray, exposures: FloatArray) -> FloatArray:
    """With n in and out of the root, n·(Σ |w| √(s/n))² is (Σ |w| √s)²; nothing without exposures."""
    return np.asarray(np.where(exposures > 0.0, (weight @ np.sqrt(squares)) ** 2, 0.0))
