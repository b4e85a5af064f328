"""From the journal to the database: in batches, in order, each record exactly once.

One thread of its own reads what is in the journal and moves it. What other processes have left
behind comes first. How far it came with a segment is written in the transaction of its rows:
whoever takes the segment over goes on from there, whenever that is. The same line may still come
by another way, in another file; the database knows the rows it has.
"""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final, NamedTuple

import structlog
from msgspec import json
from sqlalchemy import Connection

from manyways.errors import StoreError
from manyways.store import segments, usage
from manyways.store.database import Database
from manyways.usage.journal import Journal
from manyways.usage.record import Record, RefusalRecord, UsageRecord
from manyways.usage.segments import Folder, Segment

log = structlog.get_logger("manyways.usage")

FRESH: Final = 0.5
"""Seconds between two looks for new lines."""
SCAN: Final = 3.0
"""Seconds between two looks for what others have left behind."""
REST: Final = 0.5
LONGEST_REST: Final = 10.0
"""Seconds until a database that failed is asked again: at first, and at most."""
BATCH: Final = 96 * 1024
LARGEST_BATCH: Final = 1024 * 1024
"""Bytes of lines that are moved in one transaction, about: usually, and when it is `LATE`."""
SHARE: Final = 0.25
BUSY_SHARE: Final = 0.03
LARGEST_SHARE: Final = 0.5
"""Of the time it works: usually, while requests need the processor, and when it is `FAR` behind."""
BUSY: Final = 0.6
"""Of a processor, what the rest of the process uses when it is busy."""
LATE: Final = 16 * 1024 * 1024
FAR: Final = 1024 * 1024 * 1024
_LOOK: Final = 0.2  # seconds between two looks how busy the others are
"""Bytes behind from which on it goes on in larger steps, and as fast as it ever does."""
_BREATH: Final = 0.0005  # seconds between two statements
_SLICE: Final = 32  # lines decoded in one go: others wait for Python's lock meanwhile
_LARGE_SLICE: Final = 512
_ROUND: Final = 64  # numbers of rows that the database takes in fewest statements
_LINE: Final = 600  # bytes of a line, until some have been seen


class Line(NamedTuple):
    """A line, what it says, and where it ends in its segment."""

    text: bytes
    record: Record
    end: int


class Backlog(NamedTuple):
    """What is not in the database yet: about so many lines, so many bytes, and the age of the
    oldest in seconds."""

    lines: int
    bytes: int
    age: float


