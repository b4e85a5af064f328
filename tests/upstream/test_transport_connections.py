"""What every implementation of `manyways.upstream.transport` promises: its connections.

How they come to be, how long they may take, what is left of them, and when they are used again.
"""

import asyncio
import ssl

import pytest

from manyways.errors import (
    ConnectFailed,
    Cut,
    Reset,
    TimedOut,
    TlsFailed,
)
from manyways.upstream.transport import Limits, Transport
from tests.support import wall as scripted
from tests.support.proxy import Proxy
from tests.support.tls import Authority
from tests.support.wall import (
    END,
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
    whole,
)
from tests.upstream.exchange import (
    AUTHORITY,
    ENOUGH,
    Make,
    answer,
    ask,
    cancelled,
    chunks_until_failure,
    deaf,
    many_open_files,
    reluctant,
    settle,
    state,
    until,
)

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
    assert caught.value.connecting
    assert state(transport, in_use=0, idle=0)


async def test_the_connect_limit_includes_the_wait_for_a_free_connection(make: Make) -> None:
    transport = make(pool_size=1)
    async with Wall((Send(head(200, length=1)), Stall())) as wall:
        async with await ask(transport, wall.url):
            with pytest.raises(TimedOut) as caught:
                await ask(transport, wall.url, limits=Limits(connect=0.05, headers=5, idle=5))
            assert caught.value.connecting
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
    assert caught.value.phase in {"headers", "write"}
    assert state(transport, in_use=0, idle=0)


@pytest.mark.parametrize("seconds", [0, -1])
async def test_a_limit_that_is_over_before_it_begins_ends_what_takes_time(
    transport: Transport, wall: Wall, seconds: float
) -> None:
    """As whoever takes it from what is left of a deadline may find."""
    wall.then((Stall(),), (*chunked(b"some", ends=False), Stall()))
    with pytest.raises(TimedOut) as caught:
        await ask(transport, wall.url, limits=Limits(connect=5, headers=seconds, idle=5))
    assert caught.value.phase in {"headers", "write"}
    limits = Limits(connect=5, headers=5, idle=seconds)
    async with await ask(transport, wall.url, limits=limits) as response:
        _, error = await chunks_until_failure(response)
        assert isinstance(error, TimedOut)
    assert state(transport, in_use=0, idle=0)


async def test_headers_that_trickle_are_late(transport: Transport, wall: Wall) -> None:
    trickle: Script = (Pause(0.02), Send(b"x")) * 40
    wall.answer = (Send(b"HTTP/1.1 200 OK\r\nX: "), *trickle, Stall())
    with pytest.raises(TimedOut) as caught:
        await ask(transport, wall.url, limits=Limits(connect=5, headers=0.2, idle=5))
    assert (caught.value.phase, caught.value.seconds) == ("headers", 0.2)
    assert state(transport, in_use=0, idle=0)
    await wall.requests[0].left.wait()


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
    # Which of the two reaches the server first is up to the network (and to TLS).
    assert set(await asyncio.gather(*tasks)) == {b"first", b"second"}
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


