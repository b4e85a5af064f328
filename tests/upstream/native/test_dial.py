"""A connection stands, by whatever way leads there, or it is told why not; nothing is left open."""

import asyncio
import contextlib
import gc
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from manyways.errors import ConnectFailed, Phase, TlsFailed, TransportError
from manyways.upstream.names import system_addresses
from manyways.upstream.native.dial import Dialer
from manyways.upstream.native.names import Names
from manyways.upstream.native.origin import Route
from manyways.upstream.transport import Address, Lookup
from tests.support.proxy import Proxy, Relay
from tests.support.socks import Socks
from tests.support.tls import Authority
from tests.support.wall import Wall, whole
from tests.upstream.exchange import AUTHORITY, Interrupted, until

SECRET = "hunter2"
ALERT = b"\x15\x03\x01\x00\x02\x02\x28"  # TLS: no handshake with you
CONSENT = b"HTTP/1.1 200 Connection established\r\n\r\n"


class Ear(asyncio.Protocol):
    """A protocol of the caller's that keeps what it hears."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.heard = b""
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]  # uvloop's are of their own kind

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        self.heard += data

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(exc)

    async def ask(self) -> bytes:
        """The status line of an answer."""
        assert self.transport is not None
        self.transport.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: b"\r\n\r\n" in self.heard)
        return self.heard.partition(b"\r\n")[0]

    async def close(self) -> None:
        assert self.transport is not None
        self.transport.abort()
        await asyncio.wait_for(self.lost, 5)


def open_sockets() -> int:
    found = 0
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the look itself
            found += str(one.readlink()).startswith("socket:")
    return found


@pytest.fixture(autouse=True)
async def nothing_is_left(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """No open socket, and nothing for asyncio to complain about."""
    before = open_sockets()
    yield
    await until(lambda: open_sockets() <= before)
    gc.collect(1)  # what is young: all that the test has made
    assert not caplog.records


def dialer(
    lookup: Lookup = system_addresses,
    *,
    tls: ssl.SSLContext | None = None,
    proxy: str | None = None,
) -> Dialer:
    return Dialer(Names(lookup), tls or AUTHORITY.client, proxy)


async def dial(by: Dialer, route: Route, phases: list[Phase] | None = None) -> Ear:
    begun: list[Phase] = [] if phases is None else phases
    async with asyncio.timeout(10):
        return await by.dial(route, Ear, begun.append)


def at(*hosts: str) -> Lookup:
    """A directory in which every name is there."""

    async def lookup(_host: str, port: int) -> Sequence[Address]:
        return [
            Address(socket.AF_INET6 if ":" in host else socket.AF_INET, host, port)
            for host in hosts
        ]

    return lookup


@asynccontextmanager
async def saying(*pieces: bytes, leaves: bool = False) -> AsyncIterator[int]:
    """The port of a server that says this at once, whoever comes and whatever they say."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for data in pieces:
            writer.write(data)
        with contextlib.suppress(ConnectionError):
            if not leaves:
                await reader.read()
        writer.transport.abort()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def deaf() -> AsyncIterator[int]:
    """The port of a server whose queue is full: who connects there waits."""
    with socket.socket() as listening, contextlib.ExitStack() as held:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(3):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


def nobodys_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
        return number


# Straight there


async def test_a_plain_connection() -> None:
    phases: list[Phase] = []
    async with Wall() as wall:
        ear = await dial(dialer(), Route("localhost", wall.port, tls=False), phases)
        assert await ear.ask() == b"HTTP/1.1 200 Scripted"
        await ear.close()
    assert phases == ["dns", "connect"]


async def test_a_connection_over_tls_speaks_http_1_and_names_its_host() -> None:
    phases: list[Phase] = []
    named: list[str | None] = []
    context = Authority()
    server = context.server
    server.set_alpn_protocols(["h2", "http/1.1"])
    server.sni_callback = lambda _socket, name, _context: named.append(name)
    async with Wall(tls=server) as wall:
        by = dialer(tls=context.client)
        ear = await dial(by, Route("localhost", wall.port, tls=True), phases)
        assert ear.transport is not None
        spoken = ear.transport.get_extra_info("ssl_object")
        assert spoken.selected_alpn_protocol() == "http/1.1"
        assert await ear.ask() == b"HTTP/1.1 200 Scripted"
        await ear.close()
    assert phases == ["dns", "connect", "tls"]
    assert named == ["localhost"]


