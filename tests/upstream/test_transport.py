"""What every implementation of `manyways.upstream.transport` promises.

Each test runs against each implementation, on asyncio's loop and on uvloop's; those that take
`wall` also over plain connections and over TLS.
"""

import asyncio
import gc
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manyways.errors import (
    ConnectFailed,
    Cut,
    Garbled,
    Reset,
    TimedOut,
    TlsFailed,
    TooLarge,
    TransportError,
)
from manyways.upstream.aiohttp_transport import AiohttpTransport
from manyways.upstream.transport import Limits, Response, Transport
from tests.support import wall as scripted
from tests.support.proxy import Proxy
from tests.support.tls import Authority
from tests.support.wall import (
    END,
    GARBAGE,
    Close,
    Moment,
    Pause,
    Script,
    Send,
    Stall,
    WaitFor,
    Wall,
    chunked,
    head,
    piece,
    recut,
    until_close,
    whole,
)

LIMITS = Limits(connect=5, headers=5, idle=5)
AUTHORITY = Authority()
ENOUGH = 2**30

Make = Callable[..., Transport]


IMPLEMENTATIONS: list[Make] = [AiohttpTransport]


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest) -> Make:
    made: Make = request.param
    return made


@pytest.fixture
async def make(implementation: Make) -> AsyncIterator[Make]:
    """Makes transports that are closed in the end."""
    made: list[Transport] = []

    def build(**keywords: object) -> Transport:
        made.append(implementation(**keywords))
        return made[-1]

    yield build
    for transport in made:
        await transport.aclose()
    gc.collect(1)  # an unclosed connection warns here, in its own test


@pytest.fixture
async def transport(make: Make) -> Transport:
    return make(ssl_context=AUTHORITY.client)


@pytest.fixture(params=["plain", "tls"])
def server_tls(request: pytest.FixtureRequest) -> ssl.SSLContext | None:
    return AUTHORITY.server if request.param == "tls" else None


@pytest.fixture
async def wall(server_tls: ssl.SSLContext | None) -> AsyncIterator[Wall]:
    async with Wall(tls=server_tls) as wall:
        yield wall


async def ask(
    transport: Transport,
    url: str,
    body: bytes = b"",
    *,
    method: str | None = None,
    headers: Sequence[tuple[str, str]] = (),
    limits: Limits = LIMITS,
) -> Response:
    method = method or ("POST" if body else "GET")
    return await transport.send(method, url, headers, body, limits)


async def answer(transport: Transport, url: str, body: bytes = b"") -> bytes:
    """One whole exchange."""
    async with await ask(transport, url, body) as response:
        return await response.body(ENOUGH)


async def chunks_until_failure(response: Response) -> tuple[bytes, TransportError]:
    """All that could be read, and what came in place of the end."""
    data = b""
    try:
        while part := await response.chunk():
            data += part
    except TransportError as error:
        return data, error
    raise AssertionError(f"ended as if it were whole, after {data!r}")


def state(transport: Transport, *, in_use: int, idle: int) -> bool:
    return repr(transport) == f"<{type(transport).__name__} in_use={in_use} idle={idle}>"


async def settle(transport: Transport) -> None:
    """Give whatever is under way every chance to happen: fifty round trips beside it."""
    async with Wall(whole(b"")) as aside:
        for _ in range(50):
            await answer(transport, aside.url)
            await asyncio.sleep(0)
        left = aside.requests[-1].left
    await left.wait()
    await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  what is waited for has no event of its own
            await asyncio.sleep(0)


