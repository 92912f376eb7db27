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

    def at(self, now: int) -> "Aged":
        """How counts have aged at a time (microseconds)."""
        return Aged(self, now)


AGELESS = Aging()


class Aged:
    """Weights of decisions of ``days`` days from ``day`` on (since 1970), at one time. Computes each once."""

    def __init__(self, aging: Aging, now: int) -> None:
        self._aging, self._now = aging, now
        laws = aging.delays.laws.values()
        self._settled = max((law.times[-1] + max(law.lags) for law in laws), default=0.0)
        self._own = {content_id for law in laws for content_id in law.contents}
        self._arrived: dict[tuple[str | None, int, int], float] = {}

    def kept(self, day: int, days: int) -> float:
        """What is not forgotten of them, in (0, 1]."""
        if self._aging.half_life is None:
            return 1.0
        age = max(0.0, self._now / DAY - (day + days / 2))
        return float(0.5 ** (age / self._aging.half_life))

    def arrived(self, content_id: str, day: int, days: int) -> float:
        """Share of their outcomes that has come in, in [0, 1], if they were decided evenly over the days so far."""
        if not self._aging.delays.laws or self._now - (day + days) * DAY >= self._settled:
            return 1.0
        key = (content_id if content_id in self._own else None, day, days)
        if key not in self._arrived:
            self._arrived[key] = self._share(*key)
        return self._arrived[key]

    def _share(self, content_id: str | None, day: int, days: int) -> float:
        start, end = day * DAY, min((day + days) * DAY, max(self._now, day * DAY))
        ages = self._now - (start + (end - start) * (np.arange(_AGES) + 0.5) / _AGES)
        return float(self._aging.delays.arrived(ages, content_id).mean())
