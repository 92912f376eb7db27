"""What the counts of one campaign say about each content, between two retrains.

    residual_k = (sum_k − expected_k) / n_k          observed minus predicted reward, per decision
    residual_k | b, e_k  ~ N(b + e_k, σ²/n_k)        b: shift common to the campaign (drift, a model that is off)
    e_k                  ~ N(0, τ²)                  the content's own effect
    b                    ~ N(0, base²)               base: size of a usual reward

Comparing with *expected* takes targeting out of the comparison: two equal contents of which one was shown to the
better customers have different raw means and the same residual. The posterior mean of content k in context x is
``prediction(x, k) + shift + effect_k``. σ² is pooled over the contents, with pseudo-decisions so that no clicks
yet is not certainty; τ² is averaged over its posterior on a grid around (0.23·base)², 0.23 being the variation
between versions of one message measured on real experiments (empirical Bayes: Efron & Morris 1973). What is unsure
about the shift is the same for all contents except as far as they lean on it differently; only that difference
enters their standard deviations, because policies take contents as independent.

Order: 1 base, σ² 2 τ² 3 shift 4 effects.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

_PRIOR_DECISIONS = 100.0
"""Decisions that the prior size of a reward counts for."""
_PRIOR_SPREAD = 0.23
"""Standard deviation of content effects, relative to the base."""
_SPREADS = np.geomspace(1 / 8, 8, 25)
"""τ on the grid, relative to its prior value."""
_SPREAD_SD = 0.7
"""Standard deviation of log τ a priori: 95 % within a factor of four."""
_VARIANCE_DECISIONS = 50.0
"""Pseudo-decisions behind the prior variance."""
_VARIANCE_RATIO = 50.0
"""Prior variance of one decision's reward, relative to base²: that of one response in fifty."""


@dataclass(frozen=True)
class ArmCounts:
    """Running sums per content, each of shape (k,), in reward units."""

    exposures: FloatArray
    sums: FloatArray
    sum_squares: FloatArray
    expected: FloatArray
    """Sum of the predictions, without the content's own effect, over the same exposures; 0 without a model."""


@dataclass(frozen=True)
class Effects:
    """``shift`` is common to all contents; ``effect`` and ``sd``, of shape (k,), are each content's own."""

    shift: float
    effect: FloatArray
    sd: FloatArray


def content_effects(counts: ArmCounts, prior_mean_scale: float) -> Effects:
    """Posterior of shift and effects, reward units. A content without data has effect 0 and the widest sd.

    prior_mean_scale: the size of a usual reward of this campaign (its mean so far, or the loop's); 0 if unknown,
    then the counts alone say. Without any data all contents are equal.
    """
    base = _base(counts, prior_mean_scale)
    if base == 0.0:
        nothing = np.zeros(len(counts.exposures))
        return Effects(0.0, nothing, nothing)
    seen = counts.exposures > 0.0
    residual = _per_exposure(counts.sums - counts.expected, counts.exposures)
    noise = _variance(counts, base) / counts.exposures[seen]
    spread = _spread(residual[seen], noise, base)
    shift, shift_variance = _shift(residual[seen], noise, spread, base)
    trust = np.zeros(len(seen))
    trust[seen] = spread / (spread + noise)
    variance = (1.0 - trust) * spread + (trust - np.median(trust)) ** 2 * shift_variance
    return Effects(shift, trust * (residual - shift), np.sqrt(variance))


def _base(counts: ArmCounts, prior: float) -> float:
    weight = _PRIOR_DECISIONS if prior else 0.0
    total = weight + float(counts.exposures.sum())
    return (weight * abs(prior) + abs(float(counts.sums.sum()))) / total if total else 0.0


def _variance(counts: ArmCounts, base: float) -> float:
    """σ²: pooled within contents, shape ()."""
    means = _per_exposure(counts.sums, counts.exposures)
    within = float(np.maximum(counts.sum_squares - counts.sums * means, 0.0).sum())
    freedom = float(np.maximum(counts.exposures - 1.0, 0.0).sum())
    prior = _VARIANCE_DECISIONS * _VARIANCE_RATIO * base**2
    return (prior + within) / (_VARIANCE_DECISIONS + freedom)


def _spread(residual: FloatArray, noise: FloatArray, base: float) -> float:
    """τ²: mean over its posterior on the grid, the shift integrated out."""
    grid = (_PRIOR_SPREAD * base * _SPREADS) ** 2
    total = grid[:, None] + noise
    precision = (1.0 / total).sum(axis=1) + base**-2
    pull = (residual / total).sum(axis=1)
    fit = np.log(total).sum(axis=1) + (residual**2 / total).sum(axis=1) - pull**2 / precision + np.log(precision)
    log_weight = -0.5 * (fit + (np.log(_SPREADS) / _SPREAD_SD) ** 2)
    weight = np.exp(log_weight - log_weight.max())
    return float((weight * grid).sum() / weight.sum())


def _shift(residual: FloatArray, noise: FloatArray, spread: float, base: float) -> tuple[float, float]:
    """Posterior mean and variance of the shift: contents count by what each tells about the campaign."""
    weight = 1.0 / (spread + noise)
    variance = 1.0 / (float(weight.sum()) + base**-2)
    return variance * float((weight * residual).sum()), variance


def _per_exposure(total: FloatArray, exposures: FloatArray) -> FloatArray:
    return np.divide(total, exposures, out=np.zeros_like(total), where=exposures > 0.0)
