"""Lift, measured: the units that always got the baseline (holdout) against the others, as assigned.

Intention to treat: every assigned unit counts from its first decision, with all it did in the lift window, attributed
or not. Randomisation was by unit, so is the interval.

    per unit   difference of mean totals; Welch's interval (Welch 1947)
    per send   difference of Σ total / Σ decisions; variance by the delta method,
               var(total − ratio·decisions) / (n·mean decisions²)

Per send is what a marketer reads, but is only fair if the groups are sent equally often; per unit always is. They
agree where each unit has one decision. The smallest detectable effect is what this much data finds with 80 %
probability: (t + z_0.8) standard errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from infra.errors import BadInput, EstimateRefused

FloatArray = npt.NDArray[np.float64]

Basis = Literal["unit", "send"]
"""What a mean is per."""

_POWER = 0.8


@dataclass(frozen=True)
class UnitOutcomes:
    """One row per unit."""

    units: Sequence[str]
    treatment: npt.NDArray[np.bool_]
    """False: holdout."""
    total: FloatArray
    """All it earned in the window, reward or metric units."""
    decisions: npt.NDArray[np.int64] | None = None
    """How many decisions it had; needed per send."""


@dataclass(frozen=True)
class Lift:
    """Treatment minus holdout. ``relative``: to the holdout's mean, None where that is 0. ``mde``: smallest
    detectable effect at 80 % power, on the scale of ``difference``."""

    holdout_mean: float
    treatment_mean: float
    difference: float
    low: float
    high: float
    relative: float | None
    mde: float
    n_holdout: int
    n_treatment: int


def lift(units: UnitOutcomes, *, basis: Basis = "unit", level: float = 0.95, min_units: int = 30) -> Lift:
    """The measured lift. Raises :class:`EstimateRefused` if a group has fewer than ``min_units`` units."""
    _check(units, basis)
    holdout, treatment = _group(units, ~units.treatment, basis), _group(units, units.treatment, basis)
    _refuse_small("holdout", holdout.n, min_units)
    _refuse_small("treatment", treatment.n, min_units)
    difference = treatment.mean - holdout.mean
    error = float(np.sqrt(holdout.variance + treatment.variance))
    quantile = float(stats.t.ppf(0.5 + level / 2.0, _freedom(holdout, treatment)))
    return Lift(
        holdout_mean=holdout.mean,
        treatment_mean=treatment.mean,
        difference=difference,
        low=difference - quantile * error,
        high=difference + quantile * error,
        relative=difference / abs(holdout.mean) if holdout.mean else None,
        mde=(quantile + float(stats.norm.ppf(_POWER))) * error,
        n_holdout=holdout.n,
        n_treatment=treatment.n,
    )


@dataclass(frozen=True)
class _Group:
    n: int
    mean: float
    variance: float
    """Of the mean."""


def _group(units: UnitOutcomes, rows: npt.NDArray[np.bool_], basis: Basis) -> _Group:
    total = units.total[rows]
    sends = np.ones(len(total)) if basis == "unit" or units.decisions is None else units.decisions[rows]
    n = len(total)
    if n < 2:
        return _Group(n, 0.0, 0.0)
    mean = float(total.sum() / sends.sum())
    return _Group(n, mean, float(np.var(total - mean * sends, ddof=1) / (n * sends.mean() ** 2)))


def _freedom(one: _Group, other: _Group) -> float:
    """Welch–Satterthwaite degrees of freedom; without any variance, those of the smaller group."""
    parts = one.variance**2 / (one.n - 1) + other.variance**2 / (other.n - 1)
    return (one.variance + other.variance) ** 2 / parts if parts else min(one.n, other.n) - 1.0


def _refuse_small(name: str, n: int, least: int) -> None:
    if n < max(least, 2):
        raise EstimateRefused(f"The {name} group has {n:,} units; a lift needs {max(least, 2):,} in each group")


def _check(units: UnitOutcomes, basis: Basis) -> None:
    n = len(units.units)
    lengths = [len(units.treatment), len(units.total), n if units.decisions is None else len(units.decisions)]
    if any(length != n for length in lengths):
        raise BadInput(f"Outcomes of {n} units do not fit together: columns of lengths {lengths}")
    if len(set(units.units)) != n:
        raise BadInput("A unit occurs twice; add up its outcomes first")
    if not np.isfinite(units.total).all():
        raise BadInput("Outcomes must be finite; leave out units that are not mature")
    if basis == "send" and units.decisions is None:
        raise BadInput("Lift per send needs the number of decisions of each unit")
