"""What the counts of one campaign say about each content, between two retrains.

    reward of content k in context x ~ scale · prediction(x, k) + shift + effect_k

    observed_k − expected_k = a_k·b + e_k + noise     per decision; expected: the prediction, averaged over what was shown
    b   ~ N(0, level_sd²)                             what the campaign's level is off by (drift, a new campaign)
    e_k ~ N(said_k·level, τ²)                         the content's own effect, beyond the prediction
    noise ~ N(0, σ²/n_k)

Comparing with *expected* takes targeting out of the comparison: two equal contents of which one was shown to the
better customers have different raw means and the same residual. Rates and money are proportional: a campaign that
earns half of what was predicted also has half the differences between its contents. What people and judges say of a
content (``opinions.py``) is where its effect starts; without any, said_k = 0. Then a_k = expected_k / level,
scale = (level + b) / level and shift = 0; else (no prediction, or a level about 0) a_k = 1, scale = 1, shift = b.

σ² is pooled over the contents, with pseudo-decisions so that no clicks yet is not certainty. τ² is averaged over its
posterior on a grid whose prior mean is (spread·level)², b integrated out (empirical Bayes: Efron & Morris 1973). A content
without counts is the model's prediction, a campaign without counts is the loop's level and spread. What is unsure about
b is the same for all contents except as far as they lean on it differently; only that difference enters their
standard deviations, because policies take contents as independent.

All arrays may have leading axes: many campaigns with equally many contents at once.

Order: 1 level so far, σ² 2 τ² 3 b 4 effects.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

SPREAD = 0.23
"""Standard deviation of contents about their campaign, relative to its level, where no model says: that of true rates
between the headlines of one test, measured over the whole Upworthy archive."""

_SPREAD_SD = 0.7
"""Standard deviation of log τ a priori: 95 % within a factor of four."""
_LOG_SPREADS = np.linspace(-3.0, 3.0, 25) * _SPREAD_SD
_LOG_PRIOR = -0.5 * (_LOG_SPREADS / _SPREAD_SD) ** 2
_SPREADS = np.exp(_LOG_SPREADS) / np.sqrt(np.average(np.exp(2.0 * _LOG_SPREADS), weights=np.exp(_LOG_PRIOR)))
"""τ on the grid, relative to the spread. The mean of τ² a priori is spread²: the spread is a standard deviation over
many campaigns, most of which lie below it. A grid around the spread itself would shrink far too little."""
_VARIANCE_DECISIONS = 50.0
"""Pseudo-decisions behind the prior variance."""
_VARIANCE_RATIO = 50.0
"""Prior variance of one decision's reward, relative to level²: that of one response in fifty."""
_LEAST_SCALE, _LARGEST_LEAN = 0.05, 10.0
"""No campaign earns less than a twentieth of its prediction for good, no content ten times its campaign's level."""


@dataclass(frozen=True)
class ArmCounts:
    """Running sums per content, each of shape (…, k), in reward units."""

    exposures: FloatArray
    sums: FloatArray
    sum_squares: FloatArray
    expected: FloatArray
    """Sum of the predictions, without the content's own effect, over the same exposures; 0 without a model."""

    def __add__(self, other: "ArmCounts") -> "ArmCounts":
        return ArmCounts(
            self.exposures + other.exposures,
            self.sums + other.sums,
            self.sum_squares + other.sum_squares,
            self.expected + other.expected,
        )


def no_counts(contents: int) -> ArmCounts:
    """The counts of contents that were never shown."""
    nothing = np.zeros(contents)
    return ArmCounts(nothing, nothing, nothing, nothing)


@dataclass(frozen=True)
class Prior:
    """What is believed of a campaign before its counts; numbers, or one per campaign of shape (…)."""

    level: FloatArray | float
    """The mean reward to expect. 0: unknown, then the counts alone say."""
    level_sd: FloatArray | float | None = None
    """How far the level may be off; None: by its own size."""
    spread: FloatArray | float = SPREAD
    """Standard deviation of a content's true reward about its prediction, relative to the level."""
    proportional: bool = False
    """Predictions are in proportion to the level: what moves it scales them. False: it moves all alike."""
    said: FloatArray | float = 0.0
    """Where the effect of each content starts, relative to the level: a number, or of shape (…, k)."""


@dataclass(frozen=True)
class Effects:
    """The posterior mean of a content is scale · prediction + shift + effect. ``scale`` and ``shift``, of shape (…), are
    common to the campaign; ``effect`` and ``sd``, of shape (…, k), are each content's own. ``said``, of shape (…, k): what
    of the effect still is what was said of the content before its counts."""

    shift: FloatArray
    effect: FloatArray
    sd: FloatArray
    scale: FloatArray
    said: FloatArray

    def mean(self, predicted: FloatArray) -> FloatArray:
        """Posterior mean of every content from its prediction, shape (…, k)."""
        return np.asarray(self.scale[..., None] * predicted + self.shift[..., None] + self.effect)


