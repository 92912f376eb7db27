"""The automatic estimate: how far to trust the reward model, chosen by the log itself.

DM follows the model; DR corrects it by what was seen, and pays for that with noise. The correction is a sum over the
candidates a, each of which is the model's bias there plus noise whose variance the probabilities tell:

    d_a = Σ h·w·(r − q)·1{a was shown} / Σ h        h: as in stable DR        z_a² = d_a²/var(d_a)
    automatic = DM + α·Σ_a d_a                      α = max(0, 1 − K/Σ_a z_a²)

If biases are N(0, ρ²·var(d_a)), the z_a² average 1 + ρ², and the best correction is the share ρ²/(1 + ρ²) of what is seen:
α with ρ² estimated from the K candidates (empirical Bayes; James & Stein 1961, Efron & Morris 1973). Corrections
that noise alone would make are dropped (α = 0: DM), those that stand out are kept (α → 1: stable DR). Every candidate
is a witness for or against the model, also those the target hardly plays, and no constant is chosen on data. How near
that comes to the best in hindsight is measured by ``tests/benchmarks/bench_offpolicy.py``.

The interval has the width of DR's: the value leans on the model, so it gates nothing.
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from reward_models.logged import Floor, Logged, clustered
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
    stable_scored,
    switch_dr,
)

FloatArray = npt.NDArray[np.float64]


def automatic(logged: Logged, *, floor: Floor | None = None, level: float = 0.95) -> Estimate:
    """The value with the correction the log can afford. Refused where DR is."""
    whole = dr(logged, floor=floor or Floor(), level=level)
    corrections, variances = _corrections(logged)
    share = share_of(corrections, variances)
    value = dm_scored(logged).value + share * float(corrections.sum())
    reach = whole.high - whole.value
    note = f"the model's value, with {share:.0%} of the correction that the log suggests"
    return Estimate("automatic", value, value - reach, value + reach, whole.ess, whole.n, whole.clusters, note, level)


def correction_share(logged: Logged) -> float:
    """α, from 0 (the model alone) to 1 (doubly robust)."""
    return share_of(*_corrections(logged))


def share_of(corrections: FloatArray, variances: FloatArray) -> float:
    """α of K corrections and their variances, (K,) each."""
    told = variances > 0.0
    evidence = float((corrections[told] ** 2 / variances[told]).sum())
    return max(0.0, 1.0 - int(told.sum()) / evidence) if evidence else 0.0


def _corrections(logged: Logged) -> tuple[FloatArray, FloatArray]:
    """Correction of each candidate and its variance, (k,) each."""
    stable = stable_scored(logged).weight
    scores = stable.shown * logged.residual
    corrections = np.bincount(logged.chosen, scores, minlength=logged.target.shape[1]) / len(logged)
    noise = float((logged.residual**2).mean())
    variances = np.empty(len(corrections))
    for column in range(len(corrections)):
        own = np.where(logged.chosen == column, scores, 0.0)
        variances[column] = clustered(logged, own - own.mean())
    if logged.behaviour is not None and stable.table is not None:
        told = noise * (logged.behaviour * stable.table**2).mean(axis=0) / len(logged)
        variances = np.maximum(variances, told)
    return corrections, variances


ESTIMATORS: Mapping[str, Callable[..., Estimate]] = {
    "IPS": ips,
    "SNIPS": snips,
    "DM": dm,
    "DR": dr,
    "SNDR": sndr,
    "Switch-DR": switch_dr,
    "DRos": dr_os,
    "stable DR": stable_dr,
    "automatic": automatic,
}
"""Every estimator of a policy's value, by the name of its estimate."""
