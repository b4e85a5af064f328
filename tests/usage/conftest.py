from tests.support.databases import database, database_url
from tests.support.postgres import own_postgres

__all__ = ["database", "database_url", "own_postgres"]
