"""Whether decisions can be stored just now: nobody waits for a database that is known to be away.

- a commit takes longer than ``SLOW_SECONDS``: who comes meanwhile does not queue behind it
- a commit failed because the database is away: one decision at a time tries again, at once after the first failure, then
  after pauses that double up to ``LONGEST_PAUSE``; all others hear at once that there is no use

Whoever is told so answers the baseline, unstored (invariant 11).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from infra.errors import Unavailable

SLOW_SECONDS = 1.0
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0


class Reach:
    """Of one writer, asked by any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._away: str | None = None
        self._failures = 0
        self._try_at = -float("inf")
        self._began: float | None = None

    def check(self) -> None:
        """Raises :class:`Unavailable` when there is no use in waiting for the next commit."""
        now, began = self._clock(), self._began
        if began is not None and now - began > SLOW_SECONDS:
            raise Unavailable("The database takes long to store decisions; try again")
        if self._away is None:
            return
        if began is not None or now < self._try_at:
            raise Unavailable(self._away)
        self._try_at = now + LONGEST_PAUSE  # this decision tries

    @contextmanager
    def committing(self) -> Iterator[None]:
        """Around each commit, to see how it goes."""
        self._began = self._clock()
        try:
            yield
        except Unavailable as error:
            self._failed(str(error))
            raise
        else:
            self._away, self._failures = None, 0
        finally:
            self._began = None

    def _failed(self, reason: str) -> None:
        pause = 0.0 if not self._failures else FIRST_PAUSE * 2.0 ** (self._failures - 1)
        self._away, self._failures = reason, min(self._failures + 1, 16)
        self._try_at = self._clock() + min(LONGEST_PAUSE, pause)
