"""Candidates are stored without the old compression: it cost a decision with 200 of them more than choosing did

PostgreSQL compresses them with LZ4 where it was built with it, and else keeps them as they are. Rows that are stored
stay as they are.

Revision: 0009
Before: 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_LZ4_ELSE_NONE = """
DO $$ BEGIN
    ALTER TABLE decisions ALTER COLUMN candidates SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN
    ALTER TABLE decisions ALTER COLUMN candidates SET STORAGE EXTERNAL;
END $$
"""


def upgrade() -> None:
    """To this revision."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_LZ4_ELSE_NONE)


def downgrade() -> None:
    """Back to the one before."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE decisions ALTER COLUMN candidates SET STORAGE EXTENDED")
        op.execute("ALTER TABLE decisions ALTER COLUMN candidates SET COMPRESSION DEFAULT")
