"""The files of the journal: made, shared between who writes and who reads them, taken over."""

import contextlib
import fcntl
import os
import threading
import time
from pathlib import Path
from typing import Final, Self

import structlog

from manyways.store.ids import new_id

log = structlog.get_logger("manyways.usage")

SUFFIX: Final = ".jsonl"
_UNNAMED: Final = ".new"
_FORGOTTEN: Final = 3600.0  # seconds until a file that never got its name is cleared away


class Segment:
    """A file of lines, open, and locked against other processes. It is closed when its last
    holder drops it.

    `size` and `lines` count whole lines, and grow while it is `written`. `moved` are the bytes
    of them that are in the database, `moved_lines` the lines; of one that was taken over, they are
    what is known once it is `resumed`.
    """

    def __init__(self, path: Path, file: int) -> None:
        self.path = path
        self.file = file
        self.size = 0
        self.lines = 0
        self.written = False
        self.resumed = False
        self.moved = 0
        self.moved_lines = 0
        self._synced = 0
        self._holders = 1
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        state = "written" if self.written else "ended"
        return f"<Segment {self.path.stem} {state}, {self.moved} of {self.size} bytes moved>"

    @classmethod
    def begin(cls, folder: Path) -> Self:
        """A new one, to be written. Raises `OSError`.

        It gets its name once it is locked: nobody takes it for left behind.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / (new_id() + SUFFIX)
        unnamed = path.with_suffix(_UNNAMED)
        file = os.open(unnamed, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unnamed.rename(path)
        except BaseException:  # also when interrupted: nobody else would close it
            os.close(file)
            with contextlib.suppress(OSError):
                unnamed.unlink()
            raise
        segment = cls(path, file)
        segment.written = segment.resumed = True
        return segment

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """One that nobody holds, to be read; `None` where somebody does, or it is gone. Raises
        `OSError`. Its last line may be torn."""
        try:
            file = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(file)
        except BlockingIOError:
            os.close(file)
            return None
        except BaseException:  # as above
            os.close(file)
            raise
        if not status.st_nlink:  # whoever had it before has just removed it
            os.close(file)
            return None
        segment = cls(path, file)
        segment.size = status.st_size
        return segment

    @property
    def unread(self) -> int:
        """Bytes that are not in the database."""
        return self.size - self.moved

    @property
    def removed(self) -> bool:
        """Whether somebody deleted the file."""
        return not os.fstat(self.file).st_nlink

    def hold(self) -> bool:
        """Keep it open. False where it is closed already."""
        with self._lock:
            if self._holders:
                self._holders += 1
            return bool(self._holders)

    def drop(self) -> None:
        """Hold it no more."""
        with self._lock:
            self._holders -= 1
            if not self._holders:
                os.close(self.file)

    def sync(self) -> None:
        """Force it to the disk. Raises `OSError`."""
        size = self.size
        if size > self._synced:
            os.fdatasync(self.file)
            self._synced = size

    def read(self, most: int) -> bytes:
        """The next whole lines that are to be moved, about `most` bytes of them; nothing where
        what is left is no whole line. Raises `OSError`."""
        while True:
            part = os.pread(self.file, min(most, self.unread), self.moved)
            end = part.rfind(b"\n") + 1
            if end or len(part) >= self.unread or len(part) < most:
                return part[:end]
            most *= 2

    def line_before(self, position: int) -> bytes:
        """The line that ends there; nothing where none does. Raises `OSError`."""
        size = 1024
        while position <= self.size:
            begin = max(position - size, 0)
            part = os.pread(self.file, position - begin, begin)
            if not part.endswith(b"\n"):
                break
            start = part.rfind(b"\n", 0, -1) + 1
            if start or not begin:
                return part[start:-1]
            size *= 8
        return b""

    def move(self, size: int, lines: int) -> None:
        """So much more of it is in the database."""
        self.moved += size
        self.moved_lines += lines


def left_behind(folder: Path) -> list[Path]:
    """Segments that no living process holds, the oldest first, and those that cannot be looked
    at. Raises `OSError` where the folder cannot be read."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)
    except FileNotFoundError:
        return []
    return [path for path in paths if _is_left(path)]


def _is_left(path: Path) -> bool:
    try:
        return _unheld(path) is not None
    except OSError:  # whoever is to move it finds out, and says so
        return True


def _unheld(path: Path) -> int | None:
    """Bytes of a segment that nobody holds; `None` where somebody does, or it is gone. Raises
    `OSError`.

    The lock is a shared one: of two that look at the same time, neither takes the other for
    the holder.
    """
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        status = os.fstat(file)
    except BlockingIOError:
        return None
    finally:
        os.close(file)
    return status.st_size if status.st_nlink else None


class Folder:
    """What lies in the folder of a journal that nobody holds, as it was when last looked at."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unheld = 0
        """Bytes of segments that nobody holds."""
        self.looked = 0
        """How often it was looked at."""
        self._spoiled: set[Path] = set()

    def __repr__(self) -> str:
        return f"<Folder {self.path}, {self.unheld} bytes unheld>"

    def take(self, before: str | None = None) -> Segment | None:
        """The oldest segment that nobody holds, of those begun before the one called so.
        Raises `OSError` where the folder cannot be read."""
        taken: Segment | None = None
        unheld = 0
        for path in self._segments():
            try:
                if taken is None and (before is None or path.name < before):
                    taken = Segment.take(path)
                else:
                    unheld += _unheld(path) or 0
            except OSError as error:
                self.spoil(path, error)
        self.unheld = unheld
        self.looked += 1
        return taken

    def spoil(self, path: Path, error: OSError) -> None:
        """Look at a segment no more: it cannot be read, or not removed."""
        self._spoiled.add(path)
        log.error("a segment of the journal is left alone", file=str(path), reason=error.strerror)

    def waits(self, path: Path) -> bool:
        """Whether a segment is there, and is to be moved."""
        return path not in self._spoiled and os.path.exists(path)  # noqa: PTH110 - it never raises

    def _segments(self) -> list[Path]:
        found: list[Path] = []
        try:
            for path in self.path.iterdir():
                if path.suffix == SUFFIX and path not in self._spoiled:
                    found.append(path)
                elif path.suffix == _UNNAMED:
                    _clear_away(path)
        except FileNotFoundError:  # the whole folder is gone: the journal makes it anew
            return []
        return sorted(found)


def _clear_away(path: Path) -> None:
    """Whoever began it ended before it was written."""
    with contextlib.suppress(OSError):
        if path.stat().st_mtime < time.time() - _FORGOTTEN:
            path.unlink()
