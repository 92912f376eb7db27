"""Lift, measured: the units that always got the baseline (holdout) against the others, as assigned.

Intention to treat: every assigned unit counts from its first decision, with all it did in the lift window, attributed
or not. Randomisation was by unit, so is the interval.

    per unit   difference of mean totals; Welch's interval (Welch 1947)
    per send   difference of Σ total / Σ decisions; variance by the delta method,
               var(total − ratio·decisions) / (n·mean decisions²)

Per send is what a marketer reads, but is only fair if the groups are sent equally often; per unit always is. They
agree where each unit has one decision. The smallest detectable effect is what this much data finds with 80 %
probability: (t + z_0.8) standard errors.

``lift`` is for one look at a period that is over. ``lift_so_far`` is for a lift that is always on: its interval is a
confidence sequence over matured units (``sequences.py``), so that one may look after every unit and stop at will. What
it says of the future supposes that it goes on as so far, error ∝ 1/√units.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from infra.errors import BadInput, EstimateRefused
from ingestion.fields import DOCUMENTED
from ingestion.loops import LiftSettings
from reward_models.sequences import Dealt, predictions, reaches, ready, running, sequence

FloatArray = npt.NDArray[np.float64]

Basis = Literal["unit", "send"]
"""What a mean is per."""

Standing = Literal["better", "worse", "negligible", "open"]
"""better, worse: the interval excludes 0; negligible: it holds only lifts too small to matter; open: none of these."""

_POWER = 0.8
_HORIZON = np.geomspace(1.0, 1_000.0, 1_000)
"""Multiples of the units so far at which the future is looked at."""
OUTLIER = 0.99
"""Where a metric has no cap of its own, totals are capped at this quantile of those that are not 0."""


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

    @property
    def units_needed(self) -> float:
        """Units of both groups for which a difference like this one would be found four times in five."""
        units = self.n_holdout + self.n_treatment
        return units * (self.mde / self.difference) ** 2 if self.difference else np.inf


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


def smallest_detectable(reach: float, level: float = 0.95) -> float:
    """The effect that a fixed-sample test finds with 80 % probability, from how far its interval reaches (normal)."""
    return reach * (1.0 + float(stats.norm.ppf(_POWER) / stats.norm.ppf(0.5 + level / 2.0)))


@dataclass(frozen=True)
class RunningLift:
    """Treatment minus holdout, total per unit, averaged over the units so far. Means are plain means of the groups."""

    __pydantic_config__ = DOCUMENTED

    standing: Standing
    """What may be said so far."""
    holdout_mean: float
    """Mean total of the holdout."""
    treatment_mean: float
    """Mean total of the others."""
    difference: float
    """The lift: total per customer."""
    low: float
    """Lower end of its interval, which may be looked at any time."""
    high: float
    """Upper end of its interval."""
    relative: float | None
    """The lift relative to the holdout's mean; None where that is 0."""
    mde: float
    """Smallest effect that these units decide with 80 % probability."""
    n_holdout: int
    """Customers of the holdout."""
    n_treatment: int
    """The other customers."""
    decided_after: int | None
    """Units after which the interval first excluded 0; None if it never did."""
    more_units: int | None
    """Further units until the interval excludes 0 if the lift stays what it is; 0 if it does, None if not in sight."""
    more_units_worthwhile: int | None
    """Further units until a lift just large enough to matter would be decided with 80 % probability."""
    noise_removed: float
    """Share of the totals' variance that the covariates took away; can be slightly negative."""


def lift_so_far(dealt: Dealt, settings: LiftSettings) -> RunningLift:
    """The lift over all units so far, as it may be looked at any time.

    Raises :class:`EstimateRefused` before the first look that counts.
    """
    looks = ready(dealt, settings.min_units, settings.min_responses)
    holdout, treatment = dealt.total[~dealt.treatment], dealt.total[dealt.treatment]
    if not len(looks) or not looks[-1]:
        raise EstimateRefused(_too_early(holdout, treatment, settings))
    estimate = running(dealt)
    interval = sequence(estimate, settings.alpha, settings.tuned_units)
    low, high = float(interval.low[-1]), float(interval.high[-1])
    outside = np.flatnonzero(looks & ((interval.low > 0.0) | (interval.high < 0.0)))
    units, difference, error = len(looks), float(estimate.mean[-1]), float(estimate.error[-1])
    matters = settings.worthwhile * abs(float(holdout.mean()))
    power = float(stats.norm.ppf(_POWER))
    decided = low > 0.0 or high < 0.0
    return RunningLift(
        standing=_standing(low, high, matters),
        holdout_mean=float(holdout.mean()),
        treatment_mean=float(treatment.mean()),
        difference=difference,
        low=low,
        high=high,
        relative=difference / abs(float(holdout.mean())) if holdout.any() else None,
        mde=(float(reaches(units, settings.alpha, settings.tuned_units)) + power) * error,
        n_holdout=len(holdout),
        n_treatment=len(treatment),
        decided_after=int(outside[0]) + 1 if len(outside) else None,
        more_units=0 if decided else more_units(abs(difference), error, units, settings),
        more_units_worthwhile=more_units(matters, error, units, settings, power),
        noise_removed=noise_removed(dealt),
    )


def more_units(effect: float, error: float, units: int, settings: LiftSettings, power: float = 0.0) -> int | None:
    """Units beyond these after which a mean of ``effect`` is so many standard errors outside the interval's reach;
    None beyond a thousand times as many."""
    later = units * _HORIZON
    needed = (reaches(later, settings.alpha, settings.tuned_units) + power) * error / np.sqrt(_HORIZON)
    enough = np.flatnonzero(needed <= effect)
    return int(np.ceil(later[enough[0]])) - units if len(enough) else None


def winsorised(total: FloatArray, first: int) -> tuple[FloatArray, float | None]:
    """Totals capped at the OUTLIER quantile of the first units' that are not 0, and that cap; None: nothing to cap."""
    seen = total[:first][total[:first] != 0.0]
    if not len(seen):
        return total, None
    cap = float(np.quantile(np.abs(seen), OUTLIER))
    return np.clip(total, -cap, cap), cap


def _standing(low: float, high: float, matters: float) -> Standing:
    if low > 0.0 or high < 0.0:
        return "better" if low > 0.0 else "worse"
    return "negligible" if -matters < low and high < matters else "open"


def noise_removed(dealt: Dealt) -> float:
    """Share of the totals' variance that the covariates take away; can be slightly negative."""
    variance = float(dealt.total.var())
    return 1.0 - float((dealt.total - predictions(dealt)).var()) / variance if variance else 0.0


def _too_early(holdout: FloatArray, treatment: FloatArray, settings: LiftSettings) -> str:
    return (
        f"The holdout has {len(holdout):,} units, {np.count_nonzero(holdout):,} of them with anything to count, the "
        f"treatment {len(treatment):,} and {np.count_nonzero(treatment):,}; a lift needs {settings.min_units:,} and "
        f"{settings.min_responses:,} in each group"
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
