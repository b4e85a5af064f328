from collections.abc import Iterator
from pathlib import Path

import pytest

from manyways.store.database import Database, open_database
from manyways.usage.journal import Journal
from manyways.usage.settings import Settings as UsageSettings
from tests.support.databases import database, database_url, migrated
from tests.support.postgres import own_postgres

__all__ = ["database", "database_url", "own_postgres"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    journal = Journal(folder, UsageSettings(sync=0.02))
    journal.open()
    yield journal
    journal.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    database = open_database(migrated(tmp_path / "test.db"), busy_timeout=0.02)
    yield database
    database.close()
