"""Clicks, opens and activations by their batch: what the sweep for machines looks at

Revision: 0004
Before: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    where = sa.text("type IN ('click', 'open', 'activation')")
    op.create_index("ix_events_watched", "events", ["batch_no"], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    """Back to the one before."""
    op.drop_index("ix_events_watched", "events")
