"""How often a key may call: exact, per key, and without a memory for strangers."""

from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingestion.http.rates import Buckets, Rate, parse_rate

GAPS = st.lists(st.integers(0, 2_000), min_size=1, max_size=60)
"""Time between two calls, in thousandths of a period's share per call."""


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def passed(rate: Rate, gaps: list[int]) -> Iterator[tuple[Fraction, bool, bool]]:
    """Each call's time in shares, whether it passed, and whether it should have: the bucket in exact fractions."""
    clock = Clock()
    buckets, tokens, at, each = Buckets(clock), Fraction(rate.amount), Fraction(0), rate.seconds / rate.amount
    for gap in gaps:
        at += Fraction(gap, 1_000)
        clock.now = 1_000.0 + float(at) * each
        tokens = min(Fraction(rate.amount), tokens + Fraction(gap, 1_000))
        expected = tokens >= 1
        tokens -= expected
        yield at, buckets.take("key", rate) == 0.0, expected


@given(st.integers(1, 7), st.sampled_from(["second", "minute", "hour", "day"]), GAPS)
@settings(max_examples=300, deadline=None)
def test_a_bucket_is_exact(amount: int, period: str, gaps: list[int]) -> None:
    """Call by call the bucket decides as one that is kept in exact fractions; in no stretch do more pass than it held
    and was filled with."""
    found = list(passed(Rate(amount, period), gaps))
    assert [passes for _, passes, _ in found] == [expected for _, _, expected in found]
    times = [at for at, passes, _ in found if passes]
    for first, begin in enumerate(times):
        for count, end in enumerate(times[first:], 1):
            assert count <= amount + (end - begin)


def test_the_wait_is_what_it_takes() -> None:
    """After the wait that a refusal names the next call passes, a moment before it does not."""
    clock, rate = Clock(), Rate(3, "hour")
    buckets = Buckets(clock)
    assert [buckets.take("key", rate) for _ in range(3)] == [0.0, 0.0, 0.0]
    wait = buckets.take("key", rate)
    assert wait == pytest.approx(1_200)
    clock.now += wait - 1
    assert buckets.take("key", rate) == pytest.approx(1)
    clock.now += 1
    assert buckets.take("key", rate) == 0.0


def test_what_is_full_again_is_forgotten() -> None:
    """Keys that are idle take no memory, however many there were; those that called a moment ago are kept."""
    clock, rate = Clock(), Rate(1, "second")
    buckets = Buckets(clock)
    for number in range(10_000):
        clock.now += 0.01
        assert buckets.take(f"key-{number}", rate) == 0.0
    assert len(buckets) <= 1_000
    assert buckets.take("key-9999", rate) > 0.9


@pytest.mark.parametrize("text", ["", "often", "0/second", "5", "5/week", "-1/second", "1.5/second", "5/second;1/day"])
def test_what_is_no_rate(text: str) -> None:
    """Only whole numbers per second, minute, hour or day are rates."""
    assert parse_rate(text) is None
    assert parse_rate("5000/minute") == Rate(5_000, "minute")
