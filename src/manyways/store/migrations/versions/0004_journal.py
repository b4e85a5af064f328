"""How far the segments of journals have come."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
compatible_from = "0002"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "usage_segments",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("moved", sa.BigInteger, nullable=False),
        sa.Column("last", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_usage_segments"),
    )
