"""The worker's statements find their rows by keys, however large the store has grown."""

import re
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.dialects import sqlite

from infra.database import reading
from ingestion import facts, retention
from ingestion.join import rejoin, seals

FACTS = (
    "events|bought|decisions|asked|theirs|attributions|outcomes|event_keys|event_labels|forgotten_units|exchange_rates"
)

STATEMENTS = (
    {
        name.strip("_"): getattr(module, name).__wrapped__
        for module, names in (
            (
                rejoin,
                (
                    *("_events_of", "_labelled", "_tied_by", "_forget", "_forget_open", "_attributed"),
                    *("_stored", "_together", "_drop_outcomes", "_counted"),
                ),
            ),
            (facts, ("_gone", "_stored_requests", "_stored_alike", "_sealed_ones", "_sealed_facts")),
            (retention, ("_unneeded", "_drop_attributions", "_drop_events", "_drop_labels")),
            (seals, ("_open",)),
        )
        for name in names
    }
    | {
        "joined" + "_guarded" * guarded + "_converting" * converting: rejoin._joined(guarded, converting).__wrapped__
        for guarded in (False, True)
        for converting in (False, True)
    }
    | {
        f"{name}{'_around_sealed' * some}": build(some).__wrapped__
        for name, build in (
            ("attribute_directly", rejoin._attribute_directly),
            ("attribute_reversals", rejoin._attribute_reversals),
        )
        for some in (False, True)
    }
)


def plan(engine: Engine, build: Any) -> list[str]:
    statement = build().compile(dialect=sqlite.dialect(paramstyle="named"))
    values = {name: "[]" if value is None else value for name, value in statement.params.items()}
    with reading(engine) as connection:
        cursor = connection.connection.cursor()
        return [row[3] for row in cursor.execute(f"EXPLAIN QUERY PLAN {statement}", values)]


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_table_of_facts_is_read_whole(name: str, engine: Engine) -> None:
    """SQLite's plan of every statement of a batch searches the tables of facts, and scans none."""
    steps = plan(engine, STATEMENTS[name])

    assert [step for step in steps if re.match(rf"SCAN ({FACTS})\b(?!_json)", step)] == []
    assert steps != []


@pytest.mark.parametrize("name", ["together", "joined_guarded", "joined_guarded_converting"])
def test_decisions_of_a_customer_are_found_by_the_customer(name: str, engine: Engine) -> None:
    """Those that are asked for are found by their ids, the customer's others by the customer, none by their loop."""
    steps = [step for step in plan(engine, STATEMENTS[name]) if re.match(r"SEARCH (asked|theirs) ", step)]

    assert steps == [
        "SEARCH asked USING INDEX sqlite_autoindex_decisions_1 (decision_id=?)",
        "SEARCH theirs USING INDEX ix_decisions_unit (unit=?)",
    ]


@pytest.mark.parametrize("name", ["joined", "joined_guarded"])
def test_loops_that_convert_nothing_do_not_look_at_rates(name: str) -> None:
    """Their statements do not mention the table of rates."""
    statement = str(STATEMENTS[name]().compile(dialect=sqlite.dialect()))
    assert "exchange_rates" not in statement
    assert "scaled" not in statement


def test_events_to_attribute_are_not_looked_up(engine: Engine) -> None:
    """They are at hand; only the activations of their decisions are searched, in the small index of these."""
    steps = [step for step in plan(engine, STATEMENTS["attribute_directly"]) if re.match(r"(SEARCH|SCAN) activ", step)]

    assert steps == ["SEARCH activation USING INDEX ix_events_activation (decision_id=?)"] * len(steps)
    assert steps != []
    assert not [step for step in plan(engine, STATEMENTS["attribute_directly"]) if re.match(r"SEARCH events ", step)]
