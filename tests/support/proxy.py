"""A forward proxy for tests: CONNECT for TLS, absolute addresses for the rest."""

import asyncio
import ssl
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class Relay:
    """A server on a free port of 127.0.0.1 that leads further. `_pass` says where to.

    `connections` counts those that came.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.log: list[str] = []
        self.connections = 0
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
        self.connections += 1
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
    ) -> None:
        """Connect, tell whoever came so (`consent`), and pass on all."""
        there = await asyncio.open_connection(host, port)
        try:
            writer.write(consent)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, there[1]))
                group.create_task(_pump(there[0], writer))
        except* ConnectionError:
            pass
        finally:
            there[1].transport.abort()


class Proxy(Relay):
    """An HTTP proxy that keeps a log of what passed.

    Of requests with absolute addresses, each goes where it says, whatever came before it on the
    same connection. `log` holds the first line of each request; `credentials` what
    `Proxy-Authorization` said. A `refusal` is sent instead of an answer to whoever wants a tunnel,
    or the `consent` to one; a `silent` proxy never answers. With `tls`, it is spoken to over TLS.
    """

    def __init__(
        self,
        *,
        refusal: bytes = b"",
        consent: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n",
        silent: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(tls)
        self._consent = consent
        self.credentials: list[str | None] = []
        self._refusal = refusal
        self._silent = silent

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with _Onward(reader, writer) as onward:
            while await self._ask(reader, writer, onward):
                pass

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, onward: "_Onward"
    ) -> bool:
        """One request; whether another may follow."""
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
            await self._join(reader, writer, host.strip("[]"), int(port), consent=self._consent)
        else:
            url = urlsplit(target)
            path = url._replace(scheme="", netloc="").geturl()
            request = head.replace(target.encode(), path.encode(), 1)
            await onward.ask(url.hostname or "", url.port or 80, request)
            await onward.pass_on(int(headers.get("content-length", "0")))
            return True
        return False


class _Onward:
    """The server that the last request went to, whose words go to whoever sent it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._where: tuple[str, int] | None = None
        self._there: asyncio.StreamWriter | None = None
        self._answers: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._there is not None and self._answers is not None:
            self._there.transport.abort()
            self._answers.cancel()
            await asyncio.wait([self._answers])

    async def ask(self, host: str, port: int, head: bytes) -> None:
        """Begin a request. Whoever sends the next one has had all of the last answer."""
        if self._there is None or (host, port) != self._where:
            await self.__aexit__()
            self._where = host, port
            answers, self._there = await asyncio.open_connection(host, port)
            self._answers = asyncio.create_task(self._hear(answers))
        self._there.write(head)

    async def pass_on(self, size: int) -> None:
        assert self._there is not None
        while size:
            data = await self._reader.read(min(size, 65536))
            if not data:
                raise ConnectionAbortedError("it has hung up")
            size -= len(data)
            self._there.write(data)
            await self._there.drain()

    async def _hear(self, answers: asyncio.StreamReader) -> None:
        try:
            await _pump(answers, self._writer)
        except ConnectionError:  # whoever hangs up ends the matter for both
            self._writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise ConnectionAbortedError("one side has hung up")