@contextmanager
def deaf() -> Iterator[str]:
    """The address of a listener that lets connect, and never reads nor answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


# An answer, and a request


async def test_an_answer_is_its_status_its_headers_and_its_body(
    transport: Transport, wall: Wall
) -> None:
    wall.answer = whole(b"hello", 200, [("X-One", "1")])
    async with await ask(transport, wall.url + "/v1/models?a=b%20c") as response:
        assert response.status == 200
        assert response.headers["x-one"] == "1"
        assert await response.body(ENOUGH) == b"hello"
    assert wall.requests[0].method == "GET"
    assert wall.requests[0].path == "/v1/models?a=b%20c"


async def test_headers_are_looked_up_in_any_case_and_the_first_of_repeated_ones_counts(
    transport: Transport, wall: Wall
) -> None:
    wall.answer = whole(b"", 200, [("Retry-After", "1"), ("retry-after", "2")])
    async with await ask(transport, wall.url) as response:
        assert response.headers["RETRY-AFTER"] == "1"
        assert response.headers.get("absent") is None


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 429, 500, 503, 529])
async def test_errors_and_redirects_are_ordinary_answers(transport: Transport, status: int) -> None:
    async with Wall() as wall:
        wall.answer = whole(b"why", status, [("Location", wall.url + "/elsewhere")])
        async with await ask(transport, wall.url, b"{}") as response:
            assert (response.status, await response.body(ENOUGH)) == (status, b"why")
        assert len(wall.requests) == 1


async def test_nothing_is_added_to_a_request_but_what_is_promised(
    transport: Transport, wall: Wall
) -> None:
    async with await ask(transport, wall.url, b"{}", headers=[("Authorization", "Bearer k")]):
        pass
    async with await ask(transport, wall.url, headers=[("ACCEPT-ENCODING", "br")]):
        pass
    async with await ask(transport, wall.url, method="POST"):
        pass
    host = wall.url.partition("//")[2]
    posted, got, empty = wall.requests
    assert posted.body == b"{}"
    assert posted.headers == {
        "host": host,
        "authorization": "Bearer k",
        "accept-encoding": "identity",
        "content-length": "2",
    }
    assert got.headers == {"host": host, "accept-encoding": "br"}
    assert empty.headers["content-length"] == "0"


async def test_no_cookie_is_kept(transport: Transport, wall: Wall) -> None:
    wall.answer = whole(b"", 200, [("Set-Cookie", "a=b; Path=/")])
    await answer(transport, wall.url)
    await answer(transport, wall.url)
    assert "cookie" not in wall.requests[1].headers


async def test_a_compressed_body_is_not_touched(transport: Transport, wall: Wall) -> None:
    wall.answer = whole(b"\x1f\x8bnot really", 200, [("Content-Encoding", "gzip")])
    assert await answer(transport, wall.url) == b"\x1f\x8bnot really"


@pytest.mark.parametrize(
    "header", [("X", "a\r\nEvil: 1"), ("X\n", "a"), ("X", "a\0"), ("Content-Length", "3")]
)
async def test_a_header_that_would_break_the_framing_is_not_sent(
    transport: Transport, header: tuple[str, str]
) -> None:
    async with Wall() as wall:
        with pytest.raises(ValueError, match=r"header|length"):
            await ask(transport, wall.url, b"{}", headers=[header])
        assert wall.connections == 0


async def test_interim_answers_are_passed_over(transport: Transport, wall: Wall) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    wall.answer = (Send(interim), *whole(b"final"))
    async with await ask(transport, wall.url, b"{}") as response:
        assert (response.status, await response.body(ENOUGH)) == (200, b"final")
        assert "link" not in response.headers


async def test_answers_without_a_body_leave_the_connection_usable(
    transport: Transport, wall: Wall
) -> None:
    wall.then((Send(head(204)),), (Send(head(304)),), (Send(head(200, length=5)),), whole(b""))
    for method in ("DELETE", "GET", "HEAD", "GET"):
        async with await ask(transport, wall.url, method=method) as response:
            assert await response.chunk() == b""
    assert wall.connections == 1


async def test_a_request_of_megabytes_arrives_whole(transport: Transport, wall: Wall) -> None:
    picture = bytes(range(256)) * 4 * 10_000
    await answer(transport, wall.url, picture)
    assert wall.requests[0].body == picture


@asynccontextmanager
async def reluctant(answer: bytes) -> AsyncIterator[tuple[str, "asyncio.Future[int]", Moment]]:
    """A server that answers before it has read a request, and reads on when it is told to.

    Gives its address, how many bytes came before the end in the end, and what to tell.
    """
    read: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    go_on = Moment()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        total = len(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        await go_on.wait()
        try:
            while data := await reader.read(2**20):
                total += len(data)
        except ConnectionError:
            pass
        read.set_result(total)
        writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, limit=4096) as server:
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", read, go_on
        finally:
            go_on.set()


async def test_an_answer_to_half_a_request_is_taken_and_the_rest_is_not_sent(
    transport: Transport,
) -> None:
    size = 2**26
    async with reluctant(head(413, length=3) + b"big") as (url, read, go_on):
        async with await ask(transport, url, bytes(size)) as response:
            assert (response.status, await response.body(ENOUGH)) == (413, b"big")
        assert state(transport, in_use=0, idle=0)
        go_on.set()
        assert await asyncio.wait_for(read, 5) < size // 2


# Streams


async def test_headers_are_handed_over_before_the_body_is_sent(
    transport: Transport, wall: Wall
) -> None:
    go_on = Moment()
    wall.answer = (Send(head(200, length=2)), WaitFor(go_on), Send(b"ok"))
    async with await ask(transport, wall.url) as response:
        go_on.set()
        assert await response.body(ENOUGH) == b"ok"


async def test_a_chunk_is_handed_over_before_the_next_is_sent(
    transport: Transport, wall: Wall
) -> None:
    turns = [Moment() for _ in range(5)]
    steps: list[scripted.Step] = [Send(head(chunked=True))]
    for number, turn in enumerate(turns):
        steps += [WaitFor(turn), Send(piece(b"event %d\n\n" % number))]
    wall.answer = (*steps, Send(END))
    async with await ask(transport, wall.url) as response:
        for number, turn in enumerate(turns):
            turn.set()
            assert await response.chunk() == b"event %d\n\n" % number
        assert await response.chunk() == b""
        assert await response.chunk() == b""
    assert await response.chunk() == b""


async def test_a_trickle_adds_up(transport: Transport, wall: Wall) -> None:
    wall.then(recut(whole(b"hello")), recut(chunked(b"hel", b"lo")))
    assert await answer(transport, wall.url) == b"hello"
    assert await answer(transport, wall.url) == b"hello"
    assert wall.connections == 1


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    pieces=st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    in_chunks=st.booleans(),
    cuts=st.sets(st.integers(1, 400), max_size=12),
)
async def test_however_the_bytes_are_split_the_body_is_the_same(
    transport: Transport, pieces: list[bytes], in_chunks: bool, cuts: set[int]
) -> None:
    body = b"".join(pieces)
    script = chunked(*pieces) if in_chunks else whole(body)
    async with Wall(recut(script, cuts)) as wall:
        assert await answer(transport, wall.url) == body


async def test_a_reader_that_does_not_read_stops_the_provider(
    transport: Transport, wall: Wall
) -> None:
    size = 64 * 2**20
    wall.then(whole(bytes(size)))
    async with await ask(transport, wall.url) as response:
        sent = -1
        while wall.requests[0].sent != sent:
            sent = wall.requests[0].sent
            await settle(transport)
        assert sent < size // 8
        received = 0
        while part := await response.chunk():
            assert len(part) <= 2**20
            received += len(part)
        assert received == size
    await answer(transport, wall.url)
    assert wall.connections == 1


async def test_many_small_chunks_that_nobody_reads_stop_the_provider_too(
    transport: Transport, wall: Wall
) -> None:
    small = piece(b"x" * 8) * 200_000
    wall.then((Send(head(chunked=True)), Send(small), Send(END)))
    async with await ask(transport, wall.url) as response:
        await settle(transport)
        assert len(await response.body(ENOUGH)) == 8 * 200_000
    assert state(transport, in_use=0, idle=2)


# How an answer ends


async def test_a_body_without_a_length_ends_with_its_connection(
    transport: Transport, wall: Wall
) -> None:
    wall.answer = until_close(b"all of it")
    assert await answer(transport, wall.url) == b"all of it"
    assert state(transport, in_use=0, idle=0)


CUT: dict[str, Script] = {
    "short of its length": (*whole(b"some", claims=10), Close()),
    "chunks without an end": (*chunked(b"so", b"me", ends=False), Close()),
    "inside a chunk": (Send(head(chunked=True)), Send(piece(b"some")), Send(b"9\r\n"), Close()),
    "reset short of its length": (*whole(b"some", claims=10), scripted.Reset()),
    "reset between chunks": (*chunked(b"so", b"me", ends=False), scripted.Reset()),
    "reset where only a close would end it": (Send(head() + b"some"), scripted.Reset()),
}


@pytest.mark.parametrize("script", CUT.values(), ids=CUT)
async def test_a_cut_answer_gives_what_came_and_then_says_so(
    transport: Transport, wall: Wall, script: Script
) -> None:
    wall.answer = script
    async with await ask(transport, wall.url) as response:
        data, error = await chunks_until_failure(response)
        assert data == b"some"
        assert isinstance(error, Cut)
        with pytest.raises(Cut):
            await response.chunk()
    assert state(transport, in_use=0, idle=0)


@pytest.mark.parametrize("script", CUT.values(), ids=CUT)
async def test_a_slow_reader_gets_what_came_before_the_cut(
    transport: Transport, wall: Wall, script: Script
) -> None:
    wall.answer = script
    async with await ask(transport, wall.url) as response:
        await wall.deserted().wait()
        await settle(transport)
        data, error = await chunks_until_failure(response)
    assert data == b"some"
    assert isinstance(error, Cut)


async def test_a_slow_reader_gets_all_of_a_large_answer_whose_connection_is_gone(
    transport: Transport, wall: Wall
) -> None:
    size = 2**19
    wall.answer = (*whole(bytes(size)), Close())
    async with await ask(transport, wall.url) as response:
        await until(lambda: wall.requests[0].sent > size)
        await settle(transport)
        received = 0
        while part := await response.chunk():
            received += len(part)
            await asyncio.sleep(0)
    assert received == size


async def test_broken_chunk_framing_gives_what_came_and_is_garbled(
    transport: Transport, wall: Wall
) -> None:
    broken = Moment()
    wall.answer = (
        Send(head(chunked=True)),
        Send(piece(b"some")),
        WaitFor(broken),
        Send(b"zz\r\nnot a size"),
        Stall(),
    )
    async with await ask(transport, wall.url) as response:
        data = await response.chunk()
        broken.set()
        rest, error = await chunks_until_failure(response)
        assert data + rest == b"some"
        assert isinstance(error, Garbled)
    await wall.requests[0].left.wait()
    assert state(transport, in_use=0, idle=0)


NOT_HTTP: dict[str, Script] = {
    "noise": GARBAGE,
    "another protocol": (Send(b"SSH-2.0-OpenSSH_9.6\r\n"), Stall()),
    "a page without headers": (Send(b"<html>hello</html>\r\n\r\n"), Close()),
    "one huge header": (Send(head(200, [("X", "a" * 100_000)], length=0)), Stall()),
    "a header without an end": (Send(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000), Stall()),
    "ten thousand headers": (Send(head(200, [("X", "a")] * 10_000, length=0)), Stall()),
    "a length that is none": (Send(head(200, [("Content-Length", "five")])), Stall()),
    "two lengths": (Send(head(200, [("Content-Length", "1")], length=2) + b"ab"), Stall()),
}


@pytest.mark.parametrize("script", NOT_HTTP.values(), ids=NOT_HTTP)
async def test_what_is_not_http_is_garbled(
    transport: Transport, wall: Wall, script: Script
) -> None:
    wall.answer = script
    with pytest.raises(Garbled):
        await ask(transport, wall.url)
    assert state(transport, in_use=0, idle=0)


@pytest.mark.parametrize(
    "script",
    [
        (Close(),),
        (scripted.Reset(),),
        (Send(b"HTTP/1.1 200 OK\r\nContent-Le"), Close()),
        (Send(b"HTTP/1.1 200 OK\r\nContent-Le"), scripted.Reset()),
    ],
    ids=["closed", "reset", "closed inside the headers", "reset inside the headers"],
)
async def test_a_connection_that_ends_before_the_headers_is_reset(
    transport: Transport, wall: Wall, script: Script
) -> None:
    wall.answer = script
    with pytest.raises(Reset):
        await ask(transport, wall.url, b"{}")
    assert len(wall.requests) == 1
    assert state(transport, in_use=0, idle=0)


async def test_a_length_that_is_too_small_never_gives_more_and_spoils_the_connection(
    transport: Transport, wall: Wall
) -> None:
    wall.answer = (*whole(b"some more", claims=4), Stall())
    try:
        body = await answer(transport, wall.url)
    except Garbled:
        body = b"some"
    assert body == b"some"
    await settle(transport)
    wall.then(whole(b"right"))
    assert await answer(transport, wall.url) == b"right"


async def test_an_answer_larger_than_allowed_is_not_held(transport: Transport, wall: Wall) -> None:
    announced = (*whole(b"", claims=1001), Stall())
    grows = (*chunked(b"x" * 600, b"x" * 600, ends=False), Stall())
    for script in (announced, grows):
        wall.answer = script
        async with await ask(transport, wall.url) as response:
            with pytest.raises(TooLarge):
                await response.body(1000)
            await wall.requests[-1].left.wait()
    wall.answer = whole(b"x" * 1000)
    async with await ask(transport, wall.url) as response:
        assert len(await response.body(1000)) == 1000


# Getting there


async def test_a_closed_port_is_a_failure_to_connect(transport: Transport) -> None:
    async with Wall() as wall:
        url = wall.url
    with pytest.raises(ConnectFailed, match=str(wall.port)):
        await ask(transport, url)
    assert state(transport, in_use=0, idle=0)


@pytest.mark.parametrize(
    "url",
    [
        "http://nowhere.invalid/",
        f"http://{'a' * 70}.invalid/",
        "ftp://127.0.0.1/",
        "http://",
        "http://127.0.0.1:99999/",
        "no address at all",
    ],
)
async def test_an_address_that_leads_nowhere_is_a_failure_to_connect(
    transport: Transport, url: str
) -> None:
    with pytest.raises(ConnectFailed):
        await ask(transport, url)
    assert state(transport, in_use=0, idle=0)


async def test_a_certificate_of_a_stranger_is_not_accepted(make: Make) -> None:
    async with Wall(tls=AUTHORITY.server) as wall:
        transport = make()
        with pytest.raises(TlsFailed):
            await ask(transport, wall.url)
        assert wall.requests == []
        assert state(transport, in_use=0, idle=0)


async def test_a_certificate_for_another_name_is_not_accepted(transport: Transport) -> None:
    async with Wall(tls=Authority().server) as wall:
        with pytest.raises(TlsFailed):
            await ask(transport, wall.url)


async def test_a_server_that_does_not_speak_tls_fails_the_handshake(transport: Transport) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.transport.abort()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(TlsFailed):
            await ask(transport, f"https://127.0.0.1:{port}")


# Time limits


async def test_the_connect_limit_includes_the_handshake(transport: Transport) -> None:
    with deaf() as address, pytest.raises(TimedOut) as caught:
        await ask(transport, f"https://{address}", limits=Limits(connect=0.05, headers=5, idle=5))
    assert (caught.value.phase, caught.value.seconds) == ("connect", 0.05)
    assert state(transport, in_use=0, idle=0)


async def test_the_connect_limit_includes_the_wait_for_a_free_connection(make: Make) -> None:
    transport = make(pool_size=1)
    async with Wall((Send(head(200, length=1)), Stall())) as wall:
        async with await ask(transport, wall.url):
            with pytest.raises(TimedOut) as caught:
                await ask(transport, wall.url, limits=Limits(connect=0.05, headers=5, idle=5))
            assert caught.value.phase == "connect"
            assert state(transport, in_use=1, idle=0)
        assert state(transport, in_use=0, idle=0)


@pytest.mark.parametrize(
    "script",
    [(Stall(),), (Send(b"HTTP/1.1 200 OK\r\n"), Stall())],
    ids=["silence", "a status line"],
)
async def test_the_headers_limit_runs_until_they_are_complete(
    transport: Transport, wall: Wall, script: Script
) -> None:
    wall.answer = script
    with pytest.raises(TimedOut) as caught:
        await ask(transport, wall.url, limits=Limits(connect=5, headers=0.05, idle=5))
    assert (caught.value.phase, caught.value.seconds) == ("headers", 0.05)
    assert state(transport, in_use=0, idle=0)
    await wall.requests[0].left.wait()


async def test_the_headers_limit_includes_the_writing(transport: Transport) -> None:
    limits = Limits(connect=5, headers=0.05, idle=5)
    with deaf() as address, pytest.raises(TimedOut) as caught:
        await ask(transport, f"http://{address}", b"x" * 2**24, limits=limits)
    assert caught.value.phase == "headers"
    assert state(transport, in_use=0, idle=0)


async def test_silence_inside_a_body_ends_it(transport: Transport, wall: Wall) -> None:
    wall.answer = (*chunked(b"some", ends=False), Stall())
    limits = Limits(connect=5, headers=5, idle=0.05)
    async with await ask(transport, wall.url, limits=limits) as response:
        data, error = await chunks_until_failure(response)
        assert data == b"some"
        assert isinstance(error, TimedOut)
        assert (error.phase, error.seconds) == ("body", 0.05)
        await wall.requests[0].left.wait()
        with pytest.raises(TimedOut):
            await response.chunk()
    assert state(transport, in_use=0, idle=0)


async def test_each_arrival_moves_the_idle_limit(transport: Transport, wall: Wall) -> None:
    ticks: list[scripted.Step] = [Send(head(chunked=True))]
    for _ in range(6):
        ticks += [Pause(0.05), Send(piece(b"."))]
    wall.answer = (*ticks, Send(END))
    limits = Limits(connect=5, headers=5, idle=0.2)
    async with await ask(transport, wall.url, limits=limits) as response:
        assert await response.body(ENOUGH) == b"......"


async def test_what_arrived_in_time_is_not_late_for_a_slow_reader(
    transport: Transport, wall: Wall
) -> None:
    wall.answer = chunked(b"so", b"me")
    limits = Limits(connect=5, headers=5, idle=0.05)
    async with await ask(transport, wall.url, limits=limits) as response:
        data = await response.chunk()
        await asyncio.sleep(0.12)
        while part := await response.chunk():
            data += part
    assert data == b"some"


# Leaving


async def cancelled(task: "asyncio.Task[Response] | asyncio.Task[bytes]") -> None:
    """Cancel a task once it waits for something."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_leaves_while_connecting_leaves_nothing_behind(transport: Transport) -> None:
    with deaf() as address:
        task = asyncio.create_task(ask(transport, f"https://{address}"))
        await until(lambda: state(transport, in_use=1, idle=0))
        await cancelled(task)
        assert state(transport, in_use=0, idle=0)


