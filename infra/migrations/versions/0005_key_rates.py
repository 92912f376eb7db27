"""API keys have a rate of their own

Revision: 0005
Before: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    kind = sa.String(32).with_variant(sa.String(32, collation="C"), "postgresql")
    op.add_column("api_keys", sa.Column("rate", kind, nullable=False, server_default="2000/second"))


def downgrade() -> None:
    """Back to the one before."""
    with op.batch_alter_table("api_keys") as table:
        table.drop_column("rate")