@pytest.mark.parametrize("tls", [False, True])
async def test_a_socket_sends_at_once_and_notices_a_peer_that_is_gone(*, tls: bool) -> None:
    async with Wall(tls=AUTHORITY.server if tls else None) as wall:
        ear = await dial(dialer(), Route("127.0.0.1", wall.port, tls))
        assert ear.transport is not None
        sock = ear.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        await ear.close()


async def test_an_address_that_refuses_is_followed_by_the_next() -> None:
    async with Wall() as wall:
        ear = await dial(
            dialer(at("127.0.0.2", "127.0.0.1")), Route("a.test", wall.port, tls=False)
        )
        await ear.close()


async def test_an_address_that_never_answers_is_overtaken_by_the_next() -> None:
    async with deaf() as port, await asyncio.start_server(lambda _r, w: w.close(), "::1", port):
        ear = await dial(dialer(at("127.0.0.1", "::1")), Route("a.test", port, tls=False))
        assert ear.transport is not None
        assert ear.transport.get_extra_info("peername")[0] == "::1"
        await ear.close()


async def test_where_nobody_listens_it_is_refused() -> None:
    port = nobodys_port()
    with pytest.raises(ConnectFailed, match=f"^a.test:{port}: connection refused$") as caught:
        await dial(dialer(at("127.0.0.1", "127.0.0.2")), Route("a.test", port, tls=False))
    assert isinstance(caught.value.__cause__, OSError)


async def test_of_several_reasons_all_are_told() -> None:
    port = nobodys_port()
    lookup = at("127.0.0.1", "255.255.255.255")
    with pytest.raises(ConnectFailed, match=rf"^a.test:{port}: .*Errno 1\d\d.*Errno 1") as caught:
        await dial(dialer(lookup), Route("a.test", port, tls=False))
    assert "Multiple" not in str(caught.value)


async def test_a_name_that_leads_nowhere() -> None:
    async def nowhere(_host: str, _port: int) -> Sequence[Address]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(ConnectFailed, match=r"^a.test:80: the name leads nowhere \(DNS\)$"):
        await dial(dialer(nowhere), Route("a.test", 80, tls=False))


async def test_who_cannot_be_reached_is_looked_up_again() -> None:
    found = ["127.0.0.2", "127.0.0.1"]

    async def moved(_host: str, port: int) -> Sequence[Address]:
        return [Address(socket.AF_INET, found.pop(0), port)]

    async with Wall() as wall:
        by = dialer(moved)
        with pytest.raises(ConnectFailed):
            await dial(by, Route("a.test", wall.port, tls=False))
        await (await dial(by, Route("a.test", wall.port, tls=False))).close()


# TLS


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ("elsewhere", "IP address mismatch, certificate is not valid for '127.0.0.1'"),
        ("expired", "certificate has expired"),
    ],
)
async def test_a_certificate_that_is_not_good_is_told(server: str, reason: str) -> None:
    async with Wall(tls=getattr(AUTHORITY, server)) as wall:
        with pytest.raises(TlsFailed) as caught:
            await dial(dialer(), Route("127.0.0.1", wall.port, tls=True))
        told = str(caught.value)
    assert told.startswith(f"127.0.0.1:{wall.port}: ")
    assert reason in told
    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


@pytest.mark.parametrize("trusted", [None, Authority().client], ids=["system", "another"])
async def test_an_authority_that_is_not_known_is_told(trusted: ssl.SSLContext | None) -> None:
    async with Wall(tls=AUTHORITY.server) as wall:
        by = Dialer(Names(system_addresses), trusted)
        with pytest.raises(TlsFailed, match="unable to get local issuer certificate"):
            await dial(by, Route("127.0.0.1", wall.port, tls=True))


async def test_a_certificate_is_shown_to_who_asks_for_one() -> None:
    async with Wall(tls=AUTHORITY.mutual) as wall:
        ear = await dial(
            dialer(tls=AUTHORITY.known_client), Route("127.0.0.1", wall.port, tls=True)
        )
        assert await ear.ask() == b"HTTP/1.1 200 Scripted"
        await ear.close()


