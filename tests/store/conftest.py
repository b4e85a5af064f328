from tests.support.databases import database, database_url
from tests.support.postgres import empty_postgres, own_postgres

__all__ = ["database", "database_url", "empty_postgres", "own_postgres"]
