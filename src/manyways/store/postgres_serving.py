"""Who serves a PostgreSQL database: one process by itself, or several that share a Redis.

A process holds a transaction open for as long as it serves, with an advisory lock in it:
exclusive where it serves by itself, shared where others may serve beside it. The lock ends with
the process, however that ends. It belongs to a transaction and not to a session, so that poolers
may stand between; the transaction has no snapshot, and keeps nothing from being vacuumed.
"""

import threading
import time
from typing import Any, Final

import psycopg
import structlog

from manyways.errors import StoreError
from manyways.store import postgres_failures
from manyways.store.postgres import PostgresConnection, PostgresServer

LOOK: Final = 2.0
"""Seconds between two looks whether the lock is still held."""
PATIENCE: Final = 3.0
"""Seconds that a start waits for a process that is just ending."""
_BETWEEN: Final = 0.1
_ANSWER: Final = 5.0
"""Seconds for an answer of the server."""
_CLOSING: Final = 1.0

_KEY: Final = "1835101817, hashtext(current_schema())"  # "many", and whose tables they are

# Whoever ends idle transactions spares this one, and the server notices a machine that is gone.
_SETTINGS: Final = """
SELECT set_config(name, CASE WHEN name LIKE 'tcp%' THEN '10' ELSE '0' END, true)
FROM pg_settings WHERE name IN (
    'idle_in_transaction_session_timeout', 'transaction_timeout', 'statement_timeout',
    'tcp_keepalives_idle', 'tcp_keepalives_interval'
)"""
_OTHERS: Final = """
SELECT DISTINCT host(client_addr)
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE client_addr IS NOT NULL AND locktype = 'advisory' AND granted
    AND classid = 1835101817 AND objsubid = 2
    AND objid::bigint = hashtext(current_schema())::bigint & 4294967295
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY 1"""

log = structlog.get_logger("manyways")


class PostgresServing:
    """Held from `take` until `release`. Where the server restarts meanwhile, it is taken anew in
    the background."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._together = False
        self._connection: PostgresConnection | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def __repr__(self) -> str:
        return f"<PostgresServing {self._server.name} {'held' if self.held else 'free'}>"

    @property
    def held(self) -> bool:
        """Whether this process has it, as far as it knows."""
        return self._connection is not None

    def take(self, *, together: bool) -> None:
        """Raises `StoreError` where another process has it; with `together`, where one has it
        for itself. May be called again."""
        if self._thread is not None:
            return
        self._together = together
        give_up = time.monotonic() + PATIENCE
        while (others := self._try()) is not None:
            if time.monotonic() > give_up:
                raise StoreError(_refusal(self._server.name, others, together=together))
            time.sleep(_BETWEEN)
        self._thread = threading.Thread(target=self._watch, name="serving", daemon=True)
        self._thread.start()

    def announce(self, address: str) -> None:
        """Nobody looks here for an address."""

    def release(self) -> None:
        """Let go of it. May be called again."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_CLOSING)  # one that waits for the server ends with the process

    def _try(self) -> str | None:
        """Take it; otherwise, whoever has it. Raises `StoreError`."""
        connection: PostgresConnection | None = None
        try:
            connection = self._server.connect("manyways (serving)")
            for statement in ("BEGIN ISOLATION LEVEL READ COMMITTED", _SETTINGS):
                connection.execute(statement)
            kind = "_shared" if self._together else ""
            if _value(connection, f"SELECT pg_try_advisory_xact_lock{kind}({_KEY})"):
                self._connection, connection = connection, None
                return None
            return ", ".join(str(row[0]) for row in connection.execute(_OTHERS).fetchall())
        except psycopg.Error as error:
            raise postgres_failures.told(self._server.name, error) from error
        finally:
            if connection is not None:
                connection.close()

    def _watch(self) -> None:
        told = ""
        while not self._stop.wait(LOOK):
            if self._connection is not None and not self._still_held(self._connection):
                self._connection = None
            if self._connection is None:
                told = self._again(told)
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _again(self, told: str) -> str:
        """Take anew what was lost; what is in the way is told once."""
        try:
            others = self._try()
        except StoreError as error:
            reason = str(error)
        else:
            if others is None:
                if told:
                    log.info("this process serves the database again")
                return ""
            reason = _refusal(self._server.name, others, together=self._together)
        if reason != told:
            log.warning("the lock of whoever serves the database is lost", reason=reason)
        return reason

    @staticmethod
    def _still_held(connection: PostgresConnection) -> bool:
        try:
            connection.give_up_in(_ANSWER)
            return bool(_value(connection, "SELECT 1"))
        except psycopg.Error:
            connection.close()
            return False


def _value(connection: PostgresConnection, question: str) -> Any:
    row = connection.execute(question).fetchone()
    return None if row is None else row[0]


def _refusal(name: str, others: str, *, together: bool) -> str:
    if together:
        why = "by itself, without cluster.redis. Set it there as it is here, or stop that one."
    else:
        why = (
            "already. Several processes keep limits together only by cluster.redis: set the "
            "same one (redis://host:6379/0) for each of them, or stop the other first."
        )
    where = others and f" (at {others})"
    return f"Another Manyways{where} serves the database {name} {why}"
