"""Calibration: predictions that mean what they say."""

import numpy as np
import pytest

from reward_models.calibration import HeldOut, fit_calibration, reliability


def held_out(g: np.ndarray, d: np.ndarray, noise: float, contents: int) -> HeldOut:
    """Rows of one campaign at level 2, dealt to 5 folds."""
    count = len(g)
    return HeldOut(
        g=g,
        d=d,
        precision=np.ones(count),
        sampling=np.full(count, noise**2),
        exposures=np.ones(count),
        mean=np.full(count, 2.0),
        scale=np.full(count, 2.0),
        fold=np.arange(count) % 5,
        content=np.arange(count) % contents,
    )


def test_a_known_line_is_recovered() -> None:
    """Where the truth is 0.1 + 0.5 g, slope and intercept are these, and the error falls to almost nothing."""
    rng = np.random.default_rng(0)
    g = rng.normal(0, 1, 20_000)
    d = 0.1 + 0.5 * g + rng.normal(0, 0.5, len(g))

    found = fit_calibration(held_out(g, d, 0.5, 100))

    assert pytest.approx((found.slope, found.intercept), abs=0.02) == (0.5, 0.1)
    assert found.error_before > 0.5
    assert found.error_after < 0.05


def test_predictions_that_point_the_wrong_way_are_not_turned_round() -> None:
    """The slope is never negative: such a model says the mean instead."""
    g = np.linspace(-1, 1, 1_000)

    found = fit_calibration(held_out(g, -g, 0.1, 10))

    assert found.slope == 0.0


def test_the_spread_of_contents_is_told_from_noise() -> None:
    """Contents that deviate with sd 0.3 from their prediction are seen to do so, under noise of sd 2."""
    rng = np.random.default_rng(1)
    content = np.arange(200_000) % 400
    d = rng.normal(0, 0.3, 400)[content] + rng.normal(0, 2.0, len(content))

    found = fit_calibration(held_out(np.zeros(len(d)), d, 2.0, 400))

    assert pytest.approx(found.spread, rel=0.15) == 0.3


def test_reliability_bins_hold_equal_weight() -> None:
    """Ten bins over predictions that are all different, their weights summing to the whole."""
    predicted = np.linspace(0, 1, 1_000)

    error, points = reliability(predicted, predicted + 0.25, np.ones(1_000))

    assert pytest.approx(error) == 0.25
    assert [weight for _, _, weight in points] == [100.0] * 10


def test_equal_predictions_share_a_bin() -> None:
    """A constant prediction is one point, however many rows it has."""
    error, points = reliability(np.full(4, 0.5), np.array([0.0, 1.0, 0.0, 1.0]), np.ones(4))

    assert (error, points) == (0.0, ((0.5, 0.5, 4.0),))