def content_effects(counts: ArmCounts, prior: Prior | float) -> Effects:
    """Posterior of level and effects, reward units. A content without data has effect 0 and the widest sd.

    prior: of the campaign, or only the size of a usual reward (predictions then say nothing about the level). Without
    any data all contents are what was predicted and said.
    """
    prior = prior if isinstance(prior, Prior) else Prior(abs(prior))
    n = counts.exposures
    level = np.broadcast_to(np.asarray(prior.level, dtype=np.float64), n.shape[:-1])[..., None]
    lean = _lean(counts, level) if prior.proportional else np.ones_like(n)
    level_sd = level if prior.level_sd is None else np.asarray(prior.level_sd, dtype=np.float64)[..., None]
    size = _size(counts, lean, level, level_sd)
    known = size > 0.0
    size = np.where(known, size, 1.0)
    level_variance = np.where(level_sd > 0.0, level_sd, size) ** 2
    noise = _variance(counts, size)
    said = np.broadcast_to(prior.said, n.shape) * size
    residual = _per_exposure(counts.sums - counts.expected, n) - said
    spread = _spread(residual, n / noise, lean, level_variance, np.asarray(prior.spread)[..., None] * size)
    weight = n / (noise + n * spread)
    off_variance = 1.0 / (_total(lean**2 * weight) + 1.0 / level_variance)
    off = off_variance * _total(lean * weight * residual)
    if prior.proportional:
        off = np.maximum(off, (_LEAST_SCALE - 1.0) * level)
    trust = spread * weight
    leaning = lean * (1.0 - trust)
    apart = leaning - np.median(leaning, axis=-1, keepdims=True)
    variance = (1.0 - trust) * spread + apart**2 * off_variance
    off = np.where(known, off, 0.0)
    scale = 1.0 + off / np.where(level > 0.0, level, 1.0) if prior.proportional else np.ones_like(off)
    shift = np.zeros_like(off) if prior.proportional else off
    effect, sd, left = said + trust * (residual - lean * off), np.sqrt(variance), (1.0 - trust) * said
    effect, sd, left = (np.where(known, one, 0.0) for one in (effect, sd, left))
    return Effects(shift[..., 0], effect, sd, scale[..., 0], left)


def _lean(counts: ArmCounts, level: FloatArray) -> FloatArray:
    """a_k: expected reward relative to the campaign's level; 1 for a content without counts, shape (…, k)."""
    seen = (counts.exposures > 0.0) & (level > 0.0)
    usual = np.where(seen, counts.exposures * level, 1.0)
    return np.clip(np.where(seen, counts.expected / usual, 1.0), 1.0 / _LARGEST_LEAN, _LARGEST_LEAN)


def _size(counts: ArmCounts, lean: FloatArray, level: FloatArray, level_sd: FloatArray) -> FloatArray:
    """Size of a usual reward so far, shape (…, 1): what was seen, and the prior by the decisions it is worth."""
    usual = np.where(level > 0.0, level, 1.0)
    worth = np.where(level > 0.0, _VARIANCE_RATIO * (usual / np.where(level_sd > 0.0, level_sd, usual)) ** 2, 0.0)
    decisions = worth + _total(lean * counts.exposures)
    rewards = worth * level + np.abs(_total(counts.sums))
    return np.divide(rewards, decisions, out=np.zeros_like(rewards), where=decisions > 0.0)


def _variance(counts: ArmCounts, size: FloatArray) -> FloatArray:
    """σ²: pooled within contents, shape (…, 1)."""
    means = _per_exposure(counts.sums, counts.exposures)
    within = _total(np.maximum(counts.sum_squares - counts.sums * means, 0.0))
    freedom = _total(np.maximum(counts.exposures - 1.0, 0.0))
    prior = _VARIANCE_DECISIONS * _VARIANCE_RATIO * size**2
    return (prior + within) / (_VARIANCE_DECISIONS + freedom)


def _spread(
    residual: FloatArray, certainty: FloatArray, lean: FloatArray, level_variance: FloatArray, expected: FloatArray
) -> FloatArray:
    """τ²: mean over its posterior on the grid, b integrated out, shape (…, 1). certainty: n/σ²."""
    grid = (expected * _SPREADS) ** 2
    r, c, a = residual[..., None, :], certainty[..., None, :], lean[..., None, :]
    widening = 1.0 + c * grid[..., None]
    weight = c / widening
    precision = (a**2 * weight).sum(axis=-1) + 1.0 / level_variance
    pull = (a * weight * r).sum(axis=-1)
    fit = np.log(widening).sum(axis=-1) + (weight * r**2).sum(axis=-1) - pull**2 / precision + np.log(precision)
    log_weight = _LOG_PRIOR - 0.5 * fit
    share = np.exp(log_weight - log_weight.max(axis=-1, keepdims=True))
    return np.asarray(_total(share * grid) / _total(share))


def _total(values: FloatArray) -> FloatArray:
    return np.asarray(values.sum(axis=-1, keepdims=True))


def _per_exposure(total: FloatArray, exposures: FloatArray) -> FloatArray:
    return np.divide(total, exposures, out=np.zeros_like(total), where=exposures > 0.0)
