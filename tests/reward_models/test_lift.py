"""Measured lift: intervals that hold the truth, for clicks and for money, with one and with many sends per unit."""

import numpy as np
import pytest
from scipy import stats

from infra.errors import BadInput, EstimateRefused
from ingestion.loops import LiftSettings
from reward_models.lift import Basis, UnitOutcomes, lift, lift_so_far, more_units, smallest_detectable, winsorised
from reward_models.sequences import Dealt, reaches

SEED = 20_261_122
REPLICATES = 2_000


def outcomes(holdout: list[float], treatment: list[float], decisions: list[int] | None = None) -> UnitOutcomes:
    n = len(holdout) + len(treatment)
    return UnitOutcomes(
        [f"u{i}" for i in range(n)],
        np.arange(n) >= len(holdout),
        np.array([*holdout, *treatment]),
        None if decisions is None else np.array(decisions),
    )


def test_per_unit_is_the_welch_interval() -> None:
    """Means, difference and interval are those of Welch's test."""
    holdout, treatment = [0.0, 1.0, 2.0, 5.0], [2.0, 4.0, 4.0, 6.0, 9.0]
    found = lift(outcomes(holdout, treatment), min_units=2)
    expected = stats.ttest_ind(treatment, holdout, equal_var=False).confidence_interval()

    assert (found.holdout_mean, found.treatment_mean, found.difference) == (2.0, 5.0, 3.0)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.relative, found.n_holdout, found.n_treatment) == (1.5, 4, 5)


def test_per_send_divides_by_decisions() -> None:
    """Per send the means are totals over decisions; with one decision each nothing changes."""
    found = lift(outcomes([2.0, 4.0], [3.0, 9.0], [2, 4, 1, 3]), basis="send", min_units=2)
    one_each = outcomes([0.0, 1.0, 2.0], [2.0, 4.0, 4.0], [1] * 6)

    assert (found.holdout_mean, found.treatment_mean) == (1.0, 3.0)
    assert lift(one_each, basis="send", min_units=2) == lift(one_each, min_units=2)


@pytest.mark.parametrize("basis", ["unit", "send"])
def test_intervals_hold_the_truth(basis: Basis) -> None:
    """93 to 97 in 100 intervals hold the planted lift, though money is skewed and units differ in sends and taste."""
    generator = np.random.default_rng(SEED)
    units = tuple(str(unit) for unit in range(900))
    covered = 0
    for _ in range(REPLICATES):
        treatment = generator.random(900) >= 0.4
        decisions = generator.integers(1, 6, size=900)
        rate = np.where(treatment, 0.25, 0.2) * generator.gamma(4.0, 0.25, size=900).clip(0, 4)
        total = generator.binomial(decisions, rate.clip(0, 1)) * generator.gamma(2.0, 10.0, size=900)
        found = lift(UnitOutcomes(units, treatment, total, decisions), basis=basis)
        truth = 20.0 * 0.05 * (3.0 if basis == "unit" else 1.0)
        covered += found.low <= truth <= found.high

    assert 0.93 <= covered / REPLICATES <= 0.97


def test_the_smallest_detectable_effect_is_found_four_times_in_five() -> None:
    """A planted effect of that size is significant in 80 of 100 worlds."""
    generator = np.random.default_rng(SEED)
    mde = 2.0 * (1.96 + 0.8416) / np.sqrt(100)
    found = []
    for _ in range(REPLICATES):
        world = lift(
            outcomes(generator.normal(0, np.sqrt(2), 100).tolist(), generator.normal(mde, np.sqrt(2), 100).tolist())
        )
        found.append((world.low > 0.0, world.mde))

    assert np.mean([mde for _, mde in found]) == pytest.approx(mde, rel=0.02)
    assert np.mean([significant for significant, _ in found]) == pytest.approx(0.8, abs=0.03)


def test_units_needed_make_the_difference_detectable() -> None:
    """With so many units of the same kind the smallest detectable effect is the difference itself."""
    found = lift(outcomes([0.0, 1.0] * 50, [0.0, 1.0, 1.0, 0.0, 1.0] * 20))
    often = round(found.units_needed / 200)
    larger = lift(outcomes([0.0, 1.0] * 50 * often, [0.0, 1.0, 1.0, 0.0, 1.0] * 20 * often))

    assert larger.mde == pytest.approx(larger.difference, rel=0.05)
    assert smallest_detectable(found.difference - found.low) == pytest.approx(found.mde, rel=0.01)


def test_a_silent_holdout_has_no_relative_lift() -> None:
    """Nothing can be relative to 0; without any variance the interval is the point."""
    found = lift(outcomes([0.0] * 30, [1.0] * 30))

    assert (found.relative, found.low, found.high) == (None, 1.0, 1.0)