async def test_who_leaves_while_waiting_for_headers_closes_the_connection(
    transport: Transport, wall: Wall
) -> None:
    asked = Moment()

    def stall(_: scripted.Request) -> Script:
        asked.set()
        return (Stall(),)

    wall.answer = stall
    task = asyncio.create_task(ask(transport, wall.url, b"{}"))
    await asked.wait()
    await cancelled(task)
    assert state(transport, in_use=0, idle=0)
    await wall.requests[0].left.wait()


async def test_who_leaves_inside_a_body_closes_the_connection(
    transport: Transport, wall: Wall
) -> None:
    wall.answer = (*chunked(b"some", ends=False), Stall())
    async with await ask(transport, wall.url) as response:
        assert await response.chunk() == b"some"
        await cancelled(asyncio.create_task(response.chunk()))
        assert state(transport, in_use=0, idle=0)
        await wall.requests[0].left.wait()
        with pytest.raises(Cut):
            await response.chunk()


async def test_who_leaves_while_writing_closes_the_connection_at_once(
    transport: Transport,
) -> None:
    size = 2**26
    async with reluctant(b"") as (url, read, go_on):
        task = asyncio.create_task(ask(transport, url, bytes(size)))
        await until(lambda: state(transport, in_use=1, idle=0))
        await settle(transport)
        await cancelled(task)
        assert "in_use=0" in repr(transport)
        go_on.set()
        assert await asyncio.wait_for(read, 5) < size // 2


