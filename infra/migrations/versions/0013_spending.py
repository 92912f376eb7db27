"""What loops spend on language models, by month; verdicts say whose rules they are of

Revision: 0013
Before: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """To this revision."""
    op.create_table(
        "spending",
        sa.Column("loop_id", _word(256), nullable=False),
        sa.Column("month", _word(7), nullable=False),
        sa.Column("currency", _word(3), nullable=False),
        sa.Column("micros", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("loop_id", "month", "currency", name="pk_spending"),
    )
    op.add_column("verdicts", sa.Column("loop_version", sa.Integer(), nullable=True))


def downgrade() -> None:
    """Back to the one before."""
    op.drop_column("verdicts", "loop_version")
    op.drop_table("spending")


def _word(length: int) -> sa.types.TypeEngine[str]:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")
