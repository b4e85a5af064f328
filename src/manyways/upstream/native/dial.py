"""From where a connection leads to one that stands: names, TCP, a proxy's consent, TLS.

    names ──▶ TCP, several addresses at once ──▶ proxy ──▶ TLS ──▶ the protocol has its transport
    "dns"     "connect" ..........................          "tls"

Whoever is cancelled, at any of these, leaves no socket behind.
"""

import asyncio
import contextlib
import os
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import cache, partial
from typing import Final, TypeVar, cast

from aiohappyeyeballs import start_connection

from manyways.errors import ConnectFailed, OutOfSockets, Phase, TlsFailed
from manyways.upstream.native.names import Names
from manyways.upstream.native.origin import Route, basic
from manyways.upstream.native.wire import Wire
from manyways.upstream.proxies import Proxy, parse
from manyways.upstream.shortage import AddressInfo, see_that_files_open, shortage

_AHEAD: Final = 0.25
"""Seconds that an address has before the next is tried beside it (RFC 8305)."""
_CONSENT: Final = 16 * 1024
"""Bytes of a proxy's answer that are put up with."""
_NEVER: Final = 86400.0
"""Seconds. Time limits are the caller's; libraries that insist on one of their own get this."""
_ENDS: Final = re.compile(rb"\n\r?\n")
_STATUS: Final = re.compile(rb"HTTP/1\.\d (\d{3})(?: ([^\r\n]*))?\r?\n")
_WORDS: Final = 200  # letters of reasons, of which a name has one for each address

W = TypeVar("W", bound=asyncio.Protocol)
_Broken = (OSError, RuntimeError)  # uvloop says RuntimeError of a transport that is gone


