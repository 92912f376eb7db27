"""What people prefer and what customers do, put together: people speak where outcomes are few, and are overruled where they are many.

    d_k = b·s_k + rest_k + noise_k        d: reward relative to the campaign's level, less 1;  s: strength (``strengths.py``)
    rest ~ N(0, τ²)                       what people do not see
    noise ~ N(0, v_k)                     sampling, from counts
    b ~ N(_SLOPE, _SLOPE²)                what a strength of 1 is worth, before any outcome

b and τ² are learned from all campaigns with outcomes, centred within each: people whose taste is not the customers' get b ≤ 0 and are not
listened to. For content k the preference says b·s_k with variance τ² + b²·var(s_k), outcomes say d_k with variance v_k, and both weigh as the
inverse of their variances.

Order: 1 centre, 2 b given τ, 3 τ given b, repeated 4 weigh.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reward_models.folds import codes_of
from reward_models.levels import centred
from reward_models.posterior import SPREAD

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_SLOPE = 0.05
"""Worth of a strength of 1 a priori, relative to the campaign's level: about a quarter of how contents differ."""
_ROUNDS = 50


@dataclass(frozen=True)
class Seen:
    """A content as customers and people see it. ``deviation``: relative to its campaign, nan without outcomes; ``noise``: its variance."""

    campaign: str
    content: str
    deviation: float
    noise: float
    strength: float
    strength_variance: float


@dataclass(frozen=True)
class Weighed:
    """A content with both. ``people`` and ``outcomes``: their weights, together 1."""

    content: str
    campaign: str
    said: float
    """What people's preference is worth, relative to the campaign's level."""
    earned: float
    """What outcomes say; nan without any."""
    both: float
    sd: float
    people: float
    outcomes: float


@dataclass(frozen=True)
class Combination:
    """``slope``: what a strength of 1 is worth and ``slope_sd`` how surely; at most 0 means people are not listened to."""

    slope: float
    slope_sd: float
    rest: float
    contents: tuple[Weighed, ...]

    @property
    def listened(self) -> bool:
        """Whether people's preference moves anything."""
        return self.slope > 0


def combine(seen: Sequence[Seen]) -> Combination:
    """Steps 1 to 4 over all contents of a loop."""
    known = [one for one in seen if np.isfinite(one.deviation)]
    slope, slope_sd, rest = _learn(known)
    used = max(0.0, slope)
    return Combination(slope, slope_sd, rest, tuple(_weigh(one, used, rest) for one in seen))


def _weigh(one: Seen, slope: float, rest: float) -> Weighed:
    said, variance = slope * one.strength, rest**2 + slope**2 * one.strength_variance
    if not np.isfinite(one.deviation):
        return Weighed(one.content, one.campaign, said, float("nan"), said, float(np.sqrt(variance)), 1.0, 0.0)
    people = one.noise / (one.noise + variance)
    both = people * said + (1.0 - people) * one.deviation
    sd = np.sqrt(one.noise * variance / (one.noise + variance))
    return Weighed(one.content, one.campaign, said, one.deviation, float(both), float(sd), people, 1.0 - people)


def _learn(known: Sequence[Seen]) -> tuple[float, float, float]:
    """b with its standard deviation, and τ. The priors where nothing is known."""
    if len(known) < 2:
        return _SLOPE, _SLOPE, SPREAD
    campaigns: Ints = codes_of([one.campaign for one in known])
    d, v, s, u = (
        np.array([getattr(one, name) for one in known])
        for name in ("deviation", "noise", "strength", "strength_variance")
    )
    slope, sd, rest = _SLOPE, _SLOPE, SPREAD
    for _ in range(_ROUNDS):
        weights: Floats = 1.0 / (v + rest**2 + slope**2 * u)
        x, y = centred(s, campaigns, weights), centred(d, campaigns, weights)
        precision = float(weights @ x**2) + 1.0 / _SLOPE**2
        slope = (float(weights @ (x * y)) + _SLOPE / _SLOPE**2) / precision
        sd = precision**-0.5
        rest = _rest(y - slope * x, weights, v + slope**2 * u, len(d) - int(campaigns.max()) - 1)
    return slope, sd, rest


def _rest(left: Floats, weights: Floats, known: Floats, free: int) -> float:
    """τ by moments, pulled to the spread of contents as if by ten of them; at least a fifth of it."""
    excess = float(weights @ (left**2 - known)) / float(weights.sum())
    pulled = (max(0.0, excess) * max(free, 0) + 10.0 * SPREAD**2) / (max(free, 0) + 10.0)
    return max(SPREAD / 5.0, float(np.sqrt(pulled)))
