"""Off-policy evaluation: what another policy would have earned, from decisions whose probabilities are known.

n decisions; p the probability of what was shown, w = π(shown)/p the weight, q the predicted reward of
every candidate by a model that has not seen these units, and whose own opinion is D = Σ_a π(a)·q(a):

    IPS        mean of w·r                              (Horvitz & Thompson 1952)
    SNIPS      Σ w·r / Σ w                              (Swaminathan & Joachims 2015)
    DM         mean of D                                the model's own opinion; never gates
    DR         mean of D + w·(r − q)                    (Dudík, Langford & Li 2011)
    SNDR       mean of D, plus Σ w·(r − q) / Σ w        (Thomas & Brunskill 2016)
    Switch-DR  mean of D + w·1{w ≤ τ}·(r − q)           (Wang, Agarwal & Dudík 2017)
    DRos       mean of D + λ·w/(w² + λ)·(r − q)         (Su, Dimakopoulou, Krishnamurthy & Dudík 2020)
    stable DR  Σ h·(D + w·(r − q)) / Σ h                (Zhan, Ren, Athey & Zhou 2021), h = 1/variance, see below
    difference DR with π − c·ρ in place of π            the target against c times the reference, paired

DR is unbiased whatever the model. Switch-DR and DRos trade some of that for less noise: τ → ∞ and λ → ∞ are DR,
τ < w and λ → 0 are DM. Without a named τ or λ the one with the least estimated error is taken (``error_of``). Which of
them to believe: ``reward_models/automatic.py``.

A policy that learns shows less and less of what it gives up, so that late rows weigh much and say little. Stable DR
weighs blocks of time (rows are in order of time) by h = 1/mean Σ_a b(a)·w(a)², known from the probabilities alone. It
supposes that the value does not change over time, so it never gates; under a policy that does not change it is DR.

Intervals are t intervals on sums per unit. Where the target likes what the log rarely shows, the few rows that carry
all the weight may be missing, and the spread of the scores says nothing about that. The probabilities do: the
variance is at least σ²·mean Σ_a b(a)·w(a)² / n, σ² being the residual variance over all rows, whatever they showed.
Under logs of adaptive policies the scores remain martingale differences. With this floor eight tries of worthless
changes on such logs ended in a promotion in 2 of 100 simulated worlds, with the spread alone in 22, and in 57 where
the challengers followed the policy's own luck (``tests/reward_models/test_gate.py``).

Below a floor of effective size, or where the target plays what the log cannot show, an estimate is refused
(``reward_models/logged.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from reward_models.logged import Floor as Floor
from reward_models.logged import Logged as Logged
from reward_models.logged import Shape, Weights, clustered, covered, effective, moment, weights

FloatArray = npt.NDArray[np.float64]

MODEL_DEPENDENT = "model-dependent: only as good as the model's predictions"

QUANTILES = (0.0, 0.5, 0.8, 0.9, 0.95, 0.99, 1.0)
"""Quantiles of the weights among which τ and √λ are sought; with them DM and DR themselves."""

_FLOOR = Floor()
_TINY = 1e-12
_BLOCKS = 50
"""Blocks of time of stable DR."""
_LEAST_BLOCK = 20
"""Decisions in one, at least."""


@dataclass(frozen=True)
class Estimate:
    """A value per decision with its interval. ``ess``: effective sample size, in units."""

    name: str
    value: float
    low: float
    high: float
    ess: float
    n: int
    clusters: int
    note: str = ""
    level: float = 0.95


class Scored(NamedTuple):
    """A value before its interval. ``influence``: what each row adds to it, (n,), mean 0; ``least``: the least
    variance that the probabilities allow; ``weight``: what the residuals were weighted by."""

    name: str
    value: float
    influence: FloatArray
    least: float
    weight: Weights
    note: str = ""


def ips(logged: Logged, *, clip: float | None = None, floor: Floor = _FLOOR, level: float = 0.95) -> Estimate:
    """Inverse propensity scores. clip: largest weight; biases towards 0, said in the note."""
    ess = _overlap(logged, logged.target, clip, floor)
    return _estimate(logged, ips_scored(logged, clip), ess, level)


def snips(logged: Logged, *, clip: float | None = None, floor: Floor = _FLOOR, level: float = 0.95) -> Estimate:
    """Self-normalised IPS: less noise, a bias of order 1/n. The interval is the ratio's, linearised."""
    ess = _overlap(logged, logged.target, clip, floor)
    return _estimate(logged, snips_scored(logged, clip), ess, level)


def dm(logged: Logged, *, floor: Floor = _FLOOR, level: float = 0.95) -> Estimate:
    """The direct method. Its interval knows about customers only, not about the model's errors."""
    ess = effective(logged, np.ones(len(logged)), floor)
    return _estimate(logged, dm_scored(logged), ess, level)


def dr(logged: Logged, *, clip: float | None = None, floor: Floor = _FLOOR, level: float = 0.95) -> Estimate:
    """Doubly robust: the model's opinion, corrected by what was seen. Unbiased whatever the model (unclipped)."""
    ess = _overlap(logged, logged.target, clip, floor)
    return _estimate(logged, dr_scored(logged, clip), ess, level)


