"""Customers who must not be sent anything; decisions that wait to be counted are found by their customer

Those who unsubscribed or complained so far are taken from the events.

Revision: 0008
Before: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

WAITING = sa.text("batch_no IS NULL")
SAID_SO = "e.type IN ('unsubscribe', 'complaint', 'spam_report') AND e.batch_no IS NOT NULL"


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "suppressions",
        sa.Column("unit", _word(64), nullable=False),
        sa.Column("scope", _word(256), nullable=False),
        sa.Column("reason", _word(64), nullable=False),
        sa.Column("suppressed_at", sa.BigInteger(), nullable=True),
        sa.Column("lifted_at", sa.BigInteger(), nullable=True),
        sa.Column("change_no", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("unit", "scope", name="pk_suppressions"),
    )
    op.create_index("ix_suppressions_change_no", "suppressions", ["change_no"])
    op.execute(
        "INSERT INTO suppressions (unit, scope, reason, suppressed_at, change_no) "  # noqa: S608 (no value from outside)
        "SELECT unit, '', max(type), max(occurred_at), 1 FROM ("
        f"SELECT e.unit, e.type, e.occurred_at FROM events AS e WHERE {SAID_SO} UNION ALL "
        "SELECT d.unit, e.type, e.occurred_at FROM events AS e JOIN decisions AS d ON d.decision_id = e.decision_id "
        f"WHERE {SAID_SO}) AS said WHERE unit IS NOT NULL GROUP BY unit"
    )
    _waiting_by(["unit", "decided_at"])


def downgrade() -> None:
    """Back to the one before. The list is lost."""
    _waiting_by(["batch_no"])
    op.drop_index("ix_suppressions_change_no", "suppressions")
    op.drop_table("suppressions")


def _waiting_by(columns: list[str]) -> None:
    op.drop_index("ix_decisions_waiting", "decisions")
    op.create_index("ix_decisions_waiting", "decisions", columns, sqlite_where=WAITING, postgresql_where=WAITING)


def _word(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")
