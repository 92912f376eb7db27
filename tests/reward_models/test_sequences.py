"""Confidence sequences: looked at after every unit, wrong at most as often as promised."""

from typing import Any

import numpy as np
import pytest

from infra.errors import BadInput
from ingestion.loops import PolicySettings
from reward_models.policies import pmf
from reward_models.posterior import ArmCounts, content_effects
from reward_models.sequences import Dealt, Running, predictions, reaches, ready, running, sequence

SEED = 20_261_122
RUNS = 400
UNITS = 4_000


def dealt(total: Any, treatment: Any, held_out: float = 0.1, covariates: Any = None) -> Dealt:
    """Units held out with one probability."""
    totals = np.asarray(total, dtype=np.float64)
    return Dealt(np.asarray(treatment, dtype=bool), np.full(totals.shape, held_out), totals, covariates)


def test_the_reach_is_the_normal_mixture_of_robbins() -> None:
    """Two sides: √(2(x+1)/x·ln(√(x+1)/α)); one side reaches less; x = 8 at 1,000 units tuned to about 1,000."""
    x = 1_000 * (-2 * np.log(0.05) + np.log(1 - 2 * np.log(0.05))) / 1_000

    assert reaches(1_000, 0.05, 1_000) == pytest.approx(np.sqrt(2 * (x + 1) / x * np.log(np.sqrt(x + 1) / 0.05)))
    assert reaches(1_000, 0.05, 1_000, sides=1) < reaches(1_000, 0.05, 1_000)


def test_the_interval_is_narrowest_where_it_was_tuned() -> None:
    """At n units no other tuning gives a narrower interval, and a tuning four times off costs an eighth at most."""
    tunings = np.geomspace(50, 20_000, 200)
    reach = np.array([float(reaches(1_000, 0.05, tuned)) for tuned in tunings])

    assert tunings[reach.argmin()] == pytest.approx(1_000, rel=0.2)
    assert float(reaches(1_000, 0.05, 4_000)) / reach.min() < 1.13


def test_the_estimate_is_the_difference_of_means_in_the_long_run() -> None:
    """Scores average to treatment minus holdout, whatever the share that was held out."""
    generator = np.random.default_rng(SEED)
    treatment = generator.random(200_000) >= 0.1
    total = np.where(treatment, 3.0, 2.0) + generator.normal(0, 1, 200_000)
    found = running(dealt(total, treatment))

    assert found.mean[-1] == pytest.approx(1.0, abs=4 * found.error[-1])
    assert found.error[-1] == pytest.approx(np.sqrt((1 / 0.9 + 1 / 0.1) / 200_000), rel=0.02)


def test_a_margin_compares_with_more_than_the_holdout() -> None:
    """With ``of_holdout`` 1.5 the estimate is treatment − 1.5·holdout, with covariates and without."""
    generator = np.random.default_rng(SEED)
    treatment = generator.random(100_000) >= 0.3
    known = generator.normal(1, 1, (100_000, 1))
    total = np.where(treatment, 3.0, 2.0) + known[:, 0] - 1.0

    for covariates in (None, known):
        found = running(dealt(total, treatment, 0.3, covariates), of_holdout=1.5)
        assert found.mean[-1] == pytest.approx(0.0, abs=4 * found.error[-1])


def test_false_positives_stay_below_alpha_over_all_looks() -> None:
    """In worlds without a lift at most 5 % ever exclude 0 after any unit, clicks and skewed money alike, either way."""
    generator = np.random.default_rng(SEED)
    shape = (RUNS, UNITS)
    bought = generator.random(shape) < 0.05
    for value in (1.0, np.exp(1.5 * generator.standard_normal(shape))):
        units = dealt(bought * value, generator.random(shape) >= 0.1)
        interval = sequence(running(units), 0.05, 5_000)
        looks = ready(units, 50, 3)
        wrong = looks & ((interval.low > 0.0) | (interval.high < 0.0))

        assert looks.any(axis=1).mean() > 0.9
        assert wrong.any(axis=1).mean() <= 0.05


def test_the_running_lift_is_covered_while_it_drifts() -> None:
    """The interval holds the mean lift so far at all looks at once, in 95 of 100 worlds whose lift comes and goes."""
    generator = np.random.default_rng(SEED)
    shape = (RUNS, UNITS)
    lift = 0.08 * np.sin(np.arange(UNITS) / 500.0)
    treatment = generator.random(shape) >= 0.2
    total = (generator.random(shape) < 0.2 + np.where(treatment, lift, 0.0)).astype(float)
    units = dealt(total, treatment, 0.2)
    interval = sequence(running(units), 0.05, 5_000)
    truth = np.cumsum(lift) / np.arange(1, UNITS + 1)
    missed = ready(units, 100, 5) & ((truth < interval.low) | (truth > interval.high))

    assert missed.any(axis=1).mean() <= 0.05


