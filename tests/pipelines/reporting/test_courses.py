"""The lift over time: its last point is the lift as it stands."""

import pytest
from sqlalchemy import Engine

from infra.clock import DAY
from infra.database import reading
from infra.secrets import Secrets
from pipelines.reporting.courses import courses
from reward_models.assignment import load_register
from reward_models.lift import lift_so_far
from tests.pipelines.holdout_world import NOW, fill, shop


def test_the_course_ends_where_the_lift_stands(engine: Engine, secrets: Secrets) -> None:
    """One point per day, in order; the last is `lift_so_far` per 1,000, and what was earned is it times the treated."""
    rules = shop()
    fill(engine, secrets, rules)
    with reading(engine) as connection:
        found, reason = courses(load_register(connection, rules), rules, NOW)
        units = load_register(connection, rules).matured(rules, rules.lift_window, NOW).by_chance()
    click = found[0]
    expected = lift_so_far(units.dealt(units.values["click"]), rules.lift)

    assert (reason, [one.metric for one in found]) == ("", ["click", "revenue", "unsubscribe"])
    assert click.now.value == pytest.approx(1_000 * expected.difference)
    assert (click.now.low, click.now.high) == pytest.approx((1_000 * expected.low, 1_000 * expected.high))
    assert click.earned.value == pytest.approx(expected.n_treatment * expected.difference)
    days = [point.at // DAY for point in click.points]
    assert days == sorted(set(days))
    assert len(days) > 10


def test_too_few_customers_have_no_course(engine: Engine, secrets: Secrets) -> None:
    """Before the first look that counts there is no course, and the reason is a sentence."""
    rules = shop()
    fill(engine, secrets, rules, customers=60)
    with reading(engine) as connection:
        found, reason = courses(load_register(connection, rules), rules, NOW)

    assert found == ()
    assert "needs 100" in reason
