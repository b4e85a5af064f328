"""What our own transport promises beyond `manyways.upstream.transport`: it tells exactly what took
too long, it lets go of connections that are old, and it believes TLS about ends.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest
import uvloop

from manyways.errors import ConnectFailed, Cut, Phase, TimedOut
from manyways.upstream.native import NativeTransport
from manyways.upstream.transport import Address, Limits, Transport
from tests.support.proxy import Proxy
from tests.support.wall import (
    Close,
    Forever,
    HangUp,
    Pause,
    Script,
    Send,
    Stall,
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
    full,
    state,
    until,
)

SOON = 0.05
LIMITS = Limits(connect=30, headers=30, idle=30)


@pytest.fixture
def implementation() -> Make:
    return NativeTransport


async def never(host: str, port: int) -> Sequence[Address]:
    await asyncio.get_running_loop().create_future()
    raise AssertionError


class Stuck:
    """A request that gets no further than `phase`."""

    def __init__(self, transport: Transport, url: str, body: bytes = b"{}") -> None:
        self.transport = transport
        self.url = url
        self.body = body
        self.held = 0
        """How many connections are in use besides."""

    async def ask(self, **limits: float) -> bytes:
        limited = msgspec.structs.replace(LIMITS, **limits)
        async with await ask(self.transport, self.url, self.body, limits=limited) as response:
            return await response.body(ENOUGH)


@asynccontextmanager
async def stuck(phase: str, make: Make) -> AsyncIterator[Stuck]:
    async with AsyncExitStack() as stack:
        match phase:
            case "pool":
                transport = make(pool_size=1)
                wall = await stack.enter_async_context(Wall((Stall(),)))
                holds = asyncio.create_task(ask(transport, wall.url))
                await until(lambda: len(wall.requests) == 1)
                found = Stuck(transport, wall.url)
                found.held = 1
                yield found
                await cancelled(holds)
                return
            case "dns":
                yield Stuck(make(resolver=never), "http://provider.test/")
            case "connect":
                yield Stuck(make(), f"http://{stack.enter_context(full())}/")
            case "tunnel":
                proxy = await stack.enter_async_context(Proxy(silent=True))
                yield Stuck(make(proxy=proxy.url), "https://127.0.0.1:1/")
            case "tls":
                yield Stuck(make(), f"https://{stack.enter_context(deaf())}/")
            case "write":
                yield Stuck(make(), f"http://{stack.enter_context(deaf())}/", bytes(2**24))
            case "headers":
                wall = await stack.enter_async_context(Wall((Stall(),)))
                yield Stuck(make(), wall.url)
            case "body":
                script = (*chunked(b"some", ends=False), Stall())
                wall = await stack.enter_async_context(Wall(script))
                yield Stuck(make(), wall.url)


OWN: dict[str, tuple[Phase, str]] = {
    "pool": ("pool", "pool"),
    "dns": ("dns", "dns"),
    "connect": ("connect", "dial"),
    "tunnel": ("connect", "dial"),
    "tls": ("tls", "tls"),
    "write": ("write", "write"),
    "headers": ("headers", "headers"),
    "body": ("body", "idle"),
}
"""What is told of a request that is stuck, and the limit that is its own."""

OUTER = {"pool": "connect", "dns": "connect", "connect": "connect", "tunnel": "connect"} | {
    "tls": "connect",
    "write": "headers",
}


@pytest.mark.parametrize("name", OWN)
async def test_each_phase_has_its_own_limit_and_its_own_error(make: Make, name: str) -> None:
    phase, limit = OWN[name]
    async with stuck(name, make) as request:
        with pytest.raises(TimedOut) as caught:
            await request.ask(**{limit: SOON})
        assert (caught.value.phase, caught.value.seconds) == (phase, SOON)
        assert caught.value.connecting == (name not in {"write", "headers", "body"})
        assert state(request.transport, in_use=request.held, idle=0)


@pytest.mark.parametrize("name", OUTER)
async def test_a_limit_for_several_phases_tells_which_it_was(make: Make, name: str) -> None:
    async with stuck(name, make) as request:
        with pytest.raises(TimedOut) as caught:
            await request.ask(**{OUTER[name]: SOON})
        assert (caught.value.phase, caught.value.seconds) == (OWN[name][0], SOON)
        assert state(request.transport, in_use=request.held, idle=0)


@pytest.mark.parametrize("name", OWN)
async def test_the_whole_has_a_limit_in_each_phase(make: Make, name: str) -> None:
    async with stuck(name, make) as request:
        with pytest.raises(TimedOut) as caught:
            await request.ask(whole=SOON)
        assert (caught.value.phase, caught.value.seconds) == ("whole", SOON)
        assert state(request.transport, in_use=request.held, idle=0)


@pytest.mark.parametrize("name", OWN)
async def test_closing_ends_what_is_stuck_in_any_phase(
    implementation: Make, make: Make, name: str
) -> None:
    async with stuck(name, make) as request:
        if name == "pool":
            return  # `test_closing_ends_the_wait_for_a_free_connection`, for all transports
        task = asyncio.create_task(request.ask())
        await until(lambda: state(request.transport, in_use=1, idle=0))
        for _ in range(3):
            await asyncio.sleep(0)
        await request.transport.aclose()
        kind = ConnectFailed if OWN[name][0] in {"pool", "dns", "connect", "tls"} else Exception
        with pytest.raises(kind):
            await task
        assert task.cancelling() == 0
        assert state(request.transport, in_use=0, idle=0)


async def test_a_phase_that_is_over_has_used_up_nothing_of_the_next(make: Make) -> None:
    """Each within its own limit, though together they take longer than any."""

    async def slowly(host: str, port: int) -> Sequence[Address]:
        await asyncio.sleep(0.2)
        return [Address(socket.AF_INET, "127.0.0.1", wall.port)]

    script = (Pause(0.2), Send(head(chunked=True)), Pause(0.2), Send(piece(b"some")), Close())
    async with Wall(script) as wall:
        transport = make(resolver=slowly)
        limits = Limits(connect=30, headers=0.5, idle=0.5, dns=0.5, dial=0.5, tls=0.5, write=0.5)
        async with await ask(transport, "http://provider.test/", limits=limits) as response:
            assert await response.chunk() == b"some"


# A byte now and then

TRICKLE: Script = (Pause(0.02), Send(b"x")) * 40


async def test_a_body_that_trickles_is_ended_by_the_limit_of_the_whole(
    make: Make, wall: Wall
) -> None:
    wall.answer = (Send(head()), *TRICKLE, Stall())
    transport = make(ssl_context=AUTHORITY.client)
    limits = msgspec.structs.replace(LIMITS, idle=5, whole=0.2)
    async with await ask(transport, wall.url, limits=limits) as response:
        data, error = await chunks_until_failure(response)
        assert data == b"x" * len(data)
        assert isinstance(error, TimedOut)
        assert (error.phase, error.seconds) == ("whole", 0.2)
        await wall.requests[0].left.wait()
    assert state(transport, in_use=0, idle=0)


async def test_a_body_that_never_stands_still_is_ended_too(make: Make, wall: Wall) -> None:
    wall.answer = (Send(head()), Forever(b"x" * 1000))
    transport = make(ssl_context=AUTHORITY.client)
    limits = msgspec.structs.replace(LIMITS, whole=0.2)
    async with await ask(transport, wall.url, limits=limits) as response:
        _, error = await asyncio.wait_for(chunks_until_failure(response), 5)
        assert isinstance(error, TimedOut)
        assert error.phase == "whole"
    assert state(transport, in_use=0, idle=0)


async def test_the_limit_of_the_whole_holds_for_both_tries(make: Make, wall: Wall) -> None:
    wall.then(whole(b"first"), (Close(),), (Stall(),))
    transport = make(ssl_context=AUTHORITY.client)
    await answer(transport, wall.url)
    with pytest.raises(TimedOut) as caught:
        await ask(transport, wall.url, limits=msgspec.structs.replace(LIMITS, whole=0.1))
    assert caught.value.phase == "whole"
    assert len(wall.requests) == 3
    assert state(transport, in_use=0, idle=0)


# Old ones


async def test_no_connection_is_used_again_once_it_is_old(make: Make, wall: Wall) -> None:
    transport = make(max_age=0, ssl_context=AUTHORITY.client)
    for number in (1, 2, 3):
        assert await answer(transport, wall.url) == b"ok"
        assert state(transport, in_use=0, idle=0)
        assert wall.connections == number
    await wall.deserted().wait()


async def test_a_connection_that_became_old_in_use_is_not_kept(make: Make, wall: Wall) -> None:
    transport = make(max_age=0.05, pool_size=1, ssl_context=AUTHORITY.client)
    wall.then((Pause(0.06), *whole(b"slow")))
    first = asyncio.create_task(answer(transport, wall.url))
    await asyncio.sleep(0)
    second = asyncio.create_task(answer(transport, wall.url))
    assert [await first, await second] == [b"slow", b"ok"]
    assert wall.connections == 2


async def test_a_connection_is_not_kept_at_all_where_that_is_asked(make: Make, wall: Wall) -> None:
    transport = make(keepalive=0, ssl_context=AUTHORITY.client)
    for _ in range(3):
        assert await answer(transport, wall.url) == b"ok"
        assert state(transport, in_use=0, idle=0)


@pytest.mark.parametrize(("seconds", "times"), [(30, 1), (0, 3)])
async def test_addresses_are_remembered_for_a_time(make: Make, seconds: float, times: int) -> None:
    asked = 0

    async def find(host: str, port: int) -> Sequence[Address]:
        nonlocal asked
        asked += 1
        return [Address(socket.AF_INET, "127.0.0.1", wall.port)]

    async with Wall() as wall:
        transport = make(resolver=find, dns_ttl=seconds, max_age=0)
        for _ in range(3):
            assert await answer(transport, f"http://provider.test:{wall.port}/") == b"ok"
        assert wall.connections == 3
    assert asked == times


# Ends


async def test_where_tls_says_no_goodbye_a_body_without_a_length_is_cut(make: Make) -> None:
    """Whoever cuts the line below TLS cannot make a part look like the whole (RFC 9112, 9.8)."""
    if not isinstance(asyncio.get_running_loop(), uvloop.Loop):
        pytest.skip("asyncio's loop does not tell one end from the other")
    transport = make(ssl_context=AUTHORITY.client)
    async with Wall((Send(head() + b"some"), HangUp()), tls=AUTHORITY.server) as wall:
        async with await ask(transport, wall.url) as response:
            data, error = await chunks_until_failure(response)
        assert data == b"some"
        assert type(error) is Cut
    assert state(transport, in_use=0, idle=0)


async def test_without_tls_a_body_without_a_length_ends_with_its_connection(make: Make) -> None:
    transport = make()
    async with Wall((Send(head() + b"some"), HangUp())) as wall:
        assert await answer(transport, wall.url) == b"some"
    assert state(transport, in_use=0, idle=0)
