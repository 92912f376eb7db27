"""What the age of counts makes of them: old ones are forgotten, young ones are not all there yet.

    kept    = 2^(−age / half-life)                  what was true then is less so now; no half-life: nothing is forgotten
    arrived = F(age), averaged over the days        the share of the outcomes that has come in (``delays.py``)

    exposures' = kept · arrived · exposures      expected' = kept · arrived · expected
    sums'      = kept · sums                     (and squares)

A content whose last decisions are an hour old has few clicks because it is early, not because it is bad: its exposures
count as far as their outcomes can have come in. Both are fitted at retrain from what lies before the cutoff, sealed
into the bundle, and used by the server with the time of the newest batch, so that the same batch gives the same
counts.
"""

import msgspec
import numpy as np

from infra.clock import DAY
from reward_models.delays import Delays

_AGES = 8
"""Points at which F is read off per run of days."""


class Aging(msgspec.Struct, frozen=True):
    """How counts age. The default: not at all."""

    half_life: float | None = None
    """Days after which a decision counts half."""
    delays: Delays = msgspec.field(default_factory=Delays)

    def kept(self, day: int, days: int, now: int) -> float:
        """Weight of decisions of ``days`` days from ``day`` on (since 1970), at ``now`` (microseconds)."""
        if self.half_life is None:
            return 1.0
        age = max(0.0, now / DAY - (day + days / 2))
        return float(0.5 ** (age / self.half_life))

    def arrived(self, content_id: str, day: int, days: int, now: int) -> float:
        """Share of their outcomes that has come in at ``now``, in [0, 1], if they were decided evenly over the days."""
        if not self.delays.laws:
            return 1.0
        start, end = day * DAY, min((day + days) * DAY, max(now, day * DAY))
        ages = now - (start + (end - start) * (np.arange(_AGES) + 0.5) / _AGES)
        return float(self.delays.arrived(ages, content_id).mean())


AGELESS = Aging()
