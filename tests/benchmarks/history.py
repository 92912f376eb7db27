"""A long history out of a short one: copies of all facts and outcomes, each a day older, under ids of their own.

Every tenth copy is about the same customers: a decision per customer and ten days. The rows are inserted by the database
itself into the real tables; indexes and keys are made anew afterwards, which is much quicker than keeping them up to
date.
"""

from typing import Any

import psycopg

from infra.clock import DAY, MICROS

_DAY_MS = DAY * 1_000 // MICROS
_UUID_TIME = "('x' || substr(replace({id}, '-', ''), 1, 12))::bit(48)::bigint"
_DECISION_ID = (
    f"CASE WHEN {{id}} IS NULL THEN NULL ELSE regexp_replace(lpad(to_hex({_UUID_TIME} - k * {_DAY_MS}), 12, '0'), "
    "'^(.{{8}})(.{{4}})$', '\\1-\\2') || substr({id}, 14) END"
)
_UNIT = "CASE WHEN k % 10 = 0 OR unit IS NULL THEN unit ELSE 'u1:' || md5(unit || k % 10) END"
_HASH = "encode(sha256(({text} || k)::bytea), 'hex')"
_NUMBER = "event_no + k * (SELECT max(event_no) FROM event_keys)"


def _older(table: str) -> dict[str, str]:
    """How the columns of a copy are made from the original; the others are the same."""
    decision_id = _DECISION_ID.format(id="decision_id")
    return {
        "decisions": {"decision_id": decision_id, "unit": _UNIT, "decided_at": f"decided_at - k * {DAY}"},
        "event_keys": {
            "id_hash": "md5(id_hash::text || k)::uuid",
            "event_no": _NUMBER,
            "fact_key": _HASH.format(text="fact_key"),
        },
        "events": {
            "event_no": _NUMBER,
            "event_id": "md5(event_id || k)",
            "decision_id": decision_id,
            "unit": _UNIT,
            "fact_key": _HASH.format(text="fact_key"),
            "reverses": _HASH.format(text="reverses"),
            "occurred_at": f"occurred_at - k * {DAY}",
            "received_at": f"received_at - k * {DAY}",
        },
        "attributions": {"event_no": _NUMBER, "decision_id": decision_id},
        "outcomes": {
            "decision_id": decision_id,
            "first_at": f"first_at - k * {DAY}",
            "last_at": f"last_at - k * {DAY}",
        },
        "content_stats": {"bucket": "bucket - k::integer"},
    }[table]


def multiply(database: str, copies: int) -> None:
    """Add ``copies`` older copies of what is stored to a database."""
    with psycopg.connect(database, autocommit=True) as connection:
        for table in ("decisions", "events", "attributions", "event_keys", "outcomes", "content_stats"):
            if copies:
                _multiply(connection, table, copies)
            connection.execute(f"VACUUM ANALYZE {table}")
        connection.execute(_GO_ON_COUNTING)
        connection.execute("CHECKPOINT")


def _multiply(connection: psycopg.Connection[Any], table: str, copies: int) -> None:
    columns = [row[0] for row in connection.execute(_COLUMNS, [table])]
    older = _older(table)
    made = ", ".join(older.get(column, f'"{column}"') for column in columns)
    names = ", ".join(f'"{column}"' for column in columns)
    constraints = connection.execute(_CONSTRAINTS, [table]).fetchall()
    indexes = connection.execute(_INDEXES, [table]).fetchall()
    _run(connection, *(f"ALTER TABLE {table} DROP CONSTRAINT {name}" for name, _ in constraints))
    _run(connection, *(f"DROP INDEX {name}" for name, _ in indexes))
    _run(
        connection,
        f"INSERT INTO {table} ({names}) SELECT {made} FROM {table}, generate_series(1::bigint, {copies}) AS k",
    )
    _run(connection, *(f"ALTER TABLE {table} ADD CONSTRAINT {name} {made}" for name, made in constraints))
    _run(connection, *(made for _, made in indexes))


_GO_ON_COUNTING = (
    "SELECT setval(pg_get_serial_sequence('events', 'event_no'), max(event_no)) FROM event_keys HAVING count(*) > 0"
)
_COLUMNS = (
    "SELECT column_name::text FROM information_schema.columns WHERE table_schema = current_schema() "
    "AND table_name = %s ORDER BY ordinal_position"
)
_CONSTRAINTS = (
    "SELECT conname::text, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'p'"
)
_INDEXES = (
    "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index "
    "WHERE indrelid = %s::regclass AND NOT indisprimary"
)


def _run(connection: psycopg.Connection[Any], *statements: str) -> None:
    for statement in statements:
        connection.execute(statement)
