"""Decisions whose probabilities are known, and what they weigh for another policy.

For a policy π and what was drawn from, b, a decision that showed a weighs w = π(a)/b(a). Sums over rows are made by
unit: what one customer does twice is one observation (invariant 15).

    Logged                  n decisions with up to k candidates each, checked
    weights(logged, π)      w of what was shown, (n,), and of every candidate, (n, k)
    moment(logged, w)       w² as expected before the draw, (n,)
    clustered(rows, ψ)      variance of a mean whose rows contribute ψ
    covered(logged, π, w)   effective sample size; refuses what the log cannot show

The effective sample size is (Σ w)²/Σ w² over units (Kish 1965). Where b is known for every candidate, overlap is
looked up: a policy that plays what had probability 0 is refused. Where only the propensity of what was shown is
known, the weights must average 1 (propensity sum): a mean further from it says the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from infra.errors import BadInput, EstimateRefused

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

Shape = Callable[[FloatArray], FloatArray]
"""Weights to weights: how an estimator tames the large ones."""

_SUM_TOLERANCE = 1e-6
_WEIGHT_ERRORS = 4.0
"""Standard errors by which the mean weight may differ from 1 before the log is said not to cover the target."""


@dataclass(frozen=True)
class Floor:
    """Below this an estimate is refused."""

    units: int = 30
    effective: float = 20.0


class Clustered:
    """Rows of units. ``clusters`` names the unit of each row."""

    clusters: Sequence[str] | IntArray

    @cached_property
    def codes(self) -> IntArray:
        """Number of each row's unit, 0 to units − 1."""
        return np.unique(np.asarray(self.clusters), return_inverse=True)[1].reshape(-1)

    @cached_property
    def units(self) -> int:
        """How many units there are."""
        return int(self.codes.max()) + 1 if len(self.codes) else 0


@dataclass(frozen=True)
class Logged(Clustered):
    """n decisions with up to k candidates each; entries past a row's candidates are 0 in every policy.

    The caller leaves out rows of unknown propensity. Raises :class:`BadInput` for what cannot be: a played action of
    probability 0, a policy that does not sum to 1, shapes that do not fit.
    """

    propensity: FloatArray
    """Probability of what was shown, (n,), in (0, 1]."""
    reward: FloatArray
    chosen: IntArray
    """Column of what was shown, (n,)."""
    target: FloatArray
    """The policy that is judged, (n, k)."""
    q: FloatArray
    """Predicted reward of each candidate, (n, k); zeros for none."""
    clusters: Sequence[str] | IntArray
    """The unit of each row, length n."""
    reference: FloatArray | None = None
    """The policy to compare with, (n, k)."""
    behaviour: FloatArray | None = None
    """What was drawn from, (n, k); None if only the shown one's propensity is known."""

    def __post_init__(self) -> None:
        _check_shapes(self)
        _check_propensities(self)
        for name in ("target", "reference", "behaviour"):
            _check_policy(name, getattr(self, name))

    def __len__(self) -> int:
        return len(self.reward)

    @cached_property
    def residual(self) -> FloatArray:
        """What was earned beyond the prediction, (n,)."""
        return self.reward - self.shown(self.q)

    def shown(self, table: FloatArray) -> FloatArray:
        """The entry of what was shown, (n,)."""
        return np.asarray(np.take_along_axis(table, self.chosen[:, None], axis=1)[:, 0])

    def referred(self) -> FloatArray:
        """The reference. Raises :class:`BadInput` without one."""
        if self.reference is None:
            raise BadInput("A difference needs a reference policy")
        return self.reference

    def judging_reference(self) -> "Logged":
        """The same decisions with the reference in the place of the target."""
        return replace(self, target=self.referred())


class Grouped(Protocol):
    """Rows that belong to units."""

    @property
    def codes(self) -> IntArray: ...

    @property
    def units(self) -> int: ...

    def __len__(self) -> int: ...


class Weights(NamedTuple):
    """Of what was shown, (n,), and of every candidate, (n, k); the latter None where the behaviour is not known."""

    shown: FloatArray
    table: FloatArray | None


def weights(logged: Logged, policy: FloatArray, shape: Shape = lambda weight: weight) -> Weights:
    """Weights of a policy, (n, k), shaped by an estimator."""
    shown = shape(logged.shown(policy) / logged.propensity)
    if logged.behaviour is None:
        return Weights(shown, None)
    table = np.zeros(policy.shape)
    np.divide(policy, logged.behaviour, out=table, where=logged.behaviour > 0.0)
    return Weights(shown, shape(table))