async def test_an_answer_left_before_its_end_is_closed_and_not_drained(
    transport: Transport, wall: Wall
) -> None:
    wall.answer = (*chunked(b"some", ends=False), Stall())
    async with await ask(transport, wall.url) as response:
        await response.chunk()
    assert state(transport, in_use=0, idle=0)
    await wall.requests[0].left.wait()
    with pytest.raises(Cut):
        await response.chunk()


async def test_who_leaves_the_queue_for_a_connection_does_not_block_it(make: Make) -> None:
    transport = make(pool_size=1)
    go_on = Moment()
    async with Wall(whole(b"ok")) as wall:
        wall.then((Send(head(200, length=1)), WaitFor(go_on), Send(b"x")))
        async with await ask(transport, wall.url) as first:
            second = asyncio.create_task(answer(transport, wall.url))
            third = asyncio.create_task(answer(transport, wall.url))
            await cancelled(second)
            go_on.set()
            assert await first.body(ENOUGH) == b"x"
        assert await third == b"ok"
        assert wall.connections == 1
        assert state(transport, in_use=0, idle=1)


# Connections that are kept


async def test_a_connection_is_used_again_once_its_answer_was_read(
    transport: Transport, wall: Wall
) -> None:
    wall.answer = chunked(b"so", b"me")
    for _ in range(5):
        assert await answer(transport, wall.url, b"{}") == b"some"
        assert state(transport, in_use=0, idle=1)
    assert wall.connections == 1


