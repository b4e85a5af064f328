"""The count of changes to keys and accounts: how every process hears what another one did.

Each change has a number, one more than the one before. The row that was changed bears it, and
the counter has the latest. Both are written in one transaction, and a transaction that has
claimed its number keeps others waiting until its end: whoever reads a counter can read every
row that was numbered up to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from msgspec import Struct
from sqlalchemy import Connection, select, update

from manyways.errors import StoreError
from manyways.store.tables import accounts, api_keys, changes

if TYPE_CHECKING:
    from manyways.store.database import Database

T = TypeVar("T")

MOST: Final = 1000
"""Changed rows of a kind that are told one by one; more are told as everything."""

_NO_COUNTER: Final = (
    "The database is damaged: its count of changes is gone. Restore it from a backup."
)

_counter = select(changes.c.counter).where(changes.c.name == "keys")


class Changes(Struct, frozen=True, kw_only=True):
    """What has changed up to `counter`: the SHA-256 of keys, the ids of accounts; or all of it,
    where it cannot be said what."""

    counter: int
    digests: tuple[bytes, ...] = ()
    account_ids: tuple[str, ...] = ()
    everything: bool = False


def counted(connection: Connection) -> int:
    """How often keys and accounts have changed since the database was made.

    Raises `StoreError` where that is not known any more.
    """
    return _known(connection.execute(_counter).scalar_one_or_none())


def since(connection: Connection, seen: int | None, *, most: int = MOST) -> Changes | None:
    """What has changed since the counter was `seen`; `None` where nothing has.

    `None` for `seen` asks for everything, and so does a counter that was set back (a backup was
    restored). Raises `StoreError` as `counted` does.
    """
    counter = counted(connection)
    if counter == seen:
        return None
    if seen is None or counter < seen:
        return Changes(counter=counter, everything=True)
    digests = connection.execute(
        select(api_keys.c.digest).where(api_keys.c.change > seen).limit(most + 1)
    ).scalars()
    ids = connection.execute(
        select(accounts.c.id).where(accounts.c.change > seen).limit(most + 1)
    ).scalars()
    told = Changes(
        counter=counter,
        digests=tuple(bytes(digest) for digest in digests),
        account_ids=tuple(ids),
    )
    found = len(told.digests) + len(told.account_ids)
    if not found or len(told.digests) > most or len(told.account_ids) > most:
        return Changes(counter=counter, everything=True)
    return told


def in_turn(database: Database, work: Callable[[Connection], T]) -> T:
    """Do work that changes keys or accounts, after what others do to them: nothing of that
    comes between, so that it is done once and only once. Raises `StoreError`."""

    def begin(connection: Connection) -> T:
        claim(connection)
        return work(connection)

    return database.run(begin, write=True, isolated=False)


def claim(connection: Connection) -> int:
    """The number of the change about to be made. Until this transaction ends, nobody else gets
    one: what is read from here on stays true. Raises `StoreError` as `counted` does."""
    return _known(connection.execute(_counter.with_for_update()).scalar_one_or_none()) + 1


def publish(connection: Connection, number: int) -> None:
    """Tell that the rows which bear `number` have changed."""
    connection.execute(update(changes).where(changes.c.name == "keys").values(counter=number))


def _known(counter: int | None) -> int:
    if counter is None:  # running servers would never hear of a change
        raise StoreError(_NO_COUNTER)
    return int(counter)
