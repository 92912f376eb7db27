"""What the age of counts makes of them."""

import numpy as np
import pytest

from infra.clock import DAY, HOUR
from reward_models.aging import AGELESS, Aging
from reward_models.delays import Delays, Law
from reward_models.posterior import content_effects
from reward_models.statistics import StatRow, arm_counts

NOW = 20_000 * DAY + DAY // 2
SLOW = Delays({"click": Law((0.0, 2.0 * DAY), (0.0, 1.0))})
"""Clicks come evenly over two days."""


def row(content_id: str, shown: int, clicks: int, day: int, days: int = 1) -> StatRow:
    """Clicks counted on some days; predictions of 2 %."""
    return StatRow(content_id, "click", shown, clicks * 10**6, clicks * 10**8, shown * 20_000, day, days)


def test_counts_halve_with_the_half_life() -> None:
    """A decision counts half after a half-life, a quarter after two; without one it counts for ever."""
    forgets = Aging(half_life=4.0).at(NOW)

    weights = [forgets.kept(20_000 - days, 1) for days in (0, 4, 8)]
    np.testing.assert_allclose(weights, [1.0, 0.5, 0.25])
    assert AGELESS.at(NOW).kept(1, 1) == 1.0


def test_what_is_to_come_is_not_held_against_a_content() -> None:
    """Of decisions of this morning an eighth has come in, evenly over two days; of those of the week before all."""
    late = Aging(delays=SLOW).at(NOW)

    assert late.arrived("a", 20_000, 1) == pytest.approx(6 * HOUR / (2 * DAY), rel=1e-9)
    assert late.arrived("a", 19_990, 1) == 1.0
    assert AGELESS.at(NOW).arrived("a", 20_000, 1) == 1.0


def test_sums_are_aged_as_a_whole() -> None:
    """Exposures and predictions shrink to what can have come in, and all sums by what is forgotten."""
    rows = [row("a", 1_000, 10, 19_996), row("a", 400, 2, 20_000)]
    found = arm_counts(rows, ["a"], {"click": 1.0}, Aging(4.0, SLOW), NOW)

    assert found.exposures[0] == pytest.approx(0.5 * 1_000 + 0.125 * 400)
    assert found.sums[0] == pytest.approx(0.5 * 10 + 2)
    assert found.sum_squares[0] == pytest.approx(0.5 * 10 + 2)
    assert found.expected[0] == pytest.approx(0.02 * found.exposures[0])


def test_a_new_content_is_not_punished_for_being_early() -> None:
    """Two equal contents, one of them shown only this morning: with the delays they are alike, without it looks bad."""
    rows = [row("old", 4_000, 80, 19_990), row("new", 4_000, 10, 20_000)]

    blind = content_effects(arm_counts(rows, ["new", "old"], {"click": 1.0}), 0.02)
    aware = content_effects(arm_counts(rows, ["new", "old"], {"click": 1.0}, Aging(delays=SLOW), NOW), 0.02)
    assert np.ptp(blind.effect) > 0.1 * 0.02
    assert np.ptp(aware.effect) < 0.01 * 0.02


def test_delays_may_differ_by_content() -> None:
    """A content with its own law is corrected by it: this one's clicks come in the second day only."""
    slow = Aging(delays=Delays({"click": Law((0.0, DAY, 2.0 * DAY), (0.0, 0.5, 1.0), {"late": (0.0, 0.0, 1.0)})}))

    assert slow.at(NOW).arrived("late", 20_000, 1) == 0.0
    assert slow.at(NOW).arrived("late", 19_999, 1) == pytest.approx(0.125, abs=0.02)
    assert slow.at(NOW).arrived("other", 19_999, 1) == pytest.approx(0.5)
