"""The rows of `api_keys`: each write is numbered in `changes`, in the same transaction."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    RowMapping,
    Select,
    bindparam,
    delete,
    exists,
    false,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from manyways.store import changes, limits
from manyways.store.accounts import COLUMNS as ACCOUNT_COLUMNS
from manyways.store.accounts import AccountRow
from manyways.store.accounts import from_row as account_from_row
from manyways.store.bulk import Statement
from manyways.store.tables import accounts, api_keys
from manyways.types import Allowance

Standing = Literal["active", "expired", "revoked", "suspended"]


class KeyRow(Struct, frozen=True, kw_only=True):
    """One key as it is kept: everything but its digest. Moments are Unix seconds.

    `account` is its account's name, `suspended_at` when that was suspended, if it is. `limits`
    are its own; without any, its type's hold. Keys that replaced each other share a `line`, the
    id of the first one.
    """

    id: str
    last4: str
    type: str
    note: str | None = None
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    revoked_reason: str | None = None
    account_id: str | None = None
    account: str | None = None
    suspended_at: int | None = None
    limits: Allowance | None = None
    line: str | None = None
    replaced_by: str | None = None
    last_used_at: int | None = None

    def standing(self, now: float) -> Standing:
        """How the key stands at a moment: the first that is true of revoked, expired, suspended
        (its account is)."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and now >= self.expires_at:
            return "expired"
        return "active" if self.suspended_at is None else "suspended"


class Held(NamedTuple):
    """A key, and the account it belongs to."""

    key: KeyRow
    account: AccountRow | None


_OF_ACCOUNT: Final = {
    "account": accounts.c.name.label("account"),
    "suspended_at": accounts.c.suspended_at.label("suspended_at"),
}
_PREFIX: Final = "account__"
_columns = [
    api_keys.c[name] if name not in _OF_ACCOUNT else _OF_ACCOUNT[name]
    for name in KeyRow.__struct_fields__
]
_both = api_keys.outerjoin(accounts, accounts.c.id == api_keys.c.account_id)
_keys = select(*_columns).select_from(_both)
_by_digest = (
    select(*_columns, *(one.label(f"{_PREFIX}{one.name}") for one in ACCOUNT_COLUMNS))
    .select_from(_both)
    .where(api_keys.c.digest == bindparam("digest"))
)


def by_digest(connection: Connection, digest: bytes) -> Held | None:
    """The key whose secret has this SHA-256, with its account."""
    row = connection.execute(_by_digest, {"digest": digest}).mappings().one_or_none()
    if row is None:
        return None
    account = {one.name: row[f"{_PREFIX}{one.name}"] for one in ACCOUNT_COLUMNS}
    return Held(_key(row), None if account["id"] is None else account_from_row(account))


def by_id(connection: Connection, id: str) -> KeyRow | None:  # noqa: A002 - a column's name
    """The key with this id."""
    return next(_rows(connection, _keys.where(api_keys.c.id == id)), None)


def matching(
    connection: Connection,
    *,
    id: str | None = None,  # noqa: A002 - as above
    last4: str | None = None,
    digest: bytes | None = None,
) -> tuple[KeyRow, ...]:
    """Every key that has one of these, oldest first."""
    wanted: list[ColumnElement[bool]] = [false()]
    for column, value in (
        (api_keys.c.id, id),
        (api_keys.c.last4, last4),
        (api_keys.c.digest, digest),
    ):
        if value is not None:
            wanted.append(column == value)
    return tuple(_rows(connection, _keys.where(or_(*wanted))))


def every(
    connection: Connection,
    *,
    account_id: str | None = None,
    alive_at: int | None = None,
    after: str | None = None,
    limit: int | None = None,
) -> tuple[KeyRow, ...]:
    """Keys, oldest first: of one account, or all; those neither revoked nor expired at a moment,
    or all; those behind the id `after`, `limit` of them at most."""
    query = _keys.where(*_chosen(account_id, alive_at)).limit(limit)
    if after is not None:
        query = query.where(api_keys.c.id > after)
    return tuple(_rows(connection, query))


def of_line(first: str) -> CompoundSelect[str]:
    """The ids of the keys that replaced each other, of which this is the first; a query."""
    return select(literal(first)).union(select(api_keys.c.id).where(api_keys.c.line == first))


def count(
    connection: Connection, *, account_id: str | None = None, alive_at: int | None = None
) -> int:
    """How many keys `every` would tell."""
    query = select(func.count()).select_from(api_keys).where(*_chosen(account_id, alive_at))
    return int(connection.scalar(query) or 0)


def any_made(connection: Connection, types: Iterable[str]) -> bool:
    """Whether a key of one of these types was ever made: rows stay when keys end."""
    return bool(connection.scalar(select(exists().where(api_keys.c.type.in_(types)))))


def add(connection: Connection, key: KeyRow, digest: bytes) -> None:
    """A new key. Its id and digest must be new."""
    number = changes.claim(connection)
    values = {name: value for name, value in asdict(key).items() if name not in _OF_ACCOUNT}
    values |= {"limits": limits.encode(key.limits), "digest": digest, "change": number}
    connection.execute(insert(api_keys).values(values))
    changes.publish(connection, number)


def write(connection: Connection, id: str, **values: object) -> None:  # noqa: A002 - as above
    """Change columns of a key that is there."""
    number = changes.claim(connection)
    connection.execute(update(api_keys).where(api_keys.c.id == id).values(change=number, **values))
    changes.publish(connection, number)


def note_use(connection: Connection, uses: Mapping[str, int]) -> None:
    """When keys were used last, by their ids, in Unix seconds: kept to a minute, and never taken
    back. No change of a key: what servers know of it stays as it is."""
    _used.run(connection, sorted(uses.items()))


_used: Final = Statement(
    "WITH used (id, at) AS (",
    (api_keys.c.id, api_keys.c.last_used_at),
    ") UPDATE api_keys SET last_used_at = used.at FROM used WHERE api_keys.id = used.id"
    " AND (api_keys.last_used_at IS NULL OR api_keys.last_used_at <= used.at - 60)",
)


def remove(connection: Connection, id: str) -> None:  # noqa: A002 - as above
    """Take back a key that nobody ever had: others that end stay as rows."""
    number = changes.claim(connection)
    connection.execute(delete(api_keys).where(api_keys.c.id == id))
    changes.publish(connection, number)


def _chosen(account_id: str | None, alive_at: int | None) -> list[ColumnElement[bool]]:
    chosen: list[ColumnElement[bool]] = []
    if account_id is not None:
        chosen.append(api_keys.c.account_id == account_id)
    if alive_at is not None:
        chosen.append(api_keys.c.revoked_at.is_(None))
        chosen.append(or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > alive_at))
    return chosen


def _rows(connection: Connection, query: Select[Any]) -> Iterator[KeyRow]:
    for row in connection.execute(query.order_by(api_keys.c.id)).mappings():
        yield _key(row)


def _key(row: RowMapping) -> KeyRow:
    values = {name: row[name] for name in KeyRow.__struct_fields__}
    return KeyRow(**values | {"limits": limits.decode(values["limits"])})
