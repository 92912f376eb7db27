"""The A/A drill: real totals dealt anew without an effect."""

import numpy as np
import pytest

from infra.errors import EstimateRefused
from ingestion.loops import LiftSettings
from reward_models.drill import Drill, drill
from reward_models.sequences import Dealt

SEED = 20_261_122
SETTINGS = LiftSettings()


def customers(n: int, share: float = 0.2) -> Dealt:
    """Some buy, for amounts of which a few are large; treatment bought more, which the drill must not see."""
    generator = np.random.default_rng(SEED)
    treatment = generator.random(n) >= share
    bought = generator.random(n) < np.where(treatment, 0.3, 0.05)
    amount = np.exp(1.2 * generator.standard_normal(n))
    return Dealt(treatment, np.full(n, share), np.where(bought, amount, 0.0))


def test_no_lift_is_claimed_where_there_is_none() -> None:
    """Dealt anew, claims stay below alpha, however much treatment really earned; peeking at a plain test does not."""
    found = drill(customers(3_000), SETTINGS, runs=200)

    assert found.claimed <= SETTINGS.alpha
    assert found.peeking > 0.1
    assert found.passed
    assert found.low <= found.claimed <= found.high
    assert "keeps its promise" in found.sentence


def test_the_same_seed_is_the_same_drill() -> None:
    """A drill can be repeated to the digit, and another seed deals otherwise; progress is told to the end."""
    told: list[int] = []
    first = drill(customers(2_000), SETTINGS, runs=50, seed=3, on_runs=lambda done, _: told.append(done))

    assert first == drill(customers(2_000), SETTINGS, runs=50, seed=3)
    assert first != drill(customers(2_000), SETTINGS, runs=50, seed=4)
    assert told[-1] == 50


def test_a_broken_promise_is_said() -> None:
    """Where even the lower bound of the claims is above alpha the drill has failed."""
    broken = Drill(1_000, 5_000, claimed=0.11, low=0.09, high=0.13, peeking=0.4, alpha=0.05)

    assert not broken.passed
    assert "DOES NOT KEEP" in broken.sentence


def test_too_few_customers_cannot_be_drilled() -> None:
    """Where no look would count there is nothing to drill."""
    with pytest.raises(EstimateRefused, match="too few"):
        drill(customers(60), SETTINGS, runs=20)
    with pytest.raises(EstimateRefused, match="too few"):
        drill(customers(0), SETTINGS, runs=20)