def sndr(logged: Logged, *, clip: float | None = None, floor: Floor = _FLOOR, level: float = 0.95) -> Estimate:
    """Doubly robust with a self-normalised correction: less noise, a bias of order 1/n."""
    ess = _overlap(logged, logged.target, clip, floor)
    return _estimate(logged, sndr_scored(logged, clip), ess, level)


def switch_dr(
    logged: Logged, *, threshold: float | None = None, floor: Floor = _FLOOR, level: float = 0.95
) -> Estimate:
    """DR where the weight is at most the threshold τ, the model alone elsewhere. None: τ of the least error."""
    ess = _overlap(logged, logged.target, None, floor)
    return _estimate(logged, switch_scored(logged, threshold), ess, level)


def dr_os(logged: Logged, *, shrinkage: float | None = None, floor: Floor = _FLOOR, level: float = 0.95) -> Estimate:
    """DR with optimistically shrunk weights λ·w/(w² + λ). None: λ of the least error."""
    ess = _overlap(logged, logged.target, None, floor)
    return _estimate(logged, dr_os_scored(logged, shrinkage), ess, level)


def stable_dr(logged: Logged, *, floor: Floor = _FLOOR, level: float = 0.95) -> Estimate:
    """DR that listens to each block of time as much as it has to say. Supposes that the value does not change."""
    ess = _overlap(logged, logged.target, None, floor)
    return _estimate(logged, stable_scored(logged), ess, level)


def difference(
    logged: Logged,
    *,
    of_reference: float = 1.0,
    clip: float | None = None,
    floor: Floor = _FLOOR,
    level: float = 0.95,
) -> Estimate:
    """Target minus ``of_reference`` times the reference, by DR on the same rows, so that what they share cancels."""
    reference = logged.referred()
    ess = min(_overlap(logged, policy, clip, floor) for policy in (logged.target, reference))
    weight, other = (weights(logged, policy, _at_most(clip)) for policy in (logged.target, reference))
    table = None if weight.table is None or other.table is None else weight.table - of_reference * other.table
    apart = Weights(weight.shown - of_reference * other.shown, table)
    contrast = logged.target - of_reference * reference
    scored = _doubly_robust("difference", logged, contrast, apart, _clipped(logged, clip))
    return _estimate(logged, scored, ess, level)


def ips_scored(logged: Logged, clip: float | None = None) -> Scored:
    """IPS before its interval."""
    weight = weights(logged, logged.target, _at_most(clip))
    scores = weight.shown * logged.reward
    least = _rare(logged.reward - logged.reward.mean(), moment(logged, weight))
    value = float(scores.mean())
    return Scored("IPS", value, scores - value, least, weight, _clipped(logged, clip))


def snips_scored(logged: Logged, clip: float | None = None) -> Scored:
    """SNIPS before its interval."""
    weight = weights(logged, logged.target, _at_most(clip))
    size = float(weight.shown.mean())
    value = float((weight.shown * logged.reward).mean()) / size
    residual = logged.reward - value
    least = _rare(residual, moment(logged, weight) / size**2)
    return Scored("SNIPS", value, weight.shown * residual / size, least, weight, _clipped(logged, clip))


def dm_scored(logged: Logged) -> Scored:
    """DM before its interval."""
    scores = _opinion(logged, logged.target)
    value = float(scores.mean())
    nothing = Weights(np.zeros(len(logged)), None if logged.behaviour is None else np.zeros(logged.target.shape))
    return Scored("DM", value, scores - value, 0.0, nothing, MODEL_DEPENDENT)


def dr_scored(logged: Logged, clip: float | None = None) -> Scored:
    """DR before its interval."""
    weight = weights(logged, logged.target, _at_most(clip))
    return _doubly_robust("DR", logged, logged.target, weight, _clipped(logged, clip))


def sndr_scored(logged: Logged, clip: float | None = None) -> Scored:
    """SNDR before its interval."""
    weight = weights(logged, logged.target, _at_most(clip))
    size = float(weight.shown.mean())
    opinion = _opinion(logged, logged.target)
    correction = float((weight.shown * logged.residual).mean()) / size
    residual = logged.residual - correction
    influence = opinion - opinion.mean() + weight.shown * residual / size
    least = _rare(residual, moment(logged, weight) / size**2)
    value = float(opinion.mean()) + correction
    return Scored("SNDR", value, influence, least, weight, _clipped(logged, clip))


def stable_scored(logged: Logged) -> Scored:
    """Stable DR before its interval."""
    weight, steady = weights(logged, logged.target), steadiness(logged)
    scores = _opinion(logged, logged.target) + weight.shown * logged.residual
    value = float((steady * scores).mean())
    table = None if weight.table is None else steady[:, None] * weight.table
    weighed = Weights(steady * weight.shown, table)
    least = _rare(logged.residual, moment(logged, weighed))
    return Scored(
        "stable DR", value, steady * (scores - value), least, weighed, "supposes a value that does not change"
    )


