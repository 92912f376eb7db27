"""Whom to hear before customers have spoken: opinions that foretold what other campaigns' copy earned, and nobody else."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from reward_models.judging.ratings import Rating
from reward_models.opinions import GROUPS, PEOPLE, Earned, earned_of, hear
from reward_models.posterior import ArmCounts, Prior, content_effects, no_counts
from tests.reward_models.judging.worlds import Shelf, rated, shelf

Floats = npt.NDArray[np.float64]
NEW = 0
"""The campaign that is asked about."""


def stock(seed: int, count: int = 20) -> tuple[np.random.Generator, Shelf, Earned]:
    """Campaigns of six contents, ``c<campaign>-<number>``, with what they earned."""
    rng = np.random.default_rng(seed)
    world = shelf(rng, count)
    campaigns = tuple(f"c{number}" for number in world.found.campaign.tolist())
    names = tuple(f"{campaign}-{place}" for place, campaign in enumerate(campaigns))
    return rng, world, Earned(names, campaigns, world.found)


def opinion(earned: Earned, rating: Floats) -> dict[str, Rating]:
    """The same rating of everything."""
    return {name: Rating(value, at) for at, (name, value) in enumerate(zip(earned.names, rating.tolist(), strict=True))}


def asked(earned: Earned) -> dict[str, list[str]]:
    """The contents of the campaign that is asked about."""
    return {"c0": [name for name, of in zip(earned.names, earned.campaigns, strict=True) if of == "c0"]}


def test_who_was_right_elsewhere_is_heard() -> None:
    """Starts go with the opinion, are about 0 in the mean, and are as large as what its rating was worth elsewhere."""
    rng, world, earned = stock(1)
    rating = rated(rng, world.worth, 0.7)
    found = hear({PEOPLE: opinion(earned, rating)}, earned, asked(earned))
    starts, own = found.of("c0", asked(earned)["c0"]), rating[world.found.campaign == NEW]

    assert found.agreements[PEOPLE].state == "trusted"
    assert np.corrcoef(starts, own)[0, 1] == pytest.approx(1.0)
    assert starts.sum() == pytest.approx(0.0, abs=1e-12)
    assert 0.08 < starts.std() / own.std() * rating.std() < 0.25


@pytest.mark.parametrize("correlation", [0.0, -0.7])
def test_who_was_not_is_not_heard(correlation: float) -> None:
    """An opinion that tells nothing, or the contrary, leaves every start at exactly 0, in nearly every world."""
    silent = []
    for seed in range(20):
        rng, world, earned = stock(100 + seed)
        said = {PEOPLE: opinion(earned, rated(rng, world.worth, correlation))}
        silent.append(not hear(said, earned, asked(earned)).said)

    assert sum(silent) >= 18


@pytest.mark.parametrize("count", [20, 3 * GROUPS - 1])
def test_a_campaigns_own_outcomes_say_nothing_of_its_starts(count: int) -> None:
    """No outcome is used twice: whatever the campaign itself earned, its contents start from the same; of many campaigns
    too, which are left out some at a time."""
    rng, world, earned = stock(2, count)
    said = {PEOPLE: opinion(earned, rated(rng, world.worth, 0.7))}
    other = np.where(world.found.campaign == NEW, rng.permutation(world.found.reward), world.found.reward)
    turned = replace(earned, found=replace(world.found, reward=other))

    assert hear(said, earned, asked(earned)).said == hear(said, turned, asked(earned)).said
    assert hear(said, earned, asked(earned)).said["c0"]


def test_what_two_say_alike_counts_once() -> None:
    """A judge that repeats what people say moves nothing; one that knows something else adds to it."""
    rng, world, earned = stock(3)
    people = rated(rng, world.worth, 0.6)
    alone = hear({PEOPLE: opinion(earned, people)}, earned, asked(earned)).of("c0", asked(earned)["c0"])
    echo = {PEOPLE: opinion(earned, people), "echo": opinion(earned, people)}
    both = {PEOPLE: opinion(earned, people), "other": opinion(earned, rated(rng, world.worth, 0.8))}

    np.testing.assert_allclose(hear(echo, earned, asked(earned)).of("c0", asked(earned)["c0"]), alone, rtol=0.05)
    more = hear(both, earned, asked(earned)).of("c0", asked(earned)["c0"])
    own = world.found.campaign == NEW
    assert np.corrcoef(more, world.worth[own])[0, 1] > np.corrcoef(alone, world.worth[own])[0, 1]


def test_what_a_model_foretold_is_not_counted_again() -> None:
    """An opinion that a model's predictions hold already has nothing left to say."""
    n, rng = np.full(6, 5_000.0), np.random.default_rng(4)
    counts, said = dict[str, tuple[list[str], ArmCounts]](), dict[str, Rating]()
    for campaign in range(20):
        rate = 0.05 * np.exp(0.3 * rng.standard_normal(6))
        names = [f"c{campaign}-{place}" for place in range(6)]
        clicks = rng.binomial(5_000, rate).astype(float)
        counts[f"c{campaign}"] = (names, ArmCounts(n, clicks, clicks, n * rate))
        said |= {name: Rating(float(value), campaign) for name, value in zip(names, rate, strict=True)}
    blind = {
        name: (names, replace(seen, expected=n * seen.sums.sum() / n.sum())) for name, (names, seen) in counts.items()
    }
    wanted = {"c0": counts["c0"][0]}

    assert hear({PEOPLE: said}, earned_of(blind), wanted).said["c0"]
    assert not hear({PEOPLE: said}, earned_of(counts), wanted).said


def test_few_outcomes_leave_what_was_said_and_many_overrule_it() -> None:
    """A start of +20 % stands without outcomes, moves with some, and is gone when 500,000 decisions say −20 %."""
    prior = Prior(0.05, said=np.array([0.2, -0.2]))

    def mean(shown: float) -> tuple[float, float]:
        n = np.full(2, shown)
        clicks = n * 0.05 * np.array([0.8, 1.2])
        found = content_effects(ArmCounts(n, clicks, clicks, n * 0.05), prior)
        return float(found.effect[0] / 0.05), float(found.said[0] / 0.05)

    start = content_effects(no_counts(2), prior)
    np.testing.assert_allclose(start.effect, [0.01, -0.01])
    np.testing.assert_array_equal(start.effect, start.said)
    assert 0.2 > mean(50)[0] > mean(1_000)[0] > mean(500_000)[0]
    assert mean(500_000)[0] == pytest.approx(-0.2, abs=0.02)
    assert mean(500_000)[1] == pytest.approx(0.0, abs=0.01)
