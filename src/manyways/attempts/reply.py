"""The caller's side of a request, as attempts see it, and what keeps it alive in silence."""

import asyncio
import math
from collections.abc import Awaitable
from types import TracebackType
from typing import Protocol, Self

from manyways.dialects.sse import KEEP_ALIVE
from manyways.errors import CallerLeft
from manyways.watch import TimeLimit


class Reply(Protocol):
    """A streamed answer on its way to the caller. The status is open until `start`."""

    started: bool

    async def start(self) -> None:
        """Commit to 200 and an event stream."""
        ...

    def write(self, data: bytes) -> Awaitable[None]:
        """Hand bytes to the caller's socket; waits while the caller does not read.
        Raises `CallerLeft`."""
        ...

    async def end(self, data: bytes) -> None:
        """The last bytes; the answer is over, cleanly. Raises `CallerLeft`."""
        ...


_MARGIN = 1.0
"""Seconds in which a first token that is late is told so, with a status of its own."""


class PatientReply:
    """Writes to a `Reply`, and says `: keep-alive` whenever nothing was written for a while.

    The first such comment commits the status: from then on a failure is an error event. So it
    does not come before a first token that may take `first` seconds is told to be late.
    One write is under way at a time; a comment never stands inside an event.
    """

    __slots__ = (
        "_comment", "_first", "_handle", "_interval", "_last", "_loop", "_reply", "_send_timeout",
        "_writing",
    )  # fmt: skip

    def __init__(
        self, reply: Reply, interval: float, send_timeout: float, first: float = math.inf
    ) -> None:
        self._reply = reply
        self._interval = interval
        self._first = interval if first > interval + _MARGIN else max(interval, first + _MARGIN)
        self._send_timeout = send_timeout
        self._loop = asyncio.get_running_loop()
        self._last = 0.0
        self._handle: asyncio.TimerHandle | None = None
        self._comment: asyncio.Task[None] | None = None
        self._writing = False  # a comment never stands inside an event

    async def write(self, data: bytes) -> None:
        """Hand on complete events, at once. Raises `CallerLeft`."""
        if self._comment is not None:
            await self._comment
        self._last = self._loop.time()
        self._writing = True
        if not self._reply.started:
            await self._reply.start()
        await self._reply.write(data)
        self._writing = False

    async def settle(self) -> None:
        """No more comments; the one under way is out. Raises `CallerLeft`."""
        self._stop()
        if self._comment is not None:
            await self._comment

    def __enter__(self) -> Self:
        self._last = self._loop.time()
        self._handle = self._loop.call_at(self._last + self._first, self._ring)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()
        if self._comment is not None and not self._comment.cancel():
            self._comment.exception()  # heard: the caller has left, which is known by now

    def _stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _ring(self) -> None:
        due = self._last + self._interval
        if self._loop.time() >= due:
            if self._comment is None and not self._writing:
                self._comment = self._loop.create_task(self._say())
            due = self._loop.time() + self._interval
        self._handle = self._loop.call_at(due, self._ring)

    async def _say(self) -> None:
        self._last = self._loop.time()
        try:
            with TimeLimit(self._send_timeout, "the caller to read"):
                if not self._reply.started:
                    await self._reply.start()
                await self._reply.write(KEEP_ALIVE)
        except TimeoutError as error:
            raise CallerLeft(str(error)) from error
        self._comment = None
