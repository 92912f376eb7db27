"""What a policy of journeys would earn per episode, from journeys that another policy made.

    w_t   Π_{i ≤ t} π(a_i | s_i) / b(a_i | s_i)          weight of an episode up to step t;  w_{−1} = 1
    PDIS  mean of Σ_t γ_t·w_t·r_t                                                    (Precup, Sutton & Singh 2000)
    FQE   mean of Σ_a π(a | s_0)·Q(s_0, a)                                           (``fitted_q.py``)
    DR    mean of Σ_t γ_t·(w_t·(r_t − Q(s_t, a_t)) + w_{t−1}·Σ_a π(a | s_t)·Q(s_t, a))      (Jiang & Li 2016)

PDIS and DR are unbiased whatever the model; their weights are products, so that a few episodes soon carry everything: below a
floor of effective size they are refused, and FQE alone is left, which is only as good as its model and never gates.
Intervals are t intervals on sums per unit: a customer may have several episodes.

    judged(episodes, policy) -> Scores     value(episodes, scores) -> Valued     compare(episodes, first, second) -> Estimate
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from infra.errors import EstimateRefused
from reward_models.episodes.fitted_q import USUAL, QSettings, cross_fitted
from reward_models.episodes.steps import Episodes, Floats, PerEpisode
from reward_models.logged import Floor, clustered, effective
from reward_models.offpolicy import MODEL_DEPENDENT, Estimate

_FLOOR = Floor()


@dataclass(frozen=True)
class Valued:
    """A policy's value per episode by each estimator that was not refused, and why the others were."""

    estimates: tuple[Estimate, ...]
    refused: dict[str, str]


@dataclass(frozen=True)
class Scores:
    """What each episode says, shape (E,) each. ``weight``: of the whole episode."""

    pdis: Floats
    fqe: Floats
    dr: Floats
    weight: Floats


def judged(episodes: Episodes, policy: Floats, settings: QSettings = USUAL) -> Scores:
    """What each episode says of a policy, (n, k), with a cross-fitted Q."""
    return scores(episodes, policy, cross_fitted(episodes, policy, settings))


def value(episodes: Episodes, found: Scores, *, floor: Floor = _FLOOR, level: float = 0.95) -> Valued:
    """A policy by every estimator."""
    names = (("FQE", found.fqe), ("PDIS", found.pdis), ("DR", found.dr))
    estimates, refused = [], {}
    for name, values in names:
        weight = np.ones(len(values)) if name == "FQE" else found.weight
        try:
            estimates.append(_estimate(episodes, name, values, weight, floor, level))
        except EstimateRefused as error:
            refused[name] = str(error)
    return Valued(tuple(estimates), refused)


def compare(
    episodes: Episodes, first: Scores, second: Scores, *, floor: Floor = _FLOOR, level: float = 0.95
) -> Estimate:
    """How much more the first policy earns per episode than the second, by DR on the same episodes. Raises
    :class:`EstimateRefused` where the log does not show enough of either."""
    rows = PerEpisode(episodes.units)
    thinner = min((first.weight, second.weight), key=lambda weight: effective(rows, weight, floor))
    return _estimate(episodes, "difference", first.dr - second.dr, thinner, floor, level)


def scores(episodes: Episodes, policy: Floats, q: Floats) -> Scores:
    """Each estimator before its mean. ``q``: of every candidate, (n, k)."""
    n = np.arange(len(episodes))
    ratio = policy[n, episodes.chosen] / episodes.behaviour[n, episodes.chosen]
    weight = _products(episodes, ratio)
    before = np.where(episodes.step > 0, np.roll(weight, 1), 1.0)
    opinion = (policy * q).sum(axis=1)
    residual = episodes.reward - q[n, episodes.chosen]
    last = np.flatnonzero(episodes.last)

    def added(values: Floats) -> Floats:
        return np.asarray(
            np.bincount(episodes.episode, weights=values, minlength=len(episodes.units)), dtype=np.float64
        )

    return Scores(
        pdis=added(episodes.weight * weight * episodes.reward),
        fqe=opinion[episodes.first],
        dr=added(episodes.weight * (weight * residual + before * opinion)),
        weight=weight[last],
    )


def _products(episodes: Episodes, ratio: Floats) -> Floats:
    """w_t: products of the ratios within each episode up to each row, (n,)."""
    weight = ratio.copy()
    for step in range(1, int(episodes.step.max(initial=0)) + 1):
        rows = np.flatnonzero(episodes.step == step)
        weight[rows] *= weight[rows - 1]
    return weight


def _estimate(episodes: Episodes, name: str, found: Floats, weight: Floats, floor: Floor, level: float) -> Estimate:
    rows = PerEpisode(episodes.units)
    ess, mean = effective(rows, weight, floor), float(found.mean())
    reach = float(stdtrit(rows.units - 1, 0.5 + level / 2.0)) * float(np.sqrt(clustered(rows, found - mean)))
    note = MODEL_DEPENDENT if name == "FQE" else ""
    return Estimate(name, mean, mean - reach, mean + reach, ess, len(found), rows.units, note, level)
