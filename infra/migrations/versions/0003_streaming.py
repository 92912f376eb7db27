"""The ledger on topics: the id of the topic that was read

Revision: 0003
Before: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.add_column("offsets", sa.Column("topic_id", sa.String(length=64), nullable=True))


def downgrade() -> None:
    """Back to the one before."""
    op.drop_column("offsets", "topic_id")
