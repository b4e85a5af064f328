"""What is noted beside a key or an account, for people."""

from sqlalchemy import Connection

from manyways.operations.wording import one_line
from manyways.store import accounts, keys
from manyways.store.accounts import AccountRow
from manyways.store.database import Database
from manyways.store.keys import KeyRow


def set_key_note(database: Database, key_id: str, note: str | None) -> KeyRow | None:
    """The key with another note, or none; `None` where there is no such key. Raises `Mistake`."""
    line = one_line("note", note)

    def write(connection: Connection) -> KeyRow | None:
        if keys.by_id(connection, key_id) is None:
            return None
        keys.write(connection, key_id, note=line)
        return keys.by_id(connection, key_id)

    return database.run(write, write=True)


def set_account_note(database: Database, account_id: str, note: str | None) -> AccountRow | None:
    """The account with another note, or none; `None` where there is no such account.
    Raises `Mistake`."""
    line = one_line("note", note)

    def write(connection: Connection) -> AccountRow | None:
        if accounts.by_id(connection, account_id) is None:
            return None
        accounts.write(connection, account_id, note=line)
        return accounts.by_id(connection, account_id)

    return database.run(write, write=True)
