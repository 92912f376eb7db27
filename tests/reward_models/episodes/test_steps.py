"""Decisions of a customer as episodes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from infra.clock import DAY
from infra.errors import EstimateRefused
from ingestion.events import Candidate
from reward_models.dataset import Arrivals, Timing, TrainingSet
from reward_models.episodes.steps import Episodes, EpisodeSettings, episodes_of, repeats_of, rested
from reward_models.episodes.stepwise import judged, value
from reward_models.logged import Floor
from tests.reward_models.training import copy, training_set

WEEK = EpisodeSettings(horizon=7 * DAY, discount=0.5, longest=3)
BASELINES: Mapping[str, Mapping[str, Any]] = {"c": {"content_ids": ["a"], "weights": [1.0]}}


def log(rows: Sequence[tuple[str | None, float, int, float]], mode: Mapping[int, str] = {}) -> TrainingSet:
    """Rows of unit, day, content shown (0 or 1) and reward, drawn with 0.25 and 0.75; ``mode``: of some rows."""
    plain = training_set(
        [copy("a", "Fresh"), copy("b", "Classic")],
        content=[row[2] for row in rows],
        contexts=[{"tier": "gold"} for _ in rows],
        reward=[row[3] for row in rows],
        unit=[row[0] for row in rows],
    )
    candidates = (
        Candidate(content_id="a", policy_p=0.2, behaviour_p=0.25),
        Candidate(content_id="b", policy_p=0.8, behaviour_p=0.75),
    )
    n = len(rows)
    return replace(
        plain,
        decided_at=np.array([int(row[1] * DAY) for row in rows], dtype=np.int64),
        candidates=(candidates,) * n,
        propensity=np.array([(0.25, 0.75)[row[2]] for row in rows]),
        learning_mode=tuple(mode.get(row, "online") for row in range(n)),
        timing=Timing(np.full(n, 9e15), 1, {"click": Arrivals(np.array([0]), np.array([0.5 * DAY]))}, {}),
    )


def found(training: TrainingSet, until: float = 100) -> Episodes:
    """Episodes of a week."""
    return episodes_of(training, BASELINES, WEEK, int(until * DAY))


def test_an_episode_lasts_its_horizon() -> None:
    """Decisions within a week of the first are one episode, the next opens another; another customer is another; what is
    beyond the longest is cut off."""
    rows = [("u", day, 0, 1.0) for day in (0, 1, 2, 3, 7, 8)] + [("v", 0.5, 1, 1.0)]
    episodes = found(log(rows))

    assert episodes.episode.tolist() == [0, 0, 0, 1, 1, 2]
    assert episodes.step.tolist() == [0, 1, 2, 0, 1, 0]
    assert episodes.units == ("u", "u", "v")
    assert episodes.weight.tolist() == [1.0, 0.5, 0.25, 1.0, 0.5, 1.0]
    assert episodes.last.tolist() == [False, False, True, False, True, True]


def test_only_whole_episodes_count() -> None:
    """One whose week is not over yet is left out, the earlier one of the same customer is not."""
    episodes = found(log([("u", 0, 0, 1.0), ("u", 8, 0, 1.0), ("v", 3, 0, 1.0)]), until=10)

    assert episodes.units == ("u", "v")
    assert len(episodes) == 2


def test_customers_who_were_not_always_drawn_for_are_left_out() -> None:
    """One decision that chance did not make leaves out all of the customer's; so do decisions of nobody known."""
    rows = [("u", 0, 0, 1.0), ("u", 1, 0, 1.0), ("v", 0, 0, 1.0), (None, 0, 0, 1.0)]
    episodes = found(log(rows, mode={1: "fallback"}))

    assert episodes.units == ("v",)
    with pytest.raises(EstimateRefused, match="drawn by chance"):
        found(log(rows[:1], mode={0: "fallback"}))


def test_what_is_known_of_a_step() -> None:
    """Its number, days since the last and the first, answers by then, and what was shown before; policies are those of the
    log, the baseline's and one that shows nothing twice."""
    episodes = found(log([("u", 0, 0, 1.0), ("u", 0.25, 1, 0.0), ("u", 2, 0, 0.0)]))
    journey = episodes.state[:, -4:]

    assert journey[1:].tolist() == [[1, 0.25, 0.25, 0], [2, 1.75, 2, 1]]
    assert np.isnan(journey[0, 1])
    assert episodes.repeats.tolist() == [[0, 0], [1, 0], [1, 1]]
    assert episodes.behaviour.tolist() == [[0.25, 0.75]] * 3
    assert episodes.policies["policy"].tolist() == [[0.2, 0.8]] * 3
    assert episodes.policies["baseline"].tolist() == [[1.0, 0.0]] * 3
    assert episodes.policies["no repeats"].tolist() == [[0.25, 0.75], [0.0, 1.0], [0.25, 0.75]]
    assert episodes.columns(np.array([2]), 1)[0, -1] == 1.0


def test_repeats_begin_anew_with_every_episode() -> None:
    """What an earlier episode showed is not counted."""
    candidate = np.array([[0, 1], [0, 1], [1, 2]])

    assert repeats_of(np.array([0, 1, 0]), candidate, np.array([0, 0, 1])).tolist() == [[0, 0], [1, 0], [0, 0]]
    assert rested(np.array([[0.5, 0.5]]), np.array([[2.0, 0.0]])).tolist() == [[0.0, 1.0]]


def test_a_log_of_the_product_is_valued_end_to_end() -> None:
    """From training rows to a value: under the policy that drew it is the discounted reward per episode."""
    random = np.random.default_rng(1)
    rows = [
        (f"u{unit}", day, int(random.random() < 0.75), float(random.random() < 0.3))
        for unit in range(60)
        for day in (0, 2, 4)
    ]
    episodes = found(log(rows))
    estimates = {
        each.name: each for each in value(episodes, judged(episodes, episodes.behaviour), floor=Floor(30, 20)).estimates
    }
    earned = np.bincount(episodes.episode, weights=episodes.weight * episodes.reward)

    assert estimates["PDIS"].value == pytest.approx(earned.mean())
    assert estimates["DR"].low < earned.mean() < estimates["DR"].high
