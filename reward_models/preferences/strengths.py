"""How good contents are in the eyes of people, and which people can be believed, learned together.

    P(annotator a puts i above j) = η_a·logistic(s_i − s_j) + (1 − η_a)·logistic(s_j − s_i)

s_i ~ N(0, spread²) within each campaign (Bradley and Terry 1952); η_a ~ Beta: 1 a careful annotator, ½ one who guesses, 0 one who answers the other
way round (Chen et al. 2013; the reliability of Dawid and Skene 1979 for comparisons). By expectation and maximisation:

1. r: how far each comparison is believed as it was said, from s and η
2. η_a: mean r of the annotator's comparisons, with ``_BELIEVED`` as prior
3. s: one Newton step of the logistic regression on what is believed; covariance from its Hessian

A content nobody compared has strength 0 and the prior's variance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reward_models.preferences.judgements import Comparison

Floats = npt.NDArray[np.float64]

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
    names = sorted({name for one in comparisons for name in (one.winner, one.loser)})
    people = sorted({one.annotator for one in comparisons})
    place = {name: number for number, name in enumerate(names)}
    winner, loser = (np.array([place[getattr(one, side)] for one in comparisons]) for side in ("winner", "loser"))
    who = np.array([people.index(one.annotator) for one in comparisons])
    weight = np.array([one.weight for one in comparisons])
    s, eta = np.zeros(len(names)), np.full(len(people), _BELIEVED[0] / sum(_BELIEVED))
    hessian = np.eye(len(names))
    for _ in range(_ROUNDS):
        p = _logistic(s[winner] - s[loser])
        r = eta[who] * p / (eta[who] * p + (1.0 - eta[who]) * (1.0 - p))
        seen, believed = np.bincount(who, weight, len(people)), np.bincount(who, weight * r, len(people))
        eta = (believed + _BELIEVED[0] - 1.0) / (seen + sum(_BELIEVED) - 2.0)
        slope = np.bincount(winner, weight * (r - p), len(names)) - np.bincount(loser, weight * (r - p), len(names))
        hessian = _hessian(winner, loser, weight * p * (1.0 - p), len(names))
        step = np.linalg.solve(hessian, slope - s / SPREAD**2)
        s = s + np.clip(step, -1.0, 1.0)
        if np.abs(step).max() < _SMALL:
            break
    variance = np.diag(np.linalg.inv(hessian))
    counts = np.bincount(who, minlength=len(people))
    return Strengths(
        dict(zip(names, s.tolist(), strict=True)),
        dict(zip(names, variance.tolist(), strict=True)),
        dict(zip(people, eta.tolist(), strict=True)),
        dict(zip(people, counts.tolist(), strict=True)),
    )


def _hessian(winner: npt.NDArray[np.int64], loser: npt.NDArray[np.int64], curvature: Floats, size: int) -> Floats:
    found = np.eye(size) / SPREAD**2
    np.add.at(found, (winner, winner), curvature)
    np.add.at(found, (loser, loser), curvature)
    np.add.at(found, (winner, loser), -curvature)
    np.add.at(found, (loser, winner), -curvature)
    return found


def _logistic(values: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-values)))