async def test_a_server_that_wants_to_close_is_believed(transport: Transport, wall: Wall) -> None:
    wall.answer = whole(b"bye", 200, [("Connection", "close")])
    assert await answer(transport, wall.url) == b"bye"
    assert state(transport, in_use=0, idle=0)


async def test_an_unused_connection_is_kept_no_longer_than_asked(make: Make) -> None:
    transport = make(keepalive=0.02)
    async with Wall() as wall:
        await answer(transport, wall.url)
        await wall.requests[0].left.wait()


STALE: dict[str, Script] = {"closed": (Close(),), "reset": (scripted.Reset(),)}


@pytest.mark.parametrize("script", STALE.values(), ids=STALE)
async def test_a_kept_connection_that_turns_out_closed_costs_no_answer(
    transport: Transport, wall: Wall, script: Script
) -> None:
    wall.then(whole(b"first"), script, whole(b"second"))
    assert await answer(transport, wall.url, b"{}") == b"first"
    assert await answer(transport, wall.url, b"{}") == b"second"
    assert [request.body for request in wall.requests] == [b"{}"] * 3
    assert wall.connections == 2


async def test_of_several_kept_connections_that_turn_out_closed_one_is_tried(
    transport: Transport, wall: Wall
) -> None:
    both = Moment()
    wall.then((WaitFor(both), *whole(b"first")), (WaitFor(both), *whole(b"second")))
    tasks = [asyncio.create_task(answer(transport, wall.url, b"{}")) for _ in range(2)]
    await until(lambda: len(wall.requests) == 2)
    both.set()
    assert await asyncio.gather(*tasks) == [b"first", b"second"]
    old = [request.left for request in wall.requests]
    wall.answer = lambda request: (Close(),) if request.left in old else whole(b"third")
    assert await answer(transport, wall.url, b"{}") == b"third"
    assert len(wall.requests) == 4
    assert state(transport, in_use=0, idle=1)


