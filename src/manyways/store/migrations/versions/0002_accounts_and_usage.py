"""Accounts, several keys each; the account of usage; answers kept for repeated requests."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
compatible_from = "0002"


def upgrade() -> None:
    """Create the tables, and what keys need to belong to accounts and replace each other."""
    compatibility = op.create_table(
        "compatibility",
        sa.Column("oldest", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("oldest", name="pk_compatibility"),
    )
    op.bulk_insert(compatibility, [{"oldest": compatible_from}])
    op.create_table(
        "accounts",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("note", sa.Text),
        sa.Column("limits", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("suspended_at", sa.BigInteger),
        sa.Column("suspended_reason", sa.Text),
        sa.Column("change", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_accounts"),
        sa.UniqueConstraint("name", name="uq_accounts_name"),
    )
    op.create_index("ix_accounts_change", "accounts", ["change"])
    op.create_table(
        "usage_stats",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("api_key_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("requested_model", sa.Text),
        sa.Column("requested_provider", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("provider", sa.Text),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("stream", sa.Integer, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("total_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.Column("usage_source", sa.Text, nullable=False),
        sa.Column("response_time_ms", sa.Integer, nullable=False),
        sa.Column("first_token_ms", sa.Integer),
        sa.Column("status_code", sa.Integer, nullable=False),
        sa.Column("error_code", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("cost", sa.Double),
        sa.Column("client_request_id", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_usage_stats"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_usage_stats_api_key_id_id", "usage_stats", ["api_key_id", "id"])
    op.create_table(
        "usage_attempts",
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("started_at", sa.DateTime, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("upstream_model", sa.Text, nullable=False),
        sa.Column("method", sa.Text),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("status_code", sa.Integer),
        sa.Column("error_message", sa.Text),
        sa.Column("latency_ms", sa.Integer, nullable=False),
        sa.Column("first_token_ms", sa.Integer),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("total_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.Column("usage_source", sa.Text, nullable=False),
        sa.Column("cost", sa.Double),
        sa.PrimaryKeyConstraint("request_id", "number", name="pk_usage_attempts"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "usage_refusals",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("minute", sa.DateTime, nullable=False),
        sa.Column("api_key_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_usage_refusals"),
    )
    op.create_index("ix_usage_refusals_minute", "usage_refusals", ["minute"])
    op.create_table(
        "idempotent_answers",
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(32), nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("lease_until", sa.Double),
        sa.Column("status", sa.Integer),
        sa.Column("headers", sa.Text),
        sa.Column("body", sa.LargeBinary),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("owner", "key", name="pk_idempotent_answers"),
    )
    op.create_index("ix_idempotent_answers_expires_at", "idempotent_answers", ["expires_at"])
    keys, models = ("api_key_id", "user_id"), ("model", "provider")
    for name, group in (
        ("usage_hourly", (*keys, *models)),
        ("usage_daily", (*keys, *models)),
        ("usage_hourly_models", models),
        ("usage_daily_models", models),
        ("usage_monthly", (*keys, *models)),
    ):
        op.create_table(
            name,
            sa.Column("bucket", sa.BigInteger, nullable=False),
            *(sa.Column(one, sa.Text, nullable=False) for one in group),
            sa.Column("status_code", sa.Integer, nullable=False),
            sa.Column("requests", sa.BigInteger, nullable=False),
            sa.Column("counted", sa.BigInteger, nullable=False),
            sa.Column("attempts", sa.BigInteger, nullable=False),
            sa.Column("streams", sa.BigInteger, nullable=False),
            sa.Column("estimated", sa.BigInteger, nullable=False),
            sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
            sa.Column("completion_tokens", sa.BigInteger, nullable=False),
            sa.Column("cached_tokens", sa.BigInteger, nullable=False),
            sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
            sa.Column("cost", sa.Double, nullable=False),
            sa.Column("response_ms", sa.BigInteger, nullable=False),
            sa.Column("first_token_ms", sa.BigInteger, nullable=False),
            sa.Column("first_tokens", sa.BigInteger, nullable=False),
            *(
                sa.Column(f"{kind}{i}", sa.Integer, nullable=False)
                for kind in "rf"
                for i in range(32)
            ),
            sa.PrimaryKeyConstraint("bucket", *group, "status_code", name=f"pk_{name}"),
            sqlite_with_rowid=False,
        )
        for one in group:
            if one in keys:
                op.create_index(f"ix_{name}_{one}_bucket", name, [one, "bucket"])
    if op.get_bind().dialect.name == "postgresql":  # whose integers end in 2038
        for column in ("created_at", "expires_at", "revoked_at"):
            op.alter_column("api_keys", column, type_=sa.BigInteger)
        op.alter_column("changes", "counter", type_=sa.BigInteger)
    op.add_column("api_keys", sa.Column("account_id", sa.Text))
    op.add_column("api_keys", sa.Column("limits", sa.Text))
    op.add_column("api_keys", sa.Column("line", sa.Text))
    op.add_column("api_keys", sa.Column("replaced_by", sa.Text))
    op.add_column("api_keys", sa.Column("last_used_at", sa.BigInteger))
    op.add_column(
        "api_keys", sa.Column("change", sa.BigInteger, nullable=False, server_default="0")
    )
    for column in ("change", "last4", "account_id", "line"):
        op.create_index(f"ix_api_keys_{column}", "api_keys", [column])
