"""The first transport: aiohttp's pool, parser and readers, without its session.

`aiohttp.ClientSession` builds a request, a response and a writer task for every call, and looks
for cookies, redirects, traces and middlewares, none of which a gateway has a use for. The parts
underneath have public names of their own and are driven here directly: `TCPConnector.connect`,
`Connection.protocol`, `ResponseHandler.set_response_params` and `.read`, `StreamReader.readany`.
What they do not promise, `_Wire` and `_Answer` add.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from typing import Any, Self, cast

from aiohttp import (
    ClientConnectionError,
    ClientConnectorError,
    ClientError,
    ClientHttpProxyError,
    ClientPayloadError,
    ClientProxyConnectionError,
    ClientRequest,
    ClientResponseError,
    ClientTimeout,
    ServerDisconnectedError,
    StreamReader,
    TCPConnector,
    encode_basic_auth,
)
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawResponseMessage
from aiohttp.tracing import Trace
from yarl import URL

from manyways.errors import (
    ConnectFailed,
    Cut,
    Garbled,
    OutOfSockets,
    Phase,
    Reset,
    TimedOut,
    TlsFailed,
    TooLarge,
    TransportError,
)
from manyways.upstream import proxies
from manyways.upstream.decoded import decoded
from manyways.upstream.shortage import AddressInfo, shortage
from manyways.upstream.transport import STALE, Limits, Lookup, Response, untold
from manyways.watch import TimeLimit

# A stream pauses its socket at twice as many unread bytes, and goes on below that many.
_BUFFER = 64 * 1024
_ADDRESSES = 1024
_DIGITS = 16  # of a length that is believed beforehand
_HEADS = 64  # beginnings of requests kept for each address
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "DELETE"})
_FRAMING = frozenset({"content-length", "transfer-encoding"})
_FOREIGN = (ClientError, HttpProcessingError, OSError)
_UNLIMITED = ClientTimeout(total=None)


class AiohttpTransport:
    """Implements `transport.Transport`. To be built inside the running event loop.

    `ssl_context` is for every TLS peer (default: the system's authorities). `proxy` is the URL
    of an HTTP proxy, user and password included where it wants them. `pool_size` bounds the
    connections to one origin (0: no bound). `keepalive` is how many seconds an unused
    connection is kept. `resolver` looks up the names of hosts (default: the system).
    """

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
        pool_size: int = 0,
        keepalive: float = 15,
        resolver: Lookup | None = None,
    ) -> None:
        proxy_url = URL(proxy) if proxy else None
        if proxy_url is not None and proxy_url.scheme not in {"http", "https"}:
            raise ValueError("a proxy is an http:// or https:// URL")
        self._pool = _Pool(
            limit=pool_size,
            keepalive_timeout=keepalive,
            ssl=ssl_context or True,
            resolver=_Resolver(resolver) if resolver else None,
        )
        self._address = lru_cache(_ADDRESSES)(partial(_Address, proxy=proxy_url))

    def __repr__(self) -> str:
        return f"<AiohttpTransport in_use={self._pool.in_use} idle={self._pool.idle}>"

    async def send(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        limits: Limits,
        *,
        on_resend: Callable[[], object] = untold,
    ) -> Response:
        """As `transport.Transport.send` promises.

        Raises `ValueError` for headers that cannot be sent: line breaks, or the framing that
        is ours to write.
        """
        if self._pool.closed:
            raise ConnectFailed("the transport is closed")
        try:
            address = self._address(url)
        except ValueError:
            raise ConnectFailed("the provider's address is not an HTTP URL") from None
        head = address.head(method, headers, len(body))
        request = (head + body,) if len(body) < _BUFFER else (head, body)
        limit = TimeLimit(limits.connect, "connect")
        try:
            with limit:
                try:
                    return await self._ask(address, method, request, limits, limit, fresh=False)
                except _StaleError:
                    on_resend()
                    limit.restart(limits.connect, "connect")
                    return await self._ask(address, method, request, limits, limit, fresh=True)
        except _FOREIGN as error:
            connected = limit.why == "headers"
            if limit.expired:
                in_line = self._pool.left_line is asyncio.current_task()
                phase: Phase = "headers" if connected else "pool" if in_line else "connect"
                raise TimedOut(phase, limit.seconds) from None
            raise (_reset(error) if connected else _unreachable(error, address.by)) from error
        except asyncio.CancelledError:
            # A pool that closes cancels those who wait for a connection, and not their tasks.
            task = asyncio.current_task()
            if self._pool.closed and task is not None and not task.cancelling():
                raise ConnectFailed("the transport was closed") from None
            raise

    async def aclose(self) -> None:
        self._pool.abort()
        await self._pool.close()

    async def _ask(
        self,
        address: "_Address",
        method: str,
        request: tuple[bytes, ...],
        limits: Limits,
        limit: TimeLimit,
        *,
        fresh: bool,
    ) -> Response:
        """One exchange on one connection, up to the answer's headers."""
        connection, wire = await self._connect(address, fresh=fresh)
        try:
            limit.restart(limits.headers, "headers")
            message, content = await wire.ask(request, limit, bodiless=method == "HEAD")
            if message.code == 407 and address.asked is not None:  # no provider's to say
                raise ConnectFailed(address.asked.answered(407))
        except BaseException:  # cancelled, above all: the provider must notice at once
            wire.abort()
            connection.close()
            raise
        return decoded(_Answer(connection, wire, message, content, limits.idle))

    async def _connect(self, address: "_Address", *, fresh: bool) -> tuple[Connection, "_Wire"]:
        while True:
            connection = await self._pool.connect(address, [], _UNLIMITED)
            wire = cast("_Wire", connection.protocol)  # the pool makes no others
            # A server may have said something while nobody asked ("408", a goodbye): that is
            # no answer to the next request.
            if not wire.uses or not (fresh or wire.should_close):
                return connection, wire
            connection.close()


class _Address(ClientRequest):
    """Where a URL leads: what the pool wants to know of it, and how requests to it begin."""

    def __init__(self, url: str, *, proxy: URL | None) -> None:
        parsed = URL(url)
        if parsed.scheme not in {"http", "https"}:
            raise ValueError("neither http nor https")
        super().__init__("GET", parsed, proxy=proxy, loop=asyncio.get_running_loop())
        self.host.encode("idna")  # as the resolver will, whose complaint nobody expects
        self.by = proxies.parse(str(proxy)) if proxy is not None else None
        self.asked: proxies.Proxy | None = None
        """The proxy that is asked in place of the server, and may answer for itself."""
        target = parsed.raw_path_qs
        opening = f"Host: {parsed.host_port_subcomponent}\r\n"
        if proxy is not None and parsed.scheme == "http":
            self.asked = self.by
            target = str(parsed.with_user(None).with_fragment(None))
            if proxy.user is not None:
                credentials = encode_basic_auth(proxy.user, proxy.password or "")
                opening += f"Proxy-Authorization: {credentials}\r\n"
        self._opening = f" {target} HTTP/1.1\r\n{opening}"
        self._lines = self._opening.count("\n")
        self._head = lru_cache(_HEADS)(self._beginning)

    @cached_property
    def connection_key(self) -> ConnectionKey:
        return super().connection_key

    def head(self, method: str, headers: Sequence[tuple[str, str]], size: int) -> bytes:
        """The request's first bytes, up to a body of `size` bytes."""
        beginning = self._head(method, tuple(headers))
        if size or method not in _BODILESS:
            return b"%sContent-Length: %d\r\n\r\n" % (beginning, size)
        return beginning + b"\r\n"

    def _beginning(self, method: str, headers: tuple[tuple[str, str], ...]) -> bytes:
        """All but the length: the same for each request with the same headers."""
        text = method + self._opening
        for name, value in headers:
            text += f"{name}: {value}\r\n"
        lines = self._lines + len(headers)
        if not lines == text.count("\n") == text.count("\r") or "\0" in text:
            raise ValueError("a header holds a line break or a NUL")
        names = {name.lower() for name, _ in headers}
        if not _FRAMING.isdisjoint(names):
            raise ValueError("the length of the body is not the caller's to say")
        if "accept-encoding" not in names:
            text += "Accept-Encoding: identity\r\n"
        return text.encode()


class _Pool(TCPConnector):
    """aiohttp's pool, made of our own wires, that tells what it holds."""

    def __init__(
        self,
        *,
        limit: int,
        keepalive_timeout: float,
        ssl: ssl.SSLContext | bool,
        resolver: AbstractResolver | None,
    ) -> None:
        super().__init__(
            limit=0,
            limit_per_host=limit,
            keepalive_timeout=keepalive_timeout,
            ssl=ssl,
            resolver=resolver,
        )
        self._factory = cast("partial[ResponseHandler]", partial(_Wire, loop=self._loop))
        self.left_line: asyncio.Task[object] | None = None
        """Who was the last to be cancelled while it waited for a free connection."""

    async def _wait_for_available_connection(self, key: ConnectionKey, traces: list[Trace]) -> None:
        try:
            await super()._wait_for_available_connection(key, traces)
        except asyncio.CancelledError:
            self.left_line = asyncio.current_task()
            raise

    async def _wrap_create_connection(
        self, *args: Any, addr_infos: list[AddressInfo], **keywords: Any
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        tried = tuple(addr_infos)
        try:
            return await super()._wrap_create_connection(*args, addr_infos=addr_infos, **keywords)
        except ClientConnectorError as error:
            lack = shortage(error.os_error, tried)
            if lack is None:
                raise
            raise _ShortError(lack) from error

    @property
    def in_use(self) -> int:
        """Connections that serve a request, or are being made for one."""
        return len(self._acquired)

    @property
    def idle(self) -> int:
        return sum(map(len, self._conns.values()))

    def abort(self) -> None:
        """Cut whatever is in use."""
        for wire in list(self._acquired):
            wire.abort()


class _Resolver(AbstractResolver):
    """A `Lookup`, as the pool wants it."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=found.host,
                port=found.port,
                family=found.family,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for found in await self._lookup(host, port)
            if family in {socket.AF_UNSPEC, found.family}
        ]

    async def close(self) -> None:
        pass


class _StaleError(ClientError):
    """A connection from the pool turned out to be closed before it said a word."""


class _ShortError(ClientError):
    """There is no file descriptor or local port left: which of them, and the cure."""


class _Wire(ResponseHandler):
    """One connection.

    `uses` counts the requests it was given. `heard` tells whether any byte came since the
    last of them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.loop = loop
        self.uses = 0
        self.heard = False
        self._was_paused = False

    async def ask(
        self, request: tuple[bytes, ...], limit: TimeLimit, *, bodiless: bool
    ) -> tuple[RawResponseMessage, StreamReader]:
        """Write a request, and wait for the headers of its final answer.

        The request is in memory anyway, so that nothing is gained by writing it slowly: a
        provider may answer before it has read all of it.
        """
        self.uses += 1
        self.heard = False
        self._was_paused = False
        began = limit.awake
        self.set_response_params(
            skip_payload=bodiless,
            read_until_eof=True,
            auto_decompress=False,
            read_bufsize=_BUFFER,
        )
        try:
            if self.transport is not None:
                for part in request:
                    self.transport.write(part)
            while True:
                message, content = await self.read()
                if message.code >= 200 or message.code == 101:
                    return message, content
        except (ClientError, OSError) as error:
            if self.uses > 1 and not self.heard and limit.awake - began < STALE:
                raise _StaleError from error
            raise

    @property
    def reusable(self) -> bool:
        """Whether another request may follow: the answer is whole, and so is the request."""
        transport = self.transport
        return (
            transport is not None
            and not self.should_close
            and not transport.get_write_buffer_size()
        )

    def abort(self) -> None:
        content = self._payload
        super().abort()
        if content is not None:
            content.set_exception(ClientConnectionError("closed by us"))

    def data_received(self, data: bytes) -> None:
        self.heard = True
        super().data_received(data)

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        super().set_exception(exc, exc if exc_cause is None else exc_cause)
        # aiohttp tells of broken framing who waits for headers, and nobody who reads a body.
        content = self._payload
        if isinstance(exc, HttpProcessingError) and content is not None and not content.is_eof():
            content.set_exception(exc)

    def connection_lost(self, exc: BaseException | None) -> None:
        # aiohttp takes a reset for the end of a body that ends with the connection.
        if exc is not None and self._payload is not None and not self._payload.is_eof():
            self._payload.set_exception(ClientPayloadError(f"connection lost: {exc}"))
        super().connection_lost(exc)

    def pause_reading(self) -> None:
        self._was_paused = True
        super().pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:
        # Asked for with every chunk that is read, and dear. Only who was paused needs it.
        if self._was_paused:
            super().resume_reading(resume_parser)


class _Answer:
    """Implements `transport.Response`."""

    __slots__ = (
        "_bell",
        "_connection",
        "_content",
        "_due",
        "_failure",
        "_idle",
        "_loop",
        "_received",
        "_wire",
        "headers",
        "status",
    )

    def __init__(
        self,
        connection: Connection,
        wire: _Wire,
        message: RawResponseMessage,
        content: StreamReader,
        idle: float,
    ) -> None:
        self.status: int = message.code
        self.headers: Mapping[str, str] = message.headers
        self._connection: Connection | None = connection  # None once it was given back
        self._wire = wire
        self._content = content
        self._failure: TransportError | None = None  # what is raised once the bytes are gone
        self._loop = wire.loop
        self._idle = idle
        self._due = 0.0
        self._received = 0
        self._bell: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = self._failure or ("open" if self._connection else "complete")
        return f"<Answer {self.status} {state}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._connection is not None:
            if not self._content.is_eof():
                self._failure = Cut("the answer was left before its end")
            self._end()

    async def chunk(self) -> bytes:
        """As `transport.Response.chunk` promises."""
        if self._connection is None:
            if self._failure is not None:
                raise self._failure
            return b""
        content = self._content
        try:
            if content.is_eof():
                data = content.read_nowait()
            else:
                self._watch()
                data = await content.readany()
        except _FOREIGN as error:
            return self._remainder(error)
        except BaseException:
            self._failure = Cut("waiting for the answer was given up")
            self._end()
            raise
        if content.at_eof():
            self._end()
        return data

    async def body(self, limit: int) -> bytes:
        """As `transport.Response.body` promises."""
        claimed = self.headers.get("Content-Length", "")
        size = int(claimed) if claimed.isdecimal() and len(claimed) < _DIGITS else 0
        chunks = []
        if size <= limit:
            size = 0
            while data := await self.chunk():
                chunks.append(data)
                size += len(data)
                if size > limit:
                    break
            else:
                return b"".join(chunks)
        self._failure = TooLarge(f"the answer is larger than {limit} bytes")
        self._end()
        raise self._failure

    def _remainder(self, error: Exception) -> bytes:
        """What had come before the failure: aiohttp keeps it, but raises first."""
        content = self._content
        content._exception = None  # noqa: SLF001  it has no other way to what it holds
        data = content.read_nowait()
        if self._failure is None:
            broken = isinstance(error, HttpProcessingError)
            self._failure = (Garbled if broken else Cut)(str(error) or type(error).__name__)
        self._end()
        if data:
            return data
        raise self._failure from error

    def _end(self) -> None:
        """Give the connection back if it can be used again, else close it at once."""
        if self._bell is not None:
            self._bell.cancel()
            self._bell = None
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._wire.reusable:
            connection.release()
        else:
            self._wire.abort()
            connection.close()

    def _watch(self) -> None:
        """Begin to wait. The bell is hung once and looks, when it rings, what is due by then."""
        self._due = self._loop.time() + self._idle
        self._received = self._content.total_bytes
        if self._bell is None:
            self._bell = self._loop.call_at(self._due, self._ring)

    def _ring(self) -> None:
        self._bell = None
        if self._content.total_bytes != self._received:
            return  # that wait is over
        if self._loop.time() < self._due:
            self._bell = self._loop.call_at(self._due, self._ring)
            return
        self._failure = TimedOut("body", self._idle)
        self._content.set_exception(TimeoutError())


def _unreachable(error: Exception, proxy: proxies.Proxy | None) -> TransportError:
    """A failure on the way, which is the proxy's as long as it has not opened a tunnel."""
    if isinstance(error, _ShortError):
        return OutOfSockets(str(error))
    lack = shortage(error.__cause__ or error)
    if lack is not None:
        return OutOfSockets(lack)
    kind = TlsFailed if isinstance(error, ssl.SSLError) else ConnectFailed
    match error:  # a text of theirs may hold several lines, or the proxy's password
        case ClientHttpProxyError() if proxy is not None:
            return ConnectFailed(proxy.answered(error.status, error.message))
        case ClientResponseError():
            reason = "answered what is not HTTP"
            return ConnectFailed(f"the proxy {proxy} {reason}" if proxy else reason)
        case ClientConnectorError():
            where = f"{error.host}:{error.port}"
            by_proxy = isinstance(error, ClientProxyConnectionError) or where == str(proxy)
            where = f"the proxy {where}" if by_proxy else where
            return kind(f"{where}: {_in_a_line(error.os_error)}")
    reason = _in_a_line(error)
    return kind(f"the proxy {proxy}: {reason}" if proxy else reason)


def _reset(error: Exception) -> TransportError:
    if isinstance(error, HttpProcessingError):
        return Garbled(_in_a_line(error.message) or "what came back is not HTTP")
    return Reset(_in_a_line(error))


def _in_a_line(said: object) -> str:
    if isinstance(said, ServerDisconnectedError):
        return "the connection was closed"
    return " ".join(str(said).split())