@pytest.mark.parametrize(
    "consent",
    [
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Wait\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\n\n",
        b"HTTP/1.1 200 OK\nProxy-Agent: old\r\n\n",
        b"HTTP/1.0 200 Connection established\r\nProxy-Agent: old\r\n\r\n",
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["after interim answers", "LF", "LF and CRLF", "HTTP/1.0", "without a reason"],
)
async def test_a_proxy_consents_in_its_own_words(make: Make, consent: bytes) -> None:
    async with (
        Wall(whole(b"some"), tls=AUTHORITY.server) as wall,
        Proxy(consent=consent) as proxy,
    ):
        transport = make(proxy=proxy.url, ssl_context=AUTHORITY.client)
        for _ in range(2):
            assert await answer(transport, wall.url) == b"some"
        assert proxy.connections == 1


async def test_a_proxy_that_refuses_is_a_failure_to_connect(make: Make) -> None:
    refusal = head(407, length=0)
    async with Proxy(refusal=refusal) as proxy:
        proxied = proxy.url.replace("//", "//me:secret@")
        transport = make(proxy=proxied, ssl_context=AUTHORITY.client)
        with pytest.raises(ConnectFailed, match="407") as caught:
            await ask(transport, "https://127.0.0.1:1/")
        assert "secret" not in str(caught.value)
        assert state(transport, in_use=0, idle=0)


@pytest.mark.parametrize("tls", [None, AUTHORITY.server])
async def test_a_407_for_a_plain_provider_is_the_proxys_own(
    make: Make, tls: ssl.SSLContext | None
) -> None:
    async with Wall(whole(b'{"error": "hunter2"}', 407), tls=tls) as proxy:
        proxied = proxy.url.replace("//", "//me:hunter2@")
        transport = make(proxy=proxied, ssl_context=AUTHORITY.client)
        with pytest.raises(ConnectFailed) as caught:
            await ask(transport, "http://a.test/v1/models")
        place = f"127.0.0.1:{proxy.port}"
        assert str(caught.value) == f"the proxy {place} answered 407 Proxy Authentication Required"
        assert state(transport, in_use=0, idle=0)


async def test_what_else_comes_by_a_proxy_is_an_answer(make: Make) -> None:
    async with Wall(whole(b"no", 403)) as proxy, Wall(whole(b"no", 407)) as wall:
        async with await ask(make(proxy=proxy.url), "http://a.test/") as response:
            assert response.status == 403
        async with await ask(make(), wall.url) as response:
            assert response.status == 407


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"HTTP/1.1 403 Not for Me\r\n\r\n", "answered 403"),
        (b"HTTP/1.1 403 No: hunter2\r\n\r\n", "answered 403"),
        (b"HTTP/1.1 403 No: bWU6aHVudGVyMg==\r\n\r\n", "answered 403"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "answered 502 Bad Gateway"),
        (b"HTTP/1.1 502 Bad Gateway\n\n", "answered 502 Bad Gateway"),
        (b"HTTP/1.1 100 Wait\r\n\r\nHTTP/1.1 503 Busy\r\n\r\n", "answered 503 Busy"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "answered what is not HTTP"),
        (b"", "the connection was closed"),
    ],
)
async def test_what_a_proxy_says_is_a_line_with_its_address_and_no_secret(
    make: Make, said: bytes, told: str
) -> None:
    async with Proxy(refusal=said or b"HTTP/1.1 ") as proxy:
        transport = make(proxy=proxy.url.replace("//", "//me:hunter2@"))
        with pytest.raises(ConnectFailed) as caught:
            await ask(transport, "https://a.test/")
        words = str(caught.value).removeprefix("a.test:443: ")
        assert words.removeprefix(f"the proxy 127.0.0.1:{proxy.port}").lstrip(": ") == told


async def test_the_certificate_of_a_proxy_is_told_as_its_own(make: Make) -> None:
    async with Proxy(tls=Authority().server) as proxy:
        transport = make(proxy=proxy.url, ssl_context=AUTHORITY.client)
        for target in ("http://a.test/", "https://a.test/"):
            with pytest.raises(TlsFailed, match=f"the proxy 127.0.0.1:{proxy.port}: "):
                await ask(transport, target)


async def test_a_proxy_that_is_not_there_is_a_failure_to_connect(make: Make) -> None:
    async with Proxy() as proxy:
        url = proxy.url
    transport = make(proxy=url, ssl_context=AUTHORITY.client)
    for target in ("http://127.0.0.1:1/", "https://127.0.0.1:1/"):
        with pytest.raises(ConnectFailed, match=f"the proxy 127.0.0.1:{proxy.port}: "):
            await ask(transport, target)


async def test_the_connect_limit_includes_the_tunnel(make: Make) -> None:
    async with Proxy(silent=True) as proxy:
        transport = make(proxy=proxy.url, ssl_context=AUTHORITY.client)
        limits = Limits(connect=0.05, headers=5, idle=5)
        with pytest.raises(TimedOut) as caught:
            await ask(transport, "https://127.0.0.1:1/", limits=limits)
        assert caught.value.connecting
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
