"""The database as the rest of the gateway sees it: opened, asked, locked, closed.

SQLAlchemy is used synchronously: its asynchronous half costs 0.6 s and 21 MB to import, and
nothing on the path of a request waits for the database. Asynchronous callers are served by
threads: one for SQLite, a few for PostgreSQL.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from manyways.errors import StoreError
from manyways.store.database_address import is_postgres, postgres_address, sqlite_path
from manyways.store.engine import LIMIT, Conflict
from manyways.store.serving import Lock, Serving, ServingLock, serving

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from manyways.store.engine import Engine

__all__ = [
    "MAX_WAITING",
    "Database",
    "Serving",
    "Settings",
    "is_there",
    "open_database",
    "serving",
    "sqlite_path",
]

T = TypeVar("T")

# Calls that may wait for a thread at once; more would only wait for nothing.
MAX_WAITING = 1000

# A transaction that others came between is done again: so often at most, after up to so many
# seconds, twice that the next time, and so on.
_TRIES = 12
_PAUSE = 0.01
_LONGEST_PAUSE = 0.5


class Settings(Struct, frozen=True, kw_only=True):
    """The `[database]` section."""

    url: str = "sqlite:///manyways.db"


def open_database(settings: Settings, *, busy_timeout: float = 5.0) -> Database:
    """The database, an SQLite file made if it is missing, its tables brought up to date.

    Any number of programs may have it open. On SQLite, a writer waits up to `busy_timeout`
    seconds for another. Raises `ConfigError` for an address it cannot use, `StoreError` for
    the rest.
    """
    from manyways.store.migrations import bring_up

    engine: Engine
    if is_postgres(settings.url):
        from manyways.store.postgres import PostgresServer
        from manyways.store.postgres_serving import PostgresServing

        path = None
        engine = server = PostgresServer(postgres_address(settings.url))
        lock: Lock = PostgresServing(server)
    else:
        from manyways.store.sqlite import SqliteFile

        path = sqlite_path(settings.url)
        engine = SqliteFile(path, busy_timeout)
        lock = ServingLock(path)
    try:
        bring_up(engine)
    except BaseException:  # also when interrupted: nobody else would close it
        engine.close()
        raise
    return Database(engine, lock, path)


def is_there(settings: Settings) -> bool:
    """Whether there is a database to open: for PostgreSQL, whose databases others make, always;
    for SQLite, whether the file exists. Raises as `sqlite_path` does."""
    return is_postgres(settings.url) or sqlite_path(settings.url).exists()


class Database:
    """An open database. `work` is always a plain function of an SQLAlchemy connection, run in
    a transaction of its own: committed when it returns, rolled back when it raises.

    `write=True` claims the right to write before `work` begins; work that writes should say
    so, or it can fail where another writer comes between.

    Work sees the database as of its beginning, and what it writes is right as if nobody wrote
    beside it. On PostgreSQL that can take several tries: work may be run more than once, and
    should do nothing else. With `isolated=False` it meets no conflicts there, and sees what
    others commit between its statements: for work whose every statement is right by itself.
    A `limit` in seconds binds PostgreSQL only.
    """

    def __init__(self, engine: Engine, lock: Lock, path: Path | None) -> None:
        self._engine = engine
        self._path = path
        self._threads = ThreadPoolExecutor(engine.threads, thread_name_prefix="database")
        self._waiting = 0  # calls handed to the threads and not yet answered or given up
        self._lock = lock
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "locked" if self._lock.held else "open"
        waiting = f", {self._waiting} waiting" if self._waiting else ""
        return f"<Database {self.name} {state}{waiting}>"

    @property
    def name(self) -> str:
        """The database in messages: a file's path, or `manyways at db.example.com:5432`."""
        return self._engine.name

    @property
    def shared(self) -> bool:
        """Whether several processes may serve it at once."""
        return self._engine.shared

    @property
    def path(self) -> Path:
        """The SQLite file. Raises `StoreError` where there is none."""
        if self._path is None:
            raise StoreError(f"The database {self.name} is not a file.")
        return self._path

    def run(
        self,
        work: Callable[[Connection], T],
        *,
        write: bool = False,
        isolated: bool = True,
        limit: float = LIMIT,
    ) -> T:
        """Do it here and now. Raises `StoreError`.

        What failed is undone, but for one case: a connection lost while PostgreSQL commits
        leaves open whether it did.
        """
        give_up = time.monotonic() + limit
        pause = _PAUSE
        for left in reversed(range(_TRIES)):
            try:
                with self._engine.transaction(
                    write=write, isolated=isolated, limit=limit
                ) as connection:
                    return work(connection)
            except Conflict:
                if not left or time.monotonic() + pause >= give_up:
                    raise
            time.sleep(pause * random.random())  # noqa: S311 - so that rivals don't meet again
            pause = min(2 * pause, _LONGEST_PAUSE)
        raise AssertionError("the last try raises")

    async def call(
        self,
        work: Callable[[Connection], T],
        *,
        limit: float,
        write: bool = False,
        isolated: bool = True,
    ) -> T:
        """Do it in one of the database's threads, begun after what was asked before.

        Raises `StoreError` also where it takes longer than `limit` seconds (what has begun is
        then carried out all the same; PostgreSQL may undo it) and where too much waits already.
        """
        if self._closed:
            raise StoreError(f"The database {self.name} is closed.")
        if self._waiting >= MAX_WAITING:
            raise StoreError(f"The database {self.name} is too busy: {MAX_WAITING} calls wait.")
        self._waiting += 1
        future = self._threads.submit(self.run, work, write=write, isolated=isolated, limit=limit)
        try:
            # Not asyncio.wait_for: up to Python 3.11 it loses a cancellation that comes together
            # with the answer.
            async with asyncio.timeout(limit):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise StoreError(
                f"The database {self.name} did not answer within {limit:g} s."
            ) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if future.cancelled() and task is not None and not task.cancelling():
                raise StoreError(f"The database {self.name} is closed.") from None
            raise
        finally:
            self._waiting -= 1

    def lock_for_serving(self, *, together: bool = False) -> None:
        """Be the one process that serves this database, until `close` or the process's end; with
        `together`, one of several, on PostgreSQL.

        Raises `StoreError` where another is, or is by itself.
        """
        self._lock.take(together=together)

    def announce(self, address: str) -> None:
        """Leave word for `serving`, beside a file's lock, of where this process listens."""
        self._lock.announce(address)

    def close(self) -> None:
        """Let go of everything; what has begun is finished first. May be called again."""
        self._closed = True
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._engine.close()
        self._lock.release()
