"""The conformance suite: what every policy must do, as a list of checks.

    for check in CHECKS:
        check(subject)

A subject is a policy with its floor and a few cases worked out by hand. A policy is added by adding a subject to a
list (``tests/reward_models/test_checks.py``), a rule by adding a check to ``CHECKS``. A check returns nothing or raises
:class:`CheckFailed`, also under ``python -O``. Randomness has declared seeds: a check that passes, passes always.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ingestion.loops import PolicySettings
from reward_models import policies
from reward_models.limits import Bounds

FloatArray = npt.NDArray[np.float64]

EXACT = 1e-12
QUADRATURE = 1e-4
"""Largest error allowed of a probability that is computed numerically."""

_SEED = 20_261_122
_ROUNDS = 4_000
_LARGEST_Z = 4.0
"""By chance exceeded once in 16,000 candidates."""


class CheckFailed(AssertionError):
    """A policy broke a rule of the contract; the message says which and how."""


@dataclass(frozen=True)
class Case:
    """Scores, and the probabilities that follow from them."""

    mean: tuple[float, ...]
    sd: tuple[float, ...]
    expected: tuple[float, ...]
    tolerance: float = EXACT


@dataclass(frozen=True)
class Subject:
    """A policy under test. ``pmf``: means and standard deviations, (n,), to probabilities, (n,).

    ``limited``: the same under limits on shares; null for a policy that cannot have any.
    """

    name: str
    pmf: Callable[[FloatArray, FloatArray], FloatArray]
    floor: float
    cases: tuple[Case, ...] = field(default=())
    limited: Callable[[FloatArray, FloatArray, Bounds], FloatArray] | None = None


Check = Callable[[Subject], None]


def subject(settings: PolicySettings, cases: tuple[Case, ...]) -> Subject:
    """One of Rewardloop's own policies under test."""
    return Subject(
        policies.policy_version(settings),
        lambda mean, sd: policies.pmf(settings, mean, sd),
        settings.floor,
        cases,
        lambda mean, sd, bounds: policies.pmf(settings, mean, sd, bounds),
    )


def sums_to_one(subject: Subject) -> None:
    """Probabilities are finite, at least 0, and sum to 1 within 1e-12."""
    for mean, sd in _scores(2, 3, 10, 50):
        _distribution(subject, mean, sd)


def floor(subject: Subject) -> None:
    """Every candidate has at least the floor, or 1/n where the floor is larger."""
    for mean, sd in _scores(2, 3, 10, 50, 200):
        least = min(subject.floor, 1.0 / len(mean))
        smallest = _distribution(subject, mean, sd).min()
        _require(smallest >= least - EXACT, subject, f"gave {smallest:.3g} to a candidate; the floor is {least:.3g}")


def exact_probabilities(subject: Subject) -> None:
    """Small cases have the probabilities that were worked out by hand."""
    _require(bool(subject.cases), subject, "has no worked case; add one")
    for case in subject.cases:
        found = _distribution(subject, np.array(case.mean), np.array(case.sd))
        error = np.abs(found - np.array(case.expected)).max()
        _require(error <= case.tolerance, subject, f"gave {found} for {case.mean}, {case.sd}; expected {case.expected}")


def frequencies(subject: Subject) -> None:
    """Each candidate is drawn as often as its probabilities say, though each draw depends on those before.

    Σ (1{played = k} − p_k) is a martingale; divided by √Σ p_k(1 − p_k) it is standard normal.
    """
    generator = np.random.default_rng(_SEED)
    surplus, variance = np.zeros(4), np.zeros(4)
    mean, sd = np.zeros(4), np.full(4, 0.3)
    for u in generator.random(_ROUNDS):
        probabilities = _distribution(subject, mean, sd)
        played = policies.choose(probabilities, float(u))
        surplus += np.eye(4)[played] - probabilities
        variance += probabilities * (1.0 - probabilities)
        mean[played] += 0.5 * (generator.normal() - mean[played])
    worst = np.abs(surplus / np.sqrt(variance)).max()
    _require(worst <= _LARGEST_Z, subject, f"was drawn {worst:.1f} standard errors off its probabilities")


def replay(subject: Subject) -> None:
    """Scores that went through JSON give the same bytes, and so the same choice."""
    for mean, sd in _scores(2, 10, 50):
        first = subject.pmf(mean, sd).tobytes()
        stored_mean, stored_sd = json.loads(json.dumps([mean.tolist(), sd.tolist()]))
        second = subject.pmf(np.array(stored_mean), np.array(stored_sd)).tobytes()
        _require(first == second, subject, "gave another pmf for the same scores")


