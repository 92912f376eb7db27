"""Running sums in millionths become counts in reward units."""

import numpy as np
import pytest
from sqlalchemy import Engine, insert, update

from infra import tables
from infra.clock import DAY, MICROS
from infra.database import reading, writing
from infra.secrets import Secrets
from ingestion.events import Batch
from ingestion.join.statistics import Movement, replace_stats
from ingestion.loops import put_loop
from ingestion.store import apply
from reward_models.statistics import LATELY, NOTHING, Counts, StatRow, arm_counts, load_days, newer_counts
from tests.ingestion.join.test_join_histories import LOOP, decision


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
    """Days of long ago are summed by weeks, models kept apart, and campaigns that do not run are left out."""
    key = {"content_id": "a", "metric": "click"}
    zeros = {"successes": 0, "sum": 0, "sum_squares": 0, "expected": 0}
    with any_engine.begin() as connection:
        for campaign_id, state in (("runs", "running"), ("done", "ended")):
            connection.execute(insert(tables.campaigns).values(campaign_row(campaign_id, state)))
        for campaign_id, model, bucket, exposures in (
            ("runs", "", 1, 7),
            ("runs", "", 2, 5),
            ("runs", "", 40, 2),
            ("runs", "m1", 35, 3),
            ("done", "", 1, 9),
        ):
            row = {"campaign_id": campaign_id, "model_version": model, "bucket": bucket, "exposures": exposures}
            connection.execute(insert(tables.content_stats).values(**key, **zeros, **row))
        found = newer_counts(connection, NOTHING).statistics

    assert found.keys() == {"runs"}
    shown = {version: [(row.day, row.days, row.exposures) for row in rows] for version, rows in found["runs"].items()}
    assert shown == {"": [(0, 7, 12), (40, 1, 2)], "m1": [(35, 1, 3)]}


def test_a_week_ends_where_the_days_begin(any_engine: Engine) -> None:
    """Days lately are kept apart, weeks before them are added up, and no day is in both."""
    zeros = {"successes": 0, "sum": 0, "sum_squares": 0, "expected": 0}
    with any_engine.begin() as connection:
        connection.execute(insert(tables.campaigns).values(campaign_row("runs", "running")))
        for bucket in range(100, 131):
            row = {"campaign_id": "runs", "content_id": "a", "metric": "click", "model_version": "", "bucket": bucket}
            connection.execute(insert(tables.content_stats).values(**row, **zeros, exposures=1))
        rows = sorted(newer_counts(connection, NOTHING).statistics["runs"][""], key=lambda row: row.day)

    assert [row.day for row in rows if row.days == 1][-LATELY:] == list(range(117, 131))
    assert [(row.day, row.days, row.exposures) for row in rows[:3]] == [(98, 7, 5), (105, 7, 7), (112, 5, 5)]
    assert sum(row.exposures for row in rows) == 31


def test_only_what_moved_is_read_again(any_engine: Engine, secrets: Secrets) -> None:
    """After every batch the counts are those of a reader who reads everything, and rows of campaigns that have not moved
    are the very same; who ends is dropped; on a new day weeks are added up anew."""
    for name in ("june", "july"):
        with writing(any_engine) as connection:
            put_loop(connection, LOOP, 0)
            connection.execute(insert(tables.campaigns).values(campaign_row(name, "running") | {"loop_id": LOOP.loop}))
    apply(any_engine, Batch(decisions=(decision("d1", 0, campaign_id="june"),)), secrets, 0)
    apply(any_engine, Batch(decisions=(decision("d2", 0, campaign_id="july"),)), secrets, 0)
    first = counts_of(any_engine, NOTHING)

    apply(any_engine, Batch(decisions=(decision("d3", 0, campaign_id="june"),)), secrets, 0)
    second = counts_of(any_engine, first)
    assert second == counts_of(any_engine, NOTHING)
    assert second.statistics["june"] != first.statistics["june"]
    assert second.statistics["july"] is first.statistics["july"]

    apply(any_engine, Batch(decisions=(decision("d4", 40 * DAY // MICROS, campaign_id="june"),)), secrets, 0)
    third = counts_of(any_engine, second)
    assert third == counts_of(any_engine, NOTHING)
    assert [row.days for row in third.statistics["july"]["model-1"]] == [7] * len(LOOP.metrics)

    with writing(any_engine) as connection:
        connection.execute(
            update(tables.campaigns).values(state="ended").where(tables.campaigns.c.campaign_id == "july")
        )
    assert counts_of(any_engine, third).statistics.keys() == {"june"}


def test_recounting_is_a_movement(any_engine: Engine, secrets: Secrets) -> None:
    """Campaigns whose sums a backfill has emptied are read again too."""
    with writing(any_engine) as connection:
        put_loop(connection, LOOP, 0)
        connection.execute(insert(tables.campaigns).values(campaign_row("june", "running") | {"loop_id": LOOP.loop}))
    apply(any_engine, Batch(decisions=(decision("d1", 0, campaign_id="june"),)), secrets, 0)
    before = counts_of(any_engine, NOTHING)
    with writing(any_engine) as connection:
        replace_stats(connection, LOOP.loop, Movement(()))

    assert before.statistics
    assert counts_of(any_engine, before).statistics == {}


def counts_of(engine: Engine, before: Counts) -> Counts:
    """The counts as a reader has them who knew those before."""
    with reading(engine) as connection:
        return newer_counts(connection, before)


def test_days_are_read_as_a_table(any_engine: Engine) -> None:
    """Every campaign gives counts per day and content over all models, without gaps, up to the cutoff and no further;
    expected is how the day's customers differ from those the model usually gave the content to."""
    zeros = {"successes": 0, "sum_squares": 0}
    with any_engine.begin() as connection:
        connection.execute(insert(tables.campaigns).values(campaign_row("done", "ended")))
        for content_id, version, bucket, exposures, total, expected in (
            ("b", "m1", 10, 5, 0, 1),
            ("a", "m1", 10, 6, 2, 3),
            ("a", "m1", 12, 4, 3, 1),
            ("a", "m2", 12, 5, 0, 4),
            ("a", "m2", 13, 1, 1, 1),
        ):
            row = {"campaign_id": "done", "content_id": content_id, "metric": "click", "model_version": version}
            values = {"bucket": bucket, "exposures": exposures, "sum": total * 10**6, "expected": expected * 10**6}
            connection.execute(insert(tables.content_stats).values(**row, **zeros, **values))
        (found,) = load_days(connection, "loop", {"click": 2.0}, 13 * DAY + 1)

    assert found.exposures.tolist() == [[6, 5], [0, 0], [9, 0]]
    assert found.sums.tolist() == [[4, 0], [0, 0], [6, 0]]
    expected_left = np.array([[3 - 6 * 0.4, 0.0], [0.0, 0.0], [1 - 4 * 0.4, 0.0]])
    np.testing.assert_allclose(found.expected, expected_left, atol=1e-9)


def campaign_row(campaign_id: str, state: str) -> dict[str, object]:
    told = {"brief": "", "channel": "email", "baseline": {}, "created_at": 0}
    return told | {"campaign_id": campaign_id, "loop_id": "loop", "state": state}
