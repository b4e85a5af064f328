"""Who serves a database. For an SQLite file: a lock beside it, that others can read."""

import contextlib
import fcntl
import os
import time
from pathlib import Path
from typing import NamedTuple, Protocol

from manyways.errors import StoreError

# Whoever looks who serves has the lock for a moment; whoever serves has it for good.
_TRIES = 5
_BETWEEN = 0.01  # seconds


class Serving(NamedTuple):
    """The process that serves a database. `address` (`http://0.0.0.0:8080`) is empty until it
    listens."""

    pid: str
    address: str = ""


class Lock(Protocol):
    """The right to serve a database."""

    @property
    def held(self) -> bool:
        """Whether this process has it."""

    def take(self, *, together: bool) -> None:
        """Have it until `release` or the process's end, `together` with others where there can
        be several. Raises `StoreError` where another has it. May be called again."""

    def announce(self, address: str) -> None:
        """Leave word of where this process listens, where that can be."""

    def release(self) -> None:
        """Let go of it. May be called again."""


class ServingLock:
    """A `Lock` on an SQLite file: held by one process at a time."""

    def __init__(self, path: Path) -> None:
        self._database = path
        self._path = _lock_file(path)
        self._lock: int | None = None  # the open file, while the lock is held

    def __repr__(self) -> str:
        return f"<ServingLock {self._path} {'held' if self.held else 'free'}>"

    @property
    def held(self) -> bool:
        """Whether this process serves."""
        return self._lock is not None

    def take(self, *, together: bool = False) -> None:  # noqa: ARG002
        """Raises `StoreError` where another process has it: a file is never served together."""
        if self._lock is not None:
            return
        path = self._path
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
                f"Another Manyways serves this database (pid {other.pid}): {self._database}. "
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
        """Leave word for `serving` of where this process listens, if it holds the lock."""
        if self._lock is not None:
            with contextlib.suppress(OSError):  # who cannot read it asks where it should be
                os.pwrite(self._lock, f"{os.getpid()}\n{address}\n".encode(), 0)

    def release(self) -> None:
        """Let go of it. May be called again."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


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
