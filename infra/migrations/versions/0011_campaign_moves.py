"""Readers of running sums see which campaigns have moved, and the newest day without a scan

Revision: 0011
Before: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "campaign_moves",
        sa.Column("campaign_id", _word(256), nullable=False),
        sa.Column("moves", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("campaign_id", name="pk_campaign_moves"),
    )
    op.create_index("ix_content_stats_bucket", "content_stats", ["bucket"])


def downgrade() -> None:
    """Back to the one before."""
    op.drop_index("ix_content_stats_bucket", "content_stats")
    op.drop_table("campaign_moves")


def _word(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")
