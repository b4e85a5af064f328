"""The database as the rest of the gateway sees it: opened, asked, locked, closed.

SQLAlchemy is used synchronously: its asynchronous half costs 0.6 s and 21 MB to import, and
nothing on the path of a request waits for the database. Asynchronous callers are served by
one thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from msgspec import Struct

from manyways.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from manyways.store.sqlite import SqliteFile

T = TypeVar("T")

# Calls that may wait for the thread at once; more would only wait for nothing.
MAX_WAITING = 1000

# Whoever looks who serves has the lock for a moment; whoever serves has it for good.
_TRIES = 5
_BETWEEN = 0.01  # seconds


class Settings(Struct, frozen=True, kw_only=True):
    """The `[database]` section."""

    url: str = "sqlite:///manyways.db"


def sqlite_path(url: str) -> Path:
    """The absolute path of the file that a `database.url` names, links followed.

    Raises `ConfigError` for whatever else the URL asks for, without repeating passwords, and
    `StoreError` where the links lead nowhere.
    """
    scheme, separator, rest = url.partition("://")
    if scheme.partition("+")[0] in ("postgresql", "postgres"):
        raise ConfigError(
            "database.url names PostgreSQL, which is not supported yet. Use SQLite: "
            "sqlite:///manyways.db"
        )
    if scheme != "sqlite" or not separator:
        raise ConfigError(
            "database.url is not an address this program knows. Write sqlite:///manyways.db for "
            "a file beside you, or sqlite:////var/lib/manyways/manyways.db for an absolute path."
        )
    if rest in ("", "/", "/:memory:", ":memory:"):
        raise ConfigError(
            "database.url names a database in memory, which would forget every key at the next "
            "start. Name a file: sqlite:///manyways.db"
        )
    if not rest.startswith("/"):
        raise ConfigError(
            f"database.url has too few slashes: sqlite:///{rest} is a relative path, "
            f"sqlite:////{rest} an absolute one."
        )
    if "?" in rest or "\0" in rest:
        raise ConfigError("database.url takes a path and nothing more: sqlite:///manyways.db")
    try:
        return Path(rest[1:]).resolve()
    except (OSError, RuntimeError) as error:  # which of the two, depends on Python
        raise StoreError(
            "database.url names a path whose links lead in a circle. Choose another."
        ) from error


def open_database(settings: Settings, *, busy_timeout: float = 5.0) -> Database:
    """The database, made if it is missing, its tables brought up to date.

    Any number of programs may have it open. A writer waits up to `busy_timeout` seconds for
    another. Raises `ConfigError` for an address it cannot use, `StoreError` for the rest.
    """
    from manyways.store.migrations import bring_up
    from manyways.store.sqlite import SqliteFile

    file = SqliteFile(sqlite_path(settings.url), busy_timeout)
    try:
        bring_up(file)
    except BaseException:  # also when interrupted: nobody else would close it
        file.close()
        raise
    return Database(file)


class Database:
    """An open database. `work` is always a plain function of an SQLAlchemy connection, run in
    a transaction of its own: committed when it returns, rolled back when it raises.

    `write=True` claims the right to write before `work` begins; work that writes should say
    so, or it can fail where another writer comes between.
    """

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="database")
        self._waiting = 0  # calls handed to the thread and not yet answered or given up
        self._lock: int | None = None  # the open lock file, while this process serves
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "locked" if self._lock is not None else "open"
        waiting = f", {self._waiting} waiting" if self._waiting else ""
        return f"<Database {self.path} {state}{waiting}>"

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self._file.path

    def run(self, work: Callable[[Connection], T], *, write: bool = False) -> T:
        """Do it here and now. Raises `StoreError`."""
        with self._file.transaction(write=write) as connection:
            return work(connection)

    async def call(
        self, work: Callable[[Connection], T], *, limit: float, write: bool = False
    ) -> T:
        """Do it in the database's thread, after what was asked before.

        Raises `StoreError` also where it takes longer than `limit` seconds (what has begun is
        then carried out all the same) and where too much waits already.
        """
        if self._closed:
            raise StoreError(f"The database {self.path} is closed.")
        if self._waiting >= MAX_WAITING:
            raise StoreError(f"The database {self.path} is too busy: {MAX_WAITING} calls wait.")
        self._waiting += 1
        future = self._thread.submit(self.run, work, write=write)
        try:
            # Not asyncio.wait_for: up to Python 3.11 it loses a cancellation that comes together
            # with the answer.
            async with asyncio.timeout(limit):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise StoreError(
                f"The database {self.path} did not answer within {limit:g} s."
            ) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if future.cancelled() and task is not None and not task.cancelling():
                raise StoreError(f"The database {self.path} is closed.") from None
            raise
        finally:
            self._waiting -= 1

    def lock_for_serving(self) -> None:
        """Be the one process that serves this database, until `close` or the process's end.

        Raises `StoreError` where another is.
        """
        if self._lock is not None:
            return
        path = _lock_file(self.path)
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreError(
                f"The lock file {path} cannot be opened: {error.strerror}. Give this user the "
                f"right to write to it and to its folder."
            ) from error
        try:
            _lock(lock)
        except BlockingIOError:
            other = _read(lock)
            os.close(lock)
            raise StoreError(
                f"Another Manyways serves this database (pid {other.pid}): {self.path}. "
                f"Stop it first, or choose another file in database.url."
            ) from None
        except OSError as error:
            os.close(lock)
            raise StoreError(f"The lock file {path} cannot be locked: {error.strerror}.") from error
        try:
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(lock)
            raise StoreError(
                f"The lock file {path} cannot be written: {error.strerror}."
            ) from error
        # The file stays when the lock goes: removing it would let two processes lock two files.
        self._lock = lock

    def announce(self, address: str) -> None:
        """Leave word for `serving`, beside the lock, of where this process listens."""
        if self._lock is not None:
            with contextlib.suppress(OSError):  # who cannot read it asks where it should be
                os.pwrite(self._lock, f"{os.getpid()}\n{address}\n".encode(), 0)

    def close(self) -> None:
        """Let go of everything; what has begun is finished first. May be called again."""
        self._closed = True
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._file.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class Serving(NamedTuple):
    """The process that serves a database. `address` (`http://0.0.0.0:8080`) is empty until it
    listens."""

    pid: str
    address: str = ""


def serving(path: Path) -> Serving | None:
    """Who serves the SQLite file at `path` now, if anybody does. Nothing is made by asking."""
    try:
        lock = os.open(_lock_file(path), os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(lock)
    except OSError:
        return None
    finally:
        os.close(lock)
    return None


def _lock_file(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _lock(lock: int) -> None:
    """Raises `BlockingIOError` where another process has it, and not only looks at it."""
    for left in reversed(range(_TRIES)):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not left:
                raise
            time.sleep(_BETWEEN)
        else:
            return


def _read(lock: int) -> Serving:
    pid, _, address = os.pread(lock, 512, 0).decode("ascii", "replace").partition("\n")
    return Serving(pid.strip() or "unknown", address.strip())