class Dialer:
    """Connects. `ssl_context` is for every TLS peer, proxies included (default: the system's
    authorities), and is told to speak HTTP/1.1 only. `proxy` is the URL of one, see
    `proxies.parse`, whose `ValueError` it raises."""

    def __init__(
        self, names: Names, ssl_context: ssl.SSLContext | None = None, proxy: str | None = None
    ) -> None:
        self._names = names
        self._proxy = parse(proxy) if proxy else None
        self._given = ssl_context
        if ssl_context is not None:
            ssl_context.set_alpn_protocols(["http/1.1"])

    def __repr__(self) -> str:
        return f"<Dialer {f'by way of {self._proxy}' if self._proxy else 'straight'}>"

    async def dial(self, route: Route, make: Callable[[], W], begin: Callable[[Phase], None]) -> W:
        """A protocol that `make` made, once its transport stands. `begin` is told of each phase
        (`dns`, `connect`, `tls`) when it begins.

        Raises `ConnectFailed` and `TlsFailed`, neither of which tells a proxy's password, and
        `OutOfSockets`.
        """
        proxy = self._proxy if route.tunnel else None
        there = self._called(route)
        if proxy is None:
            sock = await self._connect(route.host, route.port, there, begin)
        elif proxy.socks:
            sock = await self._through_socks(proxy, route, begin)
        else:
            where = f"{route}: the proxy {proxy}"
            sock = await self._connect(proxy.host, proxy.port, where, begin)
        loop = asyncio.get_running_loop()
        if not route.tls and (proxy is None or proxy.socks):
            _, wire = await loop.create_connection(make, sock=sock)
            return wire
        link = _Link()
        bare, _ = await loop.create_connection(lambda: link, sock=sock)
        # Whatever lies above it, a transport is closed at once where its bottom is.
        try:
            top: asyncio.Transport = bare
            if proxy is not None and not proxy.socks:
                if proxy.scheme == "https":
                    top = await self._secured(top, link, proxy.host, f"the proxy {proxy}")
                await _consent(top, link, proxy, route)
            if route.tls:
                begin("tls")
                top = await self._secured(top, link, route.host, there)
            wire = make()
            if isinstance(wire, Wire):
                wire.below = bare
            return link.hand_over(top, wire, there)
        except BaseException:
            bare.abort()
            raise

    def _called(self, route: Route) -> str:
        """What a route leads to: the server, or the proxy that is asked for whole addresses."""
        proxy = self._proxy
        if proxy is None or route.tunnel or (route.host, route.port) != (proxy.host, proxy.port):
            return str(route)
        return f"the proxy {proxy}"

    async def _connect(
        self, host: str, port: int, where: str, begin: Callable[[Phase], None]
    ) -> socket.socket:
        """A TCP connection to the first of a host's addresses that takes one."""
        begin("dns")
        try:
            found = await self._names.addresses(host, port)
        except OSError as error:
            raise _unreachable(error, where) from error
        begin("connect")
        infos: list[AddressInfo] = [
            (one.family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (one.host, one.port))
            for one in found
        ]
        try:
            sock = await start_connection(
                infos, happy_eyeballs_delay=_AHEAD, interleave=1, socket_factory=_socket
            )
        except _Broken as error:
            failure = _unreachable(error, where, infos)
            if not isinstance(failure, OutOfSockets):
                self._names.forget(host, port)
            raise failure from error
        with contextlib.suppress(OSError):  # closed already: who comes next will notice
            self._names.prefer(host, port, sock.getpeername()[0])
        return sock

    async def _through_socks(
        self, proxy: Proxy, route: Route, begin: Callable[[Phase], None]
    ) -> socket.socket:
        """A TCP connection by way of a SOCKS5 proxy, which looks the name up itself."""
        where = f"{route}: the proxy {proxy}"
        try:
            from python_socks import ProxyError, ProxyType
            from python_socks.async_.asyncio import Proxy as Library
        except OSError as error:  # its files cannot be opened
            raise _unreachable(error, where) from error
        reach = _Reach(partial(self._connect, proxy.host, proxy.port, where, begin))
        library = Library(
            ProxyType.SOCKS5,
            proxy.host,
            proxy.port,
            proxy.user or None,
            proxy.password or None,
            rdns=True,
            forward=cast("Library", reach),
        )
        try:
            return await library.connect(route.host, route.port, timeout=_NEVER)
        except (ProxyError, OSError, ValueError) as error:
            # Its own words hold what the proxy said, and nothing of what it was told.
            raise ConnectFailed(f"{where}: {_reason(error)}") from error

    async def _secured(
        self, below: asyncio.Transport, link: "_Link", host: str, where: str
    ) -> asyncio.Transport:
        """TLS over a connection, which may be one of TLS itself."""
        context = self._given or _system()
        name = host.partition("%")[0].rstrip(".")
        loop = asyncio.get_running_loop()
        if link.said:  # in TLS, the client speaks first
            raise TlsFailed(f"{where}: what came is not TLS")
        try:
            link.see_that_it_stands()  # or nobody would end the wait for the handshake
            above = await loop.start_tls(
                below,
                link,
                context,
                server_hostname=name,
                ssl_handshake_timeout=_NEVER,
                ssl_shutdown_timeout=1.0,
            )
        # ValueError: a name that TLS cannot carry. TypeError: asyncio of Python 3.11 trips over a
        # failure of TLS in TLS, which it was about to tell.
        except (*_Broken, ValueError, TypeError) as caught:
            error = caught.__context__ if isinstance(caught, TypeError) else caught
            lack = None if error is None else shortage(error)
            if lack is not None:
                raise OutOfSockets(lack) from error
            raise TlsFailed(f"{where}: {_of_tls(error)}") from error
        if above is None:
            raise TlsFailed(f"{where}: {_of_tls(None)}")
        return above


class _Reach:
    """What the library asks for a connection to the proxy, which it would make in its own way."""

    def __init__(self, connect: Callable[[], Awaitable[socket.socket]]) -> None:
        self._connect = connect

    async def connect(self, **_: object) -> socket.socket:
        return await self._connect()


