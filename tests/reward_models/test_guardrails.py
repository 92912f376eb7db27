"""Guardrails: harm is found, harmless policies are left alone, and a veto stops what passed."""

import numpy as np
import pytest

from ingestion.loops import Guardrail, LiftSettings
from reward_models.gate import Verdict
from reward_models.guardrails import compare, harm, judge_units, looks, vetoed
from reward_models.offpolicy import Floor, Logged
from reward_models.sequences import Dealt

SEED = 20_261_122
SETTINGS = LiftSettings()
RULE = Guardrail(metric="unsubscribe")


def units(holdout: float, treatment: float, n: int, runs: int = 1, share: float = 0.2) -> Dealt:
    """Customers of whom some unsubscribe, by group."""
    generator = np.random.default_rng(SEED)
    treated = generator.random((runs, n)) >= share
    left = generator.random((runs, n)) < np.where(treated, treatment, holdout)
    return Dealt(treated, np.full((runs, n), share), left.astype(float))


def one(holdout: float, treatment: float, n: int) -> Dealt:
    """One world of them."""
    many = units(holdout, treatment, n)
    return Dealt(many.treatment[0], many.held_out[0], many.total[0])


def logged(target: float, n: int = 4_000) -> Logged:
    """Two contents shown by a coin; the second makes three in ten unsubscribe, the first one. target: its share."""
    generator = np.random.default_rng(SEED)
    chosen = generator.integers(2, size=n)
    left = generator.random(n) < np.where(chosen == 1, 0.3, 0.1)
    half = np.full((n, 2), 0.5)
    return Logged(
        propensity=np.full(n, 0.5),
        reward=left.astype(float),
        chosen=chosen,
        target=np.tile([1.0 - target, target], (n, 1)),
        q=np.zeros((n, 2)),
        clusters=np.arange(n),
        reference=half,
        behaviour=half,
    )


def test_harm_is_seen_and_said() -> None:
    """Twice as many unsubscribes breach the guardrail, and the sentence has both rates."""
    found = judge_units(one(0.03, 0.09, 6_000), RULE, SETTINGS)

    assert found.state == "breached"
    assert found.low is not None
    assert 0.0 < found.low < found.harm
    assert "clearly more than the holdout" in found.sentence
    assert found.harm == pytest.approx(0.06, abs=0.02)


def test_what_is_tolerated_is_no_harm() -> None:
    """A policy within the margin does not breach it, and less of the metric never does."""
    tolerant = Guardrail(metric="unsubscribe", margin=3.0)

    assert judge_units(one(0.03, 0.09, 6_000), tolerant, SETTINGS).state == "fine"
    assert judge_units(one(0.09, 0.03, 6_000), RULE, SETTINGS).state == "fine"


def test_false_alarms_are_rare_over_all_looks() -> None:
    """Where nothing is harmed at most 5 % of the worlds ever sound the alarm, with rare events and a small holdout."""
    world = units(0.01, 0.01, 5_000, runs=300, share=0.1)
    alarms = looks(world, SETTINGS) & (harm(world, RULE, SETTINGS)[1] > 0.0)

    assert looks(world, SETTINGS).any(axis=1).all()
    assert alarms.any(axis=1).mean() <= 0.05


def test_too_few_customers_are_waited_for() -> None:
    """Without the least units and responses there is no state but waiting, and the sentence says what is missing."""
    found = judge_units(one(0.0, 0.0, 6_000), RULE, SETTINGS)

    assert (found.state, found.low) == ("waiting", None)
    assert "too early" in found.sentence
    assert judge_units(one(0.5, 0.5, 50), RULE, SETTINGS).state == "waiting"


def test_a_holdout_without_any_harm_does_not_hide_it() -> None:
    """Responses may all come from treatment: that is what harm looks like."""
    assert judge_units(one(0.0, 0.05, 4_000), RULE, SETTINGS).state == "breached"


def test_a_challenger_that_harms_is_seen_before_it_serves() -> None:
    """Off-policy, the model that prefers the harmful content breaches, the one that avoids it does not."""
    floor = Floor(30, 20)

    assert compare(logged(0.95), RULE, floor).state == "breached"
    assert compare(logged(0.05), RULE, floor).state == "fine"
    assert compare(logged(0.95), RULE, Floor(10**6, 20)).state == "waiting"


def test_a_veto_fails_what_passed_and_nothing_else() -> None:
    """A breached guardrail turns passed into failed and says why; failed and refused stay; fine guards change nothing."""
    broken = judge_units(one(0.03, 0.09, 6_000), RULE, SETTINGS)
    fine = judge_units(one(0.09, 0.03, 6_000), RULE, SETTINGS)
    passed, failed, refused = (
        Verdict(state, "So.", "change", 1, 0.05, 0.0) for state in ("passed", "failed", "refused")
    )

    assert vetoed(passed, [fine, broken]).state == "failed"
    assert vetoed(passed, [fine, broken]).sentence.startswith("Vetoed by a guardrail. unsubscribe")
    assert vetoed(passed, [fine]) == passed
    assert (vetoed(failed, [broken]), vetoed(refused, [broken])) == (failed, refused)
