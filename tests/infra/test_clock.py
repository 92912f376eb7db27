"""Time: integer microseconds UTC, ISO 8601 outside."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.clock import DAY, MICROS, SimulatedClock, format_time, parse_time, system_clock

FAR = 4_000_000_000 * MICROS


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-02", DAY),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:01", MICROS),
        ("1969-12-31T23:59:59.5Z", -MICROS // 2),
        ("2026-03-01T12:00:00Z", 1_772_366_400 * MICROS),
    ],
)
def test_times_are_read_exactly(text: str, micros: int) -> None:
    """ISO 8601 to the microsecond; without a zone it is UTC."""
    assert parse_time(text) == micros


@pytest.mark.parametrize("text", ["", "yesterday", "12:00", "2026-13-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """Anything else raises ``ValueError``."""
    with pytest.raises(ValueError):
        parse_time(text)


@given(st.integers(-FAR, FAR))
def test_writing_and_reading_a_time_is_identity(micros: int) -> None:
    """No microsecond is lost to rounding, before 1970 and after."""
    assert parse_time(format_time(micros)) == micros
    assert format_time(micros).endswith("Z")


def test_the_simulated_clock_stands_still_until_set(tmp_path: Path) -> None:
    """Every reader of the file sees the same time; without a file it is the machine's."""
    one, other = SimulatedClock(tmp_path / "clock"), SimulatedClock(tmp_path / "clock")
    assert abs(one() - time.time() * MICROS) < 60 * MICROS

    one.set(5)
    assert (one(), other(), other()) == (5, 5, 5)


def test_the_system_clock_is_the_machines() -> None:
    """In microseconds since 1970."""
    assert abs(system_clock() - time.time() * MICROS) < MICROS
