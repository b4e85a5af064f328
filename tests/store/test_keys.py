"""The rows of keys: what is written is read, and however many there are, none is looked for
one by one."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from sqlalchemy import Connection, event

from manyways.errors import StoreError
from manyways.store import accounts, changes, keys
from manyways.store.accounts import AccountRow
from manyways.store.database import Database, Settings, open_database
from manyways.store.keys import KeyRow
from manyways.types import Allowance

ADA = AccountRow(id="ada", name="Ada", created_at=1, limits=Allowance(concurrent=3))
ROW = KeyRow(
    id="key-1",
    last4="abcd",
    type="full",
    note="a note",
    created_at=1,
    expires_at=9_999_999_999,
    limits=Allowance(requests=5, window=60.0),
    line="key-0",
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(Settings(url=f"sqlite:///{tmp_path}/keys.db"))
    yield database
    database.close()


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def add(database: Database, row: KeyRow, number: int) -> None:
    database.run(lambda connection: keys.add(connection, row, digest(number)), write=True)


def test_a_row_is_read_as_it_was_written(database: Database) -> None:
    database.run(lambda connection: accounts.add(connection, ADA), write=True)
    alone, of_ada = ROW, replace(ROW, id="key-2", account_id="ada", account="Ada")
    add(database, alone, 1)
    add(database, of_ada, 2)

    assert database.run(keys.every) == (alone, of_ada)
    assert database.run(lambda connection: keys.by_id(connection, "key-2")) == of_ada
    assert database.run(lambda connection: keys.by_digest(connection, digest(1))) == (alone, None)
    assert database.run(lambda connection: keys.by_digest(connection, digest(2))) == (of_ada, ADA)
    assert database.run(lambda connection: keys.by_digest(connection, digest(3))) is None


def test_limits_that_cannot_be_read_are_told_as_such(database: Database) -> None:
    add(database, ROW, 1)
    database.run(
        lambda connection: keys.write(connection, ROW.id, limits='{"dogs": 5}'), write=True
    )
    with pytest.raises(StoreError, match=r"does not understand.*dogs"):
        database.run(keys.every)


def test_any_made_knows_also_of_keys_that_have_ended(database: Database) -> None:
    add(database, replace(ROW, type="admin", revoked_at=1), 1)
    assert database.run(lambda connection: keys.any_made(connection, ["admin", "boss"]))
    assert not database.run(lambda connection: keys.any_made(connection, ["boss"]))


def plans(database: Database, work: Callable[[Connection], object]) -> list[str]:
    """How SQLite finds what `work` reads: a line a step."""

    def explain(connection: Connection) -> list[str]:
        asked: list[tuple[str, tuple[object, ...]]] = []

        def heard(
            _connection: object, _cursor: object, sql: str, values: object, *_: object
        ) -> None:
            assert isinstance(values, tuple)
            asked.append((sql, values))

        event.listen(connection, "before_cursor_execute", heard)
        work(connection)
        event.remove(connection, "before_cursor_execute", heard)
        return [
            str(step.detail)
            for sql, values in asked
            for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values)
        ]

    return database.run(explain, write=True)


READS: dict[str, Callable[[Connection], object]] = {
    "a secret": lambda connection: keys.by_digest(connection, digest(1)),
    "an id": lambda connection: keys.by_id(connection, "key-1"),
    "any of its names": lambda connection: keys.matching(
        connection, id="key-1", last4="abcd", digest=digest(1)
    ),
    "a page": lambda connection: keys.every(connection, after="key-0", limit=10),
    "a page of those alive": lambda connection: keys.every(
        connection, alive_at=1, after="key-0", limit=10
    ),
    "a page of an account": lambda connection: keys.every(
        connection, account_id="ada", after="key-0", limit=10
    ),
    "how many of an account": lambda connection: keys.count(
        connection, account_id="ada", alive_at=1
    ),
    "nothing changed": lambda connection: changes.since(connection, changes.counted(connection)),
    "a change": lambda connection: keys.write(connection, "key-1", note="other"),
}


@pytest.mark.parametrize("read", READS)
def test_no_look_up_goes_through_all_keys(database: Database, read: str) -> None:
    add(database, ROW, 1)
    steps = plans(database, READS[read])

    assert steps
    assert [step for step in steps if step.startswith("SCAN")] == []


def test_what_changed_is_found_among_all_keys_by_its_number(database: Database) -> None:
    add(database, ROW, 1)
    steps = plans(database, lambda connection: changes.since(connection, 0))

    assert "SEARCH api_keys USING INDEX ix_api_keys_change (change>?)" in steps
