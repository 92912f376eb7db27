"""What is known of contents: levels by day, shrunk, by the posterior."""

import numpy as np
import pytest

from pipelines.exports.evidence import standing
from reward_models.posterior import ArmCounts


def day(sent: list[float], clicked: list[float], expected: list[float] | None = None) -> ArmCounts:
    """Counts of a day, clicks of 1."""
    clicks = np.array(clicked, dtype=np.float64)
    return ArmCounts(np.array(sent, dtype=np.float64), clicks, clicks, np.array(expected or [0.0] * len(sent)))


def test_a_good_season_speaks_for_nobody() -> None:
    """Two equal contents, of which one was sent on good days and the other on bad ones, are equal; their raw rates are
    8 % and 4 %."""
    days = [day([9_000, 1_000], [900, 100]), day([1_000, 9_000], [20, 180])]
    level, mean, _ = standing(days)

    assert level == pytest.approx(1_200 / 20_000)
    assert mean[0] - mean[1] == pytest.approx(0.0, abs=1e-12)


def test_what_was_expected_is_taken_off() -> None:
    """A content that was shown to the better customers gains nothing by it."""
    level, mean, _ = standing([day([5_000, 5_000], [500, 250], [500.0, 250.0])])

    assert level == pytest.approx(0.075)
    assert mean[0] - mean[1] == pytest.approx(0.0, abs=1e-12)


def test_the_difference_within_days_is_kept_and_shrunk() -> None:
    """A content better by 2 points on every day is found so, shrunk a little, and the sure one's sd is small."""
    _, mean, sd = standing([day([5_000, 5_000], [350, 250]), day([5_000, 5_000], [250, 150])])

    assert 0.015 < mean[0] - mean[1] < 0.02
    assert sd.max() < 0.005