def test_the_lift_of_a_policy_that_learns_is_covered() -> None:
    """With the product's own posterior and pmf learning between batches, the interval holds the mean lift so far, by the
    probabilities drawn with, at all looks at once in 95 of 100 worlds."""
    generator = np.random.default_rng(SEED)
    missed = []
    for _ in range(120):
        rates = 0.2 * np.exp(0.4 * generator.standard_normal(4))
        counts = np.zeros((4, 4))
        columns = []
        for _ in range(15):
            effects = content_effects(ArmCounts(*counts), 0.0)
            policy = pmf(PolicySettings(), effects.effect, effects.sd)
            treated = generator.random(120) >= 0.2
            chosen = np.where(treated, generator.choice(4, 120, p=policy), generator.integers(4, size=120))
            clicked = (generator.random(120) < rates[chosen]).astype(float)
            for row, values in enumerate((np.ones(120), clicked, clicked)):
                counts[row] += np.bincount(chosen, values, 4)
            columns.append((treated, clicked, np.full(120, rates @ policy - rates.mean())))
        treatment, total, lift = (np.concatenate(parts) for parts in zip(*columns, strict=True))
        units = dealt(total, treatment, 0.2)
        interval = sequence(running(units), 0.05, 5_000)
        truth = np.cumsum(lift) / np.arange(1, len(lift) + 1)
        missed.append((ready(units, 50, 5) & ((truth < interval.low) | (truth > interval.high))).any())

    assert np.mean(missed) <= 0.05


def test_a_fixed_effect_is_found_in_time() -> None:
    """Half of the worlds stop within 1.6 times the units that a test for one look would have needed."""
    generator = np.random.default_rng(SEED)
    shape = (200, UNITS)
    treatment = generator.random(shape) >= 0.2
    total = generator.normal(0, 1, shape) + np.where(treatment, 0.2, 0.0)
    fixed = (1.959964 + 0.841621) ** 2 * (1 / 0.8 + 1 / 0.2) / 0.2**2
    outside = sequence(running(dealt(total, treatment, 0.2)), 0.05, 5_000).low > 0.0
    outside[:, :100] = False
    stopped = np.where(outside.any(axis=1), outside.argmax(axis=1) + 1, np.inf)

    assert np.median(stopped) <= 1.6 * fixed


def test_covariates_take_noise_out_and_leave_the_lift() -> None:
    """Where half of the variance was known before, the error shrinks by a fourth and more; the lift stays."""
    generator = np.random.default_rng(SEED)
    treatment = generator.random(UNITS) >= 0.5
    known = generator.normal(0, 1, (UNITS, 3))
    total = known[:, 0] + generator.normal(0, 1, UNITS) + 0.5 * treatment
    plain, adjusted = (running(dealt(total, treatment, 0.5, covariates)) for covariates in (None, known))

    assert adjusted.error[-1] < 0.75 * plain.error[-1]
    assert adjusted.mean[-1] == pytest.approx(0.5, abs=4 * adjusted.error[-1])


def test_predictions_use_earlier_units_only() -> None:
    """Changing a unit's total changes no prediction of itself or of the units before it."""
    generator = np.random.default_rng(SEED)
    known = generator.normal(0, 1, (500, 2))
    total = known[:, 0] + generator.normal(0, 1, 500)
    changed = total.copy()
    changed[300] += 100.0
    before, after = (predictions(dealt(each, np.ones(500), 0.5, known)) for each in (total, changed))

    assert np.array_equal(before[:301], after[:301])
    assert not np.array_equal(before[301:], after[301:])


def test_a_look_counts_once_both_groups_have_units_and_responses() -> None:
    """Two units and one response per group: the fifth unit is the first that completes all of them."""
    units = dealt([1, 0, 0, 0, 2, 0], [1, 1, 0, 0, 0, 1])

    assert ready(units, 2, 1).tolist() == [False, False, False, False, True, True]


def test_one_side_has_no_upper_end() -> None:
    """A one-sided sequence bounds harm from below only."""
    found = sequence(Running(np.array([0.5]), np.array([0.1])), 0.05, 100, sides=1)

    assert found.low[0] < 0.5
    assert found.high[0] == np.inf


def test_units_that_were_not_dealt_are_refused() -> None:
    """A unit that could be in one group only, and columns of other lengths, are bad input."""
    with pytest.raises(BadInput, match="other group"):
        dealt([1.0], [True], held_out=0.0)
    with pytest.raises(BadInput, match="length"):
        Dealt(np.ones(2, dtype=bool), np.full(2, 0.5), np.ones(3))
    with pytest.raises(BadInput, match="Covariates"):
        dealt([1.0, 2.0], [True, False], covariates=np.ones((3, 1)))
