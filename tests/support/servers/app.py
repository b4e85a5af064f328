"""What the servers of tests serve: an ASGI app. `server.mjs` is the same for Node.js.

Every answer tells in `X-Peer` the port that its client asked from.

    /length?bytes=N    N bytes, with their length
    /chunked?bytes=N   N bytes in chunks
    /packed?bytes=N    N bytes, with gzip where that is asked for
    /echo              the body that was sent
    /events?name=X     an event; another one once `/turn?name=X` was asked; the end once it was
                       asked again. With gzip where that is asked for
    /status/S          status S, and words
    /last              says that the connection is closed behind it
    /cut?bytes=N       N bytes of twice as many, then the connection is closed; with a length,
    /cut?chunked=1     or in chunks
"""

import asyncio
import gzip
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import parse_qsl

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_PIECE: Final = 60_000
_turns: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(0))


def pattern(size: int) -> bytes:
    """`size` bytes of text that are easy to make, in any language."""
    line = b"The quick brown fox jumps over the lazy dog 0123456789 times.\n"
    return (line * (size // len(line) + 1))[:size]


class BrokenOffError(Exception):
    """The app fails on purpose, in the middle of an answer."""


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """The ASGI application."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "http":
        await _Exchange(scope, receive, send).run()


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


class _Exchange:
    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._path: str = scope["path"]
        self._query = dict(parse_qsl(scope["query_string"].decode()))
        self._size = int(self._query.get("bytes", "0"))
        accepted = dict(scope["headers"]).get(b"accept-encoding", b"")
        self._gzip = b"gzip" in accepted
        self._headers = [(b"x-peer", str(scope["client"][1]).encode())]

    async def run(self) -> None:
        match self._path.split("/")[1:]:
            case ["length"]:
                await self._whole(pattern(self._size))
            case ["chunked"]:
                await self._stream(self._pieces(), "text/plain")
            case ["packed"]:
                body = pattern(self._size)
                if self._gzip:
                    self._headers.append((b"content-encoding", b"gzip"))
                    body = gzip.compress(body)
                await self._whole(body)
            case ["echo"]:
                await self._whole(await self._body())
            case ["events"]:
                events = self._events()
                if self._gzip:
                    self._headers.append((b"content-encoding", b"gzip"))
                    events = _flushed(events)
                await self._stream(events, "text/event-stream")
            case ["turn"]:
                _turns[self._query["name"]].release()
                await self._whole(b"ok")
            case ["status", status]:
                await self._whole(b"words" if int(status) != 204 else b"", int(status))
            case ["last"]:
                self._headers.append((b"connection", b"close"))
                await self._whole(b"ok")
            case ["cut"]:
                await self._cut()
            case _:
                await self._whole(b"nothing here", 404)

    async def _body(self) -> bytes:
        parts = []
        while True:
            message = await self._receive()
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(parts)

    async def _start(self, status: int, kind: str) -> None:
        headers = [*self._headers, (b"content-type", kind.encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _whole(self, body: bytes, status: int = 200) -> None:
        if status != 204:
            self._headers.append((b"content-length", b"%d" % len(body)))
        await self._start(status, "text/plain")
        await self._send({"type": "http.response.body", "body": body})

    async def _stream(self, parts: AsyncIterator[bytes], kind: str) -> None:
        await self._start(200, kind)
        async for part in parts:
            await self._send({"type": "http.response.body", "body": part, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})

    async def _cut(self) -> None:
        if "chunked" not in self._query:
            self._headers.append((b"content-length", b"%d" % (2 * self._size)))
        await self._start(200, "text/plain")
        part = pattern(self._size)
        await self._send({"type": "http.response.body", "body": part, "more_body": True})
        raise BrokenOffError

    async def _pieces(self) -> AsyncIterator[bytes]:
        body = pattern(self._size)
        for begin in range(0, len(body), _PIECE):
            yield body[begin : begin + _PIECE]

    async def _events(self) -> AsyncIterator[bytes]:
        turn = _turns[self._query["name"]]
        yield b"data: 1\n\n"
        await turn.acquire()
        yield b"data: 2\n\n"
        await turn.acquire()


async def _flushed(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    async for part in parts:
        yield packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()
