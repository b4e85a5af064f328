"""One attempt at a streamed answer: each event reaches the caller the moment it arrives."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from manyways.attempts.reply import PatientReply, Reply
from manyways.dialects import openai_chat
from manyways.dialects.sse import DONE_EVENT
from manyways.errors import AttemptFailed, CallerLeft, TransportError
from manyways.routing.settings import Settings
from manyways.upstream import failures
from manyways.upstream.transport import Limits, Response
from manyways.watch import TimeLimit

Ask = Callable[[Limits], Awaitable[AbstractAsyncContextManager[Response]]]
"""Asks a provider, and waits for its answer's headers. Raises as `OpenAIProvider.chat`."""

TAIL = 1.0
"""Seconds a complete answer waits for what may still come: usage, `[DONE]`, the body's end."""

_WRONG_ANSWER = 1024 * 1024
"""Bytes of a whole answer that are read where a stream was asked for, to find out why."""

_FIRST = "the first token"
_NEXT = "the next token"
_CALLER = "the caller to read"
_END = "the end of a complete answer"
_DEADLINE = "the whole request"
_TOO_LATE = "the deadline of the whole request has passed"


class Events(Protocol):
    """A provider's stream, as the dialect brings it into the caller's form."""

    done: bool
    failure: AttemptFailed | None

    @property
    def heard(self) -> int:
        """Events that were taken in, though nothing of them is handed out: progress, too."""
        ...

    @property
    def complete(self) -> bool: ...

    def feed(self, chunk: bytes) -> bytes: ...

    def end(self) -> bytes: ...


class StreamedAttempt:
    """Asks one provider for a stream and brings it to the caller.

    Limits: `first` seconds until the first event with content, `idle_timeout` between events,
    `send_timeout` for a caller that does not read, and `deadline`, a moment of the event
    loop's clock, for all of it. `spoke` is called once, before the first bytes for the caller
    are written.
    """

    __slots__ = (
        "_deadline", "_ended", "_events", "_first", "_limit", "_now", "_send_timeout", "_settings",
        "_spoke",
    )  # fmt: skip

    def __init__(
        self,
        events: Events,
        settings: Settings,
        *,
        first: float,
        deadline: float,
        send_timeout: float,
        spoke: Callable[[], None],
    ) -> None:
        self._events = events
        self._settings = settings
        self._first = first
        self._deadline = deadline
        self._send_timeout = send_timeout
        self._spoke: Callable[[], None] | None = spoke
        self._now = asyncio.get_running_loop().time
        self._limit = TimeLimit(first, _FIRST)
        self._ended = False

    def __repr__(self) -> str:
        return f"<StreamedAttempt {self._events!r} {self._limit!r}>"

    async def run(self, ask: Ask, patient: PatientReply, reply: Reply) -> None:
        """Returns behind a complete answer, its `[DONE]` sent and the reply ended.

        Raises `AttemptFailed` when the answer did not begin or could not be completed,
        `Refusal` where the provider says that the request is wrong, `CallerLeft`.
        """
        limits = Limits(
            connect=min(self._settings.connect_timeout, self._first),
            headers=self._first,
            idle=max(self._settings.idle_timeout, self._first),
        )
        events = self._events
        try:
            with self._limit:
                async with await ask(limits) as response:
                    await _expect_events(response)
                    await self._pass_on(response, patient)
                    if events.complete:
                        await self._end(patient, reply)
                        await self._read_out(response)
        except TransportError as error:
            if not events.complete:
                raise failures.from_transport(error) from error
        except TimeoutError as error:
            self._out_of_time(error)
        if not events.complete:
            raise AttemptFailed("cut", "ended its stream before the answer was complete")
        if not self._ended:
            try:
                with TimeLimit(self._send_timeout, _CALLER):
                    await self._end(patient, reply)
            except TimeoutError as error:
                raise CallerLeft(str(error)) from error

    async def _pass_on(self, response: Response, patient: PatientReply) -> None:
        """From the first bytes to the body's end, or to where reading on is of no use."""
        events, limit = self._events, self._limit
        heard = 0
        over_at = 0.0  # when a complete answer is ended, whatever may still come
        while True:
            data = await response.chunk()
            out = events.feed(data) if data else events.end()
            now = self._now()
            if out:
                if self._spoke is not None:
                    self._spoke()
                    self._spoke = None
                limit.restart(self._send_timeout, _CALLER, now)
                await patient.write(out)
                now = self._now()
                if now > self._deadline:
                    if events.complete:
                        return  # and whatever else the provider may go on sending
                    raise AttemptFailed("timeout", _TOO_LATE)
            complete = events.complete
            if events.failure and not complete:
                raise events.failure
            if not data or events.done or events.failure:
                return
            if complete:
                over_at = over_at or now + TAIL
                if limit.why != _END:
                    limit.restart(max(0.0, over_at - now), _END, now)
            elif out or events.heard > heard:
                heard = events.heard
                left = self._deadline - now
                if left < self._settings.idle_timeout:
                    limit.restart(left, _DEADLINE, now)
                else:
                    limit.restart(self._settings.idle_timeout, _NEXT, now)

    async def _end(self, patient: PatientReply, reply: Reply) -> None:
        self._ended = True
        self._limit.restart(self._send_timeout, _CALLER)
        await patient.settle()
        await reply.end(DONE_EVENT)

    async def _read_out(self, response: Response) -> None:
        """A body read to its end gives its connection back for the next request."""
        self._limit.restart(TAIL, _END)
        while await response.chunk():
            pass

    def _out_of_time(self, error: TimeoutError) -> None:
        if self._limit.why == _CALLER:
            raise CallerLeft(str(error)) from error
        if not self._events.complete:
            late = self._limit.why == _DEADLINE
            raise AttemptFailed("timeout", _TOO_LATE if late else str(error)) from error


async def _expect_events(response: Response) -> None:
    """Raises `AttemptFailed` for what says of itself that it is no stream of events."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        raise AttemptFailed("no_answer", f"answered in {encoding}, which was not asked for")
    if kind == "application/json":
        raise openai_chat.no_stream(await response.body(_WRONG_ANSWER))
    if kind == "text/html":
        raise AttemptFailed("no_answer", "answered a stream with an HTML page")
