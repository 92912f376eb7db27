"""The league table: contents compared within days, sure as far as they were shown."""

import numpy as np

from pipelines.reporting.league import standing
from reward_models.posterior import ArmCounts

Numbers = list[float]


def counts(shown: Numbers, clicks: Numbers, expected: Numbers | None = None) -> ArmCounts:
    """One day of clicks: a click squared is a click."""
    made = np.array(clicks, dtype=np.float64)
    return ArmCounts(np.array(shown, dtype=np.float64), made, made, np.array(expected or [0.0] * len(shown)))


def test_contents_are_compared_within_days() -> None:
    """A content that is shown most on good days gains nothing by it: what counts is the difference on the same day."""
    days = [counts([9_000, 1_000], [900, 120]), counts([1_000, 9_000], [20, 270])]  # second better on both: 12, 3 %
    found = standing(days)

    assert found is not None
    raw = (days[0].sums + days[1].sums) / found.shown
    assert raw[0] > raw[1]
    assert found.mean[1] > found.mean[0]
    assert found.best[1] > 0.9


def test_better_customers_are_the_models_merit() -> None:
    """Observed counts against predicted: the same clicks from customers who promise twice as many are half as good."""
    found = standing([counts([5_000, 5_000], [500, 500], [500, 250])])

    assert found is not None
    assert found.mean[1] > found.mean[0]


def test_probabilities_and_intervals_follow_the_counts() -> None:
    """Probabilities to be the best add up to one; what was shown more is surer; of what was never shown nothing is said."""
    found = standing([counts([10_000, 1_000, 0], [1_000, 100, 0])])

    assert found is not None
    assert abs(found.best.sum() - 1.0) < 1e-3
    assert 0.0 < found.sd[0] < found.sd[1]
    assert (found.mean[2], found.best[2]) == (0.0, 0.0)


def test_intervals_cover_the_truth() -> None:
    """Over 300 simulated campaigns the 95 % credible intervals hold the true rates, drawn from the prior, about that often."""
    rng = np.random.default_rng(8)
    held = []
    for _ in range(300):
        true = 0.1 * np.exp(rng.normal(0.0, 0.2, 6))
        lift = rng.uniform(0.7, 1.3, 5)
        shown = rng.integers(50, 800, (5, 6)).astype(np.float64)
        clicks = rng.binomial(shown.astype(int), np.clip(true * lift[:, None], 0, 1)).astype(np.float64)
        found = standing([ArmCounts(n, c, c, np.zeros(6)) for n, c in zip(shown, clicks, strict=True)])
        assert found is not None
        centre, held_out = found.mean - found.mean.mean(), true * lift.mean() - (true * lift.mean()).mean()
        held.append(np.abs(centre - held_out) <= 1.96 * found.sd)

    assert 0.92 < np.mean(held) < 0.99


def test_nothing_shown_is_no_league() -> None:
    """Without a decision, or without anything that happened, there is nothing to say."""
    assert standing([]) is None
    assert standing([counts([0, 0], [0, 0])]) is None
    assert standing([counts([10, 10], [0, 0])]) is None
