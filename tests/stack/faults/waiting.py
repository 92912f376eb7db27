"""Waiting for conditions: nothing here sleeps for luck."""

import time
from collections.abc import Callable

STEP = 0.05


class TooLong(AssertionError):
    """The condition did not come true in time."""


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Return when the condition holds. Raises :class:`TooLong` with what was waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TooLong(f"not within {seconds:g} s: {what}")
        time.sleep(STEP)
