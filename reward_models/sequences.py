"""Confidence sequences: intervals that may be looked at after every unit, and stopped at on any of these looks.

Each matured unit gives one score: an unbiased estimate of what treatment adds for a unit like it, by the probability
h with which it was held out. Units come in the order in which they mature, A is 1 for treatment, Y the total:

    score   φ = m₁ − c·m₀ + A·(Y − m₁)/(1 − h) − c·(1 − A)·(Y − m₀)/h         (AIPW, Robins et al. 1994; c is 1 for a lift)

m₁ and m₀ are the mean totals of the units *before* (pulled to their common mean while a group is small), after taking
away a linear prediction from covariates, fitted on units before as well. So whatever the policy has learned from earlier
units, φ minus the unit's own lift is a martingale difference: the running mean of the scores estimates the running mean
of the lift over the units so far, drifting or not, under adaptive allocation. Its interval after t units is

    two-sided   mean ± sd/√t · √(2·(x + 1)/x · ln(√(x + 1)/α))          x = t·ρ²
    one-sided   mean − sd/√t · √(2·(x + 1)/x · ln(1 + √(x + 1)/(2α)))

(Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences",
theorem 2.2, the version for drifting means, and the one-sided appendix). ρ² = (−2·ln α + ln(1 − 2·ln α))/n makes it
narrowest near n units, which must be fixed beforehand; at n/4 or 30·n it is at most an eighth wider than it could be.

The theory is asymptotic, and a small holdout with rare purchases is far from it: as long as it has not had its large
purchases, its mean is too low and so is its variance, and treatment seems to win. The variance is therefore at least
what all units together say, σ²·(c²/h + 1/(1 − h)) with σ² pooled within the groups. In 400 worlds without a lift (3 % buy,
lognormal with σ = 1, h = 10 %, looks from ten purchases per group on) the own variance alone said "lift" in 10 %, with
this floor in none. :func:`ready` says from which unit on the looks count.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from infra.errors import BadInput

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Sides = Literal[1, 2]

PULL = 50.0
"""Units that the common mean counts for in the mean of one group."""
FIRST_FIT = 100
"""Units before covariates are used at all."""
GROWTH = 1.25
"""Covariates are fitted anew each time there are so many times more units."""
RIDGE = 20.0
"""Penalty on standardised slopes, in units: of n units a slope keeps n/(n + 20)."""
FARTHEST = 5.0
"""Standard deviations that a covariate may be away from its mean: what is farther away counts as that."""


@dataclass(frozen=True)
class Dealt:
    """Matured units in the order in which they matured, n along the last axis. Leading axes are independent repeats."""

    treatment: Bools
    held_out: Floats
    """Probability with which each unit was held out, in (0, 1)."""
    total: Floats
    covariates: Floats | None = None
    """Known before the unit's first decision, (n, p); without repeats only."""

    def __post_init__(self) -> None:
        if self.treatment.shape != self.total.shape or self.held_out.shape != self.total.shape:
            raise BadInput("Groups, probabilities and totals of matured units differ in length")
        if self.covariates is not None and self.covariates.shape[:1] != self.total.shape:
            raise BadInput("Covariates and totals of matured units differ in length")
        if not ((self.held_out > 0.0) & (self.held_out < 1.0)).all():
            raise BadInput(
                "A unit that could not have been in the other group says nothing about the lift; leave it out"
            )


@dataclass(frozen=True)
class Running:
    """Estimate and standard error after each unit, shapes as the totals."""

    mean: Floats
    error: Floats


@dataclass(frozen=True)
class Sequence:
    """The interval after each unit, shapes as the totals."""

    low: Floats
    high: Floats


def running(dealt: Dealt, of_holdout: float = 1.0) -> Running:
    """Treatment minus ``of_holdout`` times holdout, total per unit, averaged over the units so far."""
    predicted = predictions(dealt)
    rest = dealt.total - predicted
    scored = _scores(dealt, rest, of_holdout) + (1.0 - of_holdout) * predicted
    count = _count(rest)
    mean = np.cumsum(scored, axis=-1) / count
    own = np.maximum(np.cumsum(scored**2, axis=-1) / count - mean**2, 0.0)
    return Running(mean, np.sqrt(np.maximum(own, _least(dealt, rest, of_holdout)) / count))


def sequence(estimate: Running, alpha: float, tuned: float, sides: Sides = 2) -> Sequence:
    """The confidence sequence. ``tuned``: units at which it is to be narrowest. With one side only ``low`` is held at
    ``alpha``, and ``high`` is infinite."""
    reach = reaches(_count(estimate.mean), alpha, tuned, sides) * estimate.error
    high = estimate.mean + reach if sides == 2 else np.full_like(estimate.mean, np.inf)
    return Sequence(estimate.mean - reach, high)


