"""The ledger on topics: the id of the topic that was read, smaller indexes, words compared by their bytes

Revision: 0003
Before: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

WHOLE = (
    ("decisions", "ix_decisions_batch_no", ["batch_no"]),
    ("decisions", "ix_decisions_unit", ["unit"]),
    ("decisions", "ix_decisions_campaign_id_decided_at", ["campaign_id", "decided_at"]),
    ("decisions", "ix_decisions_loop_id_unit_decided_at", ["loop_id", "unit", "decided_at"]),
    ("events", "ix_events_batch_no", ["batch_no"]),
    ("events", "ix_events_decision_id", ["decision_id"]),
    ("events", "ix_events_unit_occurred_at", ["unit", "occurred_at"]),
    ("events", "ix_events_unit_before", ["unit_before"]),
    ("events", "ix_events_fact_key", ["fact_key"]),
    ("events", "ix_events_reverses", ["reverses"]),
)
"""Indexes until now: table, name, columns."""

SMALL = (
    ("decisions", "ix_decisions_waiting", ["batch_no"], "batch_no IS NULL"),
    ("decisions", "ix_decisions_loop_id_decided_at", ["loop_id", "decided_at"], None),
    ("events", "ix_events_activation", ["decision_id", "occurred_at"], "type = 'activation'"),
    ("events", "ix_events_decision_id", ["decision_id"], "decision_id IS NOT NULL"),
    ("events", "ix_events_unit_occurred_at", ["unit", "occurred_at"], "unit IS NOT NULL"),
    ("events", "ix_events_unit_before", ["unit_before"], "unit_before IS NOT NULL"),
    ("events", "ix_events_fact_key", ["fact_key"], "fact_key IS NOT NULL"),
    ("events", "ix_events_reverses", ["reverses"], "reverses IS NOT NULL"),
)
"""Indexes from now on: table, name, columns, condition."""


def upgrade() -> None:
    """To this revision."""
    op.add_column("offsets", sa.Column("topic_id", sa.String(length=64), nullable=True))
    for table, name, _ in WHOLE:
        op.drop_index(name, table)
    _compare_words("C")
    for table, name, columns, condition in SMALL:
        where = None if condition is None else sa.text(condition)
        op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)
    counted = sa.text("unit IS NOT NULL AND batch_no IS NOT NULL")
    op.create_index(
        "ix_decisions_unit",
        "decisions",
        ["unit", "decided_at"],
        sqlite_where=counted,
        postgresql_where=counted,
        postgresql_include=["decision_id", "loop_id", "deferred"],
    )


def downgrade() -> None:
    """Back to the one before."""
    op.drop_index("ix_decisions_unit", "decisions")
    for table, name, _, _ in SMALL:
        op.drop_index(name, table)
    _compare_words("default")
    for table, name, columns in WHOLE:
        op.create_index(name, table, columns)
    op.drop_column("offsets", "topic_id")


def _compare_words(collation: str) -> None:
    """PostgreSQL: the collation of every ``varchar`` of ours. SQLite compares bytes anyway."""
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    columns = sa.text(
        "SELECT table_name, column_name, character_maximum_length FROM information_schema.columns "
        "WHERE table_schema = current_schema() AND data_type = 'character varying' "
        "AND table_name <> 'alembic_version' ORDER BY table_name, ordinal_position"
    )
    changes: dict[str, list[str]] = {}
    for table, column, length in connection.execute(columns):
        change = f'ALTER COLUMN "{column}" TYPE varchar({length}) COLLATE "{collation}"'
        changes.setdefault(table, []).append(change)
    for table, of_table in changes.items():
        op.execute(f'ALTER TABLE "{table}" {", ".join(of_table)}')