async def test_a_connection_closed_while_it_was_kept_is_not_used(
    transport: Transport, wall: Wall
) -> None:
    wall.then((*whole(b"first"), Close()))
    assert await answer(transport, wall.url, b"{}") == b"first"
    await wall.deserted().wait()
    await settle(transport)
    assert await answer(transport, wall.url, b"{}") == b"ok"
    assert len(wall.requests) == 2


async def test_a_request_is_sent_again_once_at_most(transport: Transport, wall: Wall) -> None:
    wall.then(whole(b"first"), (Close(),), (Close(),))
    await answer(transport, wall.url, b"{}")
    with pytest.raises(Reset):
        await answer(transport, wall.url, b"{}")
    assert len(wall.requests) == 3
    assert state(transport, in_use=0, idle=0)


async def test_a_request_that_got_a_byte_of_answer_is_not_sent_again(
    transport: Transport, wall: Wall
) -> None:
    wall.then(whole(b"first"), (Send(b"HTTP/1.1 2"), Close()))
    await answer(transport, wall.url, b"{}")
    with pytest.raises(Reset):
        await answer(transport, wall.url, b"{}")
    assert len(wall.requests) == 2


async def test_what_a_server_says_unasked_is_not_the_next_answer(
    transport: Transport, wall: Wall
) -> None:
    speak = Moment()
    goodbye = head(408, [("Connection", "close")], length=0)
    wall.then((*whole(b"first"), WaitFor(speak), Send(goodbye), Stall()))
    assert await answer(transport, wall.url, b"{}") == b"first"
    speak.set()
    await settle(transport)
    async with await ask(transport, wall.url, b"{}") as response:
        assert (response.status, await response.body(ENOUGH)) == (200, b"ok")