def reaches(units: npt.ArrayLike, alpha: float, tuned: float, sides: Sides = 2) -> Floats:
    """How many standard errors the interval reaches after so many units."""
    x = np.asarray(units, dtype=np.float64) * rho_squared(alpha if sides == 2 else 2.0 * alpha, tuned)
    width = np.sqrt(x + 1.0)
    bet = np.log(width / alpha) if sides == 2 else np.log1p(width / (2.0 * alpha))
    return np.asarray(np.sqrt(2.0 * (x + 1.0) / x * bet))


def rho_squared(alpha: float, tuned: float) -> float:
    """ρ² for which the two-sided interval is narrowest at about ``tuned`` units."""
    twice = -2.0 * float(np.log(alpha))
    return (twice + float(np.log1p(twice))) / tuned


def ready(dealt: Dealt, units: int, responses: int) -> Bools:
    """Whether a look after each unit counts: both groups have so many units, and so many whose total is not 0."""
    answered = dealt.total != 0.0
    enough = np.ones(dealt.total.shape, dtype=np.bool_)
    for group in (dealt.treatment, ~dealt.treatment):
        enough &= (np.cumsum(group, axis=-1) >= units) & (np.cumsum(group & answered, axis=-1) >= responses)
    return enough


def predictions(dealt: Dealt) -> Floats:
    """Total of each unit as its covariates predict it, fitted on the units before it; 0 without covariates."""
    predicted = np.zeros_like(dealt.total)
    covariates = dealt.covariates
    if covariates is None or not covariates.shape[1]:
        return predicted
    start, n = FIRST_FIT, len(predicted)
    while start < n:
        end = min(n, int(start * GROWTH) + 1)
        predicted[start:end] = _predict(covariates[:start], dealt.total[:start], covariates[start:end])
        start = end
    return predicted


def _scores(dealt: Dealt, rest: Floats, of_holdout: float) -> Floats:
    treated = dealt.treatment.astype(np.float64)
    before = _before(np.ones_like(rest))
    level = np.divide(_before(rest), before, out=np.zeros_like(rest), where=before > 0.0)
    m1, m0 = (_pulled(rest, group, level) for group in (treated, 1.0 - treated))
    of_treated = m1 + treated * (rest - m1) / (1.0 - dealt.held_out)
    of_held = m0 + (1.0 - treated) * (rest - m0) / dealt.held_out
    return np.asarray(of_treated - of_holdout * of_held)


def _least(dealt: Dealt, rest: Floats, of_holdout: float) -> Floats:
    """The least variance of a score after each unit: σ²·mean (c²/h + 1/(1 − h)), σ² pooled within the groups."""
    count = _count(rest)
    within = np.zeros_like(rest)
    for group in (dealt.treatment, ~dealt.treatment):
        inside = np.cumsum(group, axis=-1)
        total = np.cumsum(np.where(group, rest, 0.0), axis=-1)
        squares = np.cumsum(np.where(group, rest, 0.0) ** 2, axis=-1)
        within += squares - np.divide(total**2, inside, out=np.zeros_like(rest), where=inside > 0)
    rarity = np.cumsum(of_holdout**2 / dealt.held_out + 1.0 / (1.0 - dealt.held_out), axis=-1) / count
    return np.asarray(np.maximum(within, 0.0) / count * rarity)


def _predict(known: Floats, total: Floats, new: Floats) -> Floats:
    """Ridge on standardised covariates, intercept left to the group means."""
    centre, spread = known.mean(axis=0), known.std(axis=0)
    scale = np.where(spread > 0.0, spread, np.inf)
    inside, outside = (np.clip((table - centre) / scale, -FARTHEST, FARTHEST) for table in (known, new))
    gram = inside.T @ inside + RIDGE * np.eye(known.shape[1])
    slopes = np.linalg.solve(gram, inside.T @ (total - total.mean()))
    return np.asarray(outside @ slopes)


def _pulled(values: Floats, member: Floats, level: Floats) -> Floats:
    """Mean of the members before each unit, pulled to ``level``."""
    return np.asarray((_before(values * member) + PULL * level) / (_before(member) + PULL))


def _before(values: Floats) -> Floats:
    """Sum of all that come before, along the last axis."""
    return np.asarray(np.cumsum(values, axis=-1) - values)


def _count(values: Floats) -> Floats:
    """1, 2, 3 … along the last axis."""
    return np.arange(1, values.shape[-1] + 1, dtype=np.float64)
