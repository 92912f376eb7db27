"""When a loop is retrained unasked: counted from the database."""

from typing import Any

import pytest
from sqlalchemy import Engine

from infra.clock import DAY
from infra.database import reading, writing
from infra.secrets import Secrets
from infra.settings import Settings
from ingestion.loops import LoopDefinition, put_loop
from pipelines.flows import due as due_flow
from pipelines.flows.steps.due import Due, look
from pipelines.learning import Bench
from reward_models import registry
from tests.pipelines.flows.world import LOOP
from tests.pipelines.worlds import NOW, definition, populate


def due(engine: Engine, settings: Settings, now: int = NOW, rules: LoopDefinition | None = None) -> Due:
    with reading(engine) as connection:
        return look(connection, rules or definition(), settings, now)


def register(engine: Engine, at: int, state: registry.State) -> None:
    """A version as a run leaves it that died after that state."""
    with writing(engine) as connection:
        registry.register(
            connection, LOOP, "subjects-1", digest="d", config_digest="c", loop_version=1, as_of=1, cutoff=0,
            kind="first", now=at,
        )  # fmt: skip
        if state != "registered":
            registry.settle(connection, LOOP, "subjects-1", state, {"champion": None, "sentence": ""})


def test_a_first_model_waits_for_outcomes_it_can_be_trained_on(
    engine: Engine, secrets: Secrets, settings: Settings
) -> None:
    """Without a version only decisions count that matured before the gate's window."""
    populate(engine, secrets, decisions=1_600, days=16)
    few, enough = (settings.model_copy(update={"retrain_outcomes": number}) for number in (1_000, 700))

    found = due(engine, few)
    assert 700 < found.new < 900, "half of the 16 days lie before the cutoff, eight days ago"
    assert (found.due, due(engine, enough).due) == (False, True)


@pytest.mark.parametrize("state", ["failed", "refused"])
def test_outcomes_count_from_the_newest_version_on(
    engine: Engine, secrets: Secrets, settings: Settings, state: registry.State
) -> None:
    """What a judged version has seen mature is not new, whatever its verdict was."""
    populate(engine, secrets, decisions=1_600, days=16)
    register(engine, NOW - 4 * DAY, state)
    sometimes = settings.model_copy(update={"retrain_outcomes": 300, "retrain_days": 30})

    found = due(engine, sometimes)
    assert 340 < found.new < 460, "four days of a hundred decisions matured since"
    assert found.due
    assert not due(engine, sometimes.model_copy(update={"retrain_outcomes": 500})).due


def test_an_old_version_is_renewed_by_a_single_outcome(engine: Engine, secrets: Secrets, settings: Settings) -> None:
    """After ``retrain_days`` any new outcome is enough, and before it is not."""
    populate(engine, secrets, decisions=200, days=16)
    register(engine, NOW - 7 * DAY, "failed")
    many = settings.model_copy(update={"retrain_outcomes": 10_000})

    assert due(engine, many).due
    assert not due(engine, many.model_copy(update={"retrain_days": 8})).due


def test_nothing_new_is_never_due(engine: Engine, secrets: Secrets, settings: Settings) -> None:
    """An old version without a new outcome is left alone."""
    populate(engine, secrets, decisions=200, days=16)
    register(engine, NOW + 2 * DAY, "failed")

    found = due(engine, settings, NOW + 40 * DAY)
    assert (found.new, found.due) == (0, False)


@pytest.mark.parametrize(
    ("state", "approval", "expected"),
    [("registered", False, True), ("registered", True, True), ("passed", False, True), ("passed", True, False)],
)
def test_a_run_that_did_not_end_is_taken_up(
    engine: Engine, secrets: Secrets, settings: Settings, state: registry.State, approval: bool, expected: bool
) -> None:
    """A version without a verdict, or passed and not promoted, is due at once; one that waits for a person is not."""
    rules = definition(gate={"window": "7d", "min_units": 100, "min_effective": 50, "approval": approval})
    populate(engine, secrets, decisions=50, days=1, rules=rules)
    register(engine, NOW, state)

    assert due(engine, settings, NOW, rules).due is expected


def test_the_newest_version_of_a_real_retrain_is_not_due_again(bench: Bench) -> None:
    """After a retrain the count begins at zero."""
    found = due(bench.engine, bench.settings)
    assert (found.new, found.due) == (0, False)


def test_requests_in_mlflow_are_answered_first(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at a loop answers what was asked for in MLflow, so that nobody waits for the weekly report."""
    done: list[str] = []
    monkeypatch.setattr(due_flow, "as_task", lambda step, *given: step(*given))
    monkeypatch.setattr(due_flow, "try_requests", lambda _bench, loop_id: done.append(f"answered {loop_id}"))
    counted = due_flow.count_outcomes

    def count(*given: Any) -> Any:
        done.append("counted")
        return counted(*given)

    monkeypatch.setattr(due_flow, "count_outcomes", count)

    assert due_flow._retrain_if_due(bench, LOOP).state == "not due"
    assert done == [f"answered {LOOP}", "counted"]


def test_a_loop_of_its_own_counts_alone(engine: Engine, secrets: Secrets, settings: Settings) -> None:
    """Another loop's outcomes are not counted."""
    populate(engine, secrets, decisions=300, days=16)
    other = definition(loop="other")
    with writing(engine) as connection:
        put_loop(connection, other, NOW)

    assert due(engine, settings, NOW, other).new == 0
