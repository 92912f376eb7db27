"""The half-life: found where contents change, none where they do not, and worth having."""

import numpy as np
import pytest

from reward_models.forgetting import HALF_LIVES, discounted, half_life
from reward_models.posterior import ArmCounts, content_effects

SEED = 20_261_122
RATE, SPREAD, SHOWN = 0.05, 0.4, 4_000


def campaign(
    generator: np.random.Generator, days: int, drift: float | None, week: float = 0.0
) -> tuple[ArmCounts, np.ndarray]:
    """Counts per day of five contents, and their true rates, (days, 5) each.

    drift: days after which half of an effect is gone and replaced by chance; None: nothing changes. ``week``: size of a
    weekly season that all contents share.
    """
    effects = np.empty((days, 5))
    effects[0] = generator.normal(size=5)
    keep = 1.0 if drift is None else 0.5 ** (1.0 / drift)
    for day in range(1, days):
        effects[day] = keep * effects[day - 1] + np.sqrt(1.0 - keep**2) * generator.normal(size=5)
    season = 1.0 + week * np.sin(2.0 * np.pi * np.arange(days) / 7.0)
    rates = (RATE * season[:, None] * np.exp(SPREAD * effects)).clip(0.0, 0.9)
    shown = generator.multinomial(SHOWN, generator.dirichlet(np.full(5, 3.0), size=days)).astype(float)
    clicks = generator.binomial(shown.astype(int), rates).astype(float)
    return ArmCounts(shown, clicks, clicks, np.zeros_like(shown)), rates


def error(counts: ArmCounts, rates: np.ndarray, days: float | None) -> float:
    """Mean squared error of the differences between contents, predicted from the days before."""
    parts = (counts.exposures, counts.sums, counts.sum_squares, counts.expected)
    effect = content_effects(ArmCounts(*(discounted(part, days) for part in parts)), 0.0).effect
    off = (rates - rates.mean(axis=1, keepdims=True)) - (effect - effect.mean(axis=1, keepdims=True))
    return float((off[1:] ** 2).mean())


@pytest.mark.parametrize("drift", [3.0, 12.0])
def test_drift_is_found_and_forgetting_pays(drift: float) -> None:
    """Where effects change, a finite half-life is found, faster for faster drift, and on other campaigns of the same
    kind it errs less than never forgetting, and nearly as little as the best of those that are tried."""
    generator = np.random.default_rng(SEED)
    found = half_life([campaign(generator, 60, drift)[0] for _ in range(6)])

    assert found is not None
    assert found <= (4.0 if drift == 3.0 else 16.0)
    fresh = [campaign(generator, 60, drift) for _ in range(20)]
    errors = {days: np.mean([error(*one, days) for one in fresh]) for days in (None, *HALF_LIVES)}
    assert errors[found] < 0.8 * errors[None]
    assert errors[found] < 1.15 * min(errors.values())


@pytest.mark.parametrize("week", [0.0, 0.4])
def test_where_nothing_drifts_nothing_is_forgotten(week: float) -> None:
    """Loops whose contents do not change keep all counts, also when all contents share a season: at most 2 of 20 forget."""
    generator = np.random.default_rng(SEED)
    found = [half_life([campaign(generator, 30, None, week)[0] for _ in range(3)]) for _ in range(20)]

    assert sum(days is not None for days in found) <= 2


def test_few_days_say_nothing() -> None:
    """A loop without ten days on which there was a choice keeps all counts, and so does one without any."""
    generator = np.random.default_rng(SEED)

    assert half_life([]) is None
    assert half_life([campaign(generator, 6, 2.0)[0]]) is None
    lonely = campaign(generator, 60, 2.0)[0]
    alone = ArmCounts(*(part[:, :1] for part in (lonely.exposures, lonely.sums, lonely.sum_squares, lonely.expected)))
    assert half_life([alone]) is None


def test_discounting_counts_only_the_past() -> None:
    """A day's own counts are not among those that predict it; each day back counts half with a half-life of one."""
    found = discounted(np.array([[4.0], [2.0], [8.0]]), 1.0)

    np.testing.assert_allclose(found[:, 0], [0.0, 2.0, 2.0])
    np.testing.assert_allclose(discounted(np.ones((4, 1)), None)[:, 0], [0.0, 1.0, 2.0, 3.0])
