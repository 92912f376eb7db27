"""Embeddings of texts, computed once

Revision: 0006
Before: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "embeddings",
        sa.Column("text_hash", _word(64), primary_key=True),
        sa.Column("model", _word(256), primary_key=True),
        sa.Column("vector", sa.LargeBinary, nullable=False),
        sa.Column("made_at", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Back to the one before."""
    op.drop_table("embeddings")


def _word(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")
