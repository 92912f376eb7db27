"""Long-run effects from early outcomes: the surrogate index, and where it must not be believed.

    index(s, x) = E[late | early outcomes s, what was known before x]      learned on customers whose late outcome is known
    usual(x)    = E[late | x]                                 what differs by chance between the groups, taken off
    effect      = mean of index − usual, treatment less control            of customers of whom only s and x are known

The effect on the index is that on the late outcome if (1) treatment moves the late outcome through s only (surrogacy) and
(2) the relation of s to the late outcome has stayed the same (comparability). Source: Athey, Chetty, Imbens & Kang 2019.
Neither can be seen in the new customers; both can be doubted from the known ones, each predicted by trees that have not
seen it:

    surrogacy       late − index differs between treatment and control       the index misses what treatment does
    comparability   late − index differs between the later and the earlier half of the known customers
    strength        the index explains less than ``LEAST_EXPLAINED`` of the late outcome beyond x: little can be seen

    surrogate(known, new) -> Surrogate, whose ``flags`` are sentences; without any, ``trusted``

Whatever the flags: it is model-dependent, and gates nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from infra.errors import EstimateRefused
from reward_models.folds import deal

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

FOLDS = 5
LEAST = 100
"""Fewer customers than this, known or in one group of the new ones, tell nothing."""
LEAST_GROUP = 30
"""Fewer known customers of a group than this cannot contradict surrogacy."""
LEAST_EXPLAINED = 0.01
DOUBT = 0.05
"""Chance of a flag of surrogacy or comparability where there is nothing to doubt, each."""

_PARAMETERS: dict[str, Any] = {
    "objective": "regression",
    "num_leaves": 4,
    "learning_rate": 0.05,
    "min_data_in_leaf": 40,
    "lambda_l2": 5.0,
    "seed": 7,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}
_ROUNDS = 100


@dataclass(frozen=True)
class Sample:
    """n customers, one row each, in order of time. ``late``: null where the time has not come."""

    early: Floats
    """What they did at first, (n, s)."""
    before: Floats
    """What was known before, (n, p)."""
    treatment: Mask
    late: Floats | None = None

    def __len__(self) -> int:
        return len(self.treatment)

    @property
    def columns(self) -> Floats:
        """Early outcomes and what was known before, (n, s + p)."""
        return np.hstack([self.early, self.before])


class Effect(NamedTuple):
    """Treatment minus control per customer, with its interval."""

    value: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        """Whether it is not 0."""
        return self.low > 0.0 or self.high < 0.0


@dataclass(frozen=True)
class Surrogate:
    """The late effect as the early outcomes foretell it. ``flags``: why not to believe it."""

    effect: Effect
    missed: Effect | None
    """What treatment did to the late outcome of known customers that the index does not see; null where one group was
    too small to tell."""
    drift: Effect
    """How much more the later known customers had than the index says, against the earlier ones."""
    explained: float
    """Share of the late outcome's variance that early outcomes explain beyond what was known before, held out."""
    customers: int
    known: int
    flags: tuple[str, ...]

    @property
    def trusted(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.flags


def surrogate(known: Sample, new: Sample, level: float = 0.95) -> Surrogate:
    """The index from ``known``, whose late outcomes are there, applied to ``new``.

    Raises :class:`EstimateRefused` for too few customers.
    """
    late = _checked(known, new)
    fold = deal(np.arange(len(known)), FOLDS, 7)
    index, by_fold = _out_of_fold(known.columns, late, fold)
    before, usual = _out_of_fold(_alone(known), late, fold)
    predicted = _mean(by_fold, new.columns) - _mean(usual, _alone(new))
    residual = late - index
    groups = min(int(known.treatment.sum()), int((~known.treatment).sum()))
    missed = difference(residual, known.treatment, 1.0 - DOUBT) if groups >= LEAST_GROUP else None
    later = np.arange(len(known)) >= len(known) // 2
    drift = difference(residual, later, 1.0 - DOUBT)
    left = float(((late - before) ** 2).sum())
    explained = 1.0 - float((residual**2).sum()) / left if left > 0.0 else 0.0
    return Surrogate(
        effect=difference(predicted, new.treatment, level),
        missed=missed,
        drift=drift,
        explained=explained,
        customers=len(new),
        known=len(known),
        flags=tuple(_flags(missed, drift, explained, groups)),
    )


def difference(values: Floats, treatment: Mask, level: float = 0.95) -> Effect:
    """Difference of two means, by Welch's interval with a normal quantile; groups are large."""
    ours, theirs = values[treatment], values[~treatment]
    apart = float(ours.mean() - theirs.mean())
    error = float(np.sqrt(ours.var(ddof=1) / len(ours) + theirs.var(ddof=1) / len(theirs)))
    reach = float(ndtri(0.5 + level / 2.0)) * error
    return Effect(apart, apart - reach, apart + reach)


def _checked(known: Sample, new: Sample) -> Floats:
    smallest = min(len(known), int(new.treatment.sum()), int((~new.treatment).sum()))
    if smallest < LEAST or known.late is None:
        raise EstimateRefused(
            f"A surrogate index needs {LEAST} customers whose late outcome is known and as many of each group since; "
            f"there are {len(known):,}, {int(new.treatment.sum()):,} and {int((~new.treatment).sum()):,}"
        )
    if float(np.ptp(known.late)) == 0.0:
        raise EstimateRefused("All known late outcomes are equal: there is nothing to foretell")
    return known.late


def _alone(sample: Sample) -> Floats:
    """What was known before, with one column that says nothing: there may be no other."""
    return np.hstack([sample.before, np.zeros((len(sample), 1))])


def _mean(boosters: Sequence[lgb.Booster], columns: Floats) -> Floats:
    return np.asarray(np.mean([trees.predict(columns, num_threads=1) for trees in boosters], axis=0))


def _out_of_fold(columns: Floats, late: Floats, fold: npt.NDArray[np.int64]) -> tuple[Floats, Sequence[lgb.Booster]]:
    """Prediction of each row by trees that have not seen it, and the trees."""
    found, boosters = np.zeros(len(late)), []
    for held in range(FOLDS):
        kept = fold != held
        data = lgb.Dataset(columns[kept], label=late[kept], params=_PARAMETERS)
        boosters.append(lgb.train(_PARAMETERS, data, num_boost_round=_ROUNDS))
        found[~kept] = boosters[-1].predict(columns[~kept], num_threads=1)
    return found, boosters


def _flags(missed: Effect | None, drift: Effect, explained: float, groups: int) -> Sequence[str]:
    found = []
    if missed is None:
        found.append(
            f"Surrogacy could not be checked: only {groups} known customers of one group; {LEAST_GROUP} are needed."
        )
    elif missed.sure:
        found.append(
            f"Surrogacy fails: treatment changed the late outcome by {missed.value:+.4g} per customer that the early "
            f"outcomes do not show ({missed.low:+.4g} to {missed.high:+.4g}). Wait for the late outcome itself."
        )
    if drift.sure:
        found.append(
            f"The relation changed: later customers had {drift.value:+.4g} more than their early outcomes say "
            f"({drift.low:+.4g} to {drift.high:+.4g})."
        )
    if explained < LEAST_EXPLAINED:
        found.append(
            f"Early outcomes explain {max(explained, 0.0):.1%} of the late one beyond what was known before: an effect "
            "can hardly show in them."
        )
    return found
