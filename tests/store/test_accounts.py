from collections.abc import Callable

import pytest
from msgspec.structs import replace
from sqlalchemy import Connection

from manyways.errors import StoreError
from manyways.store import accounts, changes
from manyways.store.accounts import AccountRow
from manyways.store.database import Database
from manyways.types import Allowance
from tests.support.databases import database, database_url

__all__ = ["database", "database_url"]

ADA = AccountRow(
    id="1",
    name="Ada",
    note="a customer",
    limits=Allowance(concurrent=3),
    created_at=4_000_000_000,
    suspended_at=4_000_000_001,
    suspended_reason="in debt",
)
BOB = AccountRow(id="2", name="Bob", created_at=1)

Do = Callable[[Callable[[Connection], object]], object]


@pytest.fixture
def do(database: Database) -> Do:
    """Both are there; what is done is done in turn."""
    changes.in_turn(database, lambda connection: accounts.add(connection, BOB))
    changes.in_turn(database, lambda connection: accounts.add(connection, ADA))
    return lambda work: changes.in_turn(database, work)


def test_a_row_is_read_as_it_was_written(do: Do) -> None:
    assert do(lambda connection: accounts.by_id(connection, "1")) == ADA
    assert do(lambda connection: accounts.by_name(connection, "Ada")) == ADA
    assert do(accounts.every) == (ADA, BOB)
    assert do(lambda connection: accounts.every(connection, limit=1)) == (ADA,)
    assert do(lambda connection: accounts.every(connection, after="1", limit=1)) == (BOB,)


def test_who_is_not_there_is_none(do: Do) -> None:
    assert do(lambda connection: accounts.by_id(connection, "3")) is None
    assert do(lambda connection: accounts.by_name(connection, "ada")) is None


def test_columns_that_are_not_named_stay(do: Do) -> None:
    do(lambda connection: accounts.write(connection, "1", note=None))
    assert do(accounts.every) == (replace(ADA, note=None), BOB)


def test_a_name_is_given_once(do: Do) -> None:
    with pytest.raises(StoreError, match=r"(?i)unique"):
        do(lambda connection: accounts.add(connection, replace(BOB, id="3")))
