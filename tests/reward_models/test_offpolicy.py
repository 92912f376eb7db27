"""Off-policy estimates, held against logs whose truth is known and against small cases worked by hand."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from infra.errors import BadInput, EstimateRefused
from reward_models import offpolicy
from reward_models.offpolicy import MODEL_DEPENDENT, Estimate, Floor, Logged
from tests.reward_models.logs import SEED, Taste, fixed_log

Estimator = Callable[..., Estimate]

REPLICATES = 1_500
ANY = Floor(units=2, effective=0.0)

TASTE = Taste(np.array([[0.30, 0.10, 0.20], [0.10, 0.40, 0.20]]))
BEHAVIOUR = np.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])
TARGET = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
REFERENCE = np.array([[0.2, 0.2, 0.6], [0.3, 0.3, 0.4]])
RARE = np.array([[0.01, 0.495, 0.495], [0.495, 0.01, 0.495]])
ROUGH_Q = np.array([[0.25, 0.2, 0.2], [0.2, 0.3, 0.1]])


def small() -> Logged:
    """Three decisions of two units over two contents."""
    return Logged(
        propensity=np.array([0.5, 0.5, 0.25]),
        reward=np.array([1.0, 0.0, 2.0]),
        chosen=np.array([0, 1, 1]),
        target=np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]),
        q=np.array([[0.5, 0.0], [0.5, 0.5], [0.0, 1.0]]),
        clusters=["u", "v", "v"],
        reference=np.array([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]),
        behaviour=np.array([[0.5, 0.5], [0.5, 0.5], [0.75, 0.25]]),
    )


def replicates(
    estimator: Estimator, truth: float, build: Callable[[np.random.Generator], Logged]
) -> tuple[float, float]:
    """Mean error in standard errors of that mean, and the share of intervals that hold the truth."""
    generator = np.random.default_rng(SEED)
    found = [estimator(build(generator)) for _ in range(REPLICATES)]
    values = np.array([estimate.value for estimate in found])
    covered = np.mean([estimate.low <= truth <= estimate.high for estimate in found])
    return float((values.mean() - truth) / (values.std() / np.sqrt(REPLICATES))), float(covered)


@pytest.mark.parametrize(
    ("estimator", "value", "ess"),
    [
        # weights 2, 1, 4 and rewards 1, 0, 2
        (offpolicy.ips, (2 + 0 + 8) / 3, 49 / (4 + 25)),
        (offpolicy.snips, (2 + 0 + 8) / 7, 49 / (4 + 25)),
        # Σ π q is 0.5, 0.5, 1
        (offpolicy.dm, (0.5 + 0.5 + 1.0) / 3, 9 / (1 + 4)),
        # Σ π q + w (r − q): 0.5 + 2·0.5, 0.5 − 0.5, 1 + 4·1
        (offpolicy.dr, (1.5 + 0.0 + 5.0) / 3, 49 / (4 + 25)),
        # D is 0.5, 0.5, 1, the residuals 0.5, −0.5, 1
        (offpolicy.sndr, (0.5 + 0.5 + 1.0) / 3 + (2 * 0.5 - 0.5 + 4.0) / 7, 49 / (4 + 25)),
        # the weight of 4 is above the threshold
        (partial(offpolicy.switch_dr, threshold=2.0), (0.5 + 0.5 + 1.0 + 2 * 0.5 - 0.5) / 3, 49 / (4 + 25)),
        # weights 4w/(w² + 4): 1, 0.8, 0.8
        (partial(offpolicy.dr_os, shrinkage=4.0), (2.0 + 0.5 - 0.8 * 0.5 + 0.8) / 3, 49 / (4 + 25)),
        # less the reference: Σ ρ q is 0.25, 0.5, 0.5, its weights 1, 1, 2: 0.75, 0, 2.5; it has the smaller overlap
        (offpolicy.difference, (0.75 + 0.0 + 2.5) / 3, 16 / (1 + 9)),
    ],
)
def test_small_cases_by_hand(estimator: Estimator, value: float, ess: float) -> None:
    """Three rows give the values the formulas give on paper, and effective sizes count units, not rows."""
    found = estimator(small(), floor=ANY)

    assert (found.value, found.ess) == pytest.approx((value, ess))
    assert (found.n, found.clusters) == (3, 2)


def test_an_interval_by_hand() -> None:
    """IPS of four units: t quantile with 3 degrees of freedom times the standard error of the mean."""
    logged = replace(
        small(),
        propensity=np.full(4, 0.5),
        reward=np.array([1.0, 2.0, 3.0, 4.0]),
        chosen=np.array([0, 0, 0, 1]),
        target=np.full((4, 2), 0.5),
        q=np.zeros((4, 2)),
        clusters=["a", "b", "c", "d"],
        reference=None,
        behaviour=None,
    )
    found = offpolicy.ips(logged, floor=ANY)
    error = np.std([1, 2, 3, 4], ddof=1) / 2

    assert (found.low, found.high) == pytest.approx((2.5 - 3.182446 * error, 2.5 + 3.182446 * error))


@pytest.mark.parametrize("told", [True, False], ids=["behaviour", "propensity"])
@pytest.mark.parametrize(
    "estimator", [offpolicy.ips, offpolicy.snips, offpolicy.dr, offpolicy.sndr], ids=lambda e: e.__name__
)
def test_values_are_unbiased_and_intervals_cover(estimator: Estimator, told: bool) -> None:
    """With a rough reward model the truth is hit on average, and by 93 to 97 in 100 intervals."""
    z, covered = replicates(
        estimator,
        TASTE.value(TARGET),
        lambda generator: fixed_log(TASTE, BEHAVIOUR, TARGET, REFERENCE, ROUGH_Q, 400, generator, told=told),
    )

    assert abs(z) < 3.0
    assert 0.93 <= covered <= 0.97


def test_the_difference_is_unbiased_and_covers() -> None:
    """So is the paired difference to a reference."""
    z, covered = replicates(
        offpolicy.difference,
        TASTE.value(TARGET) - TASTE.value(REFERENCE),
        lambda generator: fixed_log(TASTE, BEHAVIOUR, TARGET, REFERENCE, ROUGH_Q, 400, generator),
    )

    assert abs(z) < 3.0
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize("estimator", [offpolicy.ips, offpolicy.snips, offpolicy.dr], ids=lambda e: e.__name__)
def test_ten_decisions_per_unit_cover(estimator: Estimator) -> None:
    """Units that answer all their ten messages alike do not make intervals too short; taking rows as units would."""
    loyal = replace(TASTE, loyalty=0.8)

    def build(generator: np.random.Generator) -> Logged:
        return fixed_log(loyal, BEHAVIOUR, TARGET, REFERENCE, ROUGH_Q, 150, generator, per_unit=10)

    _, covered = replicates(estimator, TASTE.value(TARGET), build)
    _, naive = replicates(lambda log: estimator(replace(log, clusters=np.arange(len(log)))), TASTE.value(TARGET), build)

    assert 0.93 <= covered <= 0.97
    assert naive < 0.90


def test_rare_draws_do_not_make_a_narrow_interval() -> None:
    """Where the target lives on what is shown once in fifty times, the probabilities keep the interval honest."""
    taste = Taste(np.full((2, 2), 0.05))
    behaviour, target = np.tile([0.98, 0.02], (2, 1)), np.tile([0.1, 0.9], (2, 1))
    q = np.full((2, 2), 0.05)

    def covered(told: bool) -> float:
        def build(generator: np.random.Generator) -> Logged:
            return fixed_log(taste, behaviour, target, behaviour, q, 1_000, generator, told=told)

        return replicates(lambda log: offpolicy.dr(log, floor=ANY), 0.05, build)[1]

    def spread_alone(generator: np.random.Generator) -> bool:
        log = fixed_log(taste, behaviour, target, behaviour, q, 1_000, generator)
        scores = 0.05 + log.shown(log.target) / log.propensity * (log.reward - 0.05)
        return bool(abs(scores.mean() - 0.05) <= 1.96 * scores.std() / np.sqrt(len(log)))

    generator = np.random.default_rng(SEED)
    assert covered(told=True) >= 0.93
    assert np.mean([spread_alone(generator) for _ in range(REPLICATES)]) < 0.75


def test_dm_is_labelled_and_believes_its_model() -> None:
    """DM follows a wrong model wherever it leads, and its note says that it depends on it."""
    log = fixed_log(TASTE, BEHAVIOUR, TARGET, REFERENCE, np.full((2, 3), 7.0), 400, np.random.default_rng(SEED))
    found = offpolicy.dm(log)

    assert found.value == pytest.approx(7.0)
    assert found.note == MODEL_DEPENDENT


@pytest.mark.parametrize("told", [True, False], ids=["behaviour", "propensity"])
def test_the_ends_of_the_tamed_estimators_are_dm_and_dr(told: bool) -> None:
    """Switch-DR and DRos are the model alone at one end of their parameter, and doubly robust at the other."""
    log = fixed_log(TASTE, BEHAVIOUR, TARGET, REFERENCE, ROUGH_Q, 400, np.random.default_rng(SEED), told=told)
    model, whole = offpolicy.dm(log), offpolicy.dr(log)

    for end in (offpolicy.switch_dr(log, threshold=0.0), offpolicy.dr_os(log, shrinkage=0.0)):
        assert end.value == pytest.approx(model.value)
    for end in (offpolicy.switch_dr(log, threshold=np.inf), offpolicy.dr_os(log, shrinkage=np.inf)):
        assert (end.value, end.low) == pytest.approx((whole.value, whole.low))


def test_stable_dr_is_dr_under_a_policy_that_does_not_change() -> None:
    """Blocks of time that say as much as each other weigh the same."""
    log = fixed_log(TASTE, np.full((2, 3), 1 / 3), TARGET, REFERENCE, ROUGH_Q, 400, np.random.default_rng(SEED))

    assert offpolicy.stable_dr(log).value == pytest.approx(offpolicy.dr(log).value, rel=0.02)


def test_stable_dr_is_less_noisy_where_the_policy_changed() -> None:
    """Half a log that hardly shows what the target plays: stable DR is unbiased, covers, and has a fifth less noise."""

    def build(generator: np.random.Generator) -> Logged:
        early = fixed_log(TASTE, BEHAVIOUR, TARGET, REFERENCE, ROUGH_Q, 400, generator)
        late = fixed_log(TASTE, 0.05 * TARGET + 0.95 * RARE, TARGET, REFERENCE, ROUGH_Q, 400, generator)
        joined = {
            name: np.concatenate([getattr(early, name), getattr(late, name)])
            for name in ("propensity", "reward", "chosen", "target", "q", "reference", "behaviour")
        }
        return Logged(clusters=np.arange(800), **joined)

    z, covered = replicates(offpolicy.stable_dr, TASTE.value(TARGET), build)
    generator = np.random.default_rng(SEED)
    logs = [build(generator) for _ in range(300)]
    noise = {e: np.std([e(log).value for log in logs]) for e in (offpolicy.stable_dr, offpolicy.dr)}

    assert abs(z) < 3.0
    assert 0.93 <= covered <= 0.97
    assert noise[offpolicy.stable_dr] < 0.8 * noise[offpolicy.dr]


def test_tamed_estimators_tune_themselves() -> None:
    """Without a parameter a model that is right is followed, and one that is far off is corrected."""
    generator = np.random.default_rng(SEED)
    wrong = fixed_log(TASTE, BEHAVIOUR, TARGET, REFERENCE, TASTE.rates + 1.0, 2_000, generator)
    right = [fixed_log(TASTE, BEHAVIOUR, TARGET, REFERENCE, TASTE.rates, 400, generator) for _ in range(100)]

    def error(estimator: Estimator) -> float:
        return float(np.std([estimator(log).value - TASTE.value(TARGET) for log in right]))

    for estimator in (offpolicy.switch_dr, offpolicy.dr_os):
        assert estimator(wrong).value == pytest.approx(offpolicy.dr(wrong).value, abs=0.01)
        assert error(estimator) < 0.8 * error(offpolicy.dr)


def test_a_part_of_the_reference_is_taken_off() -> None:
    """Target minus 0.9 times the reference is the DR value of one minus 0.9 times that of the other."""
    log = fixed_log(TASTE, BEHAVIOUR, TARGET, REFERENCE, ROUGH_Q, 400, np.random.default_rng(SEED))
    expected = offpolicy.dr(log).value - 0.9 * offpolicy.dr(log.judging_reference()).value

    assert offpolicy.difference(log, of_reference=0.9).value == pytest.approx(expected)


def test_clipping_is_named_and_reported() -> None:
    """Clipping changes the value, raises the effective sample size, and the note tells how many rows it touched."""
    log = fixed_log(TASTE, BEHAVIOUR, TARGET, REFERENCE, ROUGH_Q, 2_000, np.random.default_rng(SEED))
    plain, clipped = offpolicy.ips(log), offpolicy.ips(log, clip=1.5)
    share = np.mean(log.shown(log.target) / log.propensity > 1.5)

    assert plain.note == ""
    assert clipped.note == f"weights clipped at 1.5: {share:.1%} of the decisions"
    assert clipped.value < plain.value
    assert clipped.ess > plain.ess


def test_too_few_units_are_refused() -> None:
    """Below the floor of units there is no number, only the reason."""
    log = fixed_log(TASTE, BEHAVIOUR, TARGET, REFERENCE, ROUGH_Q, 29, np.random.default_rng(SEED))

    named = ("ips", "snips", "dm", "dr", "sndr", "switch_dr", "dr_os", "stable_dr", "difference")
    for estimator in (getattr(offpolicy, name) for name in named):
        with pytest.raises(EstimateRefused, match="29 units are too few"):
            estimator(log)


def test_too_little_overlap_is_refused() -> None:
    """Few effective units, or choices the log could not show, are no basis for a number."""
    generator = np.random.default_rng(SEED)
    rare, sure = np.tile([0.99, 0.01], (2, 1)), np.tile([0.0, 1.0], (2, 1))
    taste, q = Taste(np.full((2, 2), 0.1)), np.zeros((2, 2))

    with pytest.raises(EstimateRefused, match="Too little overlap"):
        offpolicy.ips(fixed_log(taste, rare, sure, rare, q, 500, generator))

    half = np.tile([0.5, 0.5], (2, 1))
    for told, reason in ((True, "50.0% of its choices"), (False, "its weights average 0.5")):
        log = fixed_log(taste, 1.0 - sure, half, half, q, 500, generator, told=told)
        with pytest.raises(EstimateRefused, match=reason):
            offpolicy.dr(log)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"propensity": np.array([0.5, 0.0, 0.25])}, "Row 1 was shown with probability 0"),
        ({"propensity": np.array([0.5, np.nan, 0.25])}, "unknown"),
        ({"propensity": np.array([0.5, 1.5, 0.25])}, "Row 1"),
        ({"reward": np.array([0.0, np.nan, 1.0])}, "finite"),
        ({"chosen": np.array([0, 1, 2])}, "candidates"),
        ({"target": np.full((3, 2), 0.4)}, "target policy is no distribution"),
        ({"reference": np.array([[2.0, -1.0]] * 3)}, "reference policy is no distribution"),
        ({"behaviour": np.full((3, 2), 0.5)}, "disagree"),
        ({"clusters": ["u", "v"]}, "fit together"),
    ],
)
def test_impossible_logs_are_refused(changes: dict[str, Any], reason: str) -> None:
    """A played action of probability 0, unknown numbers and tables that do not fit are bad input, by name."""
    with pytest.raises(BadInput, match=reason):
        replace(small(), **changes)


def test_a_difference_needs_a_reference() -> None:
    """Without a reference there is nothing to compare with."""
    with pytest.raises(BadInput, match="reference"):
        offpolicy.difference(replace(small(), reference=None), floor=ANY)
