"""How often a key may call: one token bucket per key, exact.

A bucket of ``amount`` tokens is full at first and fills up evenly within one period; a call takes one token or is refused.
So in any stretch of T periods at most amount · (1 + T) calls pass, and whoever stays below the rate is never refused.

Kept is one number per key, the moment at which its bucket is full again ("theoretical arrival time", ITU-T I.371): no
history, nothing for keys that nobody proved, and what is full again is forgotten. Counted is with a clock that never jumps.
Every process counts for itself: behind N server processes a key may make up to N times its rate.
"""

import re
import time
from collections.abc import Callable
from typing import NamedTuple

_PERIODS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}
_RATE = re.compile(rf"([1-9][0-9]{{0,8}})/({'|'.join(_PERIODS)})")
_MANY = 1_000
"""Buckets at which the full ones are looked for, and forgotten; then again at twice as many as are left."""


class Rate(NamedTuple):
    """``amount`` calls per ``period``."""

    amount: int
    period: str

    @property
    def seconds(self) -> int:
        """Length of the period."""
        return _PERIODS[self.period]

    def __str__(self) -> str:
        return f"{self.amount} per 1 {self.period}"


def parse_rate(text: str) -> Rate | None:
    """``100/second``, ``5000/minute``, ``/hour`` or ``/day``; None for anything else."""
    found = _RATE.fullmatch(text)
    return Rate(int(found[1]), found[2]) if found else None


class Buckets:
    """The buckets of a process, for one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full_at: dict[str, float] = {}
        self._look_at = _MANY

    def take(self, key_id: str, rate: Rate) -> float:
        """Take a token: 0.0, or how many seconds there is none yet, and then nothing is taken."""
        now, each = self._clock(), rate.seconds / rate.amount
        full_at = max(self._full_at.get(key_id, now), now)
        wait = full_at + each - now - rate.seconds
        if wait > each * 1e-6:
            return wait
        if len(self._full_at) >= self._look_at:
            self._full_at = {key: at for key, at in self._full_at.items() if at > now}
            self._look_at = max(_MANY, 2 * len(self._full_at))
        self._full_at[key_id] = full_at + each
        return 0.0

    def __len__(self) -> int:
        return len(self._full_at)
