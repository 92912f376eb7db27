"""The best content of a campaign that ends: errors held under any policy, drift that fools nobody."""

import numpy as np
import pytest
from sqlalchemy import Engine

from infra import tables
from infra.database import reading, writing
from infra.errors import BadInput
from ingestion.loops import PolicySettings
from reward_models.best_arm import identify, load_days
from reward_models.policies import pmf
from reward_models.posterior import ArmCounts, content_effects

SEED = 20_261_122
TOP_TWO = PolicySettings(kind="top_two")


def counts(exposures: list[float], clicks: list[float], expected: list[float] | None = None) -> ArmCounts:
    """One day of clicks."""
    seen, sums = np.array(exposures, dtype=float), np.array(clicks, dtype=float)
    return ArmCounts(seen, sums, sums, np.zeros(len(seen)) if expected is None else np.array(expected, dtype=float))


def campaign(rates: np.ndarray, days: int, generator: np.random.Generator) -> tuple[int | None, int | None]:
    """Day and winner of a campaign of 4,000 e-mails a day under ``top_two``, whose level drifts; looked at every day."""
    seen, total = [], np.zeros((2, len(rates)))
    for day in range(days):
        level = np.exp(0.5 * np.sin(day))
        effects = content_effects(counts(*total.tolist()), float(rates.mean()))
        shown = generator.multinomial(4_000, pmf(TOP_TWO, effects.effect, effects.sd))
        clicks = generator.binomial(shown, np.minimum(rates * level, 1.0))
        total += [shown, clicks]
        seen.append(counts(shown.tolist(), clicks.tolist()))
        if (winner := identify(seen, 0.1).winner) is not None:
            return day, winner
    return None, None


def test_a_wrong_winner_is_as_rare_as_stated() -> None:
    """With two equal best contents any winner is undue: in 150 campaigns looked at daily at most one in ten has one."""
    generator = np.random.default_rng(SEED)
    winners = [campaign(np.array([0.03, 0.03, 0.02]), 10, generator)[1] for _ in range(150)]

    assert sum(winner is not None for winner in winners) <= 15


def test_a_clear_best_is_found_while_the_level_drifts() -> None:
    """A content that is a third better than the next wins within days, in nearly all campaigns, and never another."""
    generator = np.random.default_rng(SEED)
    winners = [campaign(np.array([0.03, 0.04, 0.028, 0.02]), 25, generator)[1] for _ in range(20)]

    assert {1} == {winner for winner in winners if winner is not None}
    assert sum(winner == 1 for winner in winners) >= 18


def test_days_are_compared_within_themselves() -> None:
    """Equal contents of which one was mostly shown on the good day are not told apart by that."""
    days = [counts([9_000, 1_000], [900, 100]), counts([1_000, 9_000], [10, 90])]
    pooled = counts([10_000, 10_000], [910, 190])

    assert identify(days).winner is None
    assert identify(days).gap == pytest.approx([0.0, 0.0], abs=1e-12)
    assert identify([pooled]).winner == 0


def test_better_customers_do_not_win() -> None:
    """What the model expected of the customers is taken off: rates of 8 % and 4 % that were expected are equal."""
    found = identify([counts([5_000, 5_000], [400, 200], expected=[400, 200])])

    assert found.winner is None
    assert found.gap == pytest.approx([0.0, 0.0], abs=1e-12)


def test_near_enough_is_enough() -> None:
    """With a tolerance a content that may be the best by less than that is a winner; without one the search goes on."""
    alike = [counts([60_000, 60_000], [1_800, 1_790])]

    assert identify(alike).winner is None
    assert identify(alike, tolerance=0.006).winner == 0


def test_nobody_is_judged_on_a_handful() -> None:
    """A content shown less often than the least number is never beaten, so there is no winner."""
    found = identify([counts([20_000, 99], [10_000, 0])])

    assert found.winner is None
    assert not found.beaten.any()


def test_without_counts_or_differences_it_is_refused() -> None:
    """Nothing shown, and rewards that are all equal, cannot be compared."""
    for days in ([], [counts([100, 100], [0, 0])]):
        with pytest.raises(BadInput):
            identify(days)


def test_days_come_from_the_statistics(any_engine: Engine) -> None:
    """Counts are read by day and model version, aligned with the contents asked for."""
    row = {"campaign_id": "june", "metric": "click", "successes": 0, "sum_squares": 2 * 10**8, "expected": 5 * 10**5}
    rows = [
        row | {"content_id": "a", "model_version": "", "bucket": 1, "exposures": 10, "sum": 2_000_000},
        row | {"content_id": "b", "model_version": "", "bucket": 1, "exposures": 5, "sum": 1_000_000},
        row | {"content_id": "a", "model_version": "m", "bucket": 2, "exposures": 4, "sum": 0},
    ]
    with writing(any_engine) as connection:
        connection.execute(tables.content_stats.insert(), rows)
    with reading(any_engine) as connection:
        days = load_days(connection, "june", ["b", "a"], {"click": 2.0})

    assert [day.exposures.tolist() for day in days] == [[5.0, 10.0], [0.0, 4.0]]
    assert days[0].sums.tolist() == [2.0, 4.0]
    assert days[0].expected.tolist() == [0.5, 0.5]
