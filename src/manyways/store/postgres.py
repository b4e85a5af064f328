"""The PostgreSQL server: its connections, its transactions, and its failures in plain words.

Whatever the server does, nobody waits for it without an end. It is asked to keep the limit of
a transaction itself; where it is silent, we hang up. A connection that broke is replaced by a
new one at the next transaction. Nothing outlives a transaction on a connection, so that
poolers like PgBouncer may stand between.
"""

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.types.string import StrDumperUnknown
from sqlalchemy import Connection, QueuePool, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoneFree

from manyways.errors import StoreError
from manyways.store import postgres_failures
from manyways.store.database_address import PostgresAddress
from manyways.store.engine import LIMIT

T = TypeVar("T")

OLDEST: Final = 13
"""The oldest major version of PostgreSQL that we know to work."""

CONNECTIONS: Final = 10
"""Open at once, at most, in one process."""

# What the address says about these goes before.
_DEFAULTS: Final = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
    "target_session_attrs": "read-write",  # of several hosts, the primary
    "application_name": "manyways",
    "gssencmode": "disable",
}

# Seconds. A server that is alive begins a transaction at once; one that was told its limit has
# a moment more to keep it before we hang up.
_BEGIN: Final = 5.0
_GRACE: Final = 2.0
_FREE: Final = 10.0  # waiting for one of our connections to be free
_AGE: Final = 1800  # then a connection is replaced: behind a name, servers change

# Migrations wait for each other, and have much to do.
_TURN: Final = 60.0
_MIGRATION: Final = 1800.0
_LOCK: Final = 0x6D616E79  # the number of our advisory lock: "many"


class PostgresServer:
    """An `Engine` over one PostgreSQL database, which somebody has made.

    Connections are opened when they are needed, `CONNECTIONS` at most.
    """

    shared = True
    threads = 4

    def __init__(self, address: PostgresAddress) -> None:
        self.name = address.name
        parameters = {**_DEFAULTS, "client_encoding": "UTF8", **address.parameters}
        self._conninfo = make_conninfo("", **parameters)
        self._engine = create_engine(
            "postgresql+psycopg://",
            creator=self.connect,
            poolclass=QueuePool,
            pool_size=CONNECTIONS // 2,
            max_overflow=CONNECTIONS - CONNECTIONS // 2,
            pool_timeout=_FREE,
            pool_recycle=_AGE,
            use_native_hstore=False,
            hide_parameters=True,
        )

    def __repr__(self) -> str:
        return f"<PostgresServer {self.name}>"

    @contextmanager
    def transaction(
        self, *, write: bool, isolated: bool = True, limit: float = LIMIT
    ) -> Iterator[Connection]:
        """As `Engine` has it. Over after `limit` seconds and a moment."""
        level = "READ COMMITTED"
        if isolated:
            level = "SERIALIZABLE" if write else "REPEATABLE READ"
        milliseconds = max(1, int(limit * 1000))
        begin = (
            f"BEGIN ISOLATION LEVEL {level};"
            f"SET LOCAL statement_timeout = {milliseconds};"
            f"SET LOCAL idle_in_transaction_session_timeout = {milliseconds}"
        )
        with self._failures(), self._begun(begin, limit + _GRACE) as connection:
            yield connection
            if _driver(connection).info.transaction_status == TransactionStatus.INERROR:
                # COMMIT would undo everything, and say nothing.
                raise StoreError(
                    f"The database {self.name} undid the work: it went on behind a failure."
                )
            connection.commit()

    @contextmanager
    def migration(self) -> Iterator[Connection]:
        """A transaction to change the tables in. Raises `StoreError` where its turn does not
        come within a minute, or somebody who uses a table does not let go of it."""
        with self.transaction(write=True, isolated=False, limit=_MIGRATION) as connection:
            driver = _driver(connection)
            driver.give_up_in(_TURN + _GRACE)
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_TURN:.0f}s'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            driver.give_up_in(_MIGRATION + _GRACE)
            connection.exec_driver_sql("SET LOCAL lock_timeout = '10s'")
            yield connection

    def version(self) -> str:
        """The server's, like `17.2`."""
        with self.transaction(write=False) as connection:
            return _driver(connection).info.parameter_status("server_version") or "unknown"

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._engine.dispose()

    @contextmanager
    def _begun(self, begin: str, limit: float) -> Iterator[Connection]:
        """A connection on which `begin` was carried out, given back at the end."""
        give_up = time.monotonic() + limit
        for again in (True, False):
            with self._engine.connect() as connection:
                try:
                    _begin(connection, begin, give_up - time.monotonic())
                except DBAPIError as error:
                    # It broke while it lay in the pool; with it, the others there are thrown away.
                    if again and error.connection_invalidated and not _is_silent(error):
                        continue
                    raise
                yield connection
                return

    def connect(self, name: str | None = None) -> "PostgresConnection":
        """A connection of its own, with autocommit, under another `name` if it needs one. Raises
        `psycopg.Error` and `StoreError`."""
        conninfo = self._conninfo
        if name is not None:
            conninfo = make_conninfo(conninfo, application_name=name)
        connection = PostgresConnection.connect(conninfo, autocommit=True, prepare_threshold=None)
        if connection.info.server_version < OLDEST * 10_000:
            connection.close()
            raise StoreError(
                f"The database {self.name} is served by a PostgreSQL that is too old. Version "
                f"{OLDEST} is the oldest that works."
            )
        connection.adapters.register_dumper(str, _Text)
        connection.give_up_in(_BEGIN)
        return connection

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except NoneFree as error:
            raise StoreError(
                f"The database {self.name} is too busy: all {CONNECTIONS} connections to it are "
                f"in use. Try again."
            ) from error
        except DBAPIError as error:
            raise postgres_failures.told(self.name, error.orig) from error


