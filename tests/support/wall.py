"""The fault wall: an HTTP/1.1 server that does to the byte what its script says.

    async with Wall(whole(b"hello")) as wall:
        ...  # ask wall.url
        assert wall.requests[0].path == "/v1/models"

A script is a sequence of steps, played once for each request:

    [Send(head(chunked=True)), Send(piece(b"one")), Pause(0.1), Send(piece(b"two")), Reset()]

A connection stays open after its script, for the next request, unless the script ends with
`Close()` or `Reset()`. In a test without an event loop, `wall_in_thread()` runs the same wall
beside it.
"""

import asyncio
import concurrent.futures
import itertools
import os
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, cast

_PIECE = 64 * 1024


class Moment:
    """Something that happens once. Any thread may declare it, and any wait for it."""

    def __init__(self) -> None:
        self._future: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._future.set_running_or_notify_cancel()  # who gives up waiting does not undo it

    def __repr__(self) -> str:
        return f"<Moment {'come' if self.is_set() else 'to come'}>"

    def is_set(self) -> bool:
        return self._future.done()

    def set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self, seconds: float = 5.0) -> None:
        """Raises `TimeoutError` when it has not come within `seconds`."""
        async with asyncio.timeout(seconds):
            await asyncio.wrap_future(self._future)

    def block(self, seconds: float = 5.0) -> None:
        """As `wait`, for a test without an event loop."""
        self._future.result(seconds)


@dataclass(frozen=True)
class Send:
    """Write these bytes, and wait until the kernel has taken them."""

    data: bytes


@dataclass(frozen=True)
class Forever:
    """Write these bytes over and over, until the peer leaves."""

    data: bytes


@dataclass(frozen=True)
class Pause:
    """Say nothing for a while."""

    seconds: float


@dataclass(frozen=True)
class WaitFor:
    """Say nothing until the test says so."""

    moment: Moment


@dataclass(frozen=True)
class Stall:
    """Say nothing more, until the peer leaves or the wall falls."""


@dataclass(frozen=True)
class Close:
    """End the connection in good order."""


@dataclass(frozen=True)
class HangUp:
    """End the connection below TLS, without the goodbye that TLS would say."""


@dataclass(frozen=True)
class Reset:
    """End the connection with a TCP reset."""


Step = Send | Forever | Pause | WaitFor | Stall | Close | HangUp | Reset
Script = Sequence[Step]
Headers = Iterable[tuple[str, str]]

END = b"0\r\n\r\n"
"""The end of a chunked body."""

GARBAGE: Script = (Send(b"\x05\xffthis is not HTTP\r\n\r\n"), Close())


def head(
    status: int = 200,
    headers: Headers = (),
    *,
    length: int | None = None,
    chunked: bool = False,
) -> bytes:
    """A status line and headers, with `Content-Length` or chunked framing where asked for."""
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in headers)]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    if chunked:
        lines.append("Transfer-Encoding: chunked")
    return "\r\n".join([*lines, "", ""]).encode()


