"""What the guardrails said of each content is kept

Revision: 0010
Before: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "verdicts",
        sa.Column("content_id", _word(256), nullable=False),
        sa.Column("rule", _word(64), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["content_id"], ["contents.content_id"], name="fk_verdicts_content_id_contents"),
        sa.PrimaryKeyConstraint("content_id", "rule", name="pk_verdicts"),
    )


def downgrade() -> None:
    """Back to the one before. What was said is lost."""
    op.drop_table("verdicts")


def _word(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")