def permutation(subject: Subject) -> None:
    """The order of the candidates changes nobody's probability."""
    generator = np.random.default_rng(_SEED)
    for mean, sd in _scores(3, 10, 50):
        order = generator.permutation(len(mean))
        there, here = subject.pmf(mean[order], sd[order]), subject.pmf(mean, sd)[order]
        error = np.abs(there - here).max()
        _require(error <= EXACT, subject, f"moved a probability by {error:.2g} when candidates changed places")


def one_candidate(subject: Subject) -> None:
    """A single candidate is chosen with certainty."""
    found = subject.pmf(np.array([0.02]), np.array([0.01]))
    _require(found.tolist() == [1.0], subject, f"gave {found} to a single candidate")


def five_hundred_candidates(subject: Subject) -> None:
    """Five hundred candidates are no different."""
    for mean, sd in _scores(500):
        _distribution(subject, mean, sd)


def equal_candidates(subject: Subject) -> None:
    """Equal candidates have equal probabilities, with and without uncertainty."""
    for n, sd in ((2, 0.0), (3, 0.1), (7, 0.0), (50, 1e-9), (500, 0.2)):
        found = _distribution(subject, np.full(n, 0.02), np.full(n, sd))
        error = np.abs(found - 1.0 / n).max()
        _require(error <= EXACT, subject, f"told {n} equal candidates apart by {error:.2g}")


def extreme_values(subject: Subject) -> None:
    """Huge, tiny and hugely different scores still give a distribution above the floor."""
    cases: tuple[tuple[list[float], list[float]], ...] = (
        ([1e12, 0.0, -1e12], [1.0, 1.0, 1.0]),
        ([0.0, 1e-12, 2e-12], [0.0, 1e-15, 1e-9]),
        ([1.0, 1.0, 1.0 - 1e-15], [0.0, 0.0, 0.0]),
        ([0.0, 0.1, 0.2], [1e6, 1e-6, 1e-12]),
        ([-3.0, -3.0, 5e-324], [0.0, 1e300, 0.0]),
    )
    for mean, sd in cases:
        found = _distribution(subject, np.array(mean), np.array(sd))
        least = min(subject.floor, 1.0 / len(mean))
        _require(found.min() >= least - EXACT, subject, f"gave {found} for the scores {mean}, {sd}")


def limits(subject: Subject) -> None:
    """Under limits every share lies within its own, and those that touch none keep their ratios to each other."""
    if subject.limited is None:
        return
    generator = np.random.default_rng(_SEED)
    for mean, sd in _scores(2, 3, 10, 50):
        n = len(mean)
        low = np.where(generator.random(n) < 0.3, generator.random(n) / n, 0.0)
        high = np.where(generator.random(n) < 0.3, np.maximum(low, 1.0 / n), 1.0)
        found, free = subject.limited(mean, sd, Bounds(low, high)), subject.pmf(mean, sd)
        outside = max((low - found).max(), (found - high).max(), abs(found.sum() - 1.0))
        _require(outside <= EXACT, subject, f"left limits on shares by {outside:.2g}")
        least = np.maximum(low, min(subject.floor, 1.0 / n))
        untouched = (found > least * (1.0 + 1e-9)) & (found < high * (1.0 - 1e-9)) & (free > 1e-9)
        ratio = found[untouched] / free[untouched]
        even = len(ratio) < 2 or np.ptp(ratio) <= 1e-9 * ratio.max()
        _require(even, subject, "moved candidates that no limit touches against each other")


CHECKS: tuple[Check, ...] = (
    sums_to_one,
    floor,
    exact_probabilities,
    frequencies,
    replay,
    permutation,
    one_candidate,
    five_hundred_candidates,
    equal_candidates,
    extreme_values,
    limits,
)


def _scores(*sizes: int) -> list[tuple[FloatArray, FloatArray]]:
    """A few sets of scores of each size, like those of click rates."""
    generator = np.random.default_rng(_SEED)
    found = []
    for size in sizes:
        for width in (0.0, 0.1, 1.0):
            sd = 0.005 * width * generator.exponential(size=size)
            found.append((0.02 + 0.005 * generator.normal(size=size), sd))
    return found


def _distribution(subject: Subject, mean: FloatArray, sd: FloatArray) -> FloatArray:
    found = subject.pmf(mean, sd)
    _require(found.shape == mean.shape, subject, f"gave {found.shape} probabilities to {mean.shape} candidates")
    _require(bool(np.isfinite(found).all() and (found >= 0.0).all()), subject, f"gave {found}")
    _require(abs(found.sum() - 1.0) <= EXACT, subject, f"gave probabilities that sum to {found.sum()!r}")
    return found


def _require(holds: bool | np.bool_, subject: Subject, complaint: str) -> None:
    if not holds:
        raise CheckFailed(f"{subject.name} {complaint}")
