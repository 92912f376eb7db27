"""Decisions past their retention are sealed

Revision: 0014
Before: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "seals",
        sa.Column("batch_no", sa.BigInteger(), nullable=False),
        sa.Column("horizon", sa.BigInteger(), nullable=False),
        sa.Column("events_before", sa.BigInteger(), nullable=False),
        sa.Column("metrics", sa.Text(), nullable=False),
        sa.Column("sealed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("batch_no", name="pk_seals"),
    )
    op.create_table(
        "sealed_facts",
        sa.Column("fact_key", _word(64), nullable=False),
        sa.PrimaryKeyConstraint("fact_key", name="pk_sealed_facts"),
    )


def downgrade() -> None:
    """Back to the one before. Raises where decisions are sealed: their events are gone, and would be missed."""
    if op.get_bind().execute(sa.text("SELECT count(*) FROM seals")).scalar():
        raise RuntimeError("Decisions are sealed and their events are gone; restore a backup of before instead")
    op.drop_table("sealed_facts")
    op.drop_table("seals")


def _word(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")
