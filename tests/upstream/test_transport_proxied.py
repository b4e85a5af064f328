"""What every implementation of `manyways.upstream.transport` promises holds through a proxy too:
asked for whole addresses, through a tunnel, and, where it speaks that, through SOCKS.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest

from manyways.errors import Cut, Garbled, Reset, TimedOut
from manyways.upstream.aiohttp_transport import AiohttpTransport
from manyways.upstream.transport import Limits, Transport
from tests.support import wall as scripted
from tests.support.proxy import Proxy
from tests.support.socks import Socks
from tests.support.wall import (
    END,
    Close,
    Forever,
    Moment,
    Script,
    Send,
    Stall,
    WaitFor,
    Wall,
    chunked,
    head,
    piece,
    until_close,
    whole,
)
from tests.upstream.exchange import (
    AUTHORITY,
    Make,
    answer,
    ask,
    cancelled,
    chunks_until_failure,
    settle,
    state,
    until,
)


@dataclass
class Way:
    """From a transport by way of a proxy to a wall."""

    transport: Transport
    proxy: Proxy | Socks
    wall: Wall


@pytest.fixture(params=["addresses", "tunnel", "socks", "tunnel by socks"])
async def way(
    request: pytest.FixtureRequest, make: Make, implementation: Make
) -> AsyncIterator[Way]:
    by_socks = "socks" in request.param
    if by_socks and implementation is AiohttpTransport:
        pytest.skip("aiohttp does not speak SOCKS")
    async with AsyncExitStack() as stack:
        tls = AUTHORITY.server if "tunnel" in request.param else None
        wall = await stack.enter_async_context(Wall(tls=tls))
        proxy: Proxy | Socks = Socks() if by_socks else Proxy()
        await stack.enter_async_context(proxy)
        transport = make(proxy=proxy.url, ssl_context=AUTHORITY.client, pool_size=20)
        yield Way(transport, proxy, wall)


async def test_a_connection_through_a_proxy_is_used_again(way: Way) -> None:
    way.wall.then(whole(b"some"), chunked(b"so", b"me"), whole(b"some"))
    for _ in range(3):
        assert await answer(way.transport, way.wall.url + "/v1/models", b"{}") == b"some"
        assert state(way.transport, in_use=0, idle=1)
    assert way.wall.connections == 1
    assert way.proxy.connections == 1
    assert [request.body for request in way.wall.requests] == [b"{}"] * 3
    assert "proxy-authorization" not in way.wall.requests[0].headers


async def test_a_chunk_is_handed_on_before_the_next_is_sent(way: Way) -> None:
    turns = [Moment() for _ in range(5)]
    steps: list[scripted.Step] = [Send(head(chunked=True))]
    for number, turn in enumerate(turns):
        steps += [WaitFor(turn), Send(piece(b"event %d\n\n" % number))]
    way.wall.answer = (*steps, Send(END))
    async with await ask(way.transport, way.wall.url) as response:
        for number, turn in enumerate(turns):
            turn.set()
            assert await response.chunk() == b"event %d\n\n" % number
        assert await response.chunk() == b""


async def test_a_body_without_a_length_ends_with_its_connection(way: Way) -> None:
    way.wall.answer = until_close(b"all of it")
    assert await answer(way.transport, way.wall.url) == b"all of it"
    assert state(way.transport, in_use=0, idle=0)


BROKEN: dict[str, tuple[Script, type[Exception]]] = {
    "cut": ((*chunked(b"some", ends=False), Close()), Cut),
    "short": ((*whole(b"some", claims=9), Close()), Cut),
    "reset": ((*chunked(b"some", ends=False), scripted.Reset()), Cut),
    "garbled": ((*chunked(b"some", ends=False), Send(b"zz\r\n"), Stall()), Garbled),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_answer_is_told_as_such(way: Way, name: str) -> None:
    turn = Moment()
    (first, *rest), kind = BROKEN[name]
    way.wall.answer = (first, WaitFor(turn), *rest)
    async with await ask(way.transport, way.wall.url) as response:
        turn.set()
        data, error = await chunks_until_failure(response)
        assert b"some".startswith(data)
        assert type(error) is kind
    assert state(way.transport, in_use=0, idle=0)
    await way.wall.deserted().wait()


async def test_a_provider_that_says_nothing_has_reset_the_connection(way: Way) -> None:
    way.wall.answer = (Close(),)
    with pytest.raises(Reset):
        await answer(way.transport, way.wall.url, b"{}")
    assert len(way.wall.requests) == 1
    assert state(way.transport, in_use=0, idle=0)


async def test_a_kept_connection_that_turns_out_closed_costs_no_answer(way: Way) -> None:
    way.wall.then(whole(b"first"), (Close(),), whole(b"second"))
    assert await answer(way.transport, way.wall.url, b"{}") == b"first"
    assert await answer(way.transport, way.wall.url, b"{}") == b"second"
    assert len(way.wall.requests) == 3
    assert way.wall.connections == way.proxy.connections == 2


async def test_silence_is_told_and_the_connection_closed(way: Way) -> None:
    way.wall.answer = (*chunked(b"some", ends=False), Stall())
    limits = Limits(connect=5, headers=5, idle=0.05)
    async with await ask(way.transport, way.wall.url, limits=limits) as response:
        data, error = await chunks_until_failure(response)
        assert data == b"some"
        assert isinstance(error, TimedOut)
        assert error.phase == "body"
    assert state(way.transport, in_use=0, idle=0)
    await way.wall.deserted().wait()


async def test_whoever_leaves_closes_the_connection_to_its_far_end(way: Way) -> None:
    way.wall.answer = (*chunked(b"some", ends=False), Stall())
    async with await ask(way.transport, way.wall.url) as response:
        await response.chunk()
    assert state(way.transport, in_use=0, idle=0)
    await way.wall.deserted().wait()
    way.wall.answer = (Stall(),)
    task = asyncio.create_task(ask(way.transport, way.wall.url))
    await until(lambda: len(way.wall.requests) == 2)
    await cancelled(task)
    assert state(way.transport, in_use=0, idle=0)
    await way.wall.deserted().wait()
    await until(lambda: way.proxy.open_connections == 0)


async def test_a_provider_whose_answer_nobody_reads_stands_still(way: Way) -> None:
    way.wall.then((Send(head()), Forever(b"x" * 16_000)))
    async with await ask(way.transport, way.wall.url) as response:
        sent = -1
        while way.wall.requests[0].sent != sent:
            sent = way.wall.requests[0].sent
            await settle(way.transport)
        assert sent < 2**25
        received = 0
        while received < 2 * sent:
            received += len(await response.chunk())
    assert "in_use=0" in repr(way.transport)
    await way.wall.requests[0].left.wait()


async def test_large_bodies_go_both_ways(way: Way) -> None:
    body = bytes(range(256)) * 4 * 2000
    way.wall.answer = lambda request: whole(request.body)
    answers = await asyncio.gather(*(answer(way.transport, way.wall.url, body) for _ in range(4)))
    assert answers == [body] * 4


async def test_a_crowd_shares_its_connections(way: Way) -> None:
    answers = await asyncio.gather(*(answer(way.transport, way.wall.url) for _ in range(100)))
    assert answers == [b"ok"] * 100
    assert way.wall.connections == way.proxy.connections == 20
    assert state(way.transport, in_use=0, idle=20)
    assert await answer(way.transport, way.wall.url) == b"ok"


async def test_a_proxy_that_falls_cuts_what_is_open(way: Way) -> None:
    way.wall.answer = (*chunked(b"some", ends=False), Stall())
    async with await ask(way.transport, way.wall.url) as response:
        assert await response.chunk() == b"some"
        await way.proxy.__aexit__(None, None, None)
        with pytest.raises(Cut):
            await response.chunk()
        await way.proxy.__aenter__()
    assert state(way.transport, in_use=0, idle=0)


# Several providers behind one proxy that is asked for whole addresses


async def test_a_provider_that_is_slow_keeps_nobody_from_another(make: Make) -> None:
    """The bound of connections is each provider's, though all lead to one proxy."""
    async with Wall((Stall(),)) as slow, Wall(whole(b"at once")) as fast, Proxy() as proxy:
        transport = make(proxy=proxy.url, pool_size=1)
        waiting = [asyncio.create_task(ask(transport, slow.url)) for _ in range(3)]
        await until(lambda: len(slow.requests) == 1)
        assert await answer(transport, fast.url) == b"at once"
        assert len(slow.requests) == 1
        for task in waiting:
            await cancelled(task)


async def test_no_two_providers_share_a_connection_to_a_proxy(make: Make) -> None:
    """One that looks at the first request only would give one provider the other's keys."""
    async with Wall(whole(b"one")) as one, Wall(whole(b"two")) as two, Proxy() as proxy:
        transport = make(proxy=proxy.url)
        for _ in range(2):
            assert await answer(transport, one.url + "/v1/models") == b"one"
            assert await answer(transport, two.url) == b"two"
            assert await answer(transport, one.url.replace("127.0.0.1", "localhost")) == b"one"
        assert proxy.connections == 3
        assert (len(one.requests), len(two.requests)) == (4, 2)
        assert state(transport, in_use=0, idle=3)