@asynccontextmanager
async def many_open_files(count: int) -> AsyncIterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"this machine allows no more than {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_thousand_streams_are_opened_and_left(transport: Transport) -> None:
    script = (*chunked(b"some", ends=False), Stall())
    async with many_open_files(4096), Wall(script) as wall:

        async def listen() -> None:
            async with await ask(transport, wall.url, b"{}") as response:
                assert await response.chunk() == b"some"
                await response.chunk()

        tasks = [asyncio.create_task(listen()) for _ in range(1000)]
        await until(lambda: len(wall.requests) == 1000)
        assert state(transport, in_use=1000, idle=0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks)
        assert state(transport, in_use=0, idle=0)
        await wall.deserted().wait()


# Proxies


async def test_a_plain_request_goes_through_a_proxy_by_its_whole_address(make: Make) -> None:
    async with Wall(whole(b"ok")) as wall, Proxy() as proxy:
        transport = make(proxy=proxy.url.replace("//", "//me:secret@"))
        assert await answer(transport, wall.url + "/v1/models", b"{}") == b"ok"
        assert proxy.log == [f"POST {wall.url}/v1/models HTTP/1.1"]
        assert proxy.credentials == ["Basic bWU6c2VjcmV0"]
        assert wall.requests[0].path == "/v1/models"


