"""The tables, as the newest migration leaves them (a test holds the two together).

Moments are whole Unix seconds, UTC.
"""

from sqlalchemy import Column, Integer, LargeBinary, MetaData, Table, Text

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

# Keys are revoked, never deleted: the table tells whether one was ever made.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),  # a UUID of version 7: sorts by age
    Column("digest", LargeBinary(32), nullable=False, unique=True),  # SHA-256 of the secret
    Column("last4", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("note", Text),
    Column("created_at", Integer, nullable=False),
    Column("expires_at", Integer),
    Column("revoked_at", Integer),
    Column("revoked_reason", Text),
)

# How often the rows of a kind have changed: a running server looks here for what to forget.
changes = Table(
    "changes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("counter", Integer, nullable=False),
)
