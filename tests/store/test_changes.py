"""What has changed is told to whoever asks since when, and never left out."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from msgspec.structs import replace
from sqlalchemy import Connection

from manyways.errors import StoreError
from manyways.store import accounts, changes, keys
from manyways.store.accounts import AccountRow
from manyways.store.changes import Changes
from manyways.store.database import Database
from manyways.store.keys import KeyRow
from tests.support.databases import database, database_url

__all__ = ["database", "database_url"]

ROW = KeyRow(id="0", last4="abcd", type="full", created_at=1)


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def add_key(database: Database, number: int) -> None:
    changes.in_turn(
        database,
        lambda connection: keys.add(connection, replace(ROW, id=str(number)), digest(number)),
    )


def since(database: Database, seen: int | None, most: int = 1000) -> Changes | None:
    return database.run(lambda connection: changes.since(connection, seen, most=most))


def test_a_new_database_has_no_changes_and_the_first_look_asks_for_everything(
    database: Database,
) -> None:
    assert since(database, 0) is None
    assert since(database, None) == Changes(counter=0, everything=True)


def test_each_change_is_told_by_what_it_changed(database: Database) -> None:
    ada = AccountRow(id="ada", name="Ada", created_at=1)
    add_key(database, 1)
    add_key(database, 2)
    changes.in_turn(database, lambda connection: accounts.add(connection, ada))
    changes.in_turn(database, lambda connection: keys.write(connection, "1", note="other"))

    assert since(database, 0) == Changes(
        counter=4, digests=(digest(2), digest(1)), account_ids=("ada",)
    )
    assert since(database, 2) == Changes(counter=4, digests=(digest(1),), account_ids=("ada",))
    assert since(database, 3) == Changes(counter=4, digests=(digest(1),))
    assert since(database, 4) is None


def test_too_many_are_everything(database: Database) -> None:
    for number in range(4):
        add_key(database, number)
    told = since(database, 1, most=3)
    assert told is not None
    assert len(told.digests) == 3
    assert since(database, 0, most=3) == Changes(counter=4, everything=True)


def test_a_counter_that_moved_for_no_row_or_was_set_back_is_everything(
    database: Database,
) -> None:
    add_key(database, 1)

    def set_to(counter: int) -> None:
        database.run(lambda connection: changes.publish(connection, counter), write=True)

    set_to(7)
    assert since(database, 1) == Changes(counter=7, everything=True)
    set_to(0)
    assert since(database, 7) == Changes(counter=0, everything=True)


def test_what_failed_is_no_change(database: Database) -> None:
    def fail(connection: Connection) -> None:
        keys.add(connection, ROW, digest(1))
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError):
        changes.in_turn(database, fail)
    assert since(database, 0) is None
    assert database.run(keys.every) == ()


def test_without_its_counter_nothing_is_told_and_nothing_written(database: Database) -> None:
    database.run(lambda connection: connection.exec_driver_sql("DELETE FROM changes"), write=True)
    with pytest.raises(StoreError, match="its count of changes is gone"):
        since(database, 0)
    with pytest.raises(StoreError, match="its count of changes is gone"):
        add_key(database, 1)
    assert database.run(keys.every) == ()


def test_whoever_saw_a_counter_can_see_every_row_numbered_up_to_it(database: Database) -> None:
    """Writers at once, and one who follows as a server does: it hears of every key."""
    heard: set[bytes] = set()
    done = threading.Event()

    def follow() -> None:
        seen = 0
        while True:
            last = done.is_set()
            told = since(database, seen)
            if told is not None:
                assert not told.everything
                heard.update(told.digests)
                seen = told.counter
            if last:
                return

    def write(first: int) -> None:
        for number in range(first, first + 20):
            add_key(database, number)

    with ThreadPoolExecutor(4) as threads:
        following = threads.submit(follow)
        writers = [threads.submit(write, first) for first in (100, 200, 300)]
        for writer in writers:
            writer.result(60)
        done.set()
        following.result(60)
    assert len(heard) == 60
    assert database.run(changes.counted) == 60