def test_a_small_group_is_refused() -> None:
    """A group below the least size gives no lift but the reason."""
    with pytest.raises(EstimateRefused, match="holdout group has 29 units"):
        lift(outcomes([0.0] * 29, [1.0] * 500))
    with pytest.raises(EstimateRefused, match="treatment group has 0 units"):
        lift(outcomes([0.0] * 50, []))


def test_outcomes_that_do_not_fit_are_refused() -> None:
    """Repeated units, unknown outcomes, missing decisions and columns of other lengths are bad input."""
    fine = outcomes([0.0, 1.0], [1.0, 2.0])
    twice = UnitOutcomes(["a", "a", "b", "c"], fine.treatment, fine.total)
    unknown = UnitOutcomes(fine.units, fine.treatment, np.array([0.0, 1.0, np.nan, 1.0]))
    short = UnitOutcomes(fine.units, fine.treatment, fine.total[:2])

    for broken, reason in ((twice, "twice"), (unknown, "finite"), (short, "fit together")):
        with pytest.raises(BadInput, match=reason):
            lift(broken, min_units=2)
    with pytest.raises(BadInput, match="decisions"):
        lift(fine, basis="send", min_units=2)


def dealt(n: int, holdout: float, treatment: float, share: float = 0.2, seed: int = SEED) -> Dealt:
    """Units who click with a chance by group."""
    generator = np.random.default_rng(seed)
    treated = generator.random(n) >= share
    clicked = generator.random(n) < np.where(treated, treatment, holdout)
    return Dealt(treated, np.full(n, share), clicked.astype(float))


def test_a_lift_that_is_always_on_says_where_it_stands() -> None:
    """Clearly more is better, clearly less is worse, and between them it is open or too small to matter."""
    tight = LiftSettings(worthwhile=0.5)

    assert lift_so_far(dealt(8_000, 0.2, 0.3), LiftSettings()).standing == "better"
    assert lift_so_far(dealt(8_000, 0.3, 0.2), LiftSettings()).standing == "worse"
    assert lift_so_far(dealt(8_000, 0.2, 0.2), LiftSettings()).standing == "open"
    assert lift_so_far(dealt(8_000, 0.2, 0.2), tight).standing == "negligible"


def test_the_lift_so_far_holds_its_own_parts_together() -> None:
    """Difference, interval, relative lift and group sizes agree with the totals; the first claim came before the end."""
    units = dealt(8_000, 0.2, 0.3)
    found = lift_so_far(units, LiftSettings())

    assert found.low < found.difference < found.high
    assert found.difference == pytest.approx(found.treatment_mean - found.holdout_mean, abs=0.005)
    assert found.relative == pytest.approx(found.difference / found.holdout_mean)
    assert (found.n_holdout, found.n_treatment) == (int((~units.treatment).sum()), int(units.treatment.sum()))
    assert found.decided_after is not None
    assert 100 < found.decided_after < 8_000
    assert found.more_units == 0


def test_the_time_to_a_decision_is_about_right() -> None:
    """An open lift's further units decide most worlds that keep that very lift, and half as many decide few."""
    settings = LiftSettings()
    needed = more_units(0.03, 0.03 / 2.0, 5_000, settings)
    assert needed is not None
    generator = np.random.default_rng(SEED)
    sd = 0.03 / 2.0 * np.sqrt(5_000)

    def decided(units: int) -> float:
        means = generator.normal(0.03, sd / np.sqrt(units), 4_000)
        return float((means > reaches(units, settings.alpha, settings.tuned_units) * sd / np.sqrt(units)).mean())

    assert decided(5_000 + needed) == pytest.approx(0.5, abs=0.03)
    powered = more_units(0.03, 0.03 / 2.0, 5_000, settings, power=0.8416)
    assert powered is not None
    assert decided(5_000 + powered) == pytest.approx(0.8, abs=0.03)
    assert more_units(0.0, 1.0, 5_000, settings) is None


def test_a_look_too_early_is_refused_with_what_is_missing() -> None:
    """Before the burn-in there is no lift but the reason; nobody at all is too early, too."""
    with pytest.raises(EstimateRefused, match="a lift needs 100 and 5 in each group"):
        lift_so_far(dealt(200, 0.5, 0.5), LiftSettings())
    with pytest.raises(EstimateRefused, match="holdout has 0 units"):
        lift_so_far(dealt(0, 0.5, 0.5), LiftSettings())


def test_large_totals_are_capped_where_the_first_units_say() -> None:
    """The cap is the 99 % quantile of the first units' totals that are not 0; what comes later does not move it."""
    total = np.concatenate([np.zeros(50), np.arange(1.0, 101.0), [10_000.0]])
    capped, cap = winsorised(total, 150)

    assert cap == pytest.approx(99.01)
    assert capped.max() == cap
    assert winsorised(np.zeros(3), 3)[1] is None
