"""Calibration: a slope and an intercept that make held-out predictions mean what they say, and how far off they were.

Fitted on out-of-fold predictions of the relative reward by weighted least squares, so that ranking is untouched
(the slope is never negative). The error that is reported is cross-fitted: each fold is calibrated by the others.

    expected calibration error = Σ_bins share · |mean observed − mean predicted|,   ten bins of equal weight

in units of the reward (Naeini et al. 2015, for means instead of class probabilities). ``spread`` is the standard
deviation of a content's true relative reward about its prediction: what is left once sampling noise is taken out.
"""

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BINS = 10

LEAST_SPREAD = 0.05
"""No prediction of a content is taken to be surer than this, relative to the level of its campaign."""


class Calibration(msgspec.Struct, frozen=True):
    """calibrated = intercept + slope · g, and the errors before and after, in units of the reward."""

    slope: float = 1.0
    intercept: float = 0.0
    error_before: float = 0.0
    error_after: float = 0.0
    spread: float = 0.0
    points: tuple[tuple[float, float, float], ...] = ()
    """Reliability after calibration, per bin: (predicted, observed, weight)."""

    def apply(self, g: Floats) -> Floats:
        """Calibrated relative predictions."""
        return self.intercept + self.slope * g


@dataclass(frozen=True)
class HeldOut:
    """Out-of-fold predictions g and observed relative rewards d, shape (n,), with what turns them into rewards."""

    g: Floats
    d: Floats
    precision: Floats
    """Weight of each row in the fit."""
    sampling: Floats
    """Variance of d from sampling alone."""
    exposures: Floats
    mean: Floats
    scale: Floats
    fold: Ints
    content: Ints


def fit_calibration(held: HeldOut) -> Calibration:
    """Slope and intercept over all folds; errors cross-fitted."""
    slope, intercept = _line(held, np.ones(len(held.g), dtype=np.bool_))
    after = np.empty_like(held.g)
    for fold in np.unique(held.fold):
        inside = held.fold == fold
        fold_slope, fold_intercept = _line(held, ~inside)
        after[inside] = fold_intercept + fold_slope * held.g[inside]
    observed = held.mean + held.scale * held.d
    before, _ = reliability(held.mean + held.scale * held.g, observed, held.exposures)
    error, points = reliability(held.mean + held.scale * after, observed, held.exposures)
    return Calibration(slope, intercept, before, error, _spread(held, after), points)


def reliability(
    predicted: Floats, observed: Floats, weights: Floats
) -> tuple[float, tuple[tuple[float, float, float], ...]]:
    """Expected calibration error, and per bin (predicted, observed, weight). Equal predictions share a bin."""
    order = np.argsort(predicted, kind="stable")
    _, ties, sizes = np.unique(predicted[order], return_inverse=True, return_counts=True)
    middle = np.cumsum(weights[order]) - weights[order] / 2
    rank = (np.bincount(ties, middle) / sizes)[ties]
    bins = np.minimum((rank / weights.sum() * BINS).astype(np.int64), BINS - 1)
    points = []
    for number in np.unique(bins):
        rows = order[bins == number]
        weight = float(weights[rows].sum())
        points.append(
            (
                float(np.average(predicted[rows], weights=weights[rows])),
                float(np.average(observed[rows], weights=weights[rows])),
                weight,
            )
        )
    error = sum(weight * abs(seen - said) for said, seen, weight in points) / float(weights.sum())
    return float(error), tuple(points)


def _line(held: HeldOut, rows: npt.NDArray[np.bool_]) -> tuple[float, float]:
    g, d, weights = held.g[rows], held.d[rows], held.precision[rows]
    if weights.sum() == 0:
        return 1.0, 0.0
    g_mean, d_mean = np.average(g, weights=weights), np.average(d, weights=weights)
    power = float(weights @ (g - g_mean) ** 2)
    if power <= 1e-9 * float(weights.sum()):
        return 1.0, float(d_mean - g_mean)
    slope = max(0.0, float(weights @ ((g - g_mean) * (d - d_mean))) / power)
    return slope, float(d_mean - slope * g_mean)


def _spread(held: HeldOut, predicted: Floats) -> float:
    """By moments, on the mean residual of each content: its variance less the sampling variance."""
    certainty = 1.0 / np.maximum(held.sampling, 1e-12)
    weight = np.bincount(held.content, certainty)
    shown = weight > 0
    residual = np.bincount(held.content, certainty * (held.d - predicted))[shown] / weight[shown]
    excess = float(weight[shown] @ residual**2) - len(residual)
    return max(LEAST_SPREAD, float(np.sqrt(max(0.0, excess / float(weight.sum())))))
