"""Journeys valued in a world whose truth is known."""

import numpy as np
import pytest

from infra.errors import EstimateRefused
from reward_models.episodes.fitted_q import QSettings, cross_fitted, fit_q
from reward_models.episodes.steps import Episodes, Floats
from reward_models.episodes.stepwise import Valued, compare, judged, scores, value
from reward_models.logged import Floor
from reward_models.offpolicy import MODEL_DEPENDENT, Estimate
from tests.reward_models.episodes.worlds import GAMMA, careful, journeys, logging, rate, shouting, truth

QUICK = QSettings(rounds=40, folds=2)


@pytest.fixture(scope="module")
def world() -> tuple[Episodes, list[Floats]]:
    """Three thousand journeys and what three policies would have done."""
    episodes, policies = journeys(3_000, 5, logging, shouting, careful)
    return episodes, policies


def estimate(valued: Valued, name: str) -> Estimate:
    """One estimator's."""
    return next(each for each in valued.estimates if each.name == name)


def test_the_truth_of_the_world_is_what_many_journeys_show() -> None:
    """Going through every fatigue gives what 3,000 drawn journeys earn on average."""
    episodes, _ = journeys(3_000, 9)
    earned = np.bincount(episodes.episode, weights=episodes.weight * episodes.reward)

    assert earned.mean() == pytest.approx(truth(logging), abs=4 * earned.std() / np.sqrt(3_000))
    assert truth(careful) > truth(shouting)
    assert rate(0, 0, 1) > rate(0, 0, 0)


def test_one_step_ahead_is_not_the_journey(world: tuple[Episodes, list[Floats]]) -> None:
    """At the last step Q is the rate of an answer; at the first it holds what three more steps bring."""
    episodes, (_, shouting_pmf, _) = world
    q = cross_fitted(episodes, shouting_pmf, QUICK)
    last = (episodes.step == 3) & (episodes.repeats[:, 1] == 0)
    at_once, later = q[episodes.step == 3].mean(), q[episodes.step == 0].mean()

    assert q[last, 1].mean() == pytest.approx(0.30, abs=0.05)
    assert later > 2 * at_once


def test_intervals_hold_the_truth(world: tuple[Episodes, list[Floats]]) -> None:
    """For each policy PDIS and DR hold the exact value; FQE is near it and says that it depends on its model."""
    episodes, tables = world
    for policy, table in zip((logging, shouting, careful), tables, strict=True):
        found, exact = value(episodes, judged(episodes, table, QUICK)), truth(policy)
        for name in ("PDIS", "DR"):
            assert estimate(found, name).low < exact < estimate(found, name).high
        assert estimate(found, "FQE").value == pytest.approx(exact, rel=0.1)
        assert estimate(found, "FQE").note == MODEL_DEPENDENT
        assert estimate(found, "DR").note == ""
        narrower = [estimate(found, name).high - estimate(found, name).low for name in ("DR", "PDIS")]
        assert narrower[0] <= 1.02 * narrower[1]


def test_the_better_journey_is_found(world: tuple[Episodes, list[Floats]]) -> None:
    """The paired difference between careful and shouting holds the true one, and is narrower than both values."""
    episodes, (_, loud, careful_pmf) = world
    found = compare(episodes, judged(episodes, careful_pmf, QUICK), judged(episodes, loud, QUICK))

    assert found.low < truth(careful) - truth(shouting) < found.high


def test_the_logging_policy_is_valued_as_it_was(world: tuple[Episodes, list[Floats]]) -> None:
    """Under the policy that drew, weights are 1: PDIS is the plain mean of discounted rewards."""
    episodes, (same, _, _) = world
    earned = np.bincount(episodes.episode, weights=episodes.weight * episodes.reward)
    found = scores(episodes, same, np.zeros(same.shape))

    assert found.pdis == pytest.approx(earned)
    assert found.dr == pytest.approx(earned)
    assert set(found.weight.tolist()) == {1.0}


def test_dr_by_hand() -> None:
    """One episode of two steps: w is 2 and then 1; 3 + 2·(1 − 3) + 0.9·(2·4 + 1·(0 − 4)) where Q is 3 and 4."""
    episodes, _ = journeys(1, 1)
    two = np.arange(2)
    small = Episodes(
        episode=np.zeros(2, dtype=np.int64),
        step=two,
        units=("u",),
        reward=np.array([1.0, 0.0]),
        weight=np.array([1.0, GAMMA]),
        chosen=np.zeros(2, dtype=np.int64),
        behaviour=np.array([[0.5, 0.5], [0.5, 0.5]]),
        state=episodes.state[:2],
        action=np.eye(2),
        candidate=np.tile(two, (2, 1)),
        repeats=np.zeros((2, 2)),
        policies={},
    )
    policy = np.array([[1.0, 0.0], [0.25, 0.75]])
    found = scores(small, policy, np.array([[3.0, 9.0], [4.0, 4.0]]))

    assert found.fqe.tolist() == [3.0]
    assert found.pdis.tolist() == [2.0]
    assert found.dr == pytest.approx([3.0 + 2 * (1 - 3) + GAMMA * (2 * 4 + 1 * (0 - 4))])
    assert found.weight.tolist() == [1.0]


def test_customers_are_the_clusters() -> None:
    """Three episodes of each of 300 customers are 300 observations; an interval of as many strangers would be narrower."""
    episodes, [table] = journeys(300, 3, logging, per_unit=3)
    found = estimate(value(episodes, judged(episodes, table, QUICK)), "PDIS")

    assert (found.n, found.clusters) == (900, 300)


def test_too_little_overlap_is_refused() -> None:
    """Where the weights of few episodes carry everything PDIS and DR are refused with the reason, and FQE is left."""
    episodes, [table] = journeys(60, 2, careful)
    said = judged(episodes, table, QUICK)
    found = value(episodes, said, floor=Floor(units=30, effective=55.0))

    assert set(found.refused) == {"PDIS", "DR"}
    assert [each.name for each in found.estimates] == ["FQE"]
    with pytest.raises(EstimateRefused):
        compare(episodes, said, said, floor=Floor(units=100, effective=1.0))


def test_no_q_has_seen_the_customer(world: tuple[Episodes, list[Floats]]) -> None:
    """Another outcome of one customer changes no prediction about that customer, whose Q comes from other folds."""
    episodes, (same, _, _) = world
    rows = np.flatnonzero(episodes.episode == 7)
    reward = episodes.reward.copy()
    reward[rows] = 50.0
    changed = Episodes(**{**vars(episodes), "reward": reward})
    quick = QSettings(rounds=3, folds=2)

    assert cross_fitted(changed, same, quick)[rows].tolist() == cross_fitted(episodes, same, quick)[rows].tolist()
    everyone = np.arange(len(episodes))
    first, second = (fit_q(each, same, everyone, quick).of(each.columns(rows)) for each in (episodes, changed))
    assert first.tolist() != second.tolist()
