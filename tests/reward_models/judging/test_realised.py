"""What contents earned, as if everybody had been shown them."""

from dataclasses import replace

import numpy as np
import pytest

from reward_models.judging.realised import realised
from tests.reward_models.training import copy, history, targeted, training_set


def test_targeting_is_taken_out() -> None:
    """Two texts that are worth the same to everybody together, each shown mostly to those who like it: their realised
    rewards are alike, where their raw means are those of their own readers."""
    everybody = targeted(8_000)
    young = np.array([context["age"] == "young" for context in everybody.contexts])
    liked = young == (everybody.content == 0)
    propensity = np.where(liked, 0.9, 0.1)
    kept = np.random.default_rng(0).random(len(everybody)) < propensity
    log = replace(everybody, propensity=propensity).subset(kept)
    found = realised(log)

    assert [round(log.reward[log.content == index].mean(), 2) for index in (0, 1)] != pytest.approx(
        [0.2, 0.2], abs=0.05
    )
    assert found.reward == pytest.approx([0.2, 0.2], abs=3 * float(np.sqrt(found.variance.max())))


def test_customers_count_once() -> None:
    """Ten decisions of one customer, all alike, are as uncertain as one."""
    rng = np.random.default_rng(1)
    people = np.repeat((rng.random(400) < 0.3).astype(float), 10)
    shown = np.repeat(rng.integers(0, 2, 400), 10).tolist()
    contents = (copy("a", "one"), copy("b", "two"))
    each = realised(training_set(contents, content=shown, reward=people.tolist()))
    named = [f"u{row // 10}" for row in range(4_000)]
    once = realised(training_set(contents, content=shown, reward=people.tolist(), unit=named))

    assert once.variance == pytest.approx(10 * each.variance, rel=0.05)


def test_past_results_stand_for_what_no_decision_showed() -> None:
    """A test of the past tells of its contents, with the noise of its counts; decisions tell of theirs; unknown
    propensities tell nothing."""
    contents = (copy("a", "one"), copy("b", "two"), copy("c", "three"))
    past = history(contents[1:], [1_000, 500], [0.1, 0.2])
    past = replace(past, content=np.array([1, 2]))
    log = training_set(contents, past, content=[0, 0, 1], reward=[1.0, 0.0, 1.0])
    log = replace(log, propensity=np.array([0.5, 0.5, np.nan]))
    found = realised(log)

    assert found.content.tolist() == [0, 1, 2]
    assert found.reward.tolist() == [0.5, 0.1, 0.2]
    assert found.variance[1:].tolist() == [0.1 / 1_000, 0.2 / 500]
    assert len(realised(log, np.zeros(3, dtype=np.bool_))) == 0