def piece(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def whole(
    body: bytes = b"", status: int = 200, headers: Headers = (), *, claims: int | None = None
) -> Script:
    """An answer with a `Content-Length`: the true one, or the lie that it `claims`."""
    length = len(body) if claims is None else claims
    return (Send(head(status, headers, length=length) + body),)


def chunked(*pieces: bytes, status: int = 200, headers: Headers = (), ends: bool = True) -> Script:
    """A chunked answer, each chunk sent by itself; without its end unless it `ends`."""
    steps = [Send(head(status, headers, chunked=True)), *(Send(piece(data)) for data in pieces)]
    if ends:
        steps.append(Send(END))
    return tuple(steps)


def until_close(body: bytes, status: int = 200, headers: Headers = ()) -> Script:
    """An answer without a length, which ends with its connection."""
    return (Send(head(status, headers) + body), Close())


def sse(*events: str, ends: bool = True) -> Script:
    """A stream of server-sent events, one `data:` line each, each sent by itself."""
    lines = (f"data: {event}\n\n".encode() for event in events)
    return chunked(*lines, headers=[("Content-Type", "text/event-stream")], ends=ends)


def html(status: int = 200) -> Script:
    """What a captive portal or an error page of a load balancer looks like."""
    page = b"<!DOCTYPE html><html><body><h1>Something went wrong</h1></body></html>"
    return whole(page, status, [("Content-Type", "text/html; charset=utf-8")])


def recut(script: Script, cuts: Iterable[int] | None = None) -> Script:
    """The same bytes in other pieces: cut at these offsets, or after every byte.

    The script may only send; whatever it does in the end is kept.
    """
    sends = [step.data for step in script if isinstance(step, Send)]
    rest = [step for step in script if not isinstance(step, Send)]
    data = b"".join(sends)
    inner = range(1, len(data)) if cuts is None else sorted({c for c in cuts if 0 < c < len(data)})
    edges = [0, *inner, len(data)]
    pieces = [Send(data[start:end]) for start, end in itertools.pairwise(edges)]
    return (*pieces, *rest)


@dataclass
class Request:
    """What came. Header names are in lower case; `sent` counts the answer's bytes so far."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    left: Moment = field(repr=False)
    """When the peer has closed the connection that this request came on."""
    sent: int = 0


Answer = Script | Callable[[Request], Script]


class Wall:
    """A server on a free port of 127.0.0.1 that plays `answer` for each request.

    `answer` is a script, or tells one for a request. Scripts given to `then` are played first,
    one a request. All of it may be changed, and `requests` read, from any thread.
    """

    def __init__(self, answer: Answer = (), *, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer or whole(b"ok")
        self.requests: list[Request] = []
        self.connections = 0
        """How many connections were made so far."""
        self.port = 0
        self._tls = tls
        self._next: deque[Answer] = deque()
        self._visits: set[_Visit] = set()
        self._deserted: list[Moment] = []
        self._server: asyncio.Server | None = None

    def __repr__(self) -> str:
        return f"<Wall {self.url} open={self.open_connections} requests={len(self.requests)}>"

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        return len(self._visits)

    def then(self, *answers: Answer) -> None:
        """Play these first, each for one request."""
        self._next.extend(answers)

    def forget(self) -> None:
        """Play none of those that `then` was given and nobody has asked for yet."""
        self._next.clear()

    def deserted(self) -> Moment:
        """When no connection is open, be it now or later."""
        moment = Moment()
        self._deserted.append(moment)
        if not self._visits:
            moment.set()
        return moment

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Visit(self), "127.0.0.1", 0, ssl=self._tls, backlog=4096
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        visits = list(self._visits)
        for visit in visits:
            visit.abort()
        await asyncio.gather(*(visit.task for visit in visits), return_exceptions=True)
        await self._server.wait_closed()

    def _script(self, request: Request) -> Script:
        self.requests.append(request)
        answer = self._next.popleft() if self._next else self.answer
        return answer(request) if callable(answer) else answer

    def _came(self, visit: "_Visit") -> None:
        self._visits.add(visit)
        self.connections += 1

    def _left(self, visit: "_Visit") -> None:
        self._visits.discard(visit)
        if not self._visits:
            for moment in self._deserted:
                moment.set()
            self._deserted.clear()


class _Visit(asyncio.StreamReaderProtocol):
    """One connection to the wall."""

    task: asyncio.Task[None]

    def __init__(self, wall: Wall) -> None:
        self._wall = wall
        self._reader = asyncio.StreamReader(limit=2**20)
        self._left = Moment()
        super().__init__(self._reader)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(1)  # so that `drain` waits for the kernel
        loop = asyncio.get_running_loop()
        self._writer = asyncio.StreamWriter(self._transport, self, self._reader, loop)
        self._wall._came(self)
        self.task = loop.create_task(self._serve())

    def eof_received(self) -> bool:
        super().eof_received()
        self._left.set()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._left.set()
        self._wall._left(self)
        self.task.cancel()

    def abort(self) -> None:
        self._transport.abort()
        self.task.cancel()

    async def _serve(self) -> None:
        try:
            while True:
                request = await self._receive()
                for step in self._wall._script(request):
                    if not await self._play(step, request):
                        return
        except (asyncio.IncompleteReadError, ConnectionError):
            self._transport.abort()

    async def _receive(self) -> Request:
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = lines[0].split(" ")
        pairs = (line.partition(":") for line in lines[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return Request(method, path, headers, body, self._left)

    async def _play(self, step: Step, request: Request) -> bool:
        """Whether the connection is still open after it."""
        match step:
            case Send(data):
                view = memoryview(data)
                for start in range(0, len(data), _PIECE):
                    part = view[start : start + _PIECE]
                    self._writer.write(part)
                    await self._writer.drain()
                    request.sent += len(part)
                await asyncio.sleep(0)  # a reader in the same loop sees what is sent by itself
            case Forever(data):
                while not self._left.is_set():
                    await self._play(Send(data), request)
                return False
            case Pause(seconds):
                await asyncio.sleep(seconds)
            case WaitFor(moment):
                await moment.wait(60)
            case Stall():
                await self._left.wait(60)
            case Close():
                self._transport.close()
                return False
            case HangUp():
                with self._kernel() as kernel:
                    kernel.shutdown(socket.SHUT_RDWR)
                self._transport.abort()
                return False
            case Reset():
                with self._kernel() as kernel:
                    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._transport.abort()
                return False
        return True

    def _kernel(self) -> socket.socket:
        """The kernel's own socket: an event loop may hand out something that only looks so."""
        return socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno()))


@contextmanager
def wall_in_thread(answer: Answer = (), *, tls: ssl.SSLContext | None = None) -> Iterator[Wall]:
    """A wall in an event loop of its own, beside a test that has none."""
    wall = Wall(answer, tls=tls)
    stands, falls = Moment(), Moment()

    async def stand() -> None:
        async with wall:
            stands.set()
            await falls.wait(3600)

    thread = threading.Thread(target=asyncio.run, args=(stand(),), name="wall")
    thread.start()
    try:
        stands.block()
        yield wall
    finally:
        falls.set()
        thread.join()
