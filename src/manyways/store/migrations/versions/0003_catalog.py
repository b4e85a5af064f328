"""The catalog remembered: models, their history, verifications, live figures, incidents."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
compatible_from = "0002"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "catalog_models",
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("first_seen", sa.BigInteger, nullable=False),
        sa.Column("gone_since", sa.BigInteger),
        sa.Column("document", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("provider", "id", name="pk_catalog_models"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "catalog_changes",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("field", sa.Text),
        sa.Column("before", sa.Text),
        sa.Column("after", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_catalog_changes"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_catalog_changes_at", "catalog_changes", ["at"])
    op.create_table(
        "catalog_runs",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("due", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("began_at", sa.BigInteger),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("models", sa.Integer),
        sa.Column("cost", sa.Double, nullable=False, server_default="0"),
        sa.Column("problem", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_catalog_runs"),
        sa.UniqueConstraint("due", name="uq_catalog_runs_due"),
    )
    op.create_index("ix_catalog_runs_status", "catalog_runs", ["status"])
    op.create_table(
        "catalog_checks",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "provider", "model", "name", name="pk_catalog_checks"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "catalog_verifications",
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("latency_ms", sa.Integer),
        sa.Column("quality", sa.Double),
        sa.Column("document", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "provider", "model", name="pk_catalog_verifications"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_catalog_verifications_model", "catalog_verifications", ["provider", "model", "at"]
    )
    op.create_table(
        "catalog_verified",
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("change", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("provider", "model", name="pk_catalog_verified"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_catalog_verified_change", "catalog_verified", ["change"])
    op.create_table(
        "catalog_figures",
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("node", "provider", "model", name="pk_catalog_figures"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_catalog_figures_at", "catalog_figures", ["at"])
    op.create_table(
        "catalog_incidents",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("credential", sa.Integer, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("began_at", sa.BigInteger, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sa.Column("ended_at", sa.BigInteger),
        sa.Column("why", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_catalog_incidents"),
    )
    op.create_index("ix_catalog_incidents_began_at", "catalog_incidents", ["began_at"])
    still_open = sa.text("ended_at IS NULL")
    op.create_index(
        "uq_catalog_incidents_open",
        "catalog_incidents",
        ["provider", "model", "credential", "source"],
        unique=True,
        sqlite_where=still_open,
        postgresql_where=still_open,
    )
