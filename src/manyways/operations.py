"""What an operator can do: plain functions over a database, whoever calls them.

Moments (`now`) are Unix seconds. Everything may raise `StoreError`.
"""

from collections.abc import Callable

from msgspec import Struct
from sqlalchemy import Connection

from manyways.access.keys import Settings, digest, new_secret
from manyways.errors import ConfigError
from manyways.store import keys
from manyways.store.database import Database
from manyways.store.ids import new_id
from manyways.store.keys import KeyRow


class CreatedKey(Struct, frozen=True, kw_only=True):
    """A key at its birth: the only value that ever holds the secret (`key`)."""

    id: str
    key: str
    type: str
    last4: str
    note: str | None
    created_at: int
    expires_at: int | None

    def __repr__(self) -> str:
        return f"<CreatedKey {self.id} {self.type} …{self.last4}>"


Show = Callable[[CreatedKey], None]
"""Shows a new key before it is kept: where this raises, there is no key."""


def _unshown(_created: CreatedKey) -> None:
    pass


def create_key(
    database: Database,
    settings: Settings,
    key_type: str,
    *,
    note: str | None = None,
    now: float,
    show: Show = _unshown,
) -> CreatedKey:
    """A new key of a type that the configuration has. Raises `ConfigError` for another type."""
    created, row = _new_key(settings, key_type, note=note, now=now)
    database.run(lambda connection: _add(connection, created, row, show), write=True)
    return created


def ensure_admin_key(
    database: Database, settings: Settings, now: float, *, show: Show
) -> CreatedKey | None:
    """The first admin's key; `None` where one was ever made.

    However many processes ask at once, one of them gets a key. `None` as well where the
    configuration has no type with `admin = true`.
    """
    admin_types = [name for name, key_type in settings.types.items() if key_type.admin]
    if not admin_types or database.run(lambda connection: keys.any_made(connection, admin_types)):
        return None
    name = "admin" if "admin" in admin_types else admin_types[0]
    created, row = _new_key(settings, name, note="made on the first start", now=now)

    def add_first(connection: Connection) -> CreatedKey | None:
        if keys.any_made(connection, admin_types):
            return None
        return _add(connection, created, row, show)

    return database.run(add_first, write=True)


def list_keys(database: Database, *, alive_at: float | None = None) -> tuple[KeyRow, ...]:
    """All keys, or those neither revoked nor expired at a moment; oldest first."""
    moment = None if alive_at is None else int(alive_at)
    return database.run(lambda connection: keys.every(connection, alive_at=moment))


def find_keys(database: Database, wanted: str) -> tuple[KeyRow, ...]:
    """The keys with this id, these last four characters, or this whole secret."""
    if not wanted.isascii():
        return ()
    return database.run(
        lambda connection: keys.matching(connection, id=wanted, last4=wanted, digest=digest(wanted))
    )


def revoke_key(
    database: Database, key_id: str, *, reason: str | None = None, now: float
) -> KeyRow | None:
    """The key with this id, revoked from now on; `None` where there is none.

    A key that was revoked before keeps its first moment and reason.
    """
    if not key_id.isascii():
        return None
    reason = None if reason is None else _one_line(reason)
    return database.run(
        lambda connection: keys.revoke(connection, key_id, reason=reason, at=int(now)), write=True
    )


def _new_key(
    settings: Settings, key_type: str, *, note: str | None, now: float
) -> tuple[CreatedKey, KeyRow]:
    if key_type not in settings.types:
        raise ConfigError(
            f"There is no key type {key_type!r}. The configuration has: "
            f"{', '.join(settings.types)}."
        )
    lifetime = settings.types[key_type].lifetime
    secret = new_secret(settings)
    row = KeyRow(
        id=new_id(int(now * 1e9)),
        last4=secret[-4:],
        type=key_type,
        note=None if note is None else _one_line(note),
        created_at=int(now),
        expires_at=None if lifetime is None else int(now + lifetime),
        revoked_at=None,
        revoked_reason=None,
    )
    created = CreatedKey(
        id=row.id,
        key=secret,
        type=row.type,
        last4=row.last4,
        note=row.note,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
    return created, row


def _add(connection: Connection, created: CreatedKey, row: KeyRow, show: Show) -> CreatedKey:
    keys.add(connection, row, digest(created.key))
    show(created)
    return created


def _one_line(text: str) -> str:
    """Text that no terminal and no database stumbles over."""
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()
