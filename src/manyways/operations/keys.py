"""Keys: made, shown once, replaced, limited, revoked; never deleted, once somebody has seen them.

Moments (`now`) are Unix seconds. Everything may raise `StoreError`.
"""

import math
from collections.abc import Callable
from typing import Final

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection

from manyways.access.keys import Settings, digest, new_secret
from manyways.operations import accounts
from manyways.operations.limits import checked
from manyways.operations.wording import Mistake, one_line
from manyways.store import keys
from manyways.store import limits as columns
from manyways.store.accounts import AccountRow
from manyways.store.changes import in_turn
from manyways.store.database import Database
from manyways.store.ids import new_id
from manyways.store.keys import KeyRow
from manyways.types import Allowance

OVERLAP: Final = 86400.0
"""Seconds for which a key that was replaced goes on working, unless told otherwise."""

_CENTURY: Final = 36500 * 86400.0


class CreatedKey(Struct, frozen=True, kw_only=True):
    """A key at its birth: the only value that ever holds the secret (`key`).

    `replaces` is the id of the key in whose place it comes, and `replaced_until` (Unix seconds)
    until when that one works.
    """

    id: str
    key: str
    type: str
    last4: str
    note: str | None
    created_at: int
    expires_at: int | None
    account_id: str | None = None
    account: str | None = None
    limits: Allowance | None = None
    replaces: str | None = None
    replaced_until: int | None = None

    def __repr__(self) -> str:
        return f"<CreatedKey {self.id} {self.type} …{self.last4}>"


Show = Callable[[CreatedKey], None]
"""Shows a new key once it is kept, so that whoever reads it can use it at once. Where this raises,
all is as it was before."""


def _unshown(_created: CreatedKey) -> None:
    pass


def create_key(
    database: Database,
    settings: Settings,
    key_type: str,
    *,
    note: str | None = None,
    account: str | None = None,
    limits: Allowance | None = None,
    lifetime: float | None = None,
    now: float,
    show: Show = _unshown,
) -> CreatedKey:
    """A new key of a type that the configuration has, in an account (its id or name) or none.

    `limits` take the place of its type's, `lifetime` (seconds; infinity: for ever) that of its
    type's. Raises `Mistake`, which is a `ConfigError`, for what cannot be.
    """
    secret, row = _new_key(settings, key_type, lifetime=lifetime, now=now)
    row = replace(
        row,
        note=one_line("note", note),
        limits=None if limits is None else checked(limits),
    )

    def add(connection: Connection) -> CreatedKey:
        of_account = row
        if account is not None:
            found = _account(connection, account)
            of_account = replace(row, account_id=found.id, account=found.name)
        return _add(connection, secret, of_account)

    return _shown(database, in_turn(database, add), show)


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
    secret, row = _new_key(settings, name, lifetime=None, now=now)
    row = replace(row, note="made on the first start")

    def add_first(connection: Connection) -> CreatedKey | None:
        if keys.any_made(connection, admin_types):
            return None
        return _add(connection, secret, row)

    made = in_turn(database, add_first)
    return None if made is None else _shown(database, made, show)


def list_keys(
    database: Database,
    *,
    account: str | None = None,
    alive_at: float | None = None,
    after: str | None = None,
    limit: int | None = None,
) -> tuple[KeyRow, ...]:
    """Keys, oldest first: of an account (its id or name), or all; those neither revoked nor
    expired at a moment, or all; those behind the id `after`, `limit` of them at most.

    Raises `Mistake` where there is no such account.
    """
    moment = None if alive_at is None else int(alive_at)
    return database.run(
        lambda connection: keys.every(
            connection,
            account_id=_account_id(connection, account),
            alive_at=moment,
            after=after,
            limit=limit,
        )
    )


def count_keys(
    database: Database, *, account: str | None = None, alive_at: float | None = None
) -> int:
    """How many keys `list_keys` would tell."""
    moment = None if alive_at is None else int(alive_at)
    return database.run(
        lambda connection: keys.count(
            connection, account_id=_account_id(connection, account), alive_at=moment
        )
    )


def find_keys(database: Database, wanted: str) -> tuple[KeyRow, ...]:
    """The keys with this id, these last four characters, or this whole secret."""
    if not _is_plain(wanted):
        return ()
    return database.run(
        lambda connection: keys.matching(connection, id=wanted, last4=wanted, digest=digest(wanted))
    )


def get_key(database: Database, key_id: str) -> KeyRow | None:
    """The key with this id; `None` where there is none."""
    if not _is_plain(key_id):
        return None
    return database.run(lambda connection: keys.by_id(connection, key_id))


def revoke_key(
    database: Database, key_id: str, *, reason: str | None = None, now: float
) -> KeyRow | None:
    """The key with this id, revoked from now on; `None` where there is none.

    A key that was revoked before keeps its first moment and reason.
    """
    if not _is_plain(key_id):
        return None
    reason = one_line("reason", reason)

    def revoke(connection: Connection) -> KeyRow | None:
        row = keys.by_id(connection, key_id)
        if row is None or row.revoked_at is not None:
            return row
        keys.write(connection, key_id, revoked_at=int(now), revoked_reason=reason)
        return keys.by_id(connection, key_id)

    return in_turn(database, revoke)


