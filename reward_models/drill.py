"""The A/A drill: on this loop's own customers, how often is a lift claimed that is not there?

1. take the matured units with what they really did, in the order in which they matured
2. deal them anew by a fresh coin with each unit's own probability: no group can have an effect now
3. look after every unit, as the lift does, and note whether it would ever have claimed one
4. repeat; beside it the test that everybody knows (|difference| > 1.96 standard errors), looked at as often

The share of false claims is to be at most alpha, over all looks together. The drill keeps whatever is odd about the real
totals (few large purchases, seasons, drift), which no simulated customer has.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from infra.errors import EstimateRefused
from ingestion.loops import LiftSettings
from reward_models.sequences import Bools, Dealt, predictions, ready, running, sequence

_NORMAL_95 = 1.959964
_CELLS = 2_000_000
"""Repeats are dealt together up to so many units at once."""

OnRuns = Callable[[int, int], None]
"""Told after some runs: done, of how many."""


@dataclass(frozen=True)
class Drill:
    """Shares of the runs that ever claimed a lift; 95 % Clopper-Pearson bounds."""

    runs: int
    units: int
    claimed: float
    low: float
    high: float
    peeking: float
    """By the fixed-sample test, looked at as often."""
    alpha: float

    @property
    def passed(self) -> bool:
        """Whether the runs are compatible with at most alpha."""
        return self.low <= self.alpha

    @property
    def sentence(self) -> str:
        """The result, for people."""
        kept = "keeps" if self.passed else "DOES NOT KEEP"
        return (
            f"The lift {kept} its promise on these {self.units:,} customers: dealt anew {self.runs:,} times without any "
            f"effect, it claimed one in {self.claimed:.1%} ({self.low:.1%} to {self.high:.1%}; promised at most "
            f"{self.alpha:.0%}). A plain test looked at as often claimed one in {self.peeking:.0%}."
        )


def drill(
    dealt: Dealt, settings: LiftSettings, runs: int = 500, seed: int = 0, on_runs: OnRuns = lambda *_: None
) -> Drill:
    """The drill on these units, whose groups are ignored. Raises :class:`EstimateRefused` if no look would count."""
    generator = np.random.default_rng(seed)
    n = len(dealt.total)
    together = max(1, _CELLS // max(n, 1))
    answered = dealt.total != 0.0
    rest = dealt.total - predictions(dealt)
    claims, peeks, looked = 0, 0, 0
    for begin in range(0, runs, together):
        treatment = generator.random((min(together, runs - begin), n)) >= dealt.held_out
        shape = treatment.shape
        share = np.broadcast_to(dealt.held_out, shape)
        counts = ready(
            Dealt(treatment, share, np.broadcast_to(answered, shape).astype(np.float64)),
            settings.min_units,
            settings.min_responses,
        )
        found, plain = claimed(Dealt(treatment, share, np.broadcast_to(rest, shape)), settings, counts)
        claims, peeks = claims + int(found.any(axis=1).sum()), peeks + int(plain.any(axis=1).sum())
        looked += int(counts.any(axis=1).sum())
        on_runs(begin + shape[0], runs)
    if looked < runs / 2:
        raise EstimateRefused(
            f"In {runs - looked:,} of {runs:,} drills no look would have counted: {n:,} matured customers are too few"
        )
    low, high = _bounds(claims, runs)
    return Drill(runs, n, claims / runs, low, high, peeks / runs, settings.alpha)


def claimed(dealt: Dealt, settings: LiftSettings, looks: Bools) -> tuple[Bools, Bools]:
    """After which units a lift would be claimed: by the confidence sequence, and by a test for one look."""
    estimate = running(dealt)
    interval = sequence(estimate, settings.alpha, settings.tuned_units)
    by_sequence = (interval.low > 0.0) | (interval.high < 0.0)
    return looks & by_sequence, looks & (np.abs(estimate.mean) > _NORMAL_95 * estimate.error)


def _bounds(hits: int, runs: int) -> tuple[float, float]:
    low = float(stats.beta.ppf(0.025, hits, runs - hits + 1)) if hits else 0.0
    return low, float(stats.beta.ppf(0.975, hits + 1, runs - hits)) if hits < runs else 1.0
