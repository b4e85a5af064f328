"""The rows of `accounts`: each write is numbered in `changes`, in the same transaction."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy import Connection, RowMapping, insert, select, update

from manyways.store import changes, limits
from manyways.store.tables import accounts
from manyways.types import Allowance


class AccountRow(Struct, frozen=True, kw_only=True):
    """One account as it is kept. Moments are Unix seconds. `limits` are its own; without any,
    the configuration's hold."""

    id: str
    name: str
    note: str | None = None
    limits: Allowance | None = None
    created_at: int
    suspended_at: int | None = None
    suspended_reason: str | None = None

    @property
    def active(self) -> bool:
        """Whether its keys work."""
        return self.suspended_at is None


COLUMNS: Final = tuple(accounts.c[name] for name in AccountRow.__struct_fields__)


def from_row(row: RowMapping | Mapping[str, Any]) -> AccountRow:
    """The account that a row with `COLUMNS` tells. Raises `StoreError` for unreadable limits."""
    return AccountRow(**{**row, "limits": limits.decode(row["limits"])})


def by_id(connection: Connection, id: str) -> AccountRow | None:  # noqa: A002 - a column's name
    """The account with this id."""
    row = connection.execute(select(*COLUMNS).where(accounts.c.id == id)).mappings().one_or_none()
    return None if row is None else from_row(row)


def by_name(connection: Connection, name: str) -> AccountRow | None:
    """The account of this very name."""
    query = select(*COLUMNS).where(accounts.c.name == name)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else from_row(row)


def names(connection: Connection, *, limit: int) -> list[str]:
    """What accounts are called, `limit` of them at most, newest first."""
    query = select(accounts.c.name).order_by(accounts.c.id.desc()).limit(limit)
    return [str(name) for name in connection.scalars(query)]


def every(
    connection: Connection, *, after: str | None = None, limit: int | None = None
) -> tuple[AccountRow, ...]:
    """Accounts, oldest first: those behind the id `after`, `limit` of them at most."""
    query = select(*COLUMNS).order_by(accounts.c.id).limit(limit)
    if after is not None:
        query = query.where(accounts.c.id > after)
    return tuple(from_row(row) for row in connection.execute(query).mappings())


def add(connection: Connection, account: AccountRow) -> None:
    """A new account. Its id and name must be new; `changes.claim` first to be sure of that."""
    number = changes.claim(connection)
    values = asdict(account) | {"limits": limits.encode(account.limits), "change": number}
    connection.execute(insert(accounts).values(values))
    changes.publish(connection, number)


def write(connection: Connection, id: str, **values: object) -> None:  # noqa: A002 - as above
    """Change columns of an account that is there."""
    number = changes.claim(connection)
    connection.execute(update(accounts).where(accounts.c.id == id).values(change=number, **values))
    changes.publish(connection, number)
