"""One request and its answer over ASGI: what the stages see of a caller.

    open ──answer / refuse──▶ over
      └──start──▶ streaming ──end / fail──▶ over
In every state the caller may leave: whoever waits then is cancelled, and `left` is set.
Whoever keeps account of the request (`closes_with`) is called before its last byte leaves.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from manyways.access.limits import Standing
from manyways.edge.forwarded import origin_of
from manyways.edge.problems import render
from manyways.edge.settings import ErrorFormat, Settings
from manyways.errors import CallerLeft, Refusal
from manyways.types import Caller, Model
from manyways.watch import TimeLimit

Headers = list[tuple[bytes, bytes]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

JSON = (b"content-type", b"application/json; charset=utf-8")
_EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
_STREAM_HEADERS = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
_AT_ONCE = 256 * 1024
"""Bytes of an answer that are handed to the server without asking whether the caller reads."""
_DIGITS = 15
"""A length with more of them is too large, whatever the limit."""
_LOOK_AFTER = 0.02
"""Seconds until somebody looks whether the caller has left: most answers are quicker."""


class Exchange:
    """Made for each request. `secret` is the key that came with it; no log shows it."""

    __slots__ = (
        "_announced", "_body", "_client", "_closing", "_common", "_handle", "_loop", "_receive",
        "_send", "_settings", "_task", "_watcher", "attempts", "began", "caller", "client_id",
        "error_code", "error_format", "error_message", "headers", "history", "id", "left",
        "method", "model", "over", "path", "query", "standing", "started", "status",
    )  # fmt: skip

    def __init__(
        self,
        scope: Mapping[str, Any],
        receive: Receive,
        send: Send,
        *,
        task: asyncio.Task[Any],
        request_id: str,
        common: Headers,
        settings: Settings,
        error_format: ErrorFormat,
    ) -> None:
        self.began = time.perf_counter()
        self.id = request_id
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope["query_string"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.error_format = error_format
        self.caller: Caller | None = None
        self.model: Model | None = None
        self.attempts = 0
        self.history: list[str] | None = None
        self.client_id: str | None = None
        self.standing: Standing | None = None
        self.status = 0
        self.error_code: str | None = None
        self.error_message: str | None = None
        self.started = False
        self.over = False
        self.left = False
        self._announced: int | None = None  # bytes of the body, where that is known beforehand
        self._body: bytes | None = None
        self._client: tuple[str, int] | None = scope.get("client")
        self._closing: Callable[[], None] | None = None
        self._receive = receive
        self._send = send
        self._settings = settings
        self._common = common
        self._task = task
        self._loop = task.get_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "over" if self.over else "streaming" if self.started else "open"
        return f"<Exchange {self.id} {self.method} {self.path} {state} {self.status}>"

    # What came

    @property
    def secret(self) -> str | None:
        """The key from `Authorization: Bearer`."""
        value = self.headers.get(b"authorization")
        if value is None or value[:7].lower() != b"bearer ":
            return None
        return value[7:].strip().decode("latin-1")

    @property
    def address(self) -> str:
        """Where the caller is, as far as it can be known; empty where it cannot."""
        peer = self._client[0] if self._client else ""
        trusted = self._settings.trusted_proxies
        forwarded = self.headers.get(b"x-forwarded-for") if trusted else None
        if forwarded is None:
            return peer
        return origin_of(peer, forwarded.decode("latin-1"), trusted)

    def check_size(self) -> None:
        """Refuse by `Content-Length`, before anything is read. Raises `Refusal`."""
        length = self.headers.get(b"content-length", b"").lstrip(b"0")
        if not length.isdigit():
            return
        if len(length) > _DIGITS or int(length) > self._settings.max_body:
            raise self._too_large()
        if b"transfer-encoding" not in self.headers:
            self._announced = int(length)

    async def body(self) -> bytes:
        """The whole body, as often as it is asked for. Raises `Refusal` if it is too large or
        too slow, `CallerLeft`."""
        if self._body is not None:
            return self._body
        pieces: list[bytes] = []
        size = 0
        try:
            with TimeLimit(self._settings.body_timeout, "the request's body"):
                while True:
                    message = await self._receive()
                    if message["type"] != "http.request":
                        self.left = True
                        raise CallerLeft("the caller left before its request was complete")
                    piece: bytes = message.get("body", b"")
                    size += len(piece)
                    if size > self._settings.max_body:
                        raise self._too_large()
                    pieces.append(piece)
                    # The server tells the end in a message of its own, a way to its thread and
                    # back for nothing where the length was announced: it sees to that length.
                    if size == self._announced or not message.get("more_body"):
                        break
        except TimeoutError:
            seconds = self._settings.body_timeout
            raise Refusal(
                "request_timeout", f"The request's body did not arrive within {seconds:g} s."
            ) from None
        self._look_for_leaving()
        self._body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return self._body

    def asked_by(self, caller: Caller) -> None:
        """For the log."""
        self.caller = caller

    @property
    def wanted_timeout(self) -> bytes | None:
        """The `X-Request-Timeout` that came with the request."""
        return self.headers.get(b"x-request-timeout")

    def answered_by(self, model: Model, attempts: int) -> None:
        """For the headers of the answer, and the log: as far as is known by now."""
        self.model = model
        self.attempts = attempts

    def tried(self, history: list[str]) -> None:
        """For the log: every attempt, in words."""
        self.history = history

    def limited_to(self, standing: Standing | None) -> None:
        """For the headers of the answer: how a limit on requests stands."""
        self.standing = standing

    def send_through(self, wrap: Callable[[Send], Send]) -> None:
        """Have all that goes to the caller's socket go through what `wrap` makes of the way."""
        self._send = wrap(self._send)

    def closes_with(self, closing: Callable[[], None] | None) -> None:
        """Have `closing` called once, before the last byte of the answer leaves, or when there
        will be none. It must neither wait nor raise."""
        self._closing = closing

    # What goes

    async def answer(self, body: bytes, status: int = 200, headers: Headers | None = None) -> None:
        """A whole answer, JSON unless `headers` say otherwise."""
        self.status = status
        self.started = self.over = True
        self._stop_looking()
        out = [*self._common, *(headers or (JSON,)), (b"content-length", b"%d" % len(body))]
        if self.model is not None:
            out += self._origin(self.model)
        if self.standing is not None:
            out += _rate(self.standing)
        if self._closing is not None and len(body) <= _AT_ONCE:
            self._close_accounts()
        await self._send({"type": "http.response.start", "status": status, "headers": out})
        if self.method == "HEAD":
            body = b""
        if len(body) > _AT_ONCE:
            body = await self._send_parts(body)
            self._close_accounts()
        await self._send({"type": "http.response.body", "body": body})

    async def _send_parts(self, body: bytes) -> bytes:
        """All but the last part: a caller that does not read is given up. Raises `CallerLeft`."""
        view = memoryview(body)
        last = (len(body) - 1) // _AT_ONCE * _AT_ONCE
        try:
            with TimeLimit(self._settings.send_timeout, "the caller to read") as limit:
                for start in range(0, last, _AT_ONCE):
                    limit.restart(self._settings.send_timeout)
                    await self.write(bytes(view[start : start + _AT_ONCE]))
        except TimeoutError as error:
            raise CallerLeft(str(error)) from error
        return bytes(view[last:])

    async def refuse(self, refusal: Refusal, headers: Headers | None = None) -> None:
        """An error while the status is open, with `headers` of its own."""
        problem = render(refusal, self.error_format)
        self.error_code = problem.code
        self.error_message = refusal.message
        out = [JSON, *(headers or ())]
        if problem.retry_after is not None:
            out.append((b"retry-after", b"%d" % problem.retry_after))
        await self.answer(problem.body, problem.status, out)

    async def start(self) -> None:
        """Commit to 200 and an event stream."""
        self.started = True
        self.status = 200
        out = [*self._common, _EVENTS, *_STREAM_HEADERS]
        if self.model is not None:
            out += self._origin(self.model)
        if self.standing is not None:
            out += _rate(self.standing)
        await self._send({"type": "http.response.start", "status": 200, "headers": out})

    def write(self, data: bytes) -> Awaitable[None]:
        """Hand bytes to the caller's socket; waits while the caller does not read."""
        return self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes) -> None:
        """The last bytes of a stream."""
        self.over = True
        self._stop_looking()
        self._close_accounts()
        await self._send({"type": "http.response.body", "body": data})

    async def fail(self, refusal: Refusal) -> None:
        """End a started stream with an error event, without `[DONE]`."""
        problem = render(refusal, self.error_format)
        self.error_code = problem.code
        self.error_message = refusal.message
        try:
            with TimeLimit(self._settings.send_timeout, "the caller to read"):
                await self.end(b"data: " + problem.body + b"\n\n")
        except TimeoutError as error:
            raise CallerLeft(str(error)) from error

    def broke_off(self, refusal: Refusal) -> None:
        """The answer ends before its last byte, and nothing more can be told."""
        if self._closing is not None:
            self.error_code = refusal.code
            self.error_message = refusal.message

    # Whether the caller is still there

    def close(self) -> None:
        """Nothing more happens here."""
        self._stop_looking()
        self._close_accounts()

    def _close_accounts(self) -> None:
        closing, self._closing = self._closing, None
        if closing is not None:
            closing()

    def _look_for_leaving(self) -> None:
        self._handle = self._loop.call_later(_LOOK_AFTER, self._look)

    def _look(self) -> None:
        self._watcher = self._loop.create_task(self._wait_for_leaving())

    async def _wait_for_leaving(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.over:
            self.left = True
            self._task.cancel()

    def _stop_looking(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    def _origin(self, model: Model) -> Headers:
        """Who is asked for the answer."""
        return [
            (b"x-manyways-provider", _header(model.provider)),
            (b"x-manyways-model", _header(model.id)),
            (b"x-manyways-attempts", b"%d" % self.attempts),
        ]

    def _too_large(self) -> Refusal:
        limit = self._settings.max_body
        return Refusal("request_too_large", f"The request's body is larger than {limit:,} bytes.")


def _rate(standing: Standing) -> Headers:
    return [
        (b"x-ratelimit-limit", b"%d" % standing.limit),
        (b"x-ratelimit-remaining", b"%d" % standing.remaining),
        (b"x-ratelimit-reset", b"%d" % standing.reset),
    ]


def _header(text: str) -> bytes:
    """A name as a header's value: control characters would break the head."""
    return text.encode() if text.isprintable() else ascii(text).encode()
