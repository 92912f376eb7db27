"""Levels: campaigns apart, small ones shrunk."""

import numpy as np

from reward_models.levels import LEAST_SHARE, centred, fit_levels, group


def test_an_unknown_campaign_has_the_level_of_the_loop() -> None:
    """Its mean is the loop's, whatever the campaigns are like."""
    levels = fit_levels(*group(["a", "a", "b", "b"]), np.array([1.0, 3.0, 5.0, 7.0]), np.ones(4))

    mean, scale = levels.of(["new"])

    assert (mean.tolist(), scale.tolist()) == ([4.0], [4.0])


def test_small_campaigns_are_shrunk_more() -> None:
    """Of two campaigns with the same mean, that with fewer exposures is drawn closer to the loop."""
    rng = np.random.default_rng(0)
    names = [f"c{index}" for index in range(50) for _ in range(4)] + ["large"] * 4 + ["small"] * 4
    rates = np.repeat(rng.uniform(0.01, 0.03, 50), 4)
    exposures = np.array([1_000.0] * 204 + [10.0] * 4)
    reward = np.concatenate([rates + rng.normal(0, 0.004, 200), [0.1] * 8])

    mean, _ = fit_levels(*group(names), reward, exposures).of(["large", "small"])

    assert 0.02 < mean[1] < mean[0] <= 0.1


def test_the_scale_never_falls_below_a_share_of_the_loop() -> None:
    """A campaign that earned nothing still has a scale to predict on."""
    levels = fit_levels(*group(["a"] * 3 + ["b"] * 3), np.array([0.0, 0.0, 0.0, 2.0, 2.0, 2.0]), np.ones(6))

    _, scale = levels.of(["a"])

    assert scale.tolist() == [LEAST_SHARE * 1.0]


def test_centring_is_by_weight() -> None:
    """Each group's weighted mean becomes 0; a group without weight keeps its values."""
    found = centred(np.array([1.0, 4.0, 7.0]), np.array([0, 0, 1]), np.array([2.0, 1.0, 0.0]))

    assert found.tolist() == [-1.0, 2.0, 7.0]
