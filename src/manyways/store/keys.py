"""The rows of `api_keys`: each write is counted in `changes`, in the same transaction."""

from collections.abc import Iterable, Iterator
from typing import Final, Literal

from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    bindparam,
    exists,
    false,
    insert,
    or_,
    select,
    update,
)

from manyways.errors import StoreError
from manyways.store.tables import api_keys, changes

_NO_COUNTER: Final = (
    "The database is damaged: its count of changes is gone. Restore it from a backup."
)

Standing = Literal["active", "expired", "revoked"]


class KeyRow(Struct, frozen=True, kw_only=True):
    """One key as it is kept: everything but its digest. Moments are Unix seconds."""

    id: str
    last4: str
    type: str
    note: str | None
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    revoked_reason: str | None

    def standing(self, now: float) -> Standing:
        """How the key stands at a moment. One both revoked and expired is revoked."""
        if self.revoked_at is not None:
            return "revoked"
        if self.expires_at is not None and now >= self.expires_at:
            return "expired"
        return "active"


_columns = [api_keys.c[name] for name in KeyRow.__struct_fields__]
_by_digest = select(*_columns).where(api_keys.c.digest == bindparam("digest"))
_counter = select(changes.c.counter).where(changes.c.name == "keys")


def by_digest(connection: Connection, digest: bytes) -> KeyRow | None:
    """The key whose secret has this SHA-256."""
    row = connection.execute(_by_digest, {"digest": digest}).mappings().one_or_none()
    return None if row is None else KeyRow(**row)


def matching(
    connection: Connection,
    *,
    id: str | None = None,  # noqa: A002 - a column's name
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
    return tuple(_rows(connection, select(*_columns).where(or_(*wanted))))


def every(connection: Connection, *, alive_at: int | None = None) -> tuple[KeyRow, ...]:
    """All keys, or those neither revoked nor expired at a moment; oldest first."""
    query = select(*_columns)
    if alive_at is not None:
        unexpired = or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > alive_at)
        query = query.where(api_keys.c.revoked_at.is_(None), unexpired)
    return tuple(_rows(connection, query))


def any_made(connection: Connection, types: Iterable[str]) -> bool:
    """Whether a key of one of these types was ever made: rows stay when keys end."""
    return bool(connection.scalar(select(exists().where(api_keys.c.type.in_(types)))))


def add(connection: Connection, key: KeyRow, digest: bytes) -> None:
    """A new key. Its id and digest must be new."""
    _count(connection)
    connection.execute(insert(api_keys).values(digest=digest, **_fields(key)))


def revoke(connection: Connection, id: str, *, reason: str | None, at: int) -> KeyRow | None:  # noqa: A002 - as above
    """The key as it stands afterwards; a revocation that already stood keeps its own reason.

    `None` where there is no such key.
    """
    _count(connection)
    connection.execute(
        update(api_keys)
        .where(api_keys.c.id == id, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=at, revoked_reason=reason)
    )
    return next(iter(matching(connection, id=id)), None)


def changed(connection: Connection) -> int:
    """How often keys have changed since the database was made. Raises `StoreError`."""
    counter = connection.execute(_counter).scalar_one_or_none()
    if counter is None:
        raise StoreError(_NO_COUNTER)
    return int(counter)


def _count(connection: Connection) -> None:
    counted = connection.execute(
        update(changes).where(changes.c.name == "keys").values(counter=changes.c.counter + 1)
    )
    if counted.rowcount != 1:  # running servers would never hear of it
        raise StoreError(_NO_COUNTER)


def _rows(connection: Connection, query: Select[tuple[object, ...]]) -> Iterator[KeyRow]:
    for row in connection.execute(query.order_by(api_keys.c.id)).mappings():
        yield KeyRow(**row)


def _fields(key: KeyRow) -> dict[str, object]:
    return {name: getattr(key, name) for name in KeyRow.__struct_fields__}
