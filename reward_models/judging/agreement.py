"""How well a judge's ratings tell what copy earns, and the weight that follows.

Within a campaign, with z the rating (centred in its campaign, variance 1) and d the reward relative to the campaign:

    d_c = slope · z_c + e_c,   e_c ~ N(0, τ² + sampling_c)          τ: how much contents truly differ (``text.py``)
    slope ~ N(0, (PRIOR · τ)²)                                      a judge nobody has seen tells nothing

    correlation = slope / τ                                         with the true reward: sampling noise is taken out
    weight      = its posterior mean, at least 0                    what a rating counts for

So the weight of a judge is earned: 0 without outcomes, towards its correlation as outcomes come in, and 0 for one
that is wrong the other way round (which is no oracle turned over: what it is wrong about changes). Evidence fades, half
of it with every ``HALF_LIFE`` contents that were rated since: a judge that was good once and misleads now loses its
weight. ``state`` says it in a word, by the 95 % interval of the correlation: trusted (above 0), misleading (below 0),
unproven.

    agreement_of(rating, order, realised) -> Agreement            curve(...) -> Points of the calibration curve
    agreement.foretell(rating, campaign) -> relative reward and its standard deviation, of contents not seen yet
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from reward_models.judging.realised import Realised
from reward_models.levels import centred
from reward_models.text import spread_between

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PRIOR = 0.5
"""Standard deviation of the correlation a priori."""
HALF_LIFE = 200
"""Rated contents with outcomes after which evidence counts half."""
BINS = 5
_SURE = 1.96

State = Literal["trusted", "unproven", "misleading"]


@dataclass(frozen=True)
class Agreement:
    """What a judge's rating says about the reward, relative to its campaign."""

    contents: int
    """Rated contents with outcomes, beside at least one other of their campaign."""
    slope: float
    """Posterior mean: relative reward per standard deviation of the rating."""
    correlation: float
    """With the true reward, as observed: no prior in it, sampling noise taken out. Not a number without data."""
    interval: tuple[float, float]
    """95 % of the correlation."""
    ranks: float
    """Spearman's, with the reward as it came in, noise and all."""
    weight: float
    scale: float
    """Standard deviation of the rating within campaigns."""
    spread: float
    """τ, relative to the level."""

    @property
    def state(self) -> State:
        """In a word."""
        low, high = self.interval
        return "trusted" if low > 0.0 else "misleading" if high < 0.0 else "unproven"

    def foretell(self, rating: Floats, campaign: Ints) -> tuple[Floats, float]:
        """Relative reward of contents of which only the ratings are known, shape (k,), about their campaign's level;
        and how far the truth may be off (standard deviation). A judge without weight foretells nothing."""
        z = (rating - _mean_of(rating, campaign)) / self.scale
        return max(self.slope, 0.0) * z, self.spread * float(np.sqrt(1.0 - self.weight**2))


UNKNOWN = Agreement(0, 0.0, float("nan"), (-1.0, 1.0), float("nan"), 0.0, 1.0, 0.0)
"""A judge of whose ratings nothing came yet."""


@dataclass(frozen=True)
class Point:
    """One part of the calibration curve: ratings about ``rating`` (centred) earned ``reward``, relative to the level."""

    rating: float
    reward: float
    sd: float
    contents: int


@dataclass(frozen=True)
class _Compared:
    """Ratings beside rewards, both centred in their campaigns: shape (k,) each."""

    rating: Floats
    deviation: Floats
    precision: Floats
    weight: Floats
    """Precision by age."""
    spread: float


def agreement_of(rating: Floats, order: npt.NDArray[Any], found: Realised) -> Agreement:
    """What ratings, shape (k,), say of the contents of ``found``, in its order; nan where a content was not rated.

    order: when each was rated, shape (k,), any clock; only the order counts.
    """
    both = _compare(rating, order, found)
    power = 0.0 if both is None else float(both.weight @ both.rating**2)
    if both is None or power <= 0.0:
        return UNKNOWN
    scale = float(np.sqrt(np.average(both.rating**2, weights=both.weight)))
    z, spread = both.rating / scale, both.spread
    power = float(both.weight @ z**2)
    slope = float(both.weight @ (z * both.deviation)) / power
    variance = float((both.weight**2 / both.precision) @ z**2) / power**2
    shrunk = slope * (PRIOR * spread) ** 2 / ((PRIOR * spread) ** 2 + variance)
    width = _SURE * float(np.sqrt(variance)) / spread
    return Agreement(
        contents=len(z),
        slope=shrunk,
        correlation=slope / spread,
        interval=(slope / spread - width, slope / spread + width),
        ranks=_rank_correlation(both),
        weight=float(np.clip(shrunk / spread, 0.0, 1.0)),
        scale=scale,
        spread=spread,
    )


def curve(rating: Floats, order: npt.NDArray[Any], found: Realised) -> tuple[Point, ...]:
    """Realised reward by rating, in parts of equally many contents; empty without data."""
    both = _compare(rating, order, found)
    if both is None:
        return ()
    parts = np.array_split(np.argsort(both.rating, kind="stable"), min(BINS, len(both.rating)))
    return tuple(_point(both, part) for part in parts)


def _point(both: _Compared, rows: Ints) -> Point:
    precision = both.precision[rows]
    return Point(
        rating=float(np.average(both.rating[rows], weights=precision)),
        reward=float(np.average(both.deviation[rows], weights=precision)),
        sd=float(1.0 / np.sqrt(precision.sum())),
        contents=len(rows),
    )


def _compare(rating: Floats, order: npt.NDArray[Any], found: Realised) -> _Compared | None:
    rated = np.isfinite(rating)
    alone = np.bincount(found.campaign[rated], minlength=int(found.campaign.max(initial=-1)) + 1) < 2
    level = _levels(found)
    rows = np.flatnonzero(rated & ~alone[found.campaign] & (level > 0.0))
    if not len(rows):
        return None
    _, campaign = np.unique(found.campaign[rows], return_inverse=True)
    deviation = found.reward[rows] / level[rows] - 1.0
    sampling = np.maximum(found.variance[rows] / level[rows] ** 2, 1e-9)
    spread = spread_between(campaign, deviation, sampling)
    precision = 1.0 / (spread**2 + sampling)
    age = np.argsort(np.argsort(-order[rows], kind="stable"), kind="stable")
    weight = precision * 0.5 ** (age / HALF_LIFE)
    return _Compared(
        centred(rating[rows], campaign, weight), centred(deviation, campaign, weight), precision, weight, spread
    )


def _levels(found: Realised) -> Floats:
    """Mean reward of each content's campaign, shape (k,)."""
    total = np.bincount(found.campaign, found.exposures * found.reward)
    return np.asarray((total / np.maximum(np.bincount(found.campaign, found.exposures), 1e-9))[found.campaign])


def _mean_of(values: Floats, campaign: Ints) -> Floats:
    return np.asarray((np.bincount(campaign, values) / np.maximum(np.bincount(campaign), 1))[campaign])


def _rank_correlation(both: _Compared) -> float:
    ranks = np.corrcoef(rankdata(both.rating), rankdata(both.deviation))[0, 1] if len(both.rating) > 2 else np.nan
    return float(ranks)
