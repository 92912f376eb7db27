"""Backfill: another definition re-scores history without touching the facts."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, select

from infra import tables
from infra.database import open_database, reading, writing
from infra.errors import NotFound
from infra.migrations import migrate
from infra.secrets import Secrets
from ingestion.events import Batch
from ingestion.join.backfill import backfill, redefine
from ingestion.loops import LoopDefinition, parse_definition, put_loop
from ingestion.store import apply
from tests.ingestion.join.test_join_histories import LOOP, decision, event, purchase, refund
from tests.ingestion.tables import attributed, rows

FACTS = ("decisions", "events", "event_keys", "event_labels", "quarantine")
JOINED = ("attributions", "outcomes", "content_stats")

NARROW = parse_definition(
    LOOP.model_dump(mode="json")
    | {
        "metrics": [
            {"name": "clicked", "event": "click", "window": "20s", "backward_window": "0s"},
            {"name": "revenue", "event": "purchase", "aggregate": "max", "window": "30s", "backward_window": "0s"},
        ],
        "refund_horizon": "5s",
    }
)

OTHER = parse_definition(LOOP.model_dump(mode="json") | {"loop": "banners"})

HISTORY = Batch(
    decisions=(
        decision("d", 0),
        decision("e", 30),
        decision("later", 90, deferred=True),
        decision("b", 0, loop_id="banners", campaign_id="summer"),
    ),
    events=(
        event("c", "click", 10),
        event("c after", "click", 55),
        purchase("p", 29, 30),
        purchase("q", 31, 50),
        refund("r", 40, 10, "p"),
        event("sent", "activation", 95, decision_id="later"),
    ),
)


def table_rows(engine: Engine, names: tuple[str, ...]) -> dict[str, list[Any]]:
    """By table; attributions by the names of their events."""
    return {
        name: attributed(engine)
        if name == "attributions"
        else list(map(str, rows(engine, tables.metadata.tables[name])))
        for name in names
    }


def with_definition(engine: Engine, definition: LoopDefinition) -> None:
    with writing(engine) as connection:
        put_loop(connection, OTHER, 0)
        put_loop(connection, definition, 0)


def test_redefining_equals_having_had_the_definition_from_the_start(
    any_engine: Engine, secrets: Secrets, tmp_path: Path
) -> None:
    """Attributions, outcomes and content statistics are those of a store that knew no other definition."""
    with_definition(any_engine, LOOP)
    apply(any_engine, HISTORY, secrets, 0)
    facts, joined = table_rows(any_engine, FACTS), table_rows(any_engine, JOINED)

    assert redefine(any_engine, NARROW, 5) == 2

    redefined = table_rows(any_engine, JOINED)
    assert redefined != joined
    assert table_rows(any_engine, FACTS) == facts
    assert redefined == from_the_start(NARROW, secrets, tmp_path)


def from_the_start(definition: LoopDefinition, secrets: Secrets, folder: Path) -> dict[str, list[Any]]:
    fresh = open_database(f"sqlite:///{folder / 'fresh.db'}")
    migrate(fresh)
    with_definition(fresh, definition)
    apply(fresh, HISTORY, secrets, 0)
    try:
        return table_rows(fresh, JOINED)
    finally:
        fresh.dispose()


def test_a_definition_that_measures_the_same_rescores_nothing(any_engine: Engine, secrets: Secrets) -> None:
    """A change of the policy alone writes a version and no batch."""
    with_definition(any_engine, LOOP)
    apply(any_engine, HISTORY, secrets, 0)

    assert redefine(any_engine, LOOP.model_copy(update={"holdout": 0.5}), 5) == 2
    assert redefine(any_engine, LOOP.model_copy(update={"holdout": 0.5}), 6) == 2
    assert len(rows(any_engine, tables.batches)) == 1


def test_backfill_of_an_unchanged_loop_changes_nothing(any_engine: Engine, secrets: Secrets) -> None:
    """The worker's increments and the backfill's recomputation agree to the row."""
    with_definition(any_engine, LOOP)
    apply(any_engine, HISTORY, secrets, 0)
    before = table_rows(any_engine, JOINED)

    assert backfill(any_engine, "emails", 5) == 2
    assert table_rows(any_engine, JOINED) == before


def test_a_loop_defined_after_its_facts_is_joined_then(any_engine: Engine, secrets: Secrets) -> None:
    """Events of a loop without a definition wait as pending; defining it joins them, counted in its batch."""
    apply(any_engine, msgspec.structs.replace(HISTORY, decisions=HISTORY.decisions[:3]), secrets, 0)
    assert rows(any_engine, tables.attributions) == []

    redefine(any_engine, LOOP, 5)

    with reading(any_engine) as connection:
        line = connection.execute(select(tables.batches).where(tables.batches.c.batch_no == 2)).one()
    assert (line.read, line.left_pending, line.became_pending) == (0, 6, 0)
    assert rows(any_engine, tables.outcomes) != []


def test_an_unknown_loop_is_not_found(any_engine: Engine) -> None:
    """Backfilling a loop that was never defined is refused."""
    with pytest.raises(NotFound, match="No loop 'nowhere'"):
        backfill(any_engine, "nowhere", 0)