def moment(logged: Logged, weight: Weights) -> FloatArray:
    """Square of each row's weight as expected before the draw, Σ_a b(a)·w(a)², (n,); w² itself without behaviour."""
    if logged.behaviour is None or weight.table is None:
        return weight.shown**2
    return np.asarray((logged.behaviour * weight.table**2).sum(axis=1))


def clustered(rows: Grouped, influence: FloatArray) -> float:
    """Variance of a mean whose rows contribute ``influence``, summed by unit."""
    sums = np.bincount(rows.codes, weights=influence)
    return float(rows.units / (rows.units - 1) * (sums**2).sum()) / len(rows) ** 2


def covered(logged: Logged, policy: FloatArray, weight: FloatArray, floor: Floor, *, whole: bool = True) -> float:
    """The effective sample size, in units. ``whole``: the weights are not clipped, so that they average 1.

    Raises :class:`EstimateRefused` below the floor or without overlap.
    """
    ess = effective(logged, weight, floor)
    if logged.behaviour is not None:
        unseen = float(np.where(logged.behaviour > 0.0, 0.0, policy).sum()) / len(logged)
        if unseen > _SUM_TOLERANCE:
            raise EstimateRefused(
                f"The log cannot show what the policy does: {unseen:.1%} of its choices had probability 0 when these "
                "decisions were made; let the policy that logs explore them"
            )
    elif whole:
        error = np.sqrt(clustered(logged, weight - weight.mean()))
        if abs(weight.mean() - 1.0) > _WEIGHT_ERRORS * error + _SUM_TOLERANCE:
            raise EstimateRefused(
                f"The log does not cover the policy: its weights average {weight.mean():.3g} where 1 is expected; "
                "it plays what these decisions could not show, or the stored propensities are wrong"
            )
    return ess


def effective(rows: Grouped, weight: FloatArray, floor: Floor) -> float:
    """(Σ w)²/Σ w² over units. Raises :class:`EstimateRefused` below the floor."""
    if rows.units < max(floor.units, 2):
        raise EstimateRefused(f"{rows.units:,} units are too few for an estimate; it needs {floor.units:,}")
    sums = np.bincount(rows.codes, weights=weight)
    squares = float((sums**2).sum())
    ess = float(sums.sum()) ** 2 / squares if squares else 0.0
    if ess < floor.effective:
        raise EstimateRefused(
            f"Too little overlap: what the policy would choose was shown to an effective {ess:,.0f} units; "
            f"an estimate needs {floor.effective:,.0f}"
        )
    return ess


def _check_shapes(logged: Logged) -> None:
    n = len(logged.reward)
    shapes = [logged.propensity.shape, logged.reward.shape, logged.chosen.shape, (len(logged.clusters),)]
    tables = [
        table.shape for table in (logged.target, logged.q, logged.reference, logged.behaviour) if table is not None
    ]
    k = logged.target.shape[-1]
    if any(shape != (n,) for shape in shapes) or any(shape != (n, k) for shape in tables):
        raise BadInput(f"Logged decisions do not fit together: columns of shape {shapes}, tables of shape {tables}")
    if n and not (logged.chosen.min() >= 0 and logged.chosen.max() < k):
        raise BadInput("A shown content is not among its row's candidates")
    if not (np.isfinite(logged.reward).all() and np.isfinite(logged.q).all()):
        raise BadInput("Rewards and predictions must be finite; leave out decisions that are not mature")


def _check_propensities(logged: Logged) -> None:
    if np.isnan(logged.propensity).any():
        raise BadInput("Some propensities are unknown; leave those decisions out of off-policy estimates")
    if not ((logged.propensity > 0.0) & (logged.propensity <= 1.0 + _SUM_TOLERANCE)).all():
        row = int(np.flatnonzero(~((logged.propensity > 0.0) & (logged.propensity <= 1.0 + _SUM_TOLERANCE)))[0])
        raise BadInput(
            f"Row {row} was shown with probability {logged.propensity[row]:g}, which cannot have happened; "
            "correct the propensity, or leave it empty if it is unknown"
        )
    if logged.behaviour is not None and not np.allclose(logged.shown(logged.behaviour), logged.propensity, atol=1e-9):
        raise BadInput("The behaviour policy and the propensities of what was shown disagree")


def _check_policy(name: str, policy: FloatArray | None) -> None:
    if policy is None or not len(policy):
        return
    if not (policy >= 0.0).all() or not np.allclose(policy.sum(axis=1), 1.0, atol=_SUM_TOLERANCE):
        raise BadInput(f"The {name} policy is no distribution: every row must be at least 0 and sum to 1")