async def test_who_has_no_certificate_to_show_is_cut_off() -> None:
    async with Wall(tls=AUTHORITY.mutual) as wall:
        ear = await dial(dialer(), Route("127.0.0.1", wall.port, tls=True))
        assert ear.transport is not None
        # In TLS 1.3 the server says so when the client is done already.
        error = await asyncio.wait_for(ear.lost, 5)
        assert isinstance(error, ssl.SSLError | ConnectionError | None)


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(8), ALERT])
@pytest.mark.parametrize("leaves", [False, True])
async def test_what_does_not_speak_tls_fails_the_handshake(said: bytes, *, leaves: bool) -> None:
    async with saying(said, leaves=leaves) as port:
        with pytest.raises(TransportError) as caught:
            await dial(dialer(), Route("127.0.0.1", port, tls=True))
    assert isinstance(caught.value, TlsFailed), caught.value


async def test_who_hangs_up_fails_the_handshake() -> None:
    async with saying(leaves=True) as port:
        for _ in range(20):
            with pytest.raises((TlsFailed, ConnectFailed)):
                await dial(dialer(), Route("127.0.0.1", port, tls=True))


# HTTP proxies


@pytest.fixture(params=["http", "https"])
def proxy_tls(request: pytest.FixtureRequest) -> ssl.SSLContext | None:
    return AUTHORITY.server if request.param == "https" else None


@pytest.mark.parametrize("tls", [True, False])
async def test_a_tunnel(proxy_tls: ssl.SSLContext | None, *, tls: bool) -> None:
    phases: list[Phase] = []
    async with Wall(tls=AUTHORITY.server if tls else None) as wall, Proxy(tls=proxy_tls) as proxy:
        by = dialer(proxy=proxy.url.replace("//", f"//me:{SECRET}%40@"))
        assert repr(by) == f"<Dialer by way of 127.0.0.1:{proxy.port}>"
        route = Route("localhost", wall.port, tls, tunnel=True)
        ear = await dial(by, route, phases)
        assert await ear.ask() == b"HTTP/1.1 200 Scripted"
        assert proxy.log == [f"CONNECT localhost:{wall.port} HTTP/1.1"]
        assert proxy.credentials == ["Basic bWU6aHVudGVyMkA="]
        await ear.close()
        await until(lambda: proxy.open_connections == 0)
    assert phases == (["dns", "connect", "tls"] if tls else ["dns", "connect"])


async def test_a_large_answer_comes_whole_through_tls_in_tls() -> None:
    async with (
        Wall(tls=AUTHORITY.server) as wall,
        Proxy(tls=AUTHORITY.server) as proxy,
    ):
        wall.answer = whole(b"x" * 3_000_000)
        ear = await dial(
            dialer(proxy=proxy.url), Route("127.0.0.1", wall.port, tls=True, tunnel=True)
        )
        await ear.ask()
        await until(lambda: ear.heard.count(b"x") == 3_000_000)
        await ear.close()


async def test_who_needs_no_tunnel_goes_straight() -> None:
    async with Wall() as wall:
        by = dialer(proxy=f"http://127.0.0.1:{nobodys_port()}")
        await (await dial(by, Route("127.0.0.1", wall.port, tls=False))).close()


