"""Sends planned ahead: the size of a test against known results, whole e-mails, values by simulation."""

from math import sqrt

import numpy as np
import pytest
from scipy.stats import norm

from infra.errors import BadInput
from reward_models.sends import apportion, expected_maximum, plan, value_of

SEED = 20_261_122


def test_expected_maximum_of_two_is_clarks() -> None:
    """For two normals the expected maximum has a closed form (Clark 1961)."""
    (a, s), (b, t) = (0.02, 0.004), (0.021, 0.002)
    theta = sqrt(s * s + t * t)
    z = (a - b) / theta
    expected = a * norm.cdf(z) + b * norm.cdf(-z) + theta * norm.pdf(z)

    assert expected_maximum(np.array([a, b]), np.array([s, t])) == pytest.approx(expected, rel=1e-6)
    assert expected_maximum(np.array([a, b]), np.zeros(2)) == b


@pytest.mark.parametrize("emails", [2_000, 50_000, 1_000_000])
def test_two_like_contents_are_tested_as_in_test_and_roll(emails: int) -> None:
    """With two contents alike a priori the size of the test is the published closed form (Feit & Berman 2019)."""
    noise, spread = 0.02, 0.004
    ratio = noise / spread**2
    each = sqrt(emails / 4 * ratio + (3 / 4 * ratio) ** 2) - 3 / 4 * ratio
    found = plan(np.array([0.02, 0.02]), np.full(2, spread), np.full(2, 0.5), noise, emails)

    assert found.test.sum() == pytest.approx(2 * each, rel=0.03)
    assert found.rest == emails - found.test.sum()


def test_the_value_of_a_plan_is_what_it_earns() -> None:
    """Simulated sends, truths drawn from the posterior, earn what the plan said, and more than the other ways."""
    generator = np.random.default_rng(SEED)
    mean, sd, shares, noise = np.array([0.05, 0.052, 0.04]), np.array([0.01, 0.01, 0.02]), np.full(3, 1 / 3), 0.05
    found = plan(mean, sd, shares, noise, 20_000)
    truth = generator.normal(mean, sd, size=(40_000, 3))
    observed = generator.normal(truth, np.sqrt(noise / found.test))
    precision = 1 / sd**2 + found.test / noise
    after = (mean / sd**2 + observed * found.test / noise) / precision
    winner = after.argmax(axis=1)
    earned = (truth @ found.test + found.rest * truth[np.arange(len(truth)), winner]) / 20_000

    assert earned.mean() == pytest.approx(found.value, abs=4 * earned.std() / sqrt(len(earned)))
    assert found.value > found.at_once > found.even


def test_nothing_to_learn_needs_no_test() -> None:
    """Contents that are known, or a send too small to repay a test, go out at once."""
    known = plan(np.array([0.02, 0.03]), np.zeros(2), np.full(2, 0.5), 0.02, 10_000)
    small = plan(np.array([0.02, 0.03]), np.full(2, 0.001), np.full(2, 0.5), 0.02, 50)

    assert known.test.sum() == 0
    assert small.test.sum() == 0
    assert (small.value, small.at_once) == (0.03, 0.03)


def test_no_test_and_nothing_but_a_test_are_both_values() -> None:
    """A test of nobody is worth the leader, a test of everybody what the shares give."""
    mean, sd, shares = np.array([0.02, 0.03]), np.array([0.01, 0.02]), np.array([0.3, 0.7])

    assert value_of(mean, sd, shares, 0.02, 100, 0) == pytest.approx(0.03)
    assert value_of(mean, sd, shares, 0.02, 100, 100) == pytest.approx(0.027)


def test_whole_emails_sum_to_the_send() -> None:
    """Each content gets its share but for less than one e-mail, and none is lost."""
    assert apportion(np.array([0.5, 0.3, 0.2]), 7).tolist() == [4, 2, 1]
    assert apportion(np.full(3, 1 / 3), 10).tolist() == [4, 3, 3]
    assert apportion(np.array([1.0, 0.0]), 0).tolist() == [0, 0]


def test_an_empty_send_is_refused() -> None:
    """A plan needs an e-mail and a content."""
    with pytest.raises(BadInput):
        plan(np.array([0.1]), np.array([0.1]), np.array([1.0]), 0.1, 0)
