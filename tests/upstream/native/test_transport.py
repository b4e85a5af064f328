"""What our own transport does when two things happen in the same turn of the loop."""

import asyncio
import gc
import gzip
import itertools
import math
import weakref
from collections.abc import Iterator

import pytest

from manyways import watch
from manyways.errors import ConnectFailed, Garbled, TimedOut, TransportError
from manyways.upstream.native import NativeTransport
from manyways.upstream.native.origin import Route
from manyways.upstream.native.pool import Pool
from manyways.upstream.native.wire import Wire
from manyways.upstream.transport import Limits
from tests.support.wall import (
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
    whole,
)
from tests.upstream.exchange import answer, ask, settle, state, until


@pytest.fixture
async def transport() -> NativeTransport:
    return NativeTransport()


def waiting_for_headers(transport: NativeTransport) -> Wire:
    (pool,) = transport._pools.values()
    (wire,) = pool.busy
    return wire


@pytest.mark.parametrize("late", [False, True], ids=["cancelled", "out of time"])
async def test_an_answer_that_nobody_took_is_not_the_next_callers(
    transport: NativeTransport, late: bool
) -> None:
    """It came whole in the very turn in which who had asked for it went away."""
    async with Wall(whole(b"his")) as wall:
        wall.then((Stall(),))
        hers = asyncio.create_task(ask(transport, wall.url, b"{}"))
        await until(lambda: len(wall.requests) == 1)
        waiting_for_headers(transport).data_received(
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhers"
        )
        if late:
            (limit,) = watch._clock().limits
            limit.ring(math.inf)
        else:
            hers.cancel()
        with pytest.raises(TimedOut if late else asyncio.CancelledError):
            await hers
        assert await answer(transport, wall.url, b"{}") == b"his"
        await wall.requests[0].left.wait()
        assert state(transport, in_use=0, idle=1)
        await transport.aclose()


async def test_writing_takes_no_more_of_the_headers_limit_than_it_took(
    transport: NativeTransport,
) -> None:
    limits = Limits(connect=5, headers=2, idle=5, write=1.9)
    async with Wall((Pause(0.3), *whole(b"late"))) as wall:
        async with await ask(transport, wall.url, bytes(2**24), limits=limits) as response:
            assert await response.body(10) == b"late"
        await transport.aclose()


async def test_framing_that_trickles_is_no_sign_of_life(transport: NativeTransport) -> None:
    trickle = [step for _ in range(40) for step in (Pause(0.02), Send(b"x"))]
    limits = Limits(connect=5, headers=5, idle=0.2)
    async with Wall((*chunked(b"some", ends=False), Send(b"1;"), *trickle, Close())) as wall:
        async with await ask(transport, wall.url, b"{}", limits=limits) as response:
            assert await response.chunk() == b"some"
            with pytest.raises(TimedOut) as caught:
                await response.chunk()
        assert caught.value.phase == "body"
        await transport.aclose()


async def test_a_status_below_100_is_none(transport: NativeTransport) -> None:
    strange = b"HTTP/1.1 099 x\r\nContent-Length: 5\r\n\r\nhello"
    async with Wall((Send(strange), *whole(b"ok"))) as wall:
        with pytest.raises(Garbled):
            await ask(transport, wall.url)
        await transport.aclose()


async def test_a_transport_that_closes_makes_no_new_connection() -> None:
    transport = NativeTransport()
    async with Wall(whole(b"first")) as wall:
        await answer(transport, wall.url, b"{}")
        wall.answer = (Stall(),)
        again = asyncio.create_task(ask(transport, wall.url, b"{}"))
        await until(lambda: len(wall.requests) == 2)
        await transport.aclose()
        with pytest.raises(Exception, match="closed"):
            await again
        assert wall.connections == 1
        assert state(transport, in_use=0, idle=0)


async def test_a_connection_handed_on_while_the_pool_closes_is_closed_too() -> None:
    transport = NativeTransport(pool_size=1)
    go_on = Moment()
    async with Wall((Send(head(200, length=1)), WaitFor(go_on), Send(b"x"))) as wall:
        async with await ask(transport, wall.url) as first:
            second = asyncio.create_task(ask(transport, wall.url))
            await settle(NativeTransport())
            go_on.set()
            assert await first.body(10) == b"x"  # the second has its turn, and has not run yet
            await transport.aclose()
        with pytest.raises((ConnectFailed, asyncio.CancelledError)):
            await second
        await wall.deserted().wait()
        assert state(transport, in_use=0, idle=0)


async def test_who_is_cancelled_while_the_transport_closes_is_cancelled() -> None:
    transport = NativeTransport(pool_size=1)
    async with Wall((Stall(),)) as wall:
        first = asyncio.create_task(ask(transport, wall.url))
        await until(lambda: len(wall.requests) == 1)
        second = asyncio.create_task(ask(transport, wall.url))
        await settle(NativeTransport())
        second.cancel()
        await transport.aclose()
        with pytest.raises(asyncio.CancelledError):
            await second
        with pytest.raises(Exception, match="closed"):
            await first


async def test_a_connection_with_something_left_to_read_is_not_used_again() -> None:
    loop = asyncio.get_running_loop()
    route = Route("a.test", 80, tls=False)
    pool = Pool(route, loop, bound=0, keepalive=9, max_age=9, emptied=lambda _: None)
    assert not Wire(loop, route, pool.drop).reusable


class Held:
    """What a caller has in its hands while it waits: a request's body, for one."""


@pytest.fixture
def without_gc() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


PACKED = gzip.compress(bytes(range(256)) * 40)
CODINGS: dict[str, tuple[list[tuple[str, str]], bytes]] = {
    "plain": ([], PACKED),
    "gzip": ([("Content-Encoding", "gzip")], PACKED),
}
BAD_ENDS: dict[str, Script] = {
    "cut": (Close(),),
    "garbled": (Send(b"zz"), Stall()),
    "silent": (Stall(),),
}


IMPATIENT = Limits(connect=5, headers=5, idle=0.05)


async def fails_holding(transport: NativeTransport, url: str, limit: int) -> "weakref.ref[Held]":
    """An exchange that ends badly. What is left of its caller's frame when that is over?"""
    held = Held()
    try:
        async with await ask(transport, url, b"{}", limits=IMPATIENT) as response:
            await response.body(limit)
    except TransportError:
        return weakref.ref(held)
    raise AssertionError("it did not fail")


@pytest.mark.parametrize(
    ("coding", "end"),
    [*itertools.product(CODINGS, [*BAD_ENDS, "too large"]), ("gzip", "broken data")],
)
async def test_a_bad_end_leaves_nothing_of_its_caller_to_the_garbage_collector(
    transport: NativeTransport, without_gc: None, coding: str, end: str
) -> None:
    headers, data = CODINGS[coding]
    if end == "broken data":
        script: Script = whole(b"\xff" * 40, headers=headers)
    elif end == "too large":
        script = whole(data, headers=headers)
    else:
        body = b"%x\r\n%s\r\n" % (len(data) // 2, data[: len(data) // 2])
        script = (Send(head(chunked=True, headers=headers) + body), *BAD_ENDS[end])
    async with Wall(script) as wall:
        held = await fails_holding(transport, wall.url, 9 if end == "too large" else 2**20)
        await transport.aclose()
    assert held() is None
