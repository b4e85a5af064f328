"""What operators do, does the same on both databases."""

from tests.support.databases import database, database_url

__all__ = ["database", "database_url"]