REFUSALS = {
    "407": (
        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
        "answered 407 Proxy Authentication Required",
    ),
    "502": (b"HTTP/1.0 502 Bad Gateway\r\n\r\n<html>", "answered 502 Bad Gateway"),
    "no reason": (b"HTTP/1.1 503\r\n\r\n", "answered 503"),
    "odd reason": (b"HTTP/1.1 503 \x1b[31mred\r\n\r\n", "answered 503 [31mred"),
    "no words": (b"HTTP/1.1 403 f\xfcr dich\r\n\r\n", "answered 403"),
    "secret": (b"HTTP/1.1 403 no hun\0ter2 here\r\n\r\n", "answered 403"),
    "encoded": (b"HTTP/1.1 403 no %68unter2 here\r\n\r\n", "answered 403"),
    "garbage": (b"\x05\xffwhat?", "answered what is not HTTP"),
    "odd status": (b"HTTP/1.1 abc\r\n\r\n", "answered what is not HTTP"),
    "endless": (b"HTTP/1.1 200 OK\r\n" + b"X-Y: z\r\n" * 4000, "answered what is not HTTP"),
    "cut": (b"HTTP/1.1 200 OK\r\n", "the connection was closed"),
    "more": (CONSENT + b"surplus", "answered more than it was asked"),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_a_proxy_that_refuses_is_told(case: str, proxy_tls: ssl.SSLContext | None) -> None:
    refusal, reason = REFUSALS[case]
    async with Proxy(refusal=refusal, tls=proxy_tls) as proxy:
        by = dialer(proxy=proxy.url.replace("//", f"//me:{SECRET}@"))
        with pytest.raises(ConnectFailed) as caught:
            await dial(by, Route("a.test", 443, tls=True, tunnel=True))
        told = f"a.test:443: the proxy 127.0.0.1:{proxy.port}"
    assert str(caught.value).removeprefix(told).lstrip(": ") == reason
    assert SECRET not in repr(caught.value)


async def test_a_proxy_that_is_not_there_is_told() -> None:
    port = nobodys_port()
    by = dialer(proxy=f"http://me:{SECRET}@127.0.0.1:{port}")
    with pytest.raises(
        ConnectFailed, match=f"^a.test:443: the proxy 127.0.0.1:{port}: connection refused$"
    ):
        await dial(by, Route("a.test", 443, tls=True, tunnel=True))


async def test_a_proxy_of_another_authority_is_told() -> None:
    async with Proxy(tls=Authority().server) as proxy:
        by = dialer(proxy=proxy.url)
        with pytest.raises(TlsFailed, match=f"the proxy 127.0.0.1:{proxy.port}: unable to get"):
            await dial(by, Route("a.test", 443, tls=True, tunnel=True))


async def test_a_bad_certificate_behind_a_tunnel_is_told(
    proxy_tls: ssl.SSLContext | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with Wall(tls=AUTHORITY.expired) as wall, Proxy(tls=proxy_tls) as proxy:
        route = Route("127.0.0.1", wall.port, tls=True, tunnel=True)
        with pytest.raises(TlsFailed, match=f"^127.0.0.1:{wall.port}: certificate has expired"):
            await dial(dialer(proxy=proxy.url), route)
        await until(lambda: proxy.open_connections == 0)
    if proxy_tls and isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
        caplog.clear()  # asyncio of Python 3.11 says that it has tripped


async def test_ipv6_is_asked_for_in_brackets() -> None:
    async with Proxy(refusal=b"HTTP/1.1 403 No\r\n\r\n") as proxy:
        with pytest.raises(ConnectFailed):
            await dial(dialer(proxy=proxy.url), Route("::1", 443, tls=True, tunnel=True))
        assert proxy.log == ["CONNECT [::1]:443 HTTP/1.1"]


# SOCKS


@pytest.mark.parametrize("tls", [True, False])
async def test_socks_looks_names_up_itself(*, tls: bool) -> None:
    phases: list[Phase] = []
    async with (
        Wall(tls=AUTHORITY.server if tls else None) as wall,
        Socks(user="me", password=SECRET) as proxy,
    ):
        by = dialer(at("127.0.0.1"), proxy=proxy.url.replace("socks5", "socks5h"))
        ear = await dial(by, Route("localhost", wall.port, tls, tunnel=True), phases)
        assert await ear.ask() == b"HTTP/1.1 200 Scripted"
        assert proxy.log == [f"localhost:{wall.port}"]
        assert proxy.credentials == [("me", SECRET)]
        await ear.close()
        await until(lambda: proxy.open_connections == 0)
    assert phases == (["dns", "connect", "tls"] if tls else ["dns", "connect"])


async def test_socks_without_a_password() -> None:
    async with Wall() as wall, Socks() as proxy:
        route = Route("127.0.0.1", wall.port, tls=False, tunnel=True)
        ear = await dial(dialer(proxy=proxy.url), route)
        assert proxy.log == [f"127.0.0.1:{wall.port}"]
        await ear.close()


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1, "general socks server failure"), (2, "not allowed"), (5, "refused"), (99, "reply code")],
)
async def test_a_socks_proxy_that_refuses_is_told(code: int, reason: str) -> None:
    async with Socks(user="me", password=SECRET, refusal=code) as proxy:
        with pytest.raises(ConnectFailed, match=f"(?i){reason}") as caught:
            await dial(dialer(proxy=proxy.url), Route("a.test", 443, tls=True, tunnel=True))
        told = f"a.test:443: the proxy 127.0.0.1:{proxy.port}: "
    assert str(caught.value).startswith(told)
    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize("given", ["", f"me:wrong{SECRET}@"])
