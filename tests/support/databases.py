"""Tests that hold on SQLite and on PostgreSQL alike.

Make the fixtures known in a `conftest.py`; the PostgreSQL half is marked `process`:

    from tests.support.databases import database, database_url

    __all__ = ["database", "database_url"]

Where SQLite is enough, `open_database(migrated(tmp_path / "test.db"))`.
"""

import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from manyways.store.database import Database, Settings, open_database
from tests.support.postgres import shared_server

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.process)]


@pytest.fixture(params=BOTH)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of a database with nothing in it, or not there yet."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/test.db"
        return
    server = shared_server()
    name = server.create_database()
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture(params=BOTH)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An open database with all tables, and nothing in them."""
    if request.param == "sqlite":
        database = open_database(migrated(tmp_path / "test.db"))
        yield database
        database.close()
        return
    server = shared_server()
    name = server.create_database(_migrated())
    database = open_database(Settings(url=server.url(name)))
    yield database
    database.close()
    server.drop_database(name)


def migrated(file: Path) -> Settings:
    """A SQLite file that is not there yet, made with all tables, and nothing in them."""
    file.write_bytes(_migrated_file())
    file.chmod(0o600)
    return Settings(url=f"sqlite:///{file}")


@cache
def _migrated_file() -> bytes:
    """A database that the others are copied from: copying is quicker than migrating."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "test.db"
        open_database(Settings(url=f"sqlite:///{file}")).close()
        return file.read_bytes()


@cache
def _migrated() -> str:
    """The same on the common server."""
    server = shared_server()
    name = server.create_database()
    open_database(Settings(url=server.url(name))).close()
    return name
