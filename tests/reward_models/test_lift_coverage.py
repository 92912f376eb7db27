"""The interval of the lift covers the truth at its stated rate, under the product's own adaptive policy.

A small world is a campaign in miniature: units with one message per wave, a holdout on the uniform baseline, and a
policy (posterior of the counts so far, exact pmf, floor) that is updated after every half wave. Its truth is the mean
over units of Σ policy_p·μ − Σ baseline·μ with the probabilities it really drew from. Units differ in activity, so that
their decisions are alike. One seed is declared for all worlds.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from ingestion.loops import PolicySettings
from reward_models.lift import UnitOutcomes, lift
from reward_models.policies import pmf
from reward_models.posterior import ArmCounts, content_effects

SEED = 20_261_122
WORLDS = 1_500
UNITS, CONTENTS, WAVES, HOLDOUT = 400, 4, 3, 0.4
POLICY = PolicySettings()

Floats = NDArray[np.float64]


def a_world(rng: np.random.Generator, money: bool) -> tuple[UnitOutcomes, float]:
    """Outcomes per unit of one small world, and its true lift. ``money``: purchases of lognormal value, not clicks."""
    rates = rng.uniform(0.08, 0.2) * np.exp(0.4 * rng.standard_normal(CONTENTS))
    treatment = rng.random(UNITS) >= HOLDOUT
    activity = rng.choice([0.6, 1.4], size=UNITS)
    totals, gained = np.zeros(UNITS), 0.0
    counts = np.zeros((4, CONTENTS))
    for _ in range(WAVES):
        for units in np.array_split(rng.permutation(UNITS), 2):
            policy = _policy(counts)
            chosen = np.where(
                treatment[units],
                rng.choice(CONTENTS, size=len(units), p=policy),
                rng.integers(CONTENTS, size=len(units)),
            )
            reward = (rng.random(len(units)) < activity[units] * rates[chosen]).astype(float)
            if money:
                reward *= np.exp(0.5 * rng.standard_normal(len(units)) - 0.125)
            totals[units] += reward
            gained += float(activity[units].sum() * (rates @ (policy - 1 / CONTENTS)))
            for row, values in enumerate((np.ones(len(units)), reward, reward**2)):
                counts[row] += np.bincount(chosen, weights=values, minlength=CONTENTS)
    return UnitOutcomes([str(unit) for unit in range(UNITS)], treatment, totals), gained / UNITS


def _policy(counts: Floats) -> Floats:
    effects = content_effects(ArmCounts(*counts), 0.0)
    return pmf(POLICY, effects.effect, effects.sd)


@pytest.mark.slow
def test_the_interval_of_the_lift_covers_the_truth_in_95_of_100_worlds() -> None:
    """Over 1,500 small worlds, half with clicks and half with money, 93 to 97 % of the intervals hold the true lift."""
    rng = np.random.default_rng(SEED)
    covered = 0
    for number in range(WORLDS):
        outcomes, truth = a_world(rng, money=bool(number % 2))
        found = lift(outcomes)
        covered += found.low <= truth <= found.high

    assert 0.93 <= covered / WORLDS <= 0.97