async def test_a_socks_proxy_that_believes_nobody_is_told(given: str) -> None:
    async with Socks(user="me", password=SECRET) as proxy:
        by = dialer(proxy=f"socks5://{given}127.0.0.1:{proxy.port}")
        with pytest.raises(ConnectFailed, match=r"(?i)auth") as caught:
            await dial(by, Route("a.test", 443, tls=True, tunnel=True))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 No\r\n\r\n", b"", b"\x05\x00\x05\x00\x00\x09"])
async def test_what_is_no_socks_proxy_is_told(said: bytes) -> None:
    async with saying(said, leaves=True) as port:
        by = dialer(proxy=f"socks5://127.0.0.1:{port}")
        with pytest.raises(ConnectFailed, match=f"the proxy 127.0.0.1:{port}: "):
            await dial(by, Route("a.test", 443, tls=True, tunnel=True))


async def test_a_socks_proxy_that_is_not_there_is_told_once() -> None:
    port = nobodys_port()
    by = dialer(proxy=f"socks5://me:{SECRET}@127.0.0.1:{port}")
    with pytest.raises(
        ConnectFailed, match=f"^a.test:443: the proxy 127.0.0.1:{port}: connection refused$"
    ):
        await dial(by, Route("a.test", 443, tls=True, tunnel=True))


# Who gives up


Silent = Callable[[], contextlib.AbstractAsyncContextManager[Relay]]


@pytest.mark.parametrize(
    "proxy",
    [
        lambda: Proxy(silent=True),
        lambda: Proxy(silent=True, tls=AUTHORITY.server),
        lambda: Socks(silent_at=0),
        lambda: Socks(silent_at=1),
    ],
    ids=["http", "https", "socks-greeting", "socks-connect"],
)
async def test_a_silent_proxy_belongs_to_connect_and_is_left_at_once(proxy: Silent) -> None:
    phases: list[Phase] = []
    async with proxy() as silent:
        by = dialer(proxy=silent.url)
        route = Route("a.test", 443, tls=True, tunnel=True)
        task = asyncio.create_task(dial(by, route, phases))
        await until(lambda: silent.open_connections == 1)
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: silent.open_connections == 0)
    assert phases == ["dns", "connect"]


async def test_a_silent_server_keeps_nobody_in_the_handshake() -> None:
    phases: list[Phase] = []
    async with saying() as port:
        task = asyncio.create_task(dial(dialer(), Route("127.0.0.1", port, tls=True), phases))
        await until(lambda: phases == ["dns", "connect", "tls"])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


WAYS = ["plain", "tls", "two", "http", "https", "socks"]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("way", WAYS)
async def test_who_is_cancelled_at_any_wait_leaves_nothing_open(way: str, *, late: bool) -> None:
    async with contextlib.AsyncExitStack() as stack:
        tls = way not in {"plain", "two"}
        wall = await stack.enter_async_context(Wall(tls=AUTHORITY.server if tls else None))
        proxy: Proxy | Socks | None = None
        if way in {"http", "https"}:
            proxy = Proxy(tls=AUTHORITY.server if way == "https" else None)
        elif way == "socks":
            proxy = Socks(user="me", password=SECRET)
        url = None
        if proxy is not None:
            await stack.enter_async_context(proxy)
            url = proxy.url
        lookup = at("127.0.0.2", "127.0.0.1") if way == "two" else system_addresses
        route = Route("localhost", wall.port, tls, tunnel=proxy is not None)
        made: list[Ear] = []

        async def connect() -> None:
            made.append(await dialer(lookup, proxy=url).dial(route, Ear, lambda _: None))

        before = open_sockets()
        for at_wait in range(1, 100):
            interrupted = Interrupted(connect(), at_wait, late=late)
            if not await interrupted.end():
                break
            assert made == []
            await until(lambda: open_sockets() <= before)
            assert interrupted.waits >= at_wait
        else:
            raise AssertionError("it never came to an end")
        assert at_wait > 2
        for ear in made:
            await ear.close()
        await until(lambda: open_sockets() <= before)
