"""How good contents are in the eyes of people, and which people can be believed, learned together.

    P(annotator a puts i above j) = η_a·logistic(s_i − s_j) + (1 − η_a)·logistic(s_j − s_i)

s_i ~ N(0, spread²) within each campaign (Bradley and Terry 1952); η_a ~ Beta: 1 a careful annotator, ½ one who guesses, 0 one who answers the other
way round (Chen et al. 2013; the reliability of Dawid and Skene 1979 for comparisons). By expectation and maximisation:

1. r: how far each comparison is believed as it was said, from s and η
2. η_a: mean r of the annotator's comparisons, with ``_BELIEVED`` as prior
3. s: one Newton step of the logistic regression on what is believed; covariance from its Hessian

A content nobody compared has strength 0 and the prior's variance. Only contents of one campaign are compared, so the Hessian falls into one block
per campaign.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_array
from scipy.sparse.linalg import spsolve

from reward_models.preferences.judgements import Comparison

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SPREAD = 1.0
"""Standard deviation of strengths a priori: the better of two is put first in about seven of ten comparisons."""
_BELIEVED = (8.0, 2.0)
"""Beta prior of η: as ten comparisons of which eight are as the others say."""
_ROUNDS = 200
_SMALL = 1e-7


@dataclass(frozen=True)
class Strengths:
    """Of contents: mean and variance; of annotators: reliability η and number of comparisons."""

    strength: Mapping[str, float]
    variance: Mapping[str, float]
    reliability: Mapping[str, float]
    said: Mapping[str, int]

    def believed(self, annotator: str) -> float:
        """Weight of what an annotator says, in [0, 1]: 0 for one who guesses or says the opposite."""
        return max(0.0, 2.0 * self.reliability[annotator] - 1.0)


def fit_strengths(comparisons: Sequence[Comparison]) -> Strengths:
    """Fit on comparisons, at least one."""
    campaigns = {name: one.campaign for one in comparisons for name in (one.winner, one.loser)}
    names = sorted(campaigns, key=lambda name: (campaigns[name], name))
    people = sorted({one.annotator for one in comparisons})
    place = {name: number for number, name in enumerate(names)}
    winner, loser = (np.array([place[getattr(one, side)] for one in comparisons]) for side in ("winner", "loser"))
    who = np.array([people.index(one.annotator) for one in comparisons])
    weight = np.array([one.weight for one in comparisons])
    s, eta = np.zeros(len(names)), np.full(len(people), _BELIEVED[0] / sum(_BELIEVED))
    hessian = _hessian(winner, loser, np.zeros(len(comparisons)), len(names))
    for _ in range(_ROUNDS):
        p = _logistic(s[winner] - s[loser])
        r = eta[who] * p / (eta[who] * p + (1.0 - eta[who]) * (1.0 - p))
        seen, believed = np.bincount(who, weight, len(people)), np.bincount(who, weight * r, len(people))
        eta = (believed + _BELIEVED[0] - 1.0) / (seen + sum(_BELIEVED) - 2.0)
        slope = np.bincount(winner, weight * (r - p), len(names)) - np.bincount(loser, weight * (r - p), len(names))
        hessian = _hessian(winner, loser, weight * p * (1.0 - p), len(names))
        step = spsolve(hessian, slope - s / SPREAD**2)
        s = s + np.clip(step, -1.0, 1.0)
        if np.abs(step).max() < _SMALL:
            break
    variance = _variances(hessian, [campaigns[name] for name in names])
    counts = np.bincount(who, minlength=len(people))
    return Strengths(
        dict(zip(names, s.tolist(), strict=True)),
        dict(zip(names, variance.tolist(), strict=True)),
        dict(zip(people, eta.tolist(), strict=True)),
        dict(zip(people, counts.tolist(), strict=True)),
    )


def _hessian(winner: Ints, loser: Ints, curvature: Floats, size: int) -> csc_array:
    every = np.arange(size)
    rows = np.concatenate([every, winner, loser, winner, loser])
    columns = np.concatenate([every, winner, loser, loser, winner])
    values = np.concatenate([np.full(size, 1.0 / SPREAD**2), curvature, curvature, -curvature, -curvature])
    return csc_array((values, (rows, columns)), shape=(size, size))


def _variances(hessian: csc_array, campaigns: Sequence[str]) -> Floats:
    """Diagonal of the inverse, block by block; contents of a campaign stand together."""
    begins = [place for place, name in enumerate(campaigns) if place == 0 or campaigns[place - 1] != name]
    blocks = [hessian[begin:end, begin:end].toarray() for begin, end in pairwise([*begins, len(campaigns)])]
    return np.concatenate([np.diag(np.linalg.inv(block)) for block in blocks])


def _logistic(values: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-values)))
