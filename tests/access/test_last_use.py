"""A key that asks no model is used, too, and its row says when."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from manyways.access.keys import Settings
from manyways.access.last_use import LastUse
from manyways.operations import create_key
from manyways.operations.keys import get_key
from manyways.store.database import Database, open_database
from manyways.store.database import Settings as DatabaseSettings
from manyways.types import Caller

NOW = 1_800_000_000.0


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(
        DatabaseSettings(url=f"sqlite:///{tmp_path}/test.db"), busy_timeout=0.02
    )
    yield database
    database.close()


@pytest.fixture
def caller(database: Database) -> Caller:
    made = create_key(database, Settings(), "admin", now=NOW)
    return Caller(key_id=made.id, key_type="admin", last4=made.last4)


def last_used(database: Database, caller: Caller) -> int | None:
    row = get_key(database, caller.key_id)
    assert row is not None
    return row.last_used_at


async def test_the_last_use_is_kept_to_the_minute_and_never_goes_back(
    database: Database, caller: Caller
) -> None:
    now = NOW
    last_use = LastUse(database, lambda: now)
    await last_use.flush()
    assert last_used(database, caller) is None
    for seconds, told in ((5, 5), (30, 5), (65, 65), (1, 65)):
        now = NOW + seconds
        last_use.saw(caller)
        await last_use.flush()
        assert last_used(database, caller) == NOW + told


async def test_what_a_database_does_not_take_is_written_the_next_time(
    database: Database, caller: Caller, tmp_path: Path
) -> None:
    last_use = LastUse(database, lambda: NOW)
    last_use.saw(caller)
    with contextlib.closing(sqlite3.connect(tmp_path / "test.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await last_use.flush()
        other.execute("ROLLBACK")
    assert last_used(database, caller) is None
    await last_use.flush()
    assert last_used(database, caller) == NOW


async def test_what_was_being_written_at_a_stop_is_written_at_its_end(
    database: Database, caller: Caller, tmp_path: Path
) -> None:
    last_use = LastUse(database, lambda: NOW)
    last_use.saw(caller)
    with contextlib.closing(sqlite3.connect(tmp_path / "test.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(last_use.flush())
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        other.rollback()
    await last_use.flush()
    assert last_used(database, caller) == NOW
