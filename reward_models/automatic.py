"""The automatic estimate: how far to trust the reward model, chosen by the log itself.

DM follows the model, DR corrects it by what was seen, and pays for that with noise. Both are the same estimator but
for the correction d = DR − DM, which is the model's bias plus noise of variance s²:

    automatic = DM + α·d        α = max(0, 1 − 2·s²/d²)

Breiman's non-negative garrote (1995) with Akaike's penalty of 2 per corrected number: a correction that noise alone
would often make is dropped (α = 0: DM), one that stands out is kept whole (α → 1: DR). How near that comes to the best in hindsight is
measured by ``tests/benchmarks/bench_offpolicy.py``, on another world than those it was compared on with choosing one
estimator by least estimated error.

The interval has the width of DR's: the value is at least about as near, but it leans on the model, so it gates
nothing.
"""

from collections.abc import Callable, Mapping

from reward_models.logged import Floor, Logged
from reward_models.offpolicy import (
    Estimate,
    apart,
    dm,
    dm_scored,
    dr,
    dr_os,
    dr_scored,
    ips,
    sndr,
    snips,
    switch_dr,
)

_PENALTY = 2.0
"""Akaike's price of one estimated number, in variances."""


def automatic(logged: Logged, *, floor: Floor | None = None, level: float = 0.95) -> Estimate:
    """The value with the correction the log can afford. Refused where DR is."""
    whole = dr(logged, floor=floor or Floor(), level=level)
    share = correction_share(logged)
    opinion = dm_scored(logged).value
    value = opinion + share * (whole.value - opinion)
    reach = whole.high - whole.value
    note = f"the model's value, with {share:.0%} of the correction that the log suggests"
    return Estimate("automatic", value, value - reach, value + reach, whole.ess, whole.n, whole.clusters, note, level)


def correction_share(logged: Logged) -> float:
    """α, from 0 (the model alone) to 1 (doubly robust)."""
    model, whole = dm_scored(logged), dr_scored(logged)
    correction = (whole.value - model.value) ** 2
    if correction == 0.0:
        return 0.0
    return max(0.0, 1.0 - _PENALTY * apart(logged, model, whole) / correction)


ESTIMATORS: Mapping[str, Callable[..., Estimate]] = {
    "IPS": ips,
    "SNIPS": snips,
    "DM": dm,
    "DR": dr,
    "SNDR": sndr,
    "Switch-DR": switch_dr,
    "DRos": dr_os,
    "automatic": automatic,
}
"""Every estimator of a policy's value, by the name of its estimate."""
