"""The journal of usage: what happened is in a file before the caller has its answer whole.

A folder of segments, `<UUIDv7 of its beginning>.jsonl`: lines of `usage.record.Record`, only
ever appended to. Who writes a segment holds a lock on it (flock) until it writes it no more and
the ledger does not read it either: a segment that nobody holds was left by a process that ended,
and may be taken over by any other.

    being written ──16 MiB──▶ synced ──▶ left to the ledger ──in the database──▶ removed
"""

import asyncio
import contextlib
import errno
import json
import os
import threading
from collections import deque
from pathlib import Path
from typing import Final

import msgspec
import structlog

from manyways.errors import StoreError
from manyways.usage.record import Record
from manyways.usage.segments import Segment, left_behind
from manyways.usage.settings import Settings

log = structlog.get_logger("manyways.usage")

SEGMENT: Final = 16 * 1024 * 1024
"""Bytes of a segment, about: the line that reaches it is its last."""
WAITING: Final = 10_000
"""Records that wait in memory at most while they cannot be written."""
RETRY: Final = 1.0
"""Seconds between two tries to write them."""
CLOSING: Final = 5.0
"""Seconds that `close` waits for the disk."""
_AT_ONCE: Final = 500  # lines that are caught up on before others get their turn
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class Journal:
    """Where records are written, from one event loop, and read from by a `Ledger`.

    While it cannot be written, records wait in memory, `WAITING` at most: then the oldest go
    for good, and are counted in `lost`. With `when_full = "refuse"`, `refuses` says meanwhile
    that no new request should be begun.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.refuses = False
        self.found: list[Path] = []
        """Segments that ended processes had left in the folder when it was opened. What a living
        one holds then is not among them, and does not join them when that one ends: what it
        let in counts there."""
        self.lost = 0
        """Records that never reached the disk."""
        self.written = 0
        """Records that did."""
        self.failures = 0
        """Tries to write that failed."""
        self._refusing = settings.when_full == "refuse"
        self._sync = settings.sync
        self._encode = msgspec.json.Encoder().encode_into
        self._line = bytearray(1024)
        self._segment: Segment | None = None
        self._file = -1
        self._full = SEGMENT
        self._waiting: deque[bytes] = deque()
        self._retrying: asyncio.TimerHandle | None = None
        # Ended segments, for the thread to sync and let go; and those of them whose file is
        # gone, which only we can still read.
        self._ended: deque[Segment] = deque()
        self._orphans: deque[Segment] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="journal", daemon=True)

    def __repr__(self) -> str:
        state = f"{len(self._waiting)} waiting" if self._waiting else "well"
        return f"<Journal {self.folder} {state}>"

    @property
    def waiting(self) -> int:
        """Records that are not on the disk yet."""
        return len(self._waiting)

    def open(self) -> None:
        """Begin to write. Raises `StoreError` where the folder is of no use."""
        try:
            self.found = left_behind(self.folder)
            self._begin()
        except OSError as error:
            raise StoreError(
                f"The journal of usage cannot be written in {self.folder}: {error.strerror}. "
                f"Give this user the right to write there, or choose another folder in "
                f"usage.journal."
            ) from error
        self._thread.start()

    def write(self, record: Record) -> None:
        """Once this returns, the record survives the end of the process; unless it `waits`.

        To be called from the event loop. Takes some microseconds, and never raises.
        """
        line = self._line
        try:
            self._encode(record, line)
        except ValueError:  # half of a surrogate pair
            line[:] = _replaced(record)
        line.append(10)
        if self._waiting:
            self._wait(bytes(line))
            return
        try:
            count = os.write(self._file, line)
            while count < len(line):  # the system tells why only when it is asked for the rest
                count += os.write(self._file, line[count:])
        except OSError as error:
            self._fail(error, bytes(line))
            return
        segment = self._segment
        if segment is not None:
            segment.size += count
            segment.lines += 1
            self.written += 1
            if segment.size >= self._full:
                self._turn()

    @property
    def held(self) -> tuple[Segment, ...]:
        """Segments that this process has, whether the ledger reads them already or not."""
        current = self._segment
        return (*self._orphans, *self._ended, *(() if current is None else (current,)))

    def claim(self) -> Segment | None:
        """For the ledger: the segment that is written now, held until it drops it; before that
        those whose files somebody deleted. `None` where there is none."""
        if self._orphans:
            return self._orphans.popleft()
        segment = self._segment
        return segment if segment is not None and segment.hold() else None

    def close(self) -> None:
        """Write no more: what waits gets a last chance, and all of it is forced to the disk."""
        if self._retrying is not None:
            self._retrying.cancel()
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(CLOSING)
        while self._waiting and self._catch_up():
            pass
        if self._waiting:
            self.lost += len(self._waiting)
            log.error("records of usage are lost: the journal cannot be written",
                      records=len(self._waiting))  # fmt: skip
            self._waiting.clear()
        self._end()
        if not self._thread.is_alive():  # else the disk hangs
            self._let_go()

    # Segments ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        segment = Segment.begin(self.folder)
        self._end()
        self._segment = segment
        self._file = segment.file
        self._full = SEGMENT

    def _end(self) -> None:
        """The segment is written no more. Closing it is for the thread, which may be syncing."""
        segment, self._segment, self._file = self._segment, None, -1
        if segment is not None:
            segment.written = False
            self._ended.append(segment)

    def _turn(self) -> None:
        """To a new segment; where none can be made, the old one grows on for a while."""
        try:
            self._begin()
        except OSError as error:
            self._full += SEGMENT // 16
            log.warning("no new segment of the journal", reason=error.strerror)

    # While it cannot be written ----------------------------------------------------------------

    def _fail(self, error: OSError, line: bytes) -> None:
        self.failures += 1
        self.refuses = self._refusing
        self._cut_back()
        self._wait(line)
        self._try_again(RETRY)
        log.error("the journal of usage cannot be written", folder=str(self.folder),
                  reason=error.strerror, refuses=self.refuses)  # fmt: skip

    def _wait(self, line: bytes) -> None:
        if len(self._waiting) >= WAITING:
            self._waiting.popleft()
            self.lost += 1
        self._waiting.append(line)

    def _cut_back(self) -> None:
        """Take a part of a line back; where that fails, nothing follows it in this segment."""
        segment = self._segment
        if segment is None:
            return
        try:
            if os.fstat(segment.file).st_size > segment.size:
                os.ftruncate(segment.file, segment.size)
        except OSError:
            self._end()

    def _try_again(self, seconds: float) -> None:
        with contextlib.suppress(RuntimeError):  # no loop: `close` is the next to try
            loop = asyncio.get_running_loop()
            self._retrying = loop.call_later(seconds, self._retry)

    def _retry(self) -> None:
        if not self._catch_up():
            self._try_again(RETRY)
        elif self._waiting:
            self._try_again(0.0)
        else:
            self._retrying = None
            self.refuses = False
            log.info("the journal of usage is written again", lost=self.lost)

    def _catch_up(self) -> bool:
        """Write some of what waits, in its order. Whether that went well."""
        try:
            if self._segment is None:
                self._begin()
            for _ in range(min(_AT_ONCE, len(self._waiting))):
                self._put(self._waiting[0])
                self._waiting.popleft()
        except OSError as error:
            self.failures += 1
            self._cut_back()
            if error.errno not in _FULL:
                self._end()  # it may be the file: the next try is with another
            return False
        return True

    def _put(self, line: bytes) -> None:
        segment = self._segment
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(self._file, rest) :]
        if segment is not None:
            segment.size += len(line)
            segment.lines += 1
            self.written += 1

    # The thread --------------------------------------------------------------------------------

    def _keep(self) -> None:
        """Force segments to the disk; let ended ones go; notice one that was deleted."""
        known: Segment | None = None
        trouble = False
        while not self._stop.wait(self._sync):
            segment = self._segment
            try:
                if segment is not None and segment.hold():
                    try:
                        segment.sync()
                        if segment.removed:
                            self._full = 0  # the next line is its last
                    finally:
                        segment.drop()
                if segment is not known:
                    _sync_folder(self.folder)
                    known = segment
                trouble = False
            except OSError as error:
                if not trouble:
                    log.warning("the journal is not forced to the disk", reason=error.strerror)
                trouble = True
            self._let_go()

    def _let_go(self) -> None:
        while self._ended:
            segment = self._ended[0]  # it is held until it is closed, or left to the ledger
            with contextlib.suppress(OSError):
                segment.sync()
            if segment.removed and segment.unread:
                self._orphans.append(segment)
            else:
                if not segment.unread:
                    segment.path.unlink(missing_ok=True)
                segment.drop()
            self._ended.popleft()


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _replaced(record: Record) -> bytes:
    """The record with its broken characters replaced."""
    text = json.dumps(msgspec.to_builtins(record), ensure_ascii=False)
    return text.encode("utf-8", "replace")
