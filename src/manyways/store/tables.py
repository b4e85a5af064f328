"""The tables, as the newest migration leaves them (a test holds the two together).

Moments are whole Unix seconds, UTC; in the tables of usage, which people read with other
programs, they are timestamps without a zone, UTC.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

# Constraints have names from the first table on, so that later migrations can change them.
metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

# One row: the oldest migration whose program may use these tables. Programs that know newer
# migrations than an older one does write it, and the older one reads it.
compatibility = Table("compatibility", metadata, Column("oldest", Text, primary_key=True))

# On SQLite an integer is as large as it must be; the column was made under that name.
_Large = BigInteger().with_variant(Integer(), "sqlite")

# Who keys belong to: a person, a team, a customer. Never deleted: usage names them.
accounts = Table(
    "accounts",
    metadata,
    Column("id", Text, primary_key=True),  # a UUID of version 7
    Column("name", Text, nullable=False, unique=True),
    Column("note", Text),
    Column("limits", Text),  # JSON, an `Allowance`; null: the configuration's
    Column("created_at", BigInteger, nullable=False),
    Column("suspended_at", BigInteger),
    Column("suspended_reason", Text),
    Column("change", BigInteger, nullable=False),  # what `changes` counted at the latest change
    Index("ix_accounts_change", "change"),
)

# Keys are revoked, never deleted: the table tells whether one was ever made.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),  # a UUID of version 7: sorts by age
    Column("digest", LargeBinary(32), nullable=False, unique=True),  # SHA-256 of the secret
    Column("last4", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("note", Text),
    Column("created_at", _Large, nullable=False),
    Column("expires_at", _Large),
    Column("revoked_at", _Large),
    Column("revoked_reason", Text),
    Column("account_id", Text),
    Column("limits", Text),  # JSON, an `Allowance`; null: its type's
    Column("line", Text),  # the first key of those that replaced each other; null: itself
    Column("replaced_by", Text),
    Column("last_used_at", BigInteger),
    Column("change", BigInteger, nullable=False, server_default="0"),
    Index("ix_api_keys_change", "change"),
    Index("ix_api_keys_last4", "last4"),
    Index("ix_api_keys_account_id", "account_id"),
    Index("ix_api_keys_line", "line"),
)

# How often the rows of a kind have changed: a running server looks here for what to forget.
changes = Table(
    "changes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("counter", _Large, nullable=False),
)

# One row an authenticated request. `id` is the answer's X-Request-Id, and sorts by age: a span
# of time is a span of ids (`ids.first_of`).
usage_stats = Table(
    "usage_stats",
    metadata,
    Column("id", Text, primary_key=True),
    Column("created_at", DateTime, nullable=False),
    Column("api_key_id", Text, nullable=False),
    Column("user_id", Text),  # the account
    Column("endpoint", Text, nullable=False),
    Column("requested_model", Text),
    Column("requested_provider", Text),
    Column("model", Text),
    Column("provider", Text),
    Column("attempts", Integer, nullable=False),
    Column("stream", Integer, nullable=False),  # 0 or 1
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("total_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("usage_source", Text, nullable=False),
    Column("response_time_ms", Integer, nullable=False),
    Column("first_token_ms", Integer),
    Column("status_code", Integer, nullable=False),
    Column("error_code", Text),
    Column("error_message", Text),
    Column("cost", Double),  # USD; null where a price is not known
    Column("client_request_id", Text),
    Index("ix_usage_stats_api_key_id_id", "api_key_id", "id"),
    sqlite_with_rowid=False,
)

# One row an attempt: a first one, a retry, a fallback, a hedge, a continuation.
usage_attempts = Table(
    "usage_attempts",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True),  # from 0, in the order they began
    Column("started_at", DateTime, nullable=False),
    Column("model", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("upstream_model", Text, nullable=False),  # the provider's own name for it
    Column("method", Text),  # how it goes on from a broken answer; null: it does not
    Column("outcome", Text, nullable=False),
    Column("status_code", Integer),  # the provider's, where it sent one
    Column("error_message", Text),
    Column("latency_ms", Integer, nullable=False),
    Column("first_token_ms", Integer),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("total_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("usage_source", Text, nullable=False),
    Column("cost", Double),
    sqlite_with_rowid=False,
)

# Requests that a limit refused, counted: a flood of them fills no disk.
usage_refusals = Table(
    "usage_refusals",
    metadata,
    Column("id", Text, primary_key=True),
    Column("minute", DateTime, nullable=False),
    Column("api_key_id", Text, nullable=False),
    Column("user_id", Text),
    Column("code", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Index("ix_usage_refusals_minute", "minute"),
)

# How far each file of a journal has come into these tables. The row goes with the file; where a
# process ends in between it stays, and does no harm.
usage_segments = Table(
    "usage_segments",
    metadata,
    Column("name", Text, primary_key=True),
    Column("moved", BigInteger, nullable=False),  # bytes
    Column("last", Text, nullable=False),  # the id of the record whose line ends there
)

HISTOGRAM = 32
"""Columns of a histogram: `r0`..., of response times, and `f0`..., of first tokens. Column `i`
counts what took less than 5 ms * 2 ** (i / 2), and not less than the one before; the last one
everything above, too."""


_NAMES = ("api_key_id", "user_id", "model", "provider")


def _sums(name: str, *names: str) -> Table:
    """Sums of `usage_stats` by hour or day, by these names, and by status. Absent names are empty
    texts: they are of the key."""
    owned = [one for one in ("api_key_id", "user_id") if one in names]
    return Table(
        name,
        metadata,
        Column("bucket", BigInteger, primary_key=True),  # its beginning, Unix seconds
        *(Column(one, Text, primary_key=True) for one in names),
        Column("status_code", Integer, primary_key=True),
        Column("requests", BigInteger, nullable=False),
        Column("counted", BigInteger, nullable=False),  # those that count against limits
        Column("attempts", BigInteger, nullable=False),
        Column("streams", BigInteger, nullable=False),
        Column("estimated", BigInteger, nullable=False),
        Column("prompt_tokens", BigInteger, nullable=False),
        Column("completion_tokens", BigInteger, nullable=False),
        Column("cached_tokens", BigInteger, nullable=False),
        Column("reasoning_tokens", BigInteger, nullable=False),
        Column("cost", Double, nullable=False),
        Column("response_ms", BigInteger, nullable=False),
        Column("first_token_ms", BigInteger, nullable=False),
        Column("first_tokens", BigInteger, nullable=False),  # how many are in that sum
        *(Column(f"r{i}", Integer, nullable=False) for i in range(HISTOGRAM)),
        *(Column(f"f{i}", Integer, nullable=False) for i in range(HISTOGRAM)),
        *(Index(f"ix_{name}_{one}_bucket", one, "bucket") for one in owned),
        sqlite_with_rowid=False,
    )


usage_hourly = _sums("usage_hourly", *_NAMES)
usage_daily = _sums("usage_daily", *_NAMES)
# The same, added up further (`condensed`) once days and months are over: over keys, and over the
# days of a month. Long reports read these.
usage_hourly_models = _sums("usage_hourly_models", *_NAMES[2:])
usage_daily_models = _sums("usage_daily_models", *_NAMES[2:])
usage_monthly = _sums("usage_monthly", *_NAMES)

# Answers that a repeated `Idempotency-Key` gets again.
idempotent_answers = Table(
    "idempotent_answers",
    metadata,
    Column("owner", Text, primary_key=True),  # the key's line
    Column("key", Text, primary_key=True),
    Column("fingerprint", LargeBinary(32), nullable=False),  # SHA-256 of the request
    Column("request_id", Text, nullable=False),  # the one that asks, or has asked
    Column("lease_until", Double),  # Unix seconds; null once the answer is here
    Column("status", Integer),
    Column("headers", Text),  # JSON, a list of pairs
    Column("body", LargeBinary),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("ix_idempotent_answers_expires_at", "expires_at"),
)

# What providers have told of their models, and what it was when they told it last.
catalog_models = Table(
    "catalog_models",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("first_seen", BigInteger, nullable=False),
    Column("gone_since", BigInteger),  # null: it is there
    Column("document", Text, nullable=False),  # JSON, a `Model` as it is claimed to be
    sqlite_with_rowid=False,
)

# Every change to these, and to what verifications found out.
catalog_changes = Table(
    "catalog_changes",
    metadata,
    Column("id", Text, primary_key=True),  # a UUID of version 7
    Column("at", BigInteger, nullable=False),
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("field", Text),
    Column("before", Text),  # JSON
    Column("after", Text),  # JSON
    Index("ix_catalog_changes_at", "at"),
    sqlite_with_rowid=False,
)

# A verification of many models: asked for, or due. One a day is due.
catalog_runs = Table(
    "catalog_runs",
    metadata,
    Column("id", Text, primary_key=True),  # a UUID of version 7
    Column("due", Text, unique=True),  # the day, for those that are due; null for others
    Column("reason", Text, nullable=False),
    Column("scope", Text, nullable=False),  # JSON, a `Scope`
    Column("status", Text, nullable=False),  # "running", "done", "failed"
    Column("created_at", BigInteger, nullable=False),
    Column("began_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("models", Integer),  # how many; null until it has begun
    Column("cost", Double, nullable=False, server_default="0"),  # USD so far
    Column("problem", Text),  # why it failed
    Index("ix_catalog_runs_status", "status"),
)

# What each check of a verification found: kept at once, so that none is made twice.
catalog_checks = Table(
    "catalog_checks",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("document", Text, nullable=False),  # JSON, a `Check`
    sqlite_with_rowid=False,
)

# What each verification found out about a model: what lists, tables and histories show.
catalog_verifications = Table(
    "catalog_verifications",
    metadata,
    Column("run_id", Text, primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("latency_ms", Integer),
    Column("quality", Double),
    Column("document", Text, nullable=False),  # JSON, a `Verified`
    Index("ix_catalog_verifications_model", "provider", "model", "at"),
    sqlite_with_rowid=False,
)

# The latest of them.
catalog_verified = Table(
    "catalog_verified",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("document", Text, nullable=False),  # JSON, a `Verified`
    Column("change", BigInteger, nullable=False),
    Index("ix_catalog_verified_change", "change"),
    sqlite_with_rowid=False,
)

# How each process has lately seen models do.
catalog_figures = Table(
    "catalog_figures",
    metadata,
    Column("node", Text, primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),  # the end of the latest slice in it
    Column("document", Text, nullable=False),  # JSON
    Index("ix_catalog_figures_at", "at"),
    sqlite_with_rowid=False,
)

# When models, or whole providers, were not to be had.
catalog_incidents = Table(
    "catalog_incidents",
    metadata,
    Column("id", Text, primary_key=True),  # a UUID of version 7
    Column("provider", Text, nullable=False),
    Column("model", Text, nullable=False),  # empty: the whole provider
    Column("credential", Integer, nullable=False),  # from 0; -1: all of them
    Column("source", Text, nullable=False),  # "traffic", "verification", "list"
    Column("began_at", BigInteger, nullable=False),
    Column("seen_at", BigInteger, nullable=False),  # when it was last known to go on
    Column("ended_at", BigInteger),
    Column("why", Text, nullable=False),
    Index("ix_catalog_incidents_began_at", "began_at"),
    Index(
        "uq_catalog_incidents_open",
        "provider",
        "model",
        "credential",
        "source",
        unique=True,
        sqlite_where=text("ended_at IS NULL"),
        postgresql_where=text("ended_at IS NULL"),
    ),
)
