"""Answers that their caller has left, read to their end all the same.

Some providers bill an answer whether or not anybody hears it out, and tell what it cost in its
last event only. Reading on in the background gets that figure, and the connection back.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Self

import msgspec
from msgspec import Raw, Struct

from manyways.dialects import json_text
from manyways.dialects.sse import Event, EventReader, EventTooLong
from manyways.errors import CallerLeft, ManywaysError, TooLarge, TransportError
from manyways.upstream.transport import Response
from manyways.watch import TimeLimit

AT_ONCE = 64
"""Answers that are drained at the same time. Another one more is closed, as without draining."""

_EVENT = 1024 * 1024  # bytes of an event that can still be about usage
_WHOLE = 16 * 1024 * 1024

OnUsage = Callable[[Any, Raw | None], None]
Then = Callable[[], None]
Hears = Callable[[bytes], object]


class Drains:
    """Reads left answers to their end, `at_once` of them at most.

    `on_usage` is called exactly once for each answer that was taken over, when its reading has
    ended in whatever way: with the context that was given with it, and the last `usage` object
    that the rest of it told, `None` where there was none. What was told before the answer was
    taken over is not seen again. Whoever wants to go on listening gives `hears`, which is called
    with all bytes of the rest as they come; it must not raise.
    """

    def __init__(self, on_usage: OnUsage, *, at_once: int = AT_ONCE) -> None:
        self._on_usage = on_usage
        self._at_once = at_once
        self._tasks: set[asyncio.Task[None]] = set()
        # Answers that are read on, or may be yet: by the `id` of their context, what is to be
        # called when they are over.
        self._open: dict[int, Then | None] = {}
        self._closed = False
        self.taken = 0
        """Answers taken over so far."""

    def __repr__(self) -> str:
        return f"<Drains {len(self._tasks)} of {self._at_once}{' closed' if self._closed else ''}>"

    def take(
        self,
        response: Response,
        limit_seconds: float,
        context: object = None,
        *,
        hears: Hears | None = None,
    ) -> bool:
        """Take over `response`, which nobody else may use from now on, and read it to its end
        in the background, for `limit_seconds` at most.

        `False`: there are `at_once` already, or `aclose` was called. Then it stays with who
        asked, to be closed at once by leaving it as ever.

        An answer of which a chunk was waited for when its task was cancelled is closed by then;
        `keep` is for those.
        """
        if self._closed or len(self._tasks) >= self._at_once:
            return False
        self.taken += 1
        self._open.setdefault(id(context), None)
        task = asyncio.create_task(self._drain(response, limit_seconds, context, hears))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def then(self, context: object, call: Then) -> bool:
        """Have `call` called once the answer with this very context is over: read to its end,
        taken over or not, or closed; behind `on_usage`. It must not raise.

        `False` where there is no such answer: it is over already, or was never one to be kept.
        """
        if id(context) not in self._open:
            return False
        self._open[id(context)] = call
        return True

    @contextlib.asynccontextmanager
    async def keep(
        self,
        response: Response,
        limit_seconds: float,
        context: object = None,
        *,
        hears: Hears | None = None,
    ) -> AsyncIterator[Response]:
        """`async with drains.keep(response, 60.0, attempt) as response:` in place of
        `async with response:`, for an answer that is worth draining.

        Left by `CancelledError` (its caller went, another was faster, a time limit of ours) or
        by `CallerLeft` before its end, it is drained, even if a chunk was being waited for.
        Left in any other way, or when there are too many, it is closed.
        """
        kept = _Kept(response)
        self._open.setdefault(id(context), None)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._over, context)
            await stack.enter_async_context(kept)
            try:
                yield kept
            except (asyncio.CancelledError, CallerLeft):
                if not kept.over and self.take(kept, limit_seconds, context, hears=hears):
                    stack.pop_all()
                raise

    async def ask(
        self,
        sending: Coroutine[Any, Any, Response],
        limit_seconds: float,
        context: object = None,
        *,
        hears: Hears | None = None,
    ) -> AbstractAsyncContextManager[Response]:
        """Wait for the headers of an answer that is worth draining, and `keep` it.

        Who waits may be cancelled: then the answer is waited for, and drained, in the
        background. Raises whatever `sending` does.
        """
        sent = asyncio.create_task(sending)
        self._open.setdefault(id(context), None)
        with contextlib.ExitStack() as stack:
            stack.callback(self._over, context)
            try:
                await asyncio.wait({sent})
            except asyncio.CancelledError:
                if self.take(_Awaited(sent), limit_seconds, context, hears=hears):
                    stack.pop_all()
                else:
                    sent.cancel()
                    with contextlib.suppress(ManywaysError, asyncio.CancelledError):
                        async with await sent:  # it may just have come: then it is closed
                            pass
                raise
            response = sent.result()
            stack.pop_all()
        return self.keep(response, limit_seconds, context, hears=hears)

    async def aclose(self) -> None:
        """Close whatever is being drained. Usage that was told by then is still reported."""
        self._closed = True
        await asyncio.sleep(0)  # a task that has not begun would not close its response
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _drain(
        self, response: Response, limit_seconds: float, context: object, hears: Hears | None
    ) -> None:
        usage: Raw | None = None
        events = EventReader(_EVENT)
        try:
            with TimeLimit(limit_seconds, "the rest of an answer"):
                async with response:
                    if response.headers.get("Content-Type", "").startswith("application/json"):
                        body = await response.body(_WHOLE)
                        usage = _usage_of(body)
                        if hears is not None:
                            hears(body)
                    while chunk := await response.chunk():
                        usage = _usage(events.feed(chunk)) or usage
                        if hears is not None:
                            hears(chunk)
                    usage = _usage(events.end()) or usage
        except (ManywaysError, TimeoutError, EventTooLong):
            pass  # nobody waits for it
        finally:
            try:
                self._on_usage(context, usage)
            finally:
                self._over(context)

    def _over(self, context: object) -> None:
        call = self._open.pop(id(context), None)
        if call is not None:
            call()


class _Kept:
    """A `transport.Response` that survives the cancelling of who waits for its next chunk: the
    wait goes on, and whoever asks next gets what came."""

    __slots__ = ("_next", "_response", "headers", "over", "status")

    def __init__(self, response: Response) -> None:
        self._response = response
        self._next: asyncio.Task[bytes] | None = None
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.over = False
        """Nothing more will come: its end, or a failure, has been told."""

    async def chunk(self) -> bytes:
        waited = self._next or asyncio.create_task(self._response.chunk())
        self._next = waited
        await asyncio.wait({waited})
        self._next = None
        try:
            data = waited.result()
        except TransportError:
            self.over = True
            raise
        self.over = not data
        return data

    async def body(self, limit: int) -> bytes:
        parts = []
        size = 0
        while data := await self.chunk():
            parts.append(data)
            size += len(data)
            if size > limit:
                self.over = True
                raise TooLarge(f"the answer is larger than {limit} bytes")
        return b"".join(parts)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        waited, self._next = self._next, None
        try:
            if waited is not None:
                waited.cancel()
                await asyncio.gather(waited, return_exceptions=True)
        finally:
            await self._response.__aexit__(*exc)


class _Awaited:
    """A `transport.Response` whose headers have yet to come: with entering it they have."""

    __slots__ = ("_response", "_sent", "headers", "status")

    def __init__(self, sent: asyncio.Task[Response]) -> None:
        self._sent = sent
        self._response: Response | None = None
        self.status = 0
        self.headers: Mapping[str, str] = {}

    async def chunk(self) -> bytes:
        return b"" if self._response is None else await self._response.chunk()

    async def body(self, limit: int) -> bytes:
        return b"" if self._response is None else await self._response.body(limit)

    async def __aenter__(self) -> Self:
        self._response = await self._sent
        self.status, self.headers = self._response.status, self._response.headers
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._response is not None:
            await self._response.__aexit__(*exc)


class _Told(Struct):
    usage: Raw = json_text.NULL


_decode = msgspec.json.Decoder(_Told).decode


def _usage_of(told: bytes) -> Raw | None:
    """The usage that a whole answer or an event tells."""
    with contextlib.suppress(msgspec.DecodeError, UnicodeError, RecursionError):
        usage = _decode(told).usage
        if bytes(usage).startswith(b"{") and json_text.means_something(usage):
            return usage
    return None


def _usage(events: Iterable[Event]) -> Raw | None:
    """The last usage that these events tell."""
    found = None
    for event in events:
        if b'"usage"' in event.data:
            found = _usage_of(event.data) or found
    return found
