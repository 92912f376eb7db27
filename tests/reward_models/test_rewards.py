"""Rewards: a weighted sum, and a default for silence."""

import numpy as np
import pytest

from infra.errors import BadInput
from reward_models.rewards import mean_reward_of, reward_of
from tests.reward_models.training import definition


def test_a_reward_is_the_weighted_sum_of_its_metrics() -> None:
    """Each metric's value counts with its weight; a metric without weight does not count."""
    loop = definition(reward={"click": 0.5, "revenue": 2.0})

    found = reward_of(loop, {"click": np.array([1.0, 1.0]), "revenue": np.array([0.0, 10.0])})

    assert found.tolist() == [0.5, 20.5]


def test_a_silent_decision_earns_the_default() -> None:
    """Where every metric of the loop is 0 the default reward applies, and only there."""
    loop = definition(reward={"click": 0.0, "revenue": 1.0}, default_reward=-0.1)

    found = reward_of(loop, {"click": np.array([0.0, 1.0, 0.0]), "revenue": np.array([0.0, 0.0, 3.0])})

    assert found.tolist() == [-0.1, 0.0, 3.0]


def test_the_mean_of_many_decisions_is_the_mean_of_their_rewards() -> None:
    """A thousand decisions, a tenth of them clicked, half of those bought for 10: the same with and without a default."""
    clicks, revenue = np.repeat([1.0, 0.0], [100, 900]), np.repeat([10.0, 0.0], [50, 950])
    means = {"click": np.array([clicks.mean()]), "revenue": np.array([revenue.mean()])}
    for default in (0.0, -0.5):
        loop = definition(reward={"click": 1.0, "revenue": 0.2}, default_reward=default)
        each = reward_of(loop, {"click": clicks, "revenue": revenue})

        assert mean_reward_of(loop, means) == pytest.approx([each.mean()], abs=1e-12)


def test_a_missing_metric_is_named() -> None:
    """A metric of the loop without values is an error that names it."""
    with pytest.raises(BadInput, match="needs the metric 'revenue'"):
        reward_of(definition(), {"click": np.zeros(1)})