def rotate_key(
    database: Database,
    settings: Settings,
    key_id: str,
    *,
    overlap: float = OVERLAP,
    now: float,
    show: Show = _unshown,
) -> CreatedKey | None:
    """A new key in place of the one with this id; `None` where there is none.

    It has the same type, account, limits and note, and a whole lifetime of its type. The old one
    works for another `overlap` seconds, never longer than it would have. What both use is
    counted together. Raises `Mistake` for a key that has ended or was replaced before, and for
    one whose type the configuration does not have any more.
    """
    if not _is_plain(key_id):
        return None
    if not 0 <= overlap <= _CENTURY:
        raise Mistake("overlap", "The overlap must be between 0 seconds and 100 years.")

    def rotate(connection: Connection) -> tuple[KeyRow, CreatedKey] | None:
        old = keys.by_id(connection, key_id)
        if old is None:
            return None
        _see_that_it_can_be_replaced(old, now)
        secret, row = _new_key(settings, old.type, lifetime=None, now=now)
        line = old.line or old.id
        row = replace(
            row,
            note=old.note,
            account_id=old.account_id,
            account=old.account,
            limits=old.limits,
            line=line,
        )
        end = int(now + overlap)
        if old.expires_at is not None:
            end = min(old.expires_at, end)
        keys.write(connection, key_id, line=line, replaced_by=row.id, expires_at=end)
        return old, _add(connection, secret, row, replaces=replace(old, expires_at=end))

    done = in_turn(database, rotate)
    return None if done is None else _shown(database, done[1], show, instead_of=done[0])


def set_key_limits(
    database: Database,
    key_id: str,
    limits: Allowance | None,
    *,
    now: float,
) -> KeyRow | None:
    """The key with `limits` of its own in place of its type's; with `None`, those hold again.

    The keys that it replaced, or that replaced it, get the same, if they still work: all of them
    are counted together, which takes one measure. `None` where there is no such key. Raises
    `Mistake`.
    """
    column = columns.encode(None if limits is None else checked(limits))
    if not _is_plain(key_id):
        return None

    def write(connection: Connection) -> KeyRow | None:
        key = keys.by_id(connection, key_id)
        if key is None:
            return None
        line = [key_id] if key.line is None else connection.scalars(keys.of_line(key.line))
        for one in list(line):
            if one == key_id or _works(connection, one, now):
                keys.write(connection, one, limits=column)
        return keys.by_id(connection, key_id)

    return in_turn(database, write)


def _new_key(
    settings: Settings, key_type: str, *, lifetime: float | None, now: float
) -> tuple[str, KeyRow]:
    """A secret, and the row that is kept of it."""
    if key_type not in settings.types:
        raise Mistake(
            "type",
            f"There is no key type {key_type!r}. The configuration has: "
            f"{', '.join(settings.types)}.",
        )
    if lifetime is not None and not (lifetime == math.inf or 1 <= lifetime <= _CENTURY):
        raise Mistake("lifetime", "The lifetime must be between a second and 100 years.")
    usual = settings.types[key_type].lifetime
    life = (math.inf if usual is None else usual) if lifetime is None else lifetime
    secret = new_secret(settings)
    row = KeyRow(
        id=new_id(int(now * 1e9)),
        last4=secret[-4:],
        type=key_type,
        created_at=int(now),
        expires_at=None if life == math.inf else int(now + life),
    )
    return secret, row


def _shown(
    database: Database, made: CreatedKey, show: Show, *, instead_of: KeyRow | None = None
) -> CreatedKey:
    """A key that was made, shown. One that nobody has seen is taken back, and what it replaced is
    as it was."""

    def take_back(connection: Connection) -> None:
        if instead_of is not None:
            keys.write(
                connection,
                instead_of.id,
                line=instead_of.line,
                replaced_by=instead_of.replaced_by,
                expires_at=instead_of.expires_at,
            )
        keys.remove(connection, made.id)

    try:
        show(made)
    except BaseException:
        in_turn(database, take_back)
        raise
    return made


def _add(
    connection: Connection, secret: str, row: KeyRow, *, replaces: KeyRow | None = None
) -> CreatedKey:
    created = CreatedKey(
        id=row.id,
        key=secret,
        type=row.type,
        last4=row.last4,
        note=row.note,
        created_at=row.created_at,
        expires_at=row.expires_at,
        account_id=row.account_id,
        account=row.account,
        limits=row.limits,
        replaces=None if replaces is None else replaces.id,
        replaced_until=None if replaces is None else replaces.expires_at,
    )
    keys.add(connection, row, digest(secret))
    return created


def _works(connection: Connection, key_id: str, now: float) -> bool:
    row = keys.by_id(connection, key_id)
    return row is not None and row.standing(now) in {"active", "suspended"}


def _see_that_it_can_be_replaced(key: KeyRow, now: float) -> None:
    if key.replaced_by is not None:
        raise Mistake("key", f"The key was replaced before, by {key.replaced_by}.")
    standing = key.standing(now)
    if standing in {"revoked", "expired"}:
        word = "been revoked" if standing == "revoked" else "expired"
        raise Mistake("key", f"The key has {word}, and cannot be replaced. Make a new one.")


def _account_id(connection: Connection, account: str | None) -> str | None:
    return None if account is None else _account(connection, account).id


def _account(connection: Connection, account: str) -> AccountRow:
    found = accounts.find(connection, account)
    if found is None:
        near = accounts.near_accounts(connection, account)
        raise Mistake("account", f"There is no account '{account}'. {near}".rstrip())
    return found


def _is_plain(text: str) -> bool:
    """Whether this can be an id, an end or a secret; what else there is, PostgreSQL would not
    even take for text."""
    return text.isascii() and text.isprintable()