def steadiness(logged: Logged) -> FloatArray:
    """h of each row, (n,), with mean 1; ones where the behaviour is not known."""
    if logged.behaviour is None or len(logged) < 2 * _LEAST_BLOCK:
        return np.ones(len(logged))
    blocks = np.array_split(moment(logged, weights(logged, logged.target)), min(_BLOCKS, len(logged) // _LEAST_BLOCK))
    steady = np.concatenate([np.full(len(block), 1.0 / max(block.mean(), _TINY)) for block in blocks])
    return np.asarray(steady / steady.mean())


def switch_scored(logged: Logged, threshold: float | None = None) -> Scored:
    """Switch-DR before its interval."""
    if threshold is None:
        return least_error(logged, [switch_scored(logged, each) for each in _grid(logged)])
    weight = weights(logged, logged.target, lambda w: np.where(w <= threshold, w, 0.0))
    share = float((logged.shown(logged.target) > threshold * logged.propensity).mean())
    note = f"above a weight of {threshold:.3g} the model alone: {share:.1%} of the decisions"
    return _doubly_robust("Switch-DR", logged, logged.target, weight, note)


def dr_os_scored(logged: Logged, shrinkage: float | None = None) -> Scored:
    """DRos before its interval."""
    if shrinkage is None:
        return least_error(logged, [dr_os_scored(logged, each**2) for each in _grid(logged)])
    if np.isinf(shrinkage):
        weight = weights(logged, logged.target)
    else:
        weight = weights(logged, logged.target, lambda w: shrinkage * w / (w**2 + max(shrinkage, _TINY)))
    return _doubly_robust("DRos", logged, logged.target, weight, f"weights shrunk, λ = {shrinkage:.3g}")


def least_error(logged: Logged, found: Sequence[Scored]) -> Scored:
    """The one whose estimated error is least."""
    unbiased = dr_scored(logged)
    return min(found, key=lambda scored: error_of(logged, scored, unbiased))


def error_of(logged: Logged, scored: Scored, unbiased: Scored) -> float:
    """Estimated mean squared error: variance, plus the squared bias that its distance from DR shows.

    DR has no bias, so that d = value − DR has the mean b of the bias: b² ≈ d² − var(d), at least 0. Source: Thomas &
    Brunskill 2016, section 4, with this bias in place of their distance to DR's interval.
    """
    variance = max(clustered(logged, scored.influence), scored.least)
    distance = (scored.value - unbiased.value) ** 2
    return variance + max(0.0, distance - apart(logged, scored, unbiased))


def apart(logged: Logged, scored: Scored, unbiased: Scored) -> float:
    """Variance of the distance between an estimate and DR."""
    spread = clustered(logged, scored.influence - unbiased.influence)
    table = None
    if scored.weight.table is not None and unbiased.weight.table is not None:
        table = scored.weight.table - unbiased.weight.table
    weight = Weights(scored.weight.shown - unbiased.weight.shown, table)
    return max(spread, _rare(logged.residual, moment(logged, weight)))


def _grid(logged: Logged) -> list[float]:
    weight = logged.shown(logged.target) / logged.propensity
    middle = np.unique(np.quantile(weight[weight > 0.0], QUANTILES)).tolist() if weight.any() else []
    return [0.0, *middle, np.inf]


def _doubly_robust(name: str, logged: Logged, measure: FloatArray, weight: Weights, note: str) -> Scored:
    scores = _opinion(logged, measure) + weight.shown * logged.residual
    value = float(scores.mean())
    return Scored(name, value, scores - value, _rare(logged.residual, moment(logged, weight)), weight, note)


def _estimate(logged: Logged, scored: Scored, ess: float, level: float) -> Estimate:
    variance = max(clustered(logged, scored.influence), scored.least)
    reach = float(stdtrit(logged.units - 1, 0.5 + level / 2.0)) * float(np.sqrt(variance))
    low, high = scored.value - reach, scored.value + reach
    return Estimate(scored.name, scored.value, low, high, ess, len(logged), logged.units, scored.note, level)


def _opinion(logged: Logged, measure: FloatArray) -> FloatArray:
    return np.asarray((measure * logged.q).sum(axis=1))


def _rare(residual: FloatArray, moment: FloatArray) -> float:
    """The least variance the probabilities allow: σ²·mean Σ b·w² / n."""
    return float((residual**2).mean() * moment.mean()) / len(residual)


def _overlap(logged: Logged, policy: FloatArray, clip: float | None, floor: Floor) -> float:
    weight = weights(logged, policy, _at_most(clip)).shown
    return covered(logged, policy, weight, floor, whole=clip is None)


def _at_most(clip: float | None) -> Shape:
    return (lambda weight: weight) if clip is None else (lambda weight: np.minimum(weight, clip))


def _clipped(logged: Logged, clip: float | None) -> str:
    if clip is None:
        return ""
    share = float((logged.shown(logged.target) > clip * logged.propensity).mean())
    return f"weights clipped at {clip:g}: {share:.1%} of the decisions"
