"""How fast a loop's contents change: the half-life that predicts the next day best, and only if it clearly does.

For every campaign and day t, contents are predicted from the days before, discounted by 2^(−age/h):

    loss_h(t) = Σ_k n_tk · (residual_tk − effect_k)² / σ²          both less their mean over the day's decisions

Residuals are observed less expected, so that targeting is taken out, and a day on which everything sells twice moves
nothing: only differences between contents count. The half-life with the least loss is taken if its gain over never
forgetting is above 0 by 1.645 standard errors over the days; else nothing is forgotten, because where nothing
drifts old counts are as good as new ones (prequential validation: Dawid 1984; discounting: West & Harrison 1997).

    half_life(campaigns) -> days or None          campaigns: counts per day, (days, k) each, no day left out
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from reward_models.posterior import ArmCounts, content_effects

Floats = npt.NDArray[np.float64]

HALF_LIVES = (2.0, 4.0, 8.0, 16.0, 32.0)
"""Days that are tried: each twice the one before, from what a daily loop can use to what a quarter can show."""
LEAST_DAYS = 10
"""Fewer days with a choice than this say nothing about drift."""
_SURE = 1.645
"""Standard errors: one-sided 5 %."""


def half_life(campaigns: Sequence[ArmCounts]) -> float | None:
    """The half-life in days; None: nothing is forgotten."""
    never = _losses(campaigns, None)
    if len(never) < LEAST_DAYS:
        return None
    gains = {days: never - _losses(campaigns, days) for days in HALF_LIVES}
    best = max(gains, key=lambda days: float(gains[days].mean()))
    found = gains[best]
    error = float(found.std(ddof=1)) / np.sqrt(len(found))
    return best if float(found.mean()) > _SURE * error else None


def discounted(values: Floats, days: float | None) -> Floats:
    """Of every day the sum over the days before it, each discounted by its age, shape (days, …)."""
    keep = 1.0 if days is None else 0.5 ** (1.0 / days)
    before = np.zeros_like(values)
    for day in range(1, len(values)):
        before[day] = keep * (before[day - 1] + values[day - 1])
    return before


def _losses(campaigns: Sequence[ArmCounts], days: float | None) -> Floats:
    """One per campaign and day on which at least two contents were shown, after the first."""
    return np.concatenate([np.zeros(0), *(_of_campaign(counts, days) for counts in campaigns)])


def _of_campaign(counts: ArmCounts, days: float | None) -> Floats:
    past = ArmCounts(
        *(discounted(part, days) for part in (counts.exposures, counts.sums, counts.sum_squares, counts.expected))
    )
    n = counts.exposures
    judged = ((n > 0.0).sum(axis=1) > 1) & (past.exposures.sum(axis=1) > 0.0)
    noise = _noise(counts)
    if noise == 0.0 or not judged.any():
        return np.zeros(0)
    off = np.divide(counts.sums - counts.expected, n, out=np.zeros_like(n), where=n > 0.0)
    off -= content_effects(past, 0.0).effect
    off -= (n * off).sum(axis=1, keepdims=True) / np.maximum(n.sum(axis=1, keepdims=True), 1.0)
    return np.asarray((n * off**2).sum(axis=1)[judged] / noise)


def _noise(counts: ArmCounts) -> float:
    """Variance of one decision's reward, over the whole campaign."""
    shown = float(counts.exposures.sum())
    mean = float(counts.sums.sum()) / shown if shown else 0.0
    return max(0.0, float(counts.sum_squares.sum()) / shown - mean**2) if shown else 0.0
