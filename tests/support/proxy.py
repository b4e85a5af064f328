"""A forward proxy for tests: CONNECT for TLS, absolute addresses for the rest."""

import asyncio
import ssl
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class Relay:
    """A server on a free port of 127.0.0.1 that leads further. `_pass` says where to."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.log: list[str] = []
        self.port = 0
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        raise NotImplementedError

    @property
    def open_connections(self) -> int:
        return len(self._tasks)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
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
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._pass(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # whoever hangs up ends the matter for both
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    @staticmethod
    async def _join(
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        host: str,
        port: int,
        *,
        consent: bytes = b"",
        request: bytes = b"",
    ) -> None:
        """Connect, tell whoever came so (`consent`), begin with `request`, and pass on all."""
        there = await asyncio.open_connection(host, port)
        try:
            writer.write(consent)
            there[1].write(request)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, there[1]))
                group.create_task(_pump(there[0], writer))
        except* ConnectionError:
            pass
        finally:
            there[1].transport.abort()


class Proxy(Relay):
    """An HTTP proxy that keeps a log of what passed.

    `log` holds the first line of each request; `credentials` what `Proxy-Authorization` said.
    A `refusal` is sent instead of an answer to whoever wants a tunnel; a `silent` proxy never
    answers. With `tls`, it is spoken to over TLS.
    """

    def __init__(
        self, *, refusal: bytes = b"", silent: bool = False, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(tls)
        self.credentials: list[str | None] = []
        self._refusal = refusal
        self._silent = silent

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode().rstrip("\r\n").split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
        }
        self.log.append(first)
        self.credentials.append(headers.get("proxy-authorization"))
        method, target, _ = first.split(" ")
        if self._silent:
            await reader.read()
        elif method == "CONNECT" and self._refusal:
            writer.write(self._refusal)
            await writer.drain()
        elif method == "CONNECT":
            host, _, port = target.rpartition(":")
            consent = b"HTTP/1.1 200 Connection established\r\n\r\n"
            await self._join(reader, writer, host.strip("[]"), int(port), consent=consent)
        else:
            url = urlsplit(target)
            path = url._replace(scheme="", netloc="").geturl()
            request = head.replace(target.encode(), path.encode(), 1)
            await self._join(reader, writer, url.hostname or "", url.port or 80, request=request)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise ConnectionAbortedError("one side has hung up")
