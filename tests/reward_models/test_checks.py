"""Every policy passes every check of the conformance suite, and the suite catches policies that are wrong."""

from collections.abc import Callable
from math import erf, exp, sqrt

import numpy as np
import pytest

from ingestion.loops import PolicySettings
from reward_models import checks, policies
from reward_models.checks import QUADRATURE, Case, Check, CheckFailed, Subject

Pmf = Callable[[np.ndarray, np.ndarray], np.ndarray]


def best_of_two(gap: float, sd: float) -> float:
    """P(the first of two independent normals is larger), with the sd of their difference."""
    return 0.5 * (1.0 + erf(gap / sd / sqrt(2.0)))


def mixed(share: float, *own: float) -> tuple[float, ...]:
    """``share`` drawn uniformly, the rest by the policy."""
    return tuple(share / len(own) + (1.0 - share) * p for p in own)


UNIFORM = PolicySettings(kind="uniform")
EPSILON = PolicySettings(kind="epsilon", epsilon=0.2, floor=0.0, uniform_slice=0.0)
SOFTMAX = PolicySettings(kind="softmax", temperature=0.5, floor=0.02, uniform_slice=0.0)
DAMPED = PolicySettings(kind="posterior", damping=0.25, floor=0.01, uniform_slice=0.06)
THOMPSON = PolicySettings(kind="posterior", damping=1.0, floor=0.0, uniform_slice=0.0)
TOP_TWO = PolicySettings(kind="top_two", floor=0.0, uniform_slice=0.0)
INVERSE_GAP = PolicySettings(kind="inverse_gap", gamma=2.0, floor=0.01, uniform_slice=0.0)

# Two scores one apart: mean 0.5, standard deviation 0.5, so softmax at temperature 0.5 weighs them 1 : e⁻⁴.
SOFT = 1.0 / (1.0 + exp(-4.0))
CLEAR = best_of_two(0.01, 0.25 * sqrt(0.02**2 + 0.01**2))

SUBJECTS = (
    checks.subject(UNIFORM, (Case((1.0, 2.0), (0.0, 1.0), (0.5, 0.5)),)),
    checks.subject(
        EPSILON,
        (
            Case((1.0, 3.0, 2.0, 0.0), (1.0, 1.0, 1.0, 1.0), (0.05, 0.85, 0.05, 0.05)),
            Case((3.0, 3.0, 2.0, 0.0), (1.0, 9.0, 1.0, 1.0), (0.45, 0.45, 0.05, 0.05)),
        ),
    ),
    checks.subject(SOFTMAX, (Case((1.0, 0.0), (1.0, 1.0), mixed(0.04, SOFT, 1.0 - SOFT)),)),
    checks.subject(
        DAMPED,
        (
            Case((0.03, 0.02), (0.02, 0.01), mixed(0.06, CLEAR, 1.0 - CLEAR), QUADRATURE),
            Case((0.03, 0.02), (0.0, 0.0), mixed(0.06, 1.0, 0.0)),
        ),
    ),
    checks.subject(
        THOMPSON,
        (
            Case((0.0, 0.0), (1.0, 2.0), (0.5, 0.5), QUADRATURE),
            Case((1.0, 0.0), (0.6, 0.8), (best_of_two(1.0, 1.0), best_of_two(-1.0, 1.0)), QUADRATURE),
            Case((1.0, 0.0), (0.0, 1.0), (best_of_two(1.0, 1.0), best_of_two(-1.0, 1.0)), QUADRATURE),
            Case((1.0, 1.0, 0.5), (0.0, 0.0, 0.0), (0.5, 0.5, 0.0)),
        ),
    ),
    checks.subject(
        TOP_TWO,
        (
            Case((1.0, 0.0), (0.6, 0.8), (0.5, 0.5), QUADRATURE),
            Case((2.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.5, 0.25, 0.25)),
            # (1, 1, -9) are the best with 1/2, 1/2, 0: each of the two is second where the other is first.
            Case((1.0, 1.0, -9.0), (0.1, 0.1, 0.1), (0.5, 0.5, 0.0), QUADRATURE),
        ),
    ),
    checks.subject(
        INVERSE_GAP,
        (
            # Gaps of 1 and 2 standard deviations of the difference (3, 4, 5), gamma 2: 1/(3 + 2), 1/(3 + 4), the rest.
            Case((10.0, 5.0, 0.0), (3.0, 4.0, 4.0), mixed(0.03, 1 - 1 / 5 - 1 / 7, 1 / 5, 1 / 7)),
            Case((1.0, 1.0, 0.0), (0.0, 0.0, 0.0), mixed(0.03, 0.5, 0.5, 0.0)),
        ),
    ),
)


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_every_policy_passes_every_check(subject: Subject, check: Check) -> None:
    """A policy of the product keeps the whole contract."""
    check(subject)


def greedy(mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    return np.asarray(np.eye(len(mean))[int(mean.argmax())])


def first_is_favoured(mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    weights = np.ones(len(mean))
    weights[0] = 2.0
    return np.asarray(weights / weights.sum())


def unnormalised(mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    return np.full(len(mean), 1.001 / len(mean))


def forgetful() -> Pmf:
    calls = iter(range(1_000_000))

    def pmf(mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
        weights = 1.0 + np.arange(len(mean)) * (next(calls) % 2)
        return np.asarray(weights / weights.sum())

    return pmf


@pytest.mark.parametrize(
    ("check", "pmf"),
    [
        (checks.sums_to_one, unnormalised),
        (checks.one_candidate, unnormalised),
        (checks.five_hundred_candidates, unnormalised),
        (checks.floor, greedy),
        (checks.extreme_values, greedy),
        (checks.permutation, first_is_favoured),
        (checks.equal_candidates, first_is_favoured),
        (checks.exact_probabilities, first_is_favoured),
        (checks.replay, forgetful()),
        (checks.limits, first_is_favoured),
    ],
)
def test_a_check_catches_a_wrong_policy(check: Check, pmf: Pmf) -> None:
    """For every rule there is a policy that breaks it and is caught."""
    case = Case((1.0, 2.0), (1.0, 1.0), (0.5, 0.5))

    with pytest.raises(CheckFailed):
        check(Subject("wrong", pmf, floor=0.01, cases=(case,), limited=lambda mean, sd, bounds: pmf(mean, sd)))


def test_frequencies_catch_a_draw_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A draw that favours the first candidate by five in a hundred is told from its probabilities."""
    honest = policies.choose
    monkeypatch.setattr(policies, "choose", lambda pmf, u: 0 if u < 0.05 else honest(pmf, (u * 7919.0) % 1.0))

    with pytest.raises(CheckFailed, match="standard errors"):
        checks.frequencies(SUBJECTS[0])