class _Silent(psycopg.OperationalError):
    """The server did not answer in time, and we hung up."""

    sqlstate = postgres_failures.SILENT


class PostgresConnection(psycopg.Connection[Any]):
    """A connection that is closed where the server is silent for too long.

    The server's own time limits don't help where it was stopped or is out of reach, nor do
    TCP's where its machine goes on answering for it.
    """

    _give_up = float("inf")

    def give_up_in(self, seconds: float) -> None:
        """From now on, nothing waits for the server beyond that."""
        self._give_up = time.monotonic() + seconds

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **options: Any) -> T:
        """Every wait of a connection and its cursors comes through here."""
        try:
            return super().wait(self._bounded(gen), *args, **options)
        except _Silent:
            self.close()
            raise

    def rollback(self) -> None:
        """Whatever was late, taking it back gets its moment."""
        self.give_up_in(_GRACE)
        super().rollback()

    def _bounded(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() >= self._give_up:
                    self._hang_up(gen)
                wanted = gen.send(ready)
        except StopIteration as end:
            value: T = end.value
            return value

    def _hang_up(self, gen: Generator[Any, Any, T]) -> NoReturn:
        gen.close()
        raise _Silent("the server is silent")


class _Text(StrDumperUnknown):
    """Text as PostgreSQL can keep it. What a caller sent may hold the letter NUL, and halves of
    letters; SQLite keeps the one, and nobody misses it."""

    def dump(self, obj: str) -> bytes:
        return obj.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace")


def _is_silent(error: DBAPIError) -> bool:
    return isinstance(error.orig, _Silent)


def _begin(connection: Connection, begin: str, limit: float) -> None:
    driver = _driver(connection)
    driver.give_up_in(min(limit, _BEGIN))
    # Several statements in one message are possible only without parameters.
    connection.exec_driver_sql(begin, execution_options={"no_parameters": True})
    driver.give_up_in(limit)


def _driver(connection: Connection) -> PostgresConnection:
    driver = connection.connection.driver_connection
    if not isinstance(driver, PostgresConnection):
        raise TypeError("this connection is another server's")
    return driver
