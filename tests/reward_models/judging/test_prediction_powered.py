"""Prediction-powered intervals cover the truth whatever the judge says, and are narrower when it knows something."""

import numpy as np
import pytest

from infra.errors import BadInput
from reward_models.judging.prediction_powered import powered_mean

RUNS = 300


@pytest.mark.parametrize("correlation", [0.9, 0.5, 0.0, -0.7])
@pytest.mark.parametrize("labelled", [15, 60])
def test_the_interval_covers(correlation: float, labelled: int) -> None:
    """Skewed rewards and judges that are good, useless or contrary: 95 % intervals hold the mean of all copy in about
    95 of 100 worlds."""
    rng = np.random.default_rng(labelled)
    held, saved = 0, []
    for _ in range(RUNS):
        normal = rng.standard_normal(labelled + 600)
        rating = 3 + correlation * normal + np.sqrt(1 - correlation**2) * rng.standard_normal(len(normal))
        reward = np.exp(0.2 * normal)
        found = powered_mean(reward[:labelled], rating[:labelled], rating[labelled:])
        held += found.interval[0] <= np.exp(0.02) <= found.interval[1]
        saved.append(found.saved)

    assert held >= 0.91 * RUNS
    assert (float(np.mean(saved)) > 0.03) == (correlation > 0.0)


def test_campaigns_count_once() -> None:
    """Contents of a campaign share its level: with campaigns as clusters the interval covers, without it does not."""
    rng = np.random.default_rng(4)
    held = np.zeros(2)
    cluster, others_cluster = np.repeat(np.arange(25), 8), np.repeat(np.arange(60), 8)
    for _ in range(RUNS):
        level = rng.standard_normal(85)
        worth = np.repeat(level, 8) + 0.3 * rng.standard_normal(85 * 8)
        rating = worth + rng.standard_normal(len(worth))
        parts = (worth[:200], rating[:200], rating[200:])
        for place, found in enumerate(
            (powered_mean(*parts, cluster=cluster, others_cluster=others_cluster), powered_mean(*parts))
        ):
            held[place] += found.interval[0] <= 0.0 <= found.interval[1]

    assert held[0] >= 0.91 * RUNS
    assert held[1] < 0.8 * RUNS


def test_without_others_it_is_the_usual_interval() -> None:
    """No rated content beyond the labelled ones: the mean and its interval are those of the rewards."""
    rng = np.random.default_rng(1)
    found = powered_mean(rng.random(20), rng.random(20), np.zeros(0))

    assert found.mean == found.plain
    assert found.interval == pytest.approx(found.plain_interval)
    assert found.lean == 0.0


def test_too_few_have_no_interval() -> None:
    """Four contents with outcomes are refused in a sentence that says what is missing."""
    with pytest.raises(BadInput, match="an interval needs 5"):
        powered_mean(np.ones(4), np.ones(4), np.ones(100))
