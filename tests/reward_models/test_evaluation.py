"""Past decisions are evaluated honestly: plain means, cross-fitted policies, and a gate that finds what is there."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2

from infra.errors import EstimateRefused
from ingestion.events import Candidate
from ingestion.loops import LoopDefinition, parse_definition
from reward_models.automatic import ESTIMATORS
from reward_models.dataset import TrainingSet
from reward_models.evaluation import arms, by_chance, cross_fit, evaluate, lessons
from reward_models.forward import in_turn
from tests.reward_models.training import targeted

HALF = (
    Candidate(content_id="a", policy_p=0.5, behaviour_p=0.5),
    Candidate(content_id="b", policy_p=0.5, behaviour_p=0.5),
)


def definition() -> LoopDefinition:
    return parse_definition(
        {
            "loop": "emails",
            "metrics": [{"name": "click", "event": "click"}],
            "reward": {"click": 1},
            "model": {"rounds": 30, "min_leaf": 20},
            "gate": {"split": "unit"},
        }
    )


def randomised(count: int = 4_000, seed: int = 1) -> TrainingSet:
    """The world of ``targeted``: each of two texts is better for half of the customers. Choosing is worth 10 points."""
    world = targeted(count, seed)
    return replace(world, candidates=(HALF,) * count)


def one_better(count: int = 4_000, seed: int = 1) -> TrainingSet:
    """A world in which the first text is better for everybody, 30 % against 20 %."""
    world = randomised(count, seed)
    clicked = (np.random.default_rng(seed).random(count) < np.where(world.content == 0, 0.3, 0.2)).astype(float)
    return replace(world, metrics={"click": clicked}, reward=clicked)


def test_arms_are_plain_means() -> None:
    """An arm's mean is that of the rows that got it, nothing else."""
    rows = randomised(1_000)
    found = arms(rows)

    for index, arm in enumerate(found):
        got = rows.content == index
        assert (arm.n, arm.means["click"]) == (int(got.sum()), float(rows.reward[got].mean()))


def test_targeting_that_works_passes() -> None:
    """Where choosing by customer is worth it, the estimates find its value and the gate passes."""
    found = evaluate(randomised(), definition(), ["click"])
    (report,) = found.metrics

    assert [value.name for value in report.values] == list(ESTIMATORS)
    assert all(one.low < 0.3 < one.high for one in report.values if one.name in ("IPS", "SNIPS", "DR", "SNDR"))
    assert report.verdict.state == "passed"
    assert report.sentence.startswith("click: passed. Choosing by customer beats ")


def test_one_arm_for_everybody_is_not_beaten() -> None:
    """Where one text is best for everybody, the verdict is that choosing by customer does not beat it."""
    found = evaluate(one_better(), definition(), ["click"])
    (report,) = found.metrics

    assert report.reference == "a"
    assert report.verdict.state == "failed"
    assert "click: not promoted. Choosing by customer does not beat a for everybody" in report.sentence or (
        "is clearly worse than a for everybody" in report.sentence
    )


def test_nothing_is_valued_by_what_it_was_fitted_on() -> None:
    """The policy of a unit is the same whatever that unit did: its own outcome reaches only units judged later."""
    rows = randomised(1_500)
    parts = lessons(rows, definition())
    row = int(np.flatnonzero(parts[1][1])[0])
    flipped = np.array(rows.reward)
    flipped[row] = 1.0 - flipped[row]
    before = cross_fit(rows, "click", definition())
    after = cross_fit(replace(rows, metrics={"click": flipped}), "click", definition())

    for place, (_, judged) in enumerate(parts):
        assert (before.q[judged] == after.q[judged]).all() == (place <= 1)


def test_luck_is_not_taken_for_skill() -> None:
    """Where no text is better than another, the learned policy's advantage is as far from 0 as its standard error says;
    with folds that teach each other it is 1.4 times as far."""
    random = np.random.default_rng(11)
    z = np.array([_advantage_of_nothing(random) for _ in range(400)])

    assert abs(z.mean()) < 0.2
    assert np.sqrt(chi2.ppf(0.0005, 400) / 400) < z.std() < np.sqrt(chi2.ppf(0.9995, 400) / 400)


def _advantage_of_nothing(random: np.random.Generator) -> float:
    """z of the difference between the best text for each of 20 kinds of customers and the best for all, both learned."""
    count, kinds = 3_000, 20
    reward = (random.random(count) < 0.2).astype(float)
    text, kind, fold = random.integers(0, 2, count), random.integers(0, kinds, count), random.permutation(count) % 10
    scores = []
    for teaching, judged in in_turn(fold):
        sums, shown = np.zeros((kinds, 2)), np.ones((kinds, 2))
        np.add.at(sums, (kind[teaching], text[teaching]), reward[teaching])
        np.add.at(shown, (kind[teaching], text[teaching]), 1.0)
        own, same = np.argmax(sums / shown, axis=1)[kind[judged]], np.argmax(sums.sum(axis=0) / shown.sum(axis=0))
        weight = 2.0 * ((text[judged] == own).astype(float) - (text[judged] == same))
        scores.append(weight * (reward[judged] - reward[teaching].mean()))
    found = np.concatenate(scores)
    return float(found.mean() / found.std() * np.sqrt(len(found)))


def test_with_times_only_the_past_teaches() -> None:
    """Where the log has times, later outcomes change nothing that earlier decisions are judged by, and the first fifth
    teaches only."""
    rows = replace(randomised(1_500), decided_at=np.arange(1_500))
    timed = definition().model_copy(update={"gate": definition().gate.model_copy(update={"split": "time"})})
    flipped = np.where(np.arange(1_500) < 1_000, rows.reward, 1.0 - rows.reward)
    before = cross_fit(rows, "click", timed)
    after = cross_fit(replace(rows, metrics={"click": flipped}), "click", timed)

    assert np.flatnonzero(before.judged).tolist() == list(range(300, 1_500))
    assert before.q[:1_000].tolist() == after.q[:1_000].tolist()
    assert before.q[1_200:].tolist() != after.q[1_200:].tolist()


def test_outcomes_that_never_differ_are_refused() -> None:
    """Without any difference between outcomes there is no policy to learn, and the reason names the metric."""
    rows = randomised(400)

    with pytest.raises(EstimateRefused, match="click is the same for all"):
        cross_fit(replace(rows, metrics={"click": np.zeros(400)}), "click", definition())


def test_unknown_propensities_are_left_out() -> None:
    """Rows without a propensity, of other groups or with other candidates are left out and counted."""
    rows = randomised(1_000)
    propensity = rows.propensity.copy()
    propensity[:100] = np.nan
    group = ("holdout",) * 200 + rows.group[200:]
    candidates = (*rows.candidates[:-50], *((HALF[0],),) * 50)
    found = by_chance(replace(rows, propensity=propensity, group=group, candidates=candidates))

    assert len(found) == 750


def test_nothing_by_chance_is_refused() -> None:
    """Without any known propensity nothing can be valued."""
    rows = randomised(100)

    with pytest.raises(EstimateRefused, match="known propensity"):
        evaluate(replace(rows, propensity=np.full(100, np.nan)), definition(), ["click"])
