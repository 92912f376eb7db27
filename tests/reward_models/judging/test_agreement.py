"""Judges against what copy earned: correlation without the noise, weight that is earned, misleading ones found."""

from collections import Counter

import numpy as np
import pytest

from reward_models.judging.agreement import UNKNOWN, agreement_of, curve
from tests.reward_models.judging.worlds import rated, shelf

WORLDS = 60


def test_the_correlation_is_with_the_true_reward() -> None:
    """Few exposures hide what copy is worth; the interval of the correlation holds the true one all the same."""
    held, middle = 0, []
    for seed in range(WORLDS):
        rng = np.random.default_rng(seed)
        world = shelf(rng)
        found = agreement_of(rated(rng, world.worth, 0.6), np.arange(len(world.rate)), world.found)
        held += found.interval[0] <= 0.6 <= found.interval[1]
        middle.append(found.correlation)

    assert held >= 0.9 * WORLDS
    assert float(np.mean(middle)) == pytest.approx(0.6, abs=0.06)


def test_a_judge_earns_its_weight() -> None:
    """Nothing is believed of a judge without outcomes; with them its weight goes to its correlation."""
    weights = []
    for campaigns in (0, 2, 10, 60):
        rng = np.random.default_rng(3)
        world = shelf(rng, campaigns)
        weights.append(agreement_of(rated(rng, world.worth, 0.7), np.arange(len(world.rate)), world.found).weight)

    assert weights[0] == 0.0
    assert weights[-1] == pytest.approx(0.7, abs=0.15)
    assert max(weights) <= 1.0


@pytest.mark.parametrize(("correlation", "state"), [(0.6, "trusted"), (-0.6, "misleading")])
def test_a_judge_is_found_out(correlation: float, state: str) -> None:
    """In nearly every world a good judge is trusted, and one that says the contrary is called misleading."""
    states: Counter[str] = Counter()
    weights = []
    for seed in range(30):
        rng = np.random.default_rng([7, seed])
        world = shelf(rng)
        found = agreement_of(rated(rng, world.worth, correlation), np.arange(len(world.rate)), world.found)
        states[found.state] += 1
        weights.append(found.weight)

    assert states[state] >= 27
    assert (max(weights) == 0.0) == (state == "misleading")


def test_a_judge_that_knows_nothing_is_rarely_trusted_or_accused() -> None:
    """Ratings drawn at random leave the interval of 95 % about as often as it says."""
    states: Counter[str] = Counter()
    for seed in range(WORLDS):
        rng = np.random.default_rng([11, seed])
        world = shelf(rng)
        states[agreement_of(rated(rng, world.worth, 0.0), np.arange(len(world.rate)), world.found).state] += 1

    assert states["unproven"] >= 0.9 * WORLDS


def test_a_judge_that_turns_loses_its_weight() -> None:
    """One that was right for 300 contents and has been wrong for as many since is not trusted any more."""
    rng = np.random.default_rng(5)
    world = shelf(rng, campaigns=100)
    half = len(world.rate) // 2
    rating = rated(rng, world.worth, 0.7)
    before = agreement_of(np.where(np.arange(2 * half) < half, rating, np.nan), np.arange(2 * half), world.found)
    rating[half:] = rated(rng, -world.worth, 0.7)[half:]
    after = agreement_of(rating, np.arange(2 * half), world.found)

    assert before.weight > 0.5
    assert after.weight == 0.0
    assert after.state == "misleading"


def test_a_rating_foretells_what_it_is_worth() -> None:
    """Contents that nobody has seen are foretold by their ratings, as far off as promised; a judge without weight says
    the same of all."""
    rng = np.random.default_rng(2)
    known, fresh = shelf(rng, campaigns=80), shelf(rng, campaigns=80)
    trusted = agreement_of(rated(rng, known.worth, 0.7), np.arange(len(known.rate)), known.found)
    campaign = fresh.found.campaign
    said, sd = trusted.foretell(rated(rng, fresh.worth, 0.7), campaign)
    level = (np.bincount(campaign, fresh.rate) / np.bincount(campaign))[campaign]
    truth = fresh.rate / level - 1

    assert np.corrcoef(said, truth)[0, 1] > 0.6
    assert float((truth - said).std()) == pytest.approx(sd * np.sqrt(5 / 6), rel=0.25)  # about the mean of six
    assert np.all(UNKNOWN.foretell(rated(rng, fresh.worth, 0.7), campaign)[0] == 0.0)


def test_the_curve_rises_with_a_good_judge() -> None:
    """Parts of equally many contents, from the worst rated to the best, earn more and more; without data there is none."""
    rng = np.random.default_rng(8)
    world = shelf(rng, campaigns=80)
    points = curve(rated(rng, world.worth, 0.8), np.arange(len(world.rate)), world.found)

    assert sum(point.contents for point in points) == len(world.rate)
    assert points[0].reward + 2 * points[0].sd < 0 < points[-1].reward - 2 * points[-1].sd
    assert curve(np.full(len(world.rate), np.nan), np.arange(len(world.rate)), world.found) == ()
