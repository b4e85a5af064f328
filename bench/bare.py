"""The least code that asks over uvloop and httptools: the yardstick of transports.

It knows one server, keeps no time limit, bounds nothing, and believes what it is told.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Self, cast

from httptools import HttpParserError, HttpResponseParser

from manyways.upstream.transport import Limits, untold


class Bare:
    """Implements `Transport` for the server at a port of loopback, as far as it is asked here.

    Raises `ConnectionError` where a connection ends before its answer does.
    """

    def __init__(self, port: int, ssl_context: ssl.SSLContext | None = None) -> None:
        self._port = port
        self._tls = ssl_context
        self._idle: list[_Line] = []

    def __repr__(self) -> str:
        return f"<Bare idle={len(self._idle)}>"

    async def send(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        limits: Limits,
        *,
        on_resend: Callable[[], object] = untold,
    ) -> "_Line":
        del limits, on_resend
        path = url[url.index("/", len("https://")) :]
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        if self._idle:
            line = self._idle.pop()
        else:
            loop = asyncio.get_running_loop()
            _, line = await loop.create_connection(
                lambda: _Line(self._idle), "127.0.0.1", self._port, ssl=self._tls
            )
        try:
            await line.ask(request)
        except BaseException:
            line.abort()
            raise
        return line

    def keep(self, most: int) -> None:
        """Close those that were idle longest, until so many are left."""
        while len(self._idle) > most:
            self._idle.pop(0).abort()

    async def aclose(self) -> None:
        self.keep(0)


class _Line(asyncio.Protocol):
    """A connection, and the answer that is coming over it."""

    def __init__(self, idle: "list[_Line]") -> None:
        self._idle = idle
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._pieces: list[bytes] = []
        self.headers: Mapping[str, str] = {}
        self._headers: dict[str, str] = {}
        self._begun = self._complete = self._keeps = self._lost = False
        self.status = 0
        # The parser looks up what it is to call, once.
        self.on_body = self._pieces.append
        self._parser = HttpResponseParser(self)

    async def ask(self, request: bytes) -> None:
        """Write, and wait for the headers of the answer."""
        self._begun = self._complete = False
        self.headers = self._headers = {}
        self._transport.write(request)
        while not self._begun:
            await self._news()

    async def chunk(self) -> bytes:
        while not self._pieces and not self._complete:
            await self._news()
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data

    async def body(self, limit: int) -> bytes:
        del limit
        while not self._complete:
            await self._news()
        return await self.chunk()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._complete and self._keeps and not self._lost and not self._pieces:
            self._idle.append(self)
        else:
            self.abort()

    def abort(self) -> None:
        self._transport.abort()

    async def _news(self) -> None:
        if self._lost:
            raise ConnectionError("the connection ended before the answer did")
        self._waiter = self._loop.create_future()
        await self._waiter

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            self._lost = True
            self._transport.abort()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._lost = True
        if self in self._idle:
            self._idle.remove(self)
        self._wake()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode()

    def on_headers_complete(self) -> None:
        self._begun = True
        self.status = self._parser.get_status_code()

    def on_message_complete(self) -> None:
        self._complete = True
        self._keeps = self._parser.should_keep_alive()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
