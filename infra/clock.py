"""Time as integer microseconds UTC, read through a clock that is passed in.

The simulated clock is a file holding one integer, shared by the server, the flows and whoever moves time
forward. Only the embedded mode accepts it (``infra/settings.py`` refuses it elsewhere).
"""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

Clock = Callable[[], int]
"""Returns microseconds since 1970-01-01 UTC."""

MICROS = 1_000_000
MINUTE = 60 * MICROS
HOUR = 60 * MINUTE
DAY = 24 * HOUR
EARLIEST = 946_684_800 * MICROS
"""2000-01-01: a fact that claims to be older was dated by a clock that is off."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def system_clock() -> int:
    """The machine's time."""
    return time.time_ns() // 1_000


class SimulatedClock:
    """A clock that stands still until somebody calls :meth:`set`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> int:
        try:
            return int(self.path.read_text())
        except FileNotFoundError:
            return system_clock()

    def set(self, micros: int) -> None:
        """Move time; readers in other processes see the old or the new value, never half of one."""
        draft = self.path.with_suffix(".draft")
        draft.write_text(str(micros))
        os.replace(draft, self.path)


def parse_time(text: str) -> int:
    """ISO 8601 to microseconds; a time without a zone is read as UTC.

    Raises ``ValueError`` for anything else.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * MICROS + delta.microseconds


def format_time(micros: int) -> str:
    """Microseconds to ISO 8601 with a ``Z``."""
    seconds, rest = divmod(micros, MICROS)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)
    return moment.isoformat().replace("+00:00", "Z")
