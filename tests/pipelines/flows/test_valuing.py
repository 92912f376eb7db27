"""The value of any policy in any period, against worlds whose truth is known."""

import numpy as np
import pytest
from sqlalchemy import Engine

from infra.clock import DAY
from infra.errors import BadInput
from infra.secrets import Secrets
from infra.settings import Settings
from ingestion.loops import PolicySettings
from pipelines.flows.steps.valuing import Question, Valuation, gather, paper_of, value
from pipelines.learning import Bench
from tests.pipelines.flows.world import LOOP, bench_of
from tests.pipelines.worlds import NOW, populate

UNIFORM, LEARNED = 0.15, 0.3
"""What drawing evenly earns per decision in the world of ``matched``, and what knowing everything would."""


def ask(bench: Bench, **question: object) -> Valuation:
    return value(gather(bench, Question(LOOP, **question)))  # type: ignore[arg-type]


def test_the_truth_lies_in_the_interval_for_policies_that_were_never_run(bench: Bench) -> None:
    """A greedy policy earns twice what ran, the uniform one the same: both known, both covered."""
    greedy = ask(bench, policy=PolicySettings(kind="epsilon", epsilon=0.0, floor=0.0, uniform_slice=0.0))
    even = ask(bench, policy=PolicySettings(kind="uniform"))

    assert greedy.over_running is not None
    assert greedy.over_running.low < LEARNED - UNIFORM < greedy.over_running.high
    assert greedy.over_running.low > 0.0
    assert even.over_running is not None
    assert even.over_running.value == pytest.approx(0.0, abs=1e-9)
    [running] = [each for each in even.values["running"] if each.name == "DR"]
    assert running.low < UNIFORM < running.high


def test_decisions_the_model_learned_from_are_left_out(bench: Bench) -> None:
    """A period that reaches before the cutoff is valued on what the version has not seen, and says so."""
    open_, whole = ask(bench), ask(bench, since=NOW - 20 * DAY)

    assert open_.left_out == 0
    assert whole.left_out > 1_000
    assert whole.decisions == open_.decisions
    assert "learned from them" in paper_of(whole).text


def test_a_period_is_what_it_says(bench: Bench) -> None:
    """Half the days have about half the decisions, and an empty period is an error that names it."""
    day = ask(bench, since=NOW - 3 * DAY, until=NOW - 2 * DAY)

    assert 100 < day.decisions < 280
    with pytest.raises(BadInput, match="it ends at"):
        ask(bench, since=NOW, until=NOW - DAY)
    with pytest.raises(BadInput, match="learned from everything before"):
        ask(bench, until=NOW - 10 * DAY)


def test_too_little_to_say_is_refused_with_the_reason(bench: Bench) -> None:
    """An hour of decisions gives no number, and the paper says why."""
    found = ask(bench, since=NOW - 3 * DAY, until=NOW - 3 * DAY + DAY // 24)

    assert found.over_running is None
    told = paper_of(found)
    assert told.state == "refused"
    assert "no value" in told.sentence


def test_the_paper_shows_gains_first_in_the_words_of_the_loop(bench: Bench) -> None:
    """Rows are per 1,000 decisions of the reward's own name, every number finite."""
    found = ask(bench)
    told = paper_of(found)

    assert [row["policy"] for row in told.rows[:2]] == ["gain over what ran", "gain over the baseline"]
    assert found.over_running is not None
    assert told.rows[0]["click per 1,000"] == pytest.approx(1_000 * found.over_running.value, abs=1e-3)
    assert all(np.isfinite(row["low"]) for row in told.rows)
    assert "clicks" in told.sentence or "click per 1,000" in told.sentence


def test_a_loop_without_a_model_is_told_how_to_get_one(engine: Engine, secrets: Secrets, settings: Settings) -> None:
    """Without any version there is nothing to value, and the error names the command."""
    populate(engine, secrets, decisions=10, days=1)

    with pytest.raises(BadInput, match="rewardloop retrain subjects"):
        gather(bench_of(settings, engine), Question(LOOP))
