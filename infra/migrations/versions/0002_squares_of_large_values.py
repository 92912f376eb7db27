"""Squares of large values: a second column for what one integer cannot hold

Revision: 0002
Before: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    column = sa.Column("sum_squares_high", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    op.add_column("content_stats", column)


def downgrade() -> None:
    """Back to the one before."""
    op.drop_column("content_stats", "sum_squares_high")