async def test_a_tls_request_goes_through_a_tunnel_that_is_kept(make: Make) -> None:
    async with Wall(chunked(b"so", b"me"), tls=AUTHORITY.server) as wall, Proxy() as proxy:
        proxied = proxy.url.replace("//", "//me:secret@")
        transport = make(proxy=proxied, ssl_context=AUTHORITY.client)
        for _ in range(3):
            assert await answer(transport, wall.url, b"{}") == b"some"
        assert proxy.log == [f"CONNECT 127.0.0.1:{wall.port} HTTP/1.1"]
        assert proxy.credentials == ["Basic bWU6c2VjcmV0"]
        assert "proxy-authorization" not in wall.requests[0].headers


async def test_a_proxy_that_refuses_is_a_failure_to_connect(make: Make) -> None:
    refusal = head(407, length=0)
    async with Proxy(refusal=refusal) as proxy:
        proxied = proxy.url.replace("//", "//me:secret@")
        transport = make(proxy=proxied, ssl_context=AUTHORITY.client)
        with pytest.raises(ConnectFailed, match="407") as caught:
            await ask(transport, "https://127.0.0.1:1/")
        assert "secret" not in str(caught.value)
        assert state(transport, in_use=0, idle=0)


async def test_a_proxy_that_is_not_there_is_a_failure_to_connect(make: Make) -> None:
    async with Proxy() as proxy:
        url = proxy.url
    transport = make(proxy=url, ssl_context=AUTHORITY.client)
    for target in ("http://127.0.0.1:1/", "https://127.0.0.1:1/"):
        with pytest.raises(ConnectFailed):
            await ask(transport, target)


async def test_the_connect_limit_includes_the_tunnel(make: Make) -> None:
    async with Proxy(silent=True) as proxy:
        transport = make(proxy=proxy.url, ssl_context=AUTHORITY.client)
        limits = Limits(connect=0.05, headers=5, idle=5)
        with pytest.raises(TimedOut) as caught:
            await ask(transport, "https://127.0.0.1:1/", limits=limits)
        assert caught.value.phase == "connect"
        assert state(transport, in_use=0, idle=0)
        await until(lambda: proxy.open_connections == 0)


# The end


async def test_closing_cuts_what_is_open_and_refuses_what_comes(
    implementation: Make, wall: Wall
) -> None:
    transport = implementation(ssl_context=AUTHORITY.client)
    wall.then(whole(b"kept"), (*chunked(b"some", ends=False), Stall()), (Stall(),))
    await answer(transport, wall.url)
    response = await ask(transport, wall.url)
    assert await response.chunk() == b"some"
    reading = asyncio.create_task(response.chunk())
    waiting = asyncio.create_task(ask(transport, wall.url))
    await until(lambda: len(wall.requests) == 3)
    await transport.aclose()
    with pytest.raises(Cut):
        await reading
    with pytest.raises(Reset):
        await waiting
    with pytest.raises(ConnectFailed):
        await ask(transport, wall.url)
    assert state(transport, in_use=0, idle=0)
    await wall.deserted().wait()
    await transport.aclose()


async def test_closing_ends_the_wait_for_a_free_connection(implementation: Make) -> None:
    transport = implementation(pool_size=1)
    async with Wall((Send(head(200, length=1)), Stall())) as wall:
        response = await ask(transport, wall.url)
        waiting = asyncio.create_task(ask(transport, wall.url))
        for _ in range(3):
            await asyncio.sleep(0)
        await transport.aclose()
        with pytest.raises(ConnectFailed):
            await waiting
        with pytest.raises(Cut):
            await response.chunk()