class Ledger:
    """Moves a journal to the database while it `run`s.

    Requests go first: it works a quarter of the time, a thirtieth while they need the processor,
    and up to half of it when it is far behind. A database that is away is asked again, less and
    less often. A row that it refuses is set aside, as is a line that cannot be read: in
    `<segment>.bad`.
    """

    def __init__(
        self, journal: Journal, database: Database, *, retention: float | None = None
    ) -> None:
        """Records stay in the database for `retention` seconds, or for good."""
        self.moved = 0
        """Lines moved since the start, those included that were there already."""
        self.set_aside = 0
        """Lines that could not be."""
        self.away = False
        """Whether it failed when it was tried last."""
        self._journal = journal
        self._database = database
        self._retention = retention
        self._decode = json.Decoder[Record](Record).decode
        self._folder = Folder(journal.folder)
        self._own: Segment | None = None  # the one that is written now, or was
        self._left: Segment | None = None  # one that nobody held
        self._reached = time.time()  # what happened before is in the database
        self._next_scan = 0.0
        self._rest = 0.0
        self._spent = 0.0
        self._busy = False  # whether requests need the processor
        self._looked = (0.0, 0.0)  # at the wall's clock, and at what the others had used
        self._wake = threading.Event()
        self._stop = False
        self._hurry = False  # nobody is kept waiting any more
        self._late = False  # each time it lets others work, it waits long for its turn
        self._thread: Future[None] | None = None

    def __repr__(self) -> str:
        state = "away" if self.away else "caught up" if self.caught_up else "behind"
        return f"<Ledger {state}, {self.moved} moved, {self.set_aside} set aside>"

    @property
    def backlog(self) -> Backlog:
        """As it is now; what others have left behind, as it was some seconds ago. Cheap."""
        size = self._unread()
        if not size:
            return Backlog(0, 0, 0.0)
        lines = max(round(size / self._line_size()), 1)
        return Backlog(lines, size, max(time.time() - self._reached, 0.0))

    @property
    def caught_up(self) -> bool:
        """Whether all of the journal is in the database, as far as anybody has looked."""
        return self._folder.looked > 0 and not self._unread()

    @property
    def left_over(self) -> bool:
        """Whether anything that ended processes had left in the journal before this one began
        is yet to reach the database. Cheap."""
        found = self._journal.found
        while found and not self._folder.waits(found[-1]):
            found.pop()
        return bool(found)

    async def run(self) -> None:
        """Until it is cancelled, at once. What is being moved then is moved in its thread."""
        self._hurry = False
        try:
            await asyncio.wrap_future(self._start())
        finally:
            self._halt()

    async def drain(self, limit: float) -> bool:
        """Move all that is there, for up to `limit` seconds, then end. Whether that is done."""
        self._hurry = True
        self._next_scan = 0.0
        looked = self._folder.looked
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while self._folder.looked <= looked or self._left or self._unread():
                    if len(self._journal.held) > 1:  # what is let go now is yet to be found
                        looked, self._next_scan = self._folder.looked + 1, 0.0
                    self._start()
                    await asyncio.sleep(0.01)
        self._halt()
        thread = self._thread
        if thread is not None:
            await asyncio.wait({asyncio.wrap_future(thread)}, timeout=0.2)
        done = not self._unread()
        if thread is None or thread.done():  # else it still reads them
            for segment in (self._own, self._left):
                if segment is not None:
                    segment.drop()
            self._own = self._left = None
        return done

    def _unread(self) -> int:
        segments = {*self._journal.held, self._own, self._left} - {None}
        return self._folder.unheld + sum(each.unread for each in segments if each is not None)

    def _line_size(self) -> float:
        own = self._own
        return own.size / own.lines if own is not None and own.lines else _LINE

    # The thread --------------------------------------------------------------------------------

    def _start(self) -> Future[None]:
        """The end of the thread, of which there is one at a time: an old one may hang."""
        self._stop = False
        if self._thread is None or self._thread.done():
            self._thread = Future()
            self._thread.set_running_or_notify_cancel()
            # A daemon: a database that hangs does not keep the process from ending.
            threading.Thread(
                target=self._work, args=(self._thread,), name="ledger", daemon=True
            ).start()
        return self._thread

    def _halt(self) -> None:
        self._stop = True
        self._wake.set()

    def _work(self, end: Future[None]) -> None:
        try:
            while not self._stop:
                try:
                    self._step()
                except (StoreError, OSError) as error:
                    self._fail(error)
        except BaseException as error:  # noqa: BLE001 - not swallowed: `run` raises it
            end.set_exception(error)
        else:
            end.set_result(None)

    def _step(self) -> None:
        """Move a batch, or wait for one."""
        segment = self._next()
        if segment is None or not segment.unread:
            self._reached = time.time()
            self._pause(0.01 if self._hurry else FRESH)
            return
        if not segment.resumed:
            self._resume(segment)
            return
        self._late = self._unread() > LATE
        texts = segment.read(LARGEST_BATCH if self._late else BATCH).split(b"\n")[:-1]
        if len(texts) > _ROUND:
            del texts[len(texts) // _ROUND * _ROUND :]
        lines = list(self._lines(segment, texts))
        if lines:
            self._reached = _end(lines[0].record)
            self._store(segment, lines)
        if texts:
            segment.move(sum(map(len, texts)) + len(texts), len(texts))
            self.moved += len(lines)
        else:
            log.warning("the last line of the journal is torn, and skipped",
                        file=str(segment.path), bytes=segment.unread)  # fmt: skip
            segment.move(segment.unread, 0)
        self._recover()
        self._pace()

    def _next(self) -> Segment | None:
        """What is to be read: the oldest. Whatever is through is removed."""
        if self._left is not None:
            if self._left.unread:
                return self._left
            self._through(self._left)
            self._left = None
        own = self._own
        if own is not None and not own.written and not own.unread:  # in this order
            self._through(own)
            own = self._own = None
        if time.monotonic() >= self._next_scan:
            self._next_scan = time.monotonic() + SCAN
            self._left = self._folder.take(own.path.name if own and own.unread else None)
            if self._left is not None:
                return self._left
        if own is None:
            own = self._own = self._journal.claim()
        return own

    def _resume(self, segment: Segment) -> None:
        """Go on where whoever had it before came to."""
        known = self._database.run(partial(segments.reached, name=segment.path.name))
        # Else it is another file of that name: what was set aside, and is to be read again.
        if known is not None and known.last.encode() in segment.line_before(known.moved):
            segment.move(known.moved, 0)
        segment.resumed = True

    def _through(self, segment: Segment) -> None:
        try:
            segment.path.unlink(missing_ok=True)
        except OSError as error:
            self._folder.spoil(segment.path, error)
        else:
            forget = partial(segments.forget, name=segment.path.name)
            self._database.run(forget, write=True, isolated=False)
        segment.drop()
        self._next_scan = 0.0  # there may be another

    def _lines(self, segment: Segment, texts: Sequence[bytes]) -> Iterator[Line]:
        at_once = _LARGE_SLICE if self._late else _SLICE
        end = segment.moved
        for number, text in enumerate(texts, 1):
            end += len(text) + 1
            if not number % at_once:
                self._pace()
            try:
                yield Line(text, self._decode(text), end)
            except ValueError as error:  # not ours, or newer than we are
                if text:
                    self._set_aside(segment, text, str(error))

    def _store(self, segment: Segment, lines: Sequence[Line]) -> None:
        """Where the database refuses a row, the others are written without it."""
        requests = [each.record for each in lines if isinstance(each.record, UsageRecord)]
        refusals = [each.record for each in lines if isinstance(each.record, RefusalRecord)]
        reached = segments.Reached(lines[-1].end, lines[-1].record.id)

        def write(connection: Connection) -> None:
            usage.insert(
                connection,
                requests=requests,
                refusals=refusals,
                pause=self._breathe,
                kept_since=0.0 if self._retention is None else time.time() - self._retention,
            )
            segments.note(connection, segment.path.name, reached)

        try:
            self._database.run(write, write=True, isolated=False)
        except usage.RowRefused as error:
            if len(lines) == 1:
                self._set_aside(segment, lines[0].text, str(error))
                return
            half = len(lines) // 2
            self._store(segment, lines[:half])
            self._store(segment, lines[half:])

    def _set_aside(self, segment: Segment, line: bytes, reason: str) -> None:
        path = segment.path.with_name(segment.path.name + ".bad")
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line + b"\n")
            os.fsync(file)
        finally:
            os.close(file)
        self.set_aside += 1
        log.error("a line of the journal is set aside", file=str(path), reason=reason)

    def _fail(self, error: Exception) -> None:
        if not self.away:
            log.warning("usage is not moved to the database", reason=str(error))
        self.away = True
        self._rest = min(max(2 * self._rest, REST), LONGEST_REST)
        self._pause(0.1 if self._hurry else self._rest)

    def _recover(self) -> None:
        if self.away:
            log.info("usage is moved to the database again", backlog=self.backlog.lines)
        self.away = False
        self._rest = 0.0

    def _pace(self) -> None:
        """Let others work for as long as they should have, for what was worked since."""
        spent = time.thread_time() - self._spent
        if spent > 0 and not self._hurry:
            self._look()
            share = BUSY_SHARE if self._busy else SHARE
            share += (LARGEST_SHARE - share) * min(self._unread() / FAR, 1.0)
            self._pause(min(spent * (1 / share - 1), FRESH))
        self._spent = time.thread_time()

    def _look(self) -> None:
        """How busy the rest of the process is."""
        now, others = time.monotonic(), time.process_time() - time.thread_time()
        passed = now - self._looked[0]
        if passed >= _LOOK:
            self._busy = others - self._looked[1] > BUSY * passed
            self._looked = now, others

    def _breathe(self) -> None:
        if not self._hurry and not self._late:
            time.sleep(_BREATH)

    def _pause(self, seconds: float) -> None:
        if not self._stop:
            self._wake.wait(seconds)
            self._wake.clear()


def _end(record: Record) -> float:
    """About when it was written."""
    if isinstance(record, RefusalRecord):
        return record.minute
    return record.created_at + record.response_time_ms / 1000
