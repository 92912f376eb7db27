"""What another policy's lists would have earned: off-policy estimates of slates, under a named model of the reader.

Lists are drawn by Plackett-Luce from a pmf over the candidates (``policies.draw_slate``), so that every conditional
probability follows from the pmf. What a position's reward r_l is weighted by depends on what it may depend on:

    standard      on the whole list              W = Π_j ρ_j over all positions
    cascade       on what stands above, and it   W_l = Π_{j≤l} ρ_j             (RIPS, McInerney et al. 2020)
    independent   on what stands there           W_l = π_l(a_l) / b_l(a_l)     (IIPS, Li et al. 2018)

ρ_j is the ratio of the conditional probabilities at position j, π_l and b_l are the marginals of position l. The fewer
things a reward is said to depend on, the less noise, and the more is assumed: the model of the reader is an argument
without a default, and the estimate's note names it. Values are self-normalised per position,

    value = Σ_l Σ_i W_il·r_il / Σ_i W_il

with t intervals on sums per unit. Marginals are exact sums over what may stand above, so the independent reader is
for lists of up to three positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from infra.errors import BadInput, EstimateRefused
from reward_models.logged import Clustered, Floor, clustered, effective
from reward_models.offpolicy import Estimate

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

Reader = Literal["standard", "cascade", "independent"]

READERS: dict[Reader, str] = {
    "standard": "assumes that every position's reward may depend on the whole list",
    "cascade": "assumes that readers go from top to bottom: a position's reward depends on it and what stands above",
    "independent": "assumes that a position's reward depends on what stands there alone",
}
MOST_POSITIONS = 3
"""Of a list whose marginals are summed exactly."""


@dataclass(frozen=True)
class Slates(Clustered):
    """n lists of l different contents out of up to k candidates. Raises :class:`BadInput` for what cannot be."""

    chosen: IntArray
    """Column of what was shown at each position, (n, l)."""
    reward: FloatArray
    """What each position earned, (n, l)."""
    behaviour: FloatArray
    """The pmf that the lists were drawn from, (n, k)."""
    target: FloatArray
    """The pmf that is judged, (n, k)."""
    clusters: Sequence[str] | IntArray
    """The unit of each list, length n."""

    def __post_init__(self) -> None:
        n, positions = self.chosen.shape
        shapes = (self.reward.shape, self.behaviour.shape, self.target.shape, len(self.clusters))
        k = self.behaviour.shape[-1]
        if shapes != ((n, positions), (n, k), (n, k), n) or positions > k:
            raise BadInput(f"Slates do not fit together: chosen {self.chosen.shape}, the rest {shapes}")
        if n and not (np.diff(np.sort(self.chosen, axis=1)) > 0).all():
            raise BadInput("A content stands twice in a list")

    def __len__(self) -> int:
        return len(self.chosen)


def slate_value(slates: Slates, reader: Reader, *, floor: Floor | None = None, level: float = 0.95) -> Estimate:
    """Reward per list of the target. Raises :class:`EstimateRefused` below the floor at any position."""
    weights = weights_of(slates, reader)
    unseen = float(np.where(slates.behaviour > 0.0, 0.0, slates.target).sum()) / max(len(slates), 1)
    if unseen > 1e-6:
        raise EstimateRefused(f"The log cannot show what the policy does: {unseen:.1%} of its choices were impossible")
    ess = min(effective(slates, weight, floor or Floor()) for weight in weights.T)
    size = weights.mean(axis=0)
    values = (weights * slates.reward).mean(axis=0) / size
    influence = (weights * (slates.reward - values) / size).sum(axis=1)
    reach = float(stdtrit(slates.units - 1, 0.5 + level / 2.0)) * float(np.sqrt(clustered(slates, influence)))
    value = float(values.sum())
    name = f"slate, {reader} reader"
    return Estimate(name, value, value - reach, value + reach, ess, len(slates), slates.units, READERS[reader], level)


def weights_of(slates: Slates, reader: Reader) -> FloatArray:
    """Weight of each position's reward, (n, l)."""
    if reader == "independent":
        return _marginal_ratios(slates)
    ratios = np.cumprod(_conditional_ratios(slates), axis=1)
    return np.asarray(np.broadcast_to(ratios[:, -1:], ratios.shape) if reader == "standard" else ratios)


def _conditional_ratios(slates: Slates) -> FloatArray:
    ratios = np.empty(slates.chosen.shape)
    taken = np.zeros(slates.behaviour.shape, dtype=np.bool_)
    for position, column in enumerate(slates.chosen.T):
        drawn = _at(_conditional(slates.behaviour, taken), column)
        if not (drawn > 0.0).all():
            raise BadInput("A list was shown that its probabilities say was impossible")
        ratios[:, position] = _at(_conditional(slates.target, taken), column) / drawn
        taken[np.arange(len(slates)), column] = True
    return ratios


def _marginal_ratios(slates: Slates) -> FloatArray:
    if slates.chosen.shape[1] > MOST_POSITIONS:
        raise BadInput(f"The independent reader is for lists of up to {MOST_POSITIONS} positions; take cascade")
    nothing = np.zeros(slates.behaviour.shape, dtype=np.bool_)
    both = (slates.target, slates.behaviour)
    marginals = [
        [_marginal(pmf, nothing, column, above) for above, column in enumerate(slates.chosen.T)] for pmf in both
    ]
    return np.asarray(np.array(marginals[0]).T / np.array(marginals[1]).T)


def _marginal(pmf: FloatArray, taken: npt.NDArray[np.bool_], column: IntArray, above: int) -> FloatArray:
    """Probability of a column ``above`` positions further down, whatever stands between, (n,)."""
    conditional = _conditional(pmf, taken)
    if above == 0:
        return _at(conditional, column)
    total = np.zeros(len(pmf))
    for first in range(pmf.shape[1]):
        below = taken.copy()
        below[:, first] = True
        total += conditional[:, first] * _marginal(pmf, below, column, above - 1)
    return total


def _conditional(pmf: FloatArray, taken: npt.NDArray[np.bool_]) -> FloatArray:
    """Probabilities given what stands above, (n, k): even where nothing of the pmf is left, as ``draw_slate`` has it."""
    left = np.where(taken, 0.0, pmf)
    total = left.sum(axis=1, keepdims=True)
    open_ = ~taken
    even = open_ / np.maximum(open_.sum(axis=1, keepdims=True), 1)
    return np.asarray(np.where(total > 0.0, left / np.where(total > 0.0, total, 1.0), even))


def _at(table: FloatArray, column: IntArray) -> FloatArray:
    return np.asarray(table[np.arange(len(table)), column])
