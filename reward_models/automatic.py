"""The automatic estimate: how far to trust the reward model, said by the log itself.

DM follows the model; what was seen corrects it, and brings noise. Rows fall into cells: the candidate, and how much the
target weighs it (w within a factor of four). m_c is the target's share of a cell, y_c the mean of what its rows earned
beyond the prediction, weighted by w, and s_c² its variance:

    automatic = DM + α·d        d = Σ_c m_c·y_c        v = Σ_c m_c²·s_c²

With α = 1 this is doubly robust, stratified after the fact; α is how much of d is the model's error and not noise. A
model may be wrong here and there, each cell's error being N(0, R·s_c²), and wrong about this target, by N(0, K·v) more:

    z² = d²/v has the mean 1 + R + K        Σ_c y_c²/s_c² − z², of C − 1 squares, 1 + R each
    best α given R and K: (R + K)/(1 + R + K)

α is its average over the posterior of R and K. A priori each is 0, the model being right, with probability one half, else
any size from a sixteenth to 32 standard errors, as likely as its double (hierarchical Bayes; compare James & Stein 1961,
Efron & Morris 1973). Every cell is a witness for or against the model, also those the target hardly plays; their sum d,
which alone matters, is one more. How near that comes to the best in hindsight: ``tests/benchmarks/bench_offpolicy.py``.

The interval has the width of DR's: the value leans on the model, so it gates nothing.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from reward_models.logged import Floor, Logged, Weights, weights
from reward_models.offpolicy import (
    Estimate,
    dm,
    dm_scored,
    dr,
    dr_os,
    ips,
    sndr,
    snips,
    stable_dr,
    switch_dr,
)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_FACTOR = 4.0
"""Within which the weights of a cell lie."""
_STRATA = 64
"""Of weights around 1, more than there can be."""
_SIZES = np.concatenate([[0.0], 4.0 ** np.arange(-4.0, 6.0)])
"""R and K: squares of standard errors."""
_LOG_PRIOR = np.log(np.where(_SIZES > 0.0, 0.5 / (len(_SIZES) - 1), 0.5))


class Correction(NamedTuple):
    """What a log says against the model: d, v, Σ y²/s² and C of the module's docstring."""

    total: float
    variance: float
    evidence: float
    cells: int


def automatic(logged: Logged, *, floor: Floor | None = None, level: float = 0.95) -> Estimate:
    """The value with the correction the log can afford. Refused where DR is."""
    whole = dr(logged, floor=floor or Floor(), level=level)
    found = correction(logged)
    share = share_of(found)
    value = dm_scored(logged).value + share * found.total
    reach = whole.high - whole.value
    note = f"the model's value, with {share:.0%} of the correction that the log suggests"
    return Estimate(CHOSEN, value, value - reach, value + reach, whole.ess, whole.n, whole.clusters, note, level)


def correction_share(logged: Logged) -> float:
    """α, from 0 (the model alone) to 1 (doubly robust)."""
    return share_of(correction(logged))


def share_of(found: Correction) -> float:
    """α of a correction."""
    if found.variance == 0.0:
        return 0.0
    own, whole = np.meshgrid(_SIZES, _SIZES, indexing="ij")
    square = found.total**2 / found.variance
    rest = max(found.evidence - square, 0.0) / (1.0 + own) + (found.cells - 1) * np.log1p(own)
    log_likelihood = -0.5 * (rest + square / (1.0 + own + whole) + np.log1p(own + whole))
    posterior = np.exp(log_likelihood - log_likelihood.max() + _LOG_PRIOR[:, None] + _LOG_PRIOR)
    return float(np.average((own + whole) / (1.0 + own + whole), weights=posterior))


def correction(logged: Logged) -> Correction:
    """All cells whose rows were shown, put together."""
    weight = weights(logged, logged.target)
    cell, share = _cells(logged, weight)
    sums = np.bincount(cell, weight.shown, minlength=len(share))
    part = np.divide(weight.shown, sums[cell], out=np.zeros(len(cell)), where=weight.shown > 0.0)
    earned = part * logged.residual
    means, least = (np.bincount(cell, values, minlength=len(share)) for values in (earned, part**2))
    squares = _by_unit(cell, logged.codes, earned)
    told = sums > 0.0
    noise = float((logged.residual**2).mean())
    variances = np.maximum(np.bincount(squares.cell, squares.sums**2, minlength=len(share)), noise * least)[told]
    if not variances.all():
        return Correction(0.0, 0.0, 0.0, 0)
    total = float((share * means).sum())
    by_unit = np.bincount(logged.codes, share[cell] * earned)
    variance = max(float((by_unit**2).sum()), noise * float((share**2 * least).sum()))
    return Correction(total, variance, float((means[told] ** 2 / variances).sum()), int(told.sum()))


def _cells(logged: Logged, weight: Weights) -> tuple[IntArray, FloatArray]:
    """Cell of each row, (n,), and the target's share of each cell; where the behaviour is not known, as it was seen."""
    columns = logged.target.shape[1]
    shown = logged.chosen * _STRATA + _stratum(weight.shown)
    size = columns * _STRATA
    if weight.table is None:
        return shown, np.bincount(shown, weight.shown, minlength=size) / len(logged)
    everywhere = np.arange(columns) * _STRATA + _stratum(weight.table)
    return shown, np.bincount(everywhere.ravel(), logged.target.ravel(), minlength=size) / len(logged)


def _stratum(weight: FloatArray) -> IntArray:
    """0 to 63: weights around 1 are in the middle."""
    steps = np.log(np.maximum(weight, np.finfo(np.float64).tiny)) / np.log(_FACTOR)
    return np.asarray(np.clip(np.rint(steps).astype(np.int64) + _STRATA // 2, 0, _STRATA - 1))


class _Sums(NamedTuple):
    """Sums over the rows of one unit in one cell, and that cell."""

    cell: IntArray
    sums: FloatArray


def _by_unit(cell: IntArray, unit: IntArray, values: FloatArray) -> _Sums:
    units = int(unit.max(initial=0)) + 1
    pairs, place = np.unique(cell * units + unit, return_inverse=True)
    return _Sums(pairs // units, np.asarray(np.bincount(place.reshape(-1), weights=values), dtype=np.float64))


CHOSEN = "automatic"
"""The estimate to believe."""

ESTIMATORS: Mapping[str, Callable[..., Estimate]] = {
    "IPS": ips,
    "SNIPS": snips,
    "DM": dm,
    "DR": dr,
    "SNDR": sndr,
    "Switch-DR": switch_dr,
    "DRos": dr_os,
    "stable DR": stable_dr,
    CHOSEN: automatic,
}
"""Every estimator of a policy's value, by the name of its estimate."""
