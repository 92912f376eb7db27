"""Events have numbers, by which attributions name them; keys of events are half as long

Revision: 0007
Before: 0006
"""

import hashlib
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
HASH = sa.String(32).with_variant(sa.UUID(as_uuid=False), "postgresql")
OF_EVENTS = (
    ("ix_events_decision_id", ["decision_id"], "decision_id IS NOT NULL"),
    ("ix_events_activation", ["decision_id", "occurred_at"], "type = 'activation'"),
    ("ix_events_unit_occurred_at", ["unit", "occurred_at"], "unit IS NOT NULL"),
    ("ix_events_unit_before", ["unit_before"], "unit_before IS NOT NULL"),
    ("ix_events_fact_key", ["fact_key"], "fact_key IS NOT NULL"),
    ("ix_events_reverses", ["reverses"], "reverses IS NOT NULL"),
    ("ix_events_watched", ["batch_no"], "type IN ('click', 'open', 'activation')"),
)
"""Indexes of events: name, columns, condition. Made anew with the table."""


def _word(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def _of_event() -> list[sa.Column[Any]]:
    """Columns of events beside their key."""
    return [
        sa.Column("type", _word(64), nullable=False),
        sa.Column("decision_id", _word(256), nullable=True),
        sa.Column("link", _word(16), nullable=True),
        sa.Column("unit", _word(64), nullable=True),
        sa.Column("unit_before", _word(64), nullable=True),
        sa.Column("content_id", _word(256), nullable=True),
        sa.Column("position", sa.Integer(), nullable=True),
        sa.Column("value_micros", sa.BigInteger(), nullable=True),
        sa.Column("currency", _word(3), nullable=True),
        sa.Column("fact_key", _word(64), nullable=True),
        sa.Column("reverses", _word(64), nullable=True),
        sa.Column("occurred_at", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("raw", sa.Text(), nullable=False),
        sa.Column("batch_no", sa.BigInteger(), nullable=True),
    ]


def _of_attribution() -> list[sa.Column[Any]]:
    """Columns of attributions beside their event."""
    return [
        sa.Column("loop_id", _word(256), nullable=False),
        sa.Column("method", _word(16), nullable=False),
        sa.Column("decision_id", _word(256), nullable=False),
    ]


def upgrade() -> None:
    """To this revision."""
    _set_aside("events", "attributions", "event_keys")
    op.create_table(
        "events",
        sa.Column("event_no", NUMBER, nullable=False, autoincrement=True),
        sa.Column("source", _word(256), nullable=False),
        sa.Column("event_id", _word(256), nullable=False),
        *_of_event(),
        sa.PrimaryKeyConstraint("event_no", name="pk_events"),
        sqlite_autoincrement=True,
    )
    names = ", ".join(("source", "event_id", *(column.name for column in _of_event())))
    op.execute(f"INSERT INTO events ({names}) SELECT {names} FROM events_before ORDER BY batch_no, source, event_id")  # noqa: S608
    _index_events()
    op.create_table(
        "attributions",
        sa.Column("event_no", sa.BigInteger(), autoincrement=False, nullable=False),
        *_of_attribution(),
        sa.PrimaryKeyConstraint("event_no", "loop_id", name="pk_attributions"),
    )
    op.execute(
        "INSERT INTO attributions (event_no, loop_id, method, decision_id) "
        "SELECT e.event_no, a.loop_id, a.method, a.decision_id FROM attributions_before AS a "
        "JOIN events AS e ON e.source = a.source AND e.event_id = a.event_id ORDER BY e.event_no"
    )
    op.create_index("ix_attributions_decision_id", "attributions", ["decision_id"])
    op.create_table(
        "event_keys",
        sa.Column("source", _word(256), nullable=False),
        sa.Column("id_hash", HASH, nullable=False),
        sa.Column("digest", HASH, nullable=False),
        sa.Column("digest_version", sa.Integer(), nullable=False),
        sa.Column("fact_key", _word(64), nullable=True),
        sa.Column("event_no", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("source", "id_hash", name="pk_event_keys"),
    )
    # Materialised, and a text: SQLite would hash every event again for every key of its source.
    numbered = f"SELECT event_no, source, CAST({_hashed('event_id')} AS varchar(64)) AS id_hash FROM events"  # noqa: S608
    kept = f"k.source, {_half('id_hash')}, {_half('digest')}, k.digest_version, k.fact_key, e.event_no"
    op.execute(
        "INSERT INTO event_keys (source, id_hash, digest, digest_version, fact_key, event_no) "  # noqa: S608
        f"WITH numbered AS MATERIALIZED ({numbered}) SELECT {kept} FROM event_keys_before AS k "
        "LEFT JOIN numbered AS e ON e.source = k.source AND e.id_hash = k.id_hash"
    )
    _drop_what_was("event_keys", "attributions", "events")
    for table in ("events", "attributions", "event_keys"):
        op.execute(f"ANALYZE {table}")


def downgrade() -> None:
    """Back to the one before. The other half of a key is gone: a store with events cannot go back."""
    if op.get_bind().execute(sa.text("SELECT count(*) FROM event_keys")).scalar():
        raise RuntimeError("Keys of events were cut to half by 0007 and cannot be made whole: restore a backup instead")
    _set_aside("events", "attributions", "event_keys")
    op.create_table(
        "events",
        sa.Column("source", _word(256), nullable=False),
        sa.Column("event_id", _word(256), nullable=False),
        *_of_event(),
        sa.PrimaryKeyConstraint("source", "event_id", name="pk_events"),
    )
    _index_events()
    op.create_table(
        "attributions",
        sa.Column("source", _word(256), nullable=False),
        sa.Column("event_id", _word(256), nullable=False),
        *_of_attribution(),
        sa.PrimaryKeyConstraint("source", "event_id", "loop_id", name="pk_attributions"),
    )
    op.create_index("ix_attributions_decision_id", "attributions", ["decision_id"])
    op.create_table(
        "event_keys",
        sa.Column("source", _word(256), nullable=False),
        sa.Column("id_hash", _word(64), nullable=False),
        sa.Column("digest", _word(64), nullable=False),
        sa.Column("digest_version", sa.Integer(), nullable=False),
        sa.Column("fact_key", _word(64), nullable=True),
        sa.PrimaryKeyConstraint("source", "id_hash", name="pk_event_keys"),
    )
    _drop_what_was("event_keys", "attributions", "events")


def _index_events() -> None:
    for name, columns, condition in OF_EVENTS:
        where = sa.text(condition)
        op.create_index(name, "events", columns, sqlite_where=where, postgresql_where=where)


def _set_aside(*tables: str) -> None:
    """Give tables, and the names of their keys and indexes, away for new ones."""
    for name, _, _ in OF_EVENTS:
        op.drop_index(name, "events")
    op.drop_index("ix_attributions_decision_id", "attributions")
    for table in tables:
        if op.get_bind().dialect.name == "postgresql":
            op.drop_constraint(f"pk_{table}", table)
        op.rename_table(table, f"{table}_before")


def _drop_what_was(*tables: str) -> None:
    for table in tables:
        op.drop_table(f"{table}_before")


def _half(column: str) -> str:
    """The first half of a digest."""
    cut = f"substr(k.{column}, 1, 32)"
    return f"CAST({cut} AS uuid)" if op.get_bind().dialect.name == "postgresql" else cut


def _hashed(column: str) -> str:
    """SHA-256 of a column, as hex. SQLite borrows it from us."""
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        return f"encode(sha256(convert_to({column}, 'UTF8')), 'hex')"
    borrowed: Any = connection.connection.dbapi_connection
    borrowed.create_function("sha256_hex", 1, lambda text: hashlib.sha256(text.encode()).hexdigest())
    return f"sha256_hex({column})"
