"""Running sums in millionths become counts in reward units."""

import numpy as np
import pytest
from sqlalchemy import Engine, insert

from infra import tables
from reward_models.statistics import StatRow, arm_counts, load_statistics


def test_one_metric_is_exact() -> None:
    """With one metric sums, squares and predictions are those of the reward, in the order asked for."""
    rows = [
        StatRow("b", "click", 100, 3_000_000, 3 * 10**8, 2_500_000),
        StatRow("a", "click", 50, 1_000_000, 10**8, 1_200_000),
    ]
    found = arm_counts(rows, ["a", "b", "new"], {"click": 2.0})

    np.testing.assert_allclose(found.exposures, [50, 100, 0])
    np.testing.assert_allclose(found.sums, [2, 6, 0])
    np.testing.assert_allclose(found.sum_squares, [4, 12, 0])
    np.testing.assert_allclose(found.expected, [1.2, 2.5, 0])


def test_several_metrics_are_weighted_and_squares_bounded() -> None:
    """Exposures and predictions are not counted once per metric; squares are never below the true ones."""
    generator = np.random.default_rng(1)
    click = (generator.random(1_000) < 0.1).astype(float)
    money = click * generator.integers(0, 900, size=1_000) / 10
    rows = [
        StatRow("a", "click", 1_000, round(click.sum() * 1e6), round((click**2).sum() * 1e8), 120_000_000),
        StatRow("a", "money", 1_000, round(money.sum() * 1e6), round((money**2).sum() * 1e8), 120_000_000),
        StatRow("a", "opens", 1_000, 5_000_000, 5 * 10**8, 120_000_000),
    ]
    found = arm_counts(rows, ["a"], {"click": 0.5, "money": -1.0})
    reward = 0.5 * click - money

    assert (found.exposures[0], found.expected[0]) == (1_000, pytest.approx(120.0))
    assert found.sums[0] == pytest.approx(reward.sum())
    assert found.sum_squares[0] >= (reward**2).sum()


def test_rows_of_one_content_are_added_up() -> None:
    """Several rows of a content and metric, as of several days, are summed; rows of other contents are skipped."""
    rows = [
        StatRow("a", "click", 10, 10**6, 10**8, 0),
        StatRow("a", "click", 5, 0, 0, 0),
        StatRow("x", "click", 9, 0, 0, 0),
    ]

    assert arm_counts(rows, ["a"], {"click": 1.0}).exposures.tolist() == [15.0]


def test_loaded_statistics_are_summed_over_days(any_engine: Engine) -> None:
    """Days are summed, models kept apart, and campaigns that do not run are left out."""
    key = {"content_id": "a", "metric": "click"}
    zeros = {"successes": 0, "sum": 0, "sum_squares": 0, "expected": 0}
    with any_engine.begin() as connection:
        for campaign_id, state in (("runs", "running"), ("done", "ended")):
            connection.execute(insert(tables.campaigns).values(campaign_row(campaign_id, state)))
        for campaign_id, model, bucket, exposures in (
            ("runs", "", 1, 7),
            ("runs", "", 2, 5),
            ("runs", "m1", 2, 3),
            ("done", "", 1, 9),
        ):
            row = {"campaign_id": campaign_id, "model_version": model, "bucket": bucket, "exposures": exposures}
            connection.execute(insert(tables.content_stats).values(**key, **zeros, **row))
        found = load_statistics(connection)

    expected = {"runs": {"": [StatRow("a", "click", 12, 0, 0, 0)], "m1": [StatRow("a", "click", 3, 0, 0, 0)]}}
    assert found == expected


def campaign_row(campaign_id: str, state: str) -> dict[str, object]:
    told = {"brief": "", "channel": "email", "baseline": {}, "created_at": 0}
    return told | {"campaign_id": campaign_id, "loop_id": "loop", "state": state}
