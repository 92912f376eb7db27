"""A loop's decisions, outcomes and contents as Parquet, for a warehouse.

    decisions.parquet   a row per shown content: who was asked (only with ``units``), what was shown, with which probability
    outcomes.parquet    a row per decision, content and metric that is not 0
    contents.parquet    the copy with its provenance

One reading of one moment: what a batch after ``as_of`` brought is in none of them. Customers who asked to be forgotten are
in none of them, whether a deletion has reached their rows yet or not. Rows stream from the database to the file.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow
from sqlalchemy import ColumnElement, Connection, Select, or_, select

from infra import tables
from infra.tables import decisions, forgotten_units

_CHUNK = 5_000
_TIME = pyarrow.timestamp("us", tz="UTC")

UNIT = pyarrow.field("unit", pyarrow.string())
DECISIONS = pyarrow.schema(
    [
        ("decision_id", pyarrow.string()),
        ("campaign_id", pyarrow.string()),
        ("position", pyarrow.int32()),
        ("content_id", pyarrow.string()),
        ("propensity", pyarrow.float64()),
        ("group", pyarrow.string()),
        ("learning_mode", pyarrow.string()),
        ("loop_version", pyarrow.int32()),
        ("policy_version", pyarrow.string()),
        ("model_version", pyarrow.string()),
        ("context", pyarrow.string()),
        ("decided_at", _TIME),
    ]
)
OUTCOMES = pyarrow.schema(
    [
        ("decision_id", pyarrow.string()),
        ("content_id", pyarrow.string()),
        ("metric", pyarrow.string()),
        ("metric_version", pyarrow.string()),
        ("value_micros", pyarrow.int64()),
        ("count", pyarrow.int64()),
        ("first_at", _TIME),
        ("last_at", _TIME),
    ]
)
CONTENTS = pyarrow.schema(
    [
        ("content_id", pyarrow.string()),
        ("campaign_id", pyarrow.string()),
        ("slots", pyarrow.string()),
        ("features", pyarrow.string()),
        ("locale", pyarrow.string()),
        ("prompt_id", pyarrow.string()),
        ("generator", pyarrow.string()),
        ("parameters", pyarrow.string()),
        ("parent_id", pyarrow.string()),
        ("approval", pyarrow.string()),
        ("fingerprint", pyarrow.string()),
        ("created_at", _TIME),
    ]
)
"""``slots``, ``features``, ``parameters`` and ``context`` are JSON: their names differ from row to row."""


def decision_schema(units: bool) -> pyarrow.Schema:
    """Columns of the decisions, with the customers' hashes if they were asked for."""
    return DECISIONS.append(UNIT) if units else DECISIONS


def decision_rows(connection: Connection, loop_id: str, as_of: int, units: bool) -> Iterator[Sequence[Any]]:
    """A row per shown content, in the order of time."""
    c = decisions.c
    query = select(decisions).where(*_of(loop_id, as_of)).order_by(c.decided_at, c.decision_id)
    for row in _stream(connection, query):
        for shown in row.chosen:
            found = [row.decision_id, row.campaign_id, shown["position"], shown["content_id"], shown["propensity"]]
            found += [row.group, row.learning_mode, row.loop_version, row.policy_version, row.model_version]
            yield [*found, _text(row.context), row.decided_at, *([row.unit] if units else [])]


def outcome_rows(connection: Connection, loop_id: str, as_of: int) -> Iterator[Sequence[Any]]:
    """Outcomes of the same decisions, as they stand."""
    c = tables.outcomes.c
    columns = [c[field.name if field.name != "value_micros" else "value"] for field in OUTCOMES]
    query = (
        select(*columns)
        .join(decisions, decisions.c.decision_id == c.decision_id)
        .where(*_of(loop_id, as_of))
        .order_by(c.decision_id, c.content_id, c.metric, c.metric_version)
    )
    yield from map(tuple, _stream(connection, query))


def content_rows(connection: Connection, loop_id: str) -> Iterator[Sequence[Any]]:
    """The copy of all campaigns of the loop."""
    c, campaigns = tables.contents.c, tables.campaigns.c
    query = (
        select(*(c[field.name] for field in CONTENTS))
        .join(tables.campaigns, campaigns.campaign_id == c.campaign_id)
        .where(campaigns.loop_id == loop_id)
        .order_by(c.campaign_id, c.content_id)
    )
    for row in _stream(connection, query):
        yield [_text(value) if isinstance(value, dict) else value for value in row]


def _of(loop_id: str, as_of: int) -> list[ColumnElement[bool]]:
    c = decisions.c
    remembered = or_(c.unit.is_(None), c.unit.not_in(select(forgotten_units.c.unit)))
    return [c.loop_id == loop_id, c.batch_no <= as_of, remembered]


def _stream(connection: Connection, query: Select[Any]) -> Iterator[Any]:
    yield from connection.execution_options(yield_per=_CHUNK).execute(query)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
