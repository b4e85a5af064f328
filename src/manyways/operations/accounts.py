"""Accounts: who keys belong to. Suspended, never deleted.

Moments (`now`) are Unix seconds. Everything may raise `StoreError`.
"""

from typing import Final

from sqlalchemy import Connection

from manyways.operations.limits import checked
from manyways.operations.wording import (
    Mistake,
    account_name,
    near_names,
    new_account_name,
    one_line,
)
from manyways.store import accounts
from manyways.store import limits as columns
from manyways.store.accounts import AccountRow
from manyways.store.changes import in_turn
from manyways.store.database import Database
from manyways.store.ids import new_id
from manyways.types import Allowance

LOOKED_AT: Final = 10_000
"""Accounts whose names are compared with one that none has."""


def create_account(
    database: Database,
    *,
    name: str,
    note: str | None = None,
    limits: Allowance | None = None,
    now: float,
) -> AccountRow:
    """A new account. Its name is of 1 to 200 printable characters, none of them a slash, and
    nobody else's; without `limits` of its own, the configuration's `[accounts]` hold. Raises
    `Mistake`."""
    account = AccountRow(
        id=new_id(int(now * 1e9)),
        name=new_account_name(name),
        note=one_line("note", note),
        limits=None if limits is None else checked(limits),
        created_at=int(now),
    )

    def add(connection: Connection) -> AccountRow:
        if accounts.by_name(connection, account.name) is not None:
            raise Mistake("name", f"There is an account named '{account.name}' already.")
        accounts.add(connection, account)
        return account

    return in_turn(database, add)


def get_account(database: Database, id_or_name: str) -> AccountRow | None:
    """The account with this id or name; `None` where there is none."""
    return database.run(lambda connection: find(connection, id_or_name))


def list_accounts(
    database: Database, *, after: str | None = None, limit: int | None = None
) -> tuple[AccountRow, ...]:
    """Accounts, oldest first: those behind the id `after`, `limit` of them at most."""
    return database.run(lambda connection: accounts.every(connection, after=after, limit=limit))


def suspend_account(
    database: Database,
    id: str,  # noqa: A002 - what it is
    *,
    reason: str | None = None,
    now: float,
) -> AccountRow | None:
    """The account, none of whose keys works until it is resumed; `None` where there is none.

    One that was suspended before keeps its first moment and reason.
    """
    reason = one_line("reason", reason)

    def suspend(connection: Connection) -> AccountRow | None:
        account = _by_id(connection, id)
        if account is None or not account.active:
            return account
        accounts.write(connection, id, suspended_at=int(now), suspended_reason=reason)
        return _by_id(connection, id)

    return in_turn(database, suspend)


def resume_account(
    database: Database,
    id: str,  # noqa: A002 - as above
    *,
    now: float,  # noqa: ARG001 - every change is told its moment
) -> AccountRow | None:
    """The account, whose keys work again from now on; `None` where there is none."""

    def resume(connection: Connection) -> AccountRow | None:
        account = _by_id(connection, id)
        if account is None or account.active:
            return account
        accounts.write(connection, id, suspended_at=None, suspended_reason=None)
        return _by_id(connection, id)

    return in_turn(database, resume)


def set_account_limits(
    database: Database,
    id: str,  # noqa: A002 - as above
    limits: Allowance | None,
    *,
    now: float,  # noqa: ARG001 - as above
) -> AccountRow | None:
    """The account with `limits` of its own in place of the configuration's; with `None`, those
    hold again. `None` where there is no such account. Raises `Mistake`."""
    column = columns.encode(None if limits is None else checked(limits))

    def write(connection: Connection) -> AccountRow | None:
        if _by_id(connection, id) is None:
            return None
        accounts.write(connection, id, limits=column)
        return _by_id(connection, id)

    return in_turn(database, write)


def near_accounts(connection: Connection, name: str) -> str:
    """Which accounts may have been meant by a name that none has, in a sentence; or nothing."""
    return near_names(name, accounts.names(connection, limit=LOOKED_AT))


def find(connection: Connection, id_or_name: str) -> AccountRow | None:
    """The account with this id or name, within a transaction."""
    found = _by_id(connection, id_or_name)
    if found is None:
        try:
            name = account_name(id_or_name)
        except Mistake:
            return None
        found = accounts.by_name(connection, name)
    return found


def _by_id(connection: Connection, id: str) -> AccountRow | None:  # noqa: A002 - as above
    # Nothing that PostgreSQL takes for no text.
    return accounts.by_id(connection, id) if id.isascii() and id.isprintable() else None
