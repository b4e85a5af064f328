"""The SQLite file: how it is opened, its transactions, and its failures in plain words."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from sqlalchemy import Connection, QueuePool, create_engine
from sqlalchemy.exc import DBAPIError

from manyways.errors import StoreError
from manyways.store.engine import LIMIT

# What SQLite says (https://www.sqlite.org/rescode.html) and what to do about it.
_CURES = {
    sqlite3.SQLITE_BUSY: "is locked: another program is writing to it and did not finish in "
    "time. Try again; if it lasts, find out what holds it (lsof tells).",
    sqlite3.SQLITE_FULL: "cannot grow: the disk (or the quota on it) is full. Make room.",
    sqlite3.SQLITE_READONLY: "is read-only. Give this user the right to write to the file and "
    "to its folder.",
    sqlite3.SQLITE_PERM: "may not be used by this user. Give them the right to read and write it.",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened. See that it exists, that its folder does, and "
    "that this user may read and write both.",
    sqlite3.SQLITE_NOTADB: "is not an SQLite database. Choose another file in database.url.",
    sqlite3.SQLITE_CORRUPT: "is damaged. Restore it from a backup, or save what can be read "
    "with: sqlite3 FILE .recover",
    sqlite3.SQLITE_IOERR: "cannot be read or written: the disk or the file system fails. Look "
    "at the system's log.",
}
_CURES[sqlite3.SQLITE_LOCKED] = _CURES[sqlite3.SQLITE_BUSY]


class SqliteFile:
    """An `Engine` over one SQLite file, made if it is missing: readable by its owner only, as
    keys live there.

    Readers and the one writer do not wait for each other (WAL); a second writer waits
    `busy_timeout` seconds. May be used from several threads at once. Every failure is a
    `StoreError` that names the file and the cure.
    """

    shared = False
    threads = 1

    def __init__(self, path: Path, busy_timeout: float) -> None:
        self.path = path
        self.name = str(path)
        self._busy_timeout = busy_timeout
        self._create()
        self._engine = create_engine("sqlite://", creator=self._connect, poolclass=QueuePool)
        try:
            with self._failures():
                self._write_ahead()
        except StoreError:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<SqliteFile {self.path}>"

    @contextmanager
    def transaction(
        self,
        *,
        write: bool,
        isolated: bool = True,  # noqa: ARG002 - all of SQLite's are
        limit: float = LIMIT,  # noqa: ARG002 - a file does not fall silent
    ) -> Iterator[Connection]:
        """As `Engine` has it, without a limit.

        With `write`, it has the right to write from its beginning on; a transaction that
        reads first and writes later can fail at once where another writer came between.
        """
        with self._failures(), self._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
            yield connection
            connection.commit()

    def migration(self) -> AbstractContextManager[Connection]:
        """A transaction to change the tables in: there is only one writer at a time."""
        return self.transaction(write=True)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._engine.dispose()

    def _create(self) -> None:
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            if self.path.is_dir():
                raise StoreError(f"{self.path} is a folder. Name a file in database.url.") from None
        except FileNotFoundError:
            raise StoreError(
                f"The database {self.path} cannot be made: there is no folder "
                f"{self.path.parent}. Make it, or choose another file in database.url."
            ) from None
        except OSError as error:
            raise StoreError(
                f"The database {self.path} cannot be made: {error.strerror}. Choose a folder "
                f"that this user may write to."
            ) from error

    def _write_ahead(self) -> None:
        """Switch to WAL, a mode that stays with the file.

        Of two programs that switch at once, SQLite turns one away without letting it wait.
        """
        give_up = time.monotonic() + self._busy_timeout
        with self._engine.connect() as connection:
            while connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() != "wal":
                try:
                    connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                except DBAPIError as error:
                    if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= give_up:
                        raise
                    time.sleep(0.01)
                else:
                    return  # also where the file system cannot do it: the old mode works too

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode=rw",
            uri=True,
            timeout=self._busy_timeout,
            isolation_level=None,  # transactions begin where we say BEGIN, and nowhere else
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA temp_store = MEMORY")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            cure = _CURES.get(_code(error), f"cannot do what was asked of it: {error.orig}")
            raise StoreError(f"The database {self.path} {cure}") from error


def _code(error: DBAPIError) -> int:
    """SQLite's primary result code."""
    return int(getattr(error.orig, "sqlite_errorcode", 0)) & 0xFF
