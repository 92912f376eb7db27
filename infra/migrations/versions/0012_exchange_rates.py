"""Rates between currencies are facts

Revision: 0012
Before: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "exchange_rates",
        sa.Column("from_currency", _word(3), nullable=False),
        sa.Column("to_currency", _word(3), nullable=False),
        sa.Column("valid_from", sa.BigInteger(), nullable=False),
        sa.Column("batch_no", sa.BigInteger(), nullable=False),
        sa.Column("rate", sa.BigInteger(), nullable=False),
        sa.Column("source", _word(256), nullable=False),
        sa.Column("imported_by", _word(256), nullable=False),
        sa.Column("imported_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("from_currency", "to_currency", "valid_from", "batch_no", name="pk_exchange_rates"),
    )


def downgrade() -> None:
    """Back to the one before. The rates are lost."""
    op.drop_table("exchange_rates")


def _word(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")
