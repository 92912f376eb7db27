"""The conditional logit (McFadden 1974): which of several, by a utility that is a weighted sum.

    P(c | x, candidates) = exp u(x, c) / Σ_candidates exp u(x, c'),     u = w'φ

It is also the maximum-entropy solution of inverse reinforcement learning for one step (Ziebart et al. 2008): of all
ways to choose that show the columns as often as the marketers did, the one that assumes nothing else; w is then the
reward that their choices imply, up to a scale.

    maximise  Σ log P(chosen) − ½ Σ penalty·w²          Newton's method with halved steps; the sum is concave

Standard errors are from the curvature; with ``CROWD`` or more people, who differ in taste, from the scatter of their
scores (sandwich, clustered by person).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reward_models.demonstrations.design import Situations
from reward_models.folds import codes_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CROWD = 10
_STEPS, _ENOUGH = 60, 1e-9


@dataclass(frozen=True)
class Logit:
    """The fitted weights, shape (d,), and their covariance, (d, d)."""

    weights: Floats
    covariance: Floats

    def utility(self, phi: Floats) -> Floats:
        """u of rows, shape (…, d) to (…)."""
        return np.asarray(phi @ self.weights)


def fit_logit(choices: Situations, penalty: Floats) -> Logit:
    """penalty: of each column, shape (d,), all above 0: the prior is N(0, 1/penalty)."""
    weights = np.zeros(choices.phi.shape[1])
    best = _objective(choices, weights, penalty)
    for _ in range(_STEPS):
        gradient, curvature = _derivatives(choices, weights, penalty)
        step = np.linalg.solve(curvature, gradient)
        if float(gradient @ step) < _ENOUGH:
            break
        size = 1.0
        while (now := _objective(choices, weights + size * step, penalty)) < best and size > 1e-6:
            size /= 2.0
        weights, best = weights + size * step, max(now, best)
    return Logit(weights, _covariance(choices, weights, penalty))


def log_shares(choices: Situations, utility: Floats) -> Floats:
    """log P of every row among its choice's candidates, shape (r,)."""
    of_row = choices.of_row
    top = np.maximum.reduceat(utility, choices.begin)
    total = np.add.reduceat(np.exp(utility - top[of_row]), choices.begin)
    return np.asarray(utility - (top + np.log(total))[of_row])


def likelihood(choices: Situations, utility: Floats) -> float:
    """Mean log P(chosen)."""
    return float(log_shares(choices, utility)[choices.chosen].mean())


def _objective(choices: Situations, weights: Floats, penalty: Floats) -> float:
    shares = log_shares(choices, choices.phi @ weights)
    return float(shares[choices.chosen].sum() - 0.5 * penalty @ weights**2)


def _derivatives(choices: Situations, weights: Floats, penalty: Floats) -> tuple[Floats, Floats]:
    share = np.exp(log_shares(choices, choices.phi @ weights))
    weighted = choices.phi * share[:, None]
    mean = np.add.reduceat(weighted, choices.begin, axis=0)
    gradient = choices.phi[choices.chosen].sum(axis=0) - mean.sum(axis=0) - penalty * weights
    return gradient, weighted.T @ choices.phi - mean.T @ mean + np.diag(penalty)


def _covariance(choices: Situations, weights: Floats, penalty: Floats) -> Floats:
    inverse = np.linalg.inv(_derivatives(choices, weights, penalty)[1])
    person = codes_of(choices.by)
    people = int(person.max()) + 1
    if people < CROWD:
        return np.asarray(inverse)
    share = np.exp(log_shares(choices, choices.phi @ weights))
    score = choices.phi[choices.chosen] - np.add.reduceat(choices.phi * share[:, None], choices.begin, axis=0)
    of_person = np.zeros((people, len(weights)))
    np.add.at(of_person, person, score)
    centred = of_person - of_person.mean(axis=0)
    meat = people / (people - 1) * centred.T @ centred
    return np.asarray(inverse @ (meat + np.diag(penalty)) @ inverse)