class _Link(asyncio.Protocol):
    """Listens while a connection is made, until a protocol of the caller's can."""

    def __init__(self) -> None:
        self.said = bytearray()
        self._lost: ConnectionError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def see_that_it_stands(self) -> None:
        """Raises `ConnectionError` where the connection is lost."""
        if self._lost is not None:
            raise self._lost

    async def more(self) -> None:
        """Wait until something is said. Raises `ConnectionError` when nothing ever will be."""
        self.see_that_it_stands()
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def hand_over(self, transport: asyncio.Transport, wire: W, where: str) -> W:
        """Let `wire` have the connection, and all that was said on it."""
        if self._lost is not None or transport.is_closing():
            raise ConnectFailed(f"{where}: {self._lost or 'the connection was closed'}")
        transport.set_protocol(wire)
        wire.connection_made(transport)
        if self.said:
            wire.data_received(bytes(self.said))
        return wire

    def data_received(self, data: bytes) -> None:
        self.said += data
        self._wake()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._lost = ConnectionError("the connection was closed" if exc is None else str(exc))
        self._wake()

    def eof_received(self) -> None:
        """The transport closes itself."""

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            if self._lost is None:
                self._waiter.set_result(None)
            else:
                self._waiter.set_exception(self._lost)


async def _consent(transport: asyncio.Transport, link: _Link, proxy: Proxy, route: Route) -> None:
    """Have an HTTP proxy open a tunnel (RFC 9110, 9.3.6)."""
    request = f"CONNECT {route} HTTP/1.1\r\nHost: {route}\r\n"
    if proxy.user or proxy.password:
        request += f"Proxy-Authorization: {basic(proxy.user, proxy.password)}\r\n"
    transport.write(f"{request}\r\n".encode())
    where = f"{route}: the proxy {proxy}"
    code, reason = 100, ""
    while 100 <= code < 200 and code != 101:  # another one follows
        code, reason = await _answered(link, where)
    if not 200 <= code < 300:
        raise ConnectFailed(f"{route}: {proxy.answered(code, reason)}")
    if link.said:  # there is nobody yet who could speak first
        raise ConnectFailed(f"{where} answered more than it was asked")


async def _answered(link: _Link, where: str) -> tuple[int, str]:
    """The status and the reason of a proxy's next answer, which is read up to its headers' end.

    Lines may end with LF alone (RFC 9112, 2.2).
    """
    said = link.said
    while (end := _ENDS.search(said)) is None:
        if len(said) > _CONSENT or (said and not b"HTTP/1.".startswith(bytes(said[:7]))):
            break
        try:
            await link.more()
        except ConnectionError as error:
            raise ConnectFailed(f"{where}: {error}") from error
    status = _STATUS.match(said) if end is not None else None
    if end is None or status is None:
        raise ConnectFailed(f"{where} answered what is not HTTP")
    code, reason = int(status[1]), (status[2] or b"").decode("latin-1")
    del said[: end.end()]
    return code, reason


def _socket(info: tuple[object, ...]) -> socket.socket:
    family, kind, proto = cast("tuple[int, int, int]", info[:3])
    sock = socket.socket(family, kind, proto)
    with contextlib.suppress(OSError):  # they are worth having, no more
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock


@cache
def _system() -> ssl.SSLContext:
    """The system's authorities, read once: they are the work of some 20 ms.

    Raises `OutOfSockets` where they could not be read now: nobody else would say so.
    """
    context = ssl.create_default_context()
    if not context.cert_store_stats()["x509_ca"]:  # or they are read one by one, as needed
        try:
            see_that_files_open()
        except OSError as error:
            raise OutOfSockets(shortage(error) or str(error)) from error
    context.set_alpn_protocols(["http/1.1"])
    return context


def _unreachable(
    error: BaseException, where: str, tried: Sequence[AddressInfo] = ()
) -> ConnectFailed:
    lack = shortage(error, tried)
    return ConnectFailed(f"{where}: {_reason(error)}") if lack is None else OutOfSockets(lack)


def _reason(error: BaseException) -> str:
    """What the system says, without the numbers and addresses that loops put around it."""
    if isinstance(error, socket.gaierror):
        return "the name leads nowhere (DNS)"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error).removeprefix("Multiple exceptions: ")[:_WORDS] or type(error).__name__


def _of_tls(error: BaseException | None) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return error.verify_message or str(error)
        case ssl.SSLError():
            return (error.reason or str(error)).lower().replace("_", " ")
        case OSError() if error.errno:
            return f"{_reason(error)} in the handshake"
        case None:
            return "the connection was closed in the handshake"
    return str(error) or "the connection was closed in the handshake"
