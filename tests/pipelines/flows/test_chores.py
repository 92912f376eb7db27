"""Backfill and maintenance as plain steps: what they change, and that repeating them changes nothing."""

import dataclasses
from pathlib import Path

import pytest
from sqlalchemy import Engine, func, select

from infra import tables
from infra.clock import DAY, MICROS
from infra.database import reading, writing
from infra.errors import Conflict, NotFound
from infra.leases import lease
from infra.secrets import Secrets
from infra.settings import Settings
from ingestion.events import Batch, Rejected
from ingestion.store import apply
from pipelines.commands.workspace import Workspace
from pipelines.flows.steps.loops import chosen_loops, micros
from pipelines.flows.steps.mending import redefine, replay_held, rescore
from pipelines.flows.steps.tidying import TIDYING, check_ledger
from tests.pipelines.worlds import NOW, definition, populate


@pytest.fixture
def workspace(any_engine: Engine, secrets: Secrets, tmp_path: Path) -> Workspace:
    """An installation with a small world, on SQLite and on PostgreSQL."""
    populate(any_engine, secrets, decisions=60, days=4)
    return Workspace(Settings(home=tmp_path), any_engine, secrets, lambda: NOW)


def outcomes_of(engine: Engine) -> list[tuple[object, ...]]:
    with reading(engine) as connection:
        query = select(tables.outcomes).order_by(tables.outcomes.c.decision_id, tables.outcomes.c.metric)
        return [tuple(row) for row in connection.execute(query)]


def test_a_new_definition_measures_history_and_the_old_one_brings_it_back(workspace: Workspace) -> None:
    """A shorter window drops outcomes whose clicks came later; the old definition brings them back, byte for byte."""
    before = outcomes_of(workspace.engine)
    short = definition(metrics=[{"name": "click", "event": "click", "aggregate": "any", "window": "12h"}])

    told = redefine(workspace, short)
    fewer = outcomes_of(workspace.engine)
    redefine(workspace, definition())
    assert "Version 2" in told.sentence
    assert 0 < len(fewer) < len(before)
    assert outcomes_of(workspace.engine) == before


def test_rescoring_what_is_right_changes_nothing(workspace: Workspace) -> None:
    """Attribution anew gives the same outcomes, byte for byte, however often."""
    before = outcomes_of(workspace.engine)

    for _ in range(2):
        rescore(workspace, "subjects")
        assert outcomes_of(workspace.engine) == before


def test_a_loop_that_is_being_retrained_is_not_re_scored(workspace: Workspace) -> None:
    """One run per loop at a time: the backfill waits its turn, and says so."""
    with lease(workspace.engine, "retrain:subjects", length=6 * MICROS), pytest.raises(Conflict, match="is running"):
        rescore(workspace, "subjects")


def test_held_records_are_replayed_and_what_cannot_be_used_stays(workspace: Workspace) -> None:
    """Whole records are applied and leave quarantine; broken ones stay held, with the reason of today."""
    good = (
        b'{"event_id": "again", "type": "click", "decision_id": "d1-3", '
        b'"occurred_at": "2025-10-09T08:00:00Z", "source": "http"}'
    )
    held = tuple(
        Rejected(source="http", position=str(n), reason="as it was", raw=raw) for n, raw in enumerate((good, b"{"))
    )
    apply(workspace.engine, Batch(rejected=held), workspace.secrets, NOW)

    told = replay_held(workspace)
    assert told.sentence == "1 records replayed, 1 still cannot be used."
    with reading(workspace.engine) as connection:
        states = dict(
            connection.execute(select(tables.quarantine.c.position, tables.quarantine.c.state)).tuples().all()
        )
        assert connection.scalar(select(func.count()).where(tables.events.c.event_id == "again")) == 1
    assert states == {"0": "replayed", "1": "held"}
    assert replay_held(workspace).sentence == "0 records replayed, 1 still cannot be used."


def test_maintenance_may_be_repeated_and_deletes_bytes_that_are_past_their_time(workspace: Workspace) -> None:
    """Every step runs twice on either database; rejected bytes are gone after their days, and the record stays."""
    held = Rejected(source="http", position="1", reason="as it was", raw=b"{")
    apply(workspace.engine, Batch(rejected=(held,)), workspace.secrets, NOW - 31 * DAY)

    first = [step(workspace) for step in TIDYING]
    again = [step(workspace) for step in TIDYING]
    assert first[0].sentence.startswith("The bytes of 1 ")
    assert again[0].sentence.startswith("The bytes of 0 ")
    assert not any(paper.alarm for paper in (*first, *again))


def test_events_past_their_days_go_and_outcomes_stay(workspace: Workspace) -> None:
    """Maintenance makes old outcomes final and deletes the events behind them; without the setting it deletes none."""
    before = outcomes_of(workspace.engine)
    for step in TIDYING:
        step(workspace)
    lasting = dataclasses.replace(workspace, settings=Settings(home=workspace.settings.home, event_days=2))
    told = {step.__name__: step(lasting).sentence for step in TIDYING}

    assert told["seal_decisions"].startswith("Outcomes of decisions made before 2025-10-07")
    assert int(told["sweep_events"].split()[0]) > 0
    assert outcomes_of(workspace.engine) == before
    rescore(lasting, "subjects")
    assert outcomes_of(workspace.engine) == before


def test_a_ledger_that_does_not_add_up_is_an_alarm(workspace: Workspace) -> None:
    """One record in no state ends the maintenance as failed."""
    with writing(workspace.engine) as connection:
        line = tables.batches
        connection.execute(line.update().values(read=line.c.read + 1))

    assert check_ledger(workspace).alarm


def test_no_name_is_every_loop_and_a_wrong_one_is_an_error(workspace: Workspace) -> None:
    """Runs without a loop are about all of them."""
    assert chosen_loops(workspace.engine, None) == ["subjects"]
    with pytest.raises(NotFound, match="nobody"):
        chosen_loops(workspace.engine, "nobody")


def test_times_without_a_zone_are_utc() -> None:
    """Prefect's page sends times with a zone, people write them without."""
    from datetime import datetime

    assert micros(datetime(1970, 1, 2)) == DAY  # noqa: DTZ001 (that is what is tested)
    assert micros(datetime.fromisoformat("1970-01-02T02:00:00+02:00")) == DAY
    assert micros(None) is None
