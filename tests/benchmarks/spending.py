"""What work takes: the processor's time of this process and of all that it started, and seconds on the clock.

What else a machine does changes the second, hardly the first: on a machine that does nothing else they are about the same, as
long as the work is not waiting and not done side by side.
"""

import os
import time
from typing import NamedTuple

from tests.benchmarks.rank_servers import Server


class Spent(NamedTuple):
    """Seconds."""

    processor: float
    clock: float


class Meter:
    """Counts from when it is made."""

    def __init__(self) -> None:
        self._all = Server("this process and all that it started", 0, os.getpid())
        self._before, self._began = self._all.cpu_seconds(), time.perf_counter()

    def read(self) -> Spent:
        """So far."""
        clock = time.perf_counter() - self._began
        return Spent(self._all.cpu_seconds() - self._before, clock)
