"""What every implementation of `manyways.upstream.transport` promises: who gets a connection.

How many there are, who waits for one and in which order, how long one is kept, and what the
counts say whenever a request has ended.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence

import pytest

from manyways.errors import ConnectFailed, TimedOut
from manyways.upstream.aiohttp_transport import AiohttpTransport
from manyways.upstream.transport import Address, Limits, Transport
from tests.support import wall as scripted
from tests.support.wall import (
    END,
    Close,
    Moment,
    Request,
    Script,
    Send,
    Stall,
    WaitFor,
    Wall,
    chunked,
    head,
    until_close,
    whole,
)
from tests.upstream.exchange import (
    AUTHORITY,
    ENOUGH,
    Make,
    answer,
    ask,
    cancelled,
    settle,
    state,
    until,
)


def numbers(wall: Wall) -> list[int]:
    """Which requests came, in their order."""
    return [int(request.path.strip("/")) for request in wall.requests]


async def in_turn(transport: Transport, wall: Wall, count: int) -> list["asyncio.Task[bytes]"]:
    """Requests 1 to `count`, each sent once the one before it waits."""
    tasks = []
    for number in range(1, count + 1):
        tasks.append(asyncio.create_task(answer(transport, f"{wall.url}/{number}")))
        await asyncio.sleep(0)
    return tasks


# The bound


async def test_there_are_never_more_connections_than_the_bound(make: Make, wall: Wall) -> None:
    transport = make(pool_size=3, ssl_context=AUTHORITY.client)
    most = 0

    def look(_: Request) -> Script:
        nonlocal most
        most = max(most, wall.open_connections)
        return whole(b"ok")

    wall.answer = look
    answers = await asyncio.gather(*(answer(transport, wall.url, b"{}") for _ in range(30)))
    assert answers == [b"ok"] * 30
    assert most <= 3
    assert wall.connections == 3
    assert state(transport, in_use=0, idle=3)


async def test_without_a_bound_everybody_gets_a_connection(
    transport: Transport, wall: Wall
) -> None:
    go_on = Moment()
    wall.answer = (WaitFor(go_on), *whole(b"ok"))
    tasks = [asyncio.create_task(answer(transport, wall.url)) for _ in range(200)]
    await until(lambda: len(wall.requests) == 200)
    assert state(transport, in_use=200, idle=0)
    go_on.set()
    await asyncio.gather(*tasks)
    assert state(transport, in_use=0, idle=200)


async def test_who_waits_is_served_in_order(make: Make, wall: Wall) -> None:
    transport = make(pool_size=1, ssl_context=AUTHORITY.client)
    go_on = Moment()
    wall.then((Send(head(200, length=1)), WaitFor(go_on), Send(b"x")))
    async with await ask(transport, wall.url + "/0") as first:
        tasks = await in_turn(transport, wall, 20)
        go_on.set()
        await first.body(ENOUGH)
    await asyncio.gather(*tasks)
    assert numbers(wall) == list(range(21))
    assert wall.connections == 1


async def test_who_waits_is_served_in_order_though_others_have_left(make: Make, wall: Wall) -> None:
    transport = make(pool_size=1, ssl_context=AUTHORITY.client)
    go_on = Moment()
    wall.then((Send(head(200, length=1)), WaitFor(go_on), Send(b"x")))
    async with await ask(transport, wall.url + "/0") as first:
        tasks = await in_turn(transport, wall, 20)
        leaving = {1, 2, 7, 13, 14, 20}
        for number in leaving:
            tasks[number - 1].cancel()
        go_on.set()
        await first.body(ENOUGH)
    await asyncio.gather(*tasks, return_exceptions=True)
    stayed = [number for number in range(21) if number not in leaving]
    assert numbers(wall) == stayed
    assert all(tasks[number - 1].cancelled() for number in leaving)
    assert wall.connections == 1
    assert state(transport, in_use=0, idle=1)


async def test_who_comes_later_does_not_overtake_who_was_just_given_a_connection(
    make: Make, wall: Wall
) -> None:
    transport = make(pool_size=1, ssl_context=AUTHORITY.client)
    if isinstance(transport, AiohttpTransport):
        pytest.skip("aiohttp's pool lets whoever comes at the right moment go first")
    async with await ask(transport, wall.url + "/0") as first:
        tasks = await in_turn(transport, wall, 2)
        await first.body(ENOUGH)
        await answer(transport, wall.url + "/3")
    await asyncio.gather(*tasks)
    assert numbers(wall) == [0, 1, 2, 3]


@pytest.mark.parametrize("count", [1, 3])
async def test_who_leaves_just_as_it_is_its_turn_passes_it_on(
    make: Make, wall: Wall, count: int
) -> None:
    transport = make(pool_size=1, ssl_context=AUTHORITY.client)
    if isinstance(transport, AiohttpTransport):
        pytest.skip("aiohttp's pool forgets a turn that nobody took")
    for close in (False, True):  # what is passed on is a connection, or leave to make one
        first = await ask(transport, wall.url)
        tasks = [asyncio.create_task(answer(transport, wall.url, b"{}")) for _ in range(count + 1)]
        await asyncio.sleep(0)
        if not close:
            await first.body(ENOUGH)
        await first.__aexit__()
        for task in tasks[:count]:  # before any of them has run
            task.cancel()
        assert await asyncio.wait_for(tasks[count], 5) == b"ok"
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks[:count])
        assert state(transport, in_use=0, idle=1)


# However the one before ended

FIRSTS: dict[str, Script] = {
    "its end": whole(b"ok"),
    "an end in chunks": chunked(b"ok"),
    "the wish to close": whole(b"ok", 200, [("Connection", "close")]),
    "the end of its connection": until_close(b"ok"),
    "a cut": (*whole(b"ok", claims=9), Close()),
    "a reset": (*whole(b"ok", claims=9), scripted.Reset()),
    "a reset before the headers": (scripted.Reset(),),
    "noise": scripted.GARBAGE,
    "broken chunks": (*chunked(b"ok", ends=False), Send(b"zz\r\n"), Stall()),
    "silence": (Stall(),),
    "silence in the body": (*chunked(b"ok", ends=False), Stall()),
    "too much": (Send(head(200, length=2) + b"ok" * 3), Stall()),
}


@pytest.mark.parametrize("name", FIRSTS)
async def test_however_a_request_ends_the_next_gets_its_place(
    make: Make, wall: Wall, name: str
) -> None:
    transport = make(pool_size=1, ssl_context=AUTHORITY.client)
    wall.then(FIRSTS[name])
    limits = Limits(connect=5, headers=0.1, idle=0.1)

    async def first() -> None:
        async with await ask(transport, wall.url, b"{}", limits=limits) as response:
            await response.body(ENOUGH)

    before = asyncio.create_task(first())
    await asyncio.sleep(0)
    tasks = await in_turn(transport, wall, 3)
    await asyncio.gather(before, return_exceptions=True)
    assert await asyncio.gather(*tasks) == [b"ok"] * 3
    assert state(transport, in_use=0, idle=1)
    await until(lambda: wall.open_connections == 1)


@pytest.mark.parametrize("left", ["unread", "in the body", "while waiting", "while connecting"])
async def test_whoever_leaves_the_next_gets_its_place(make: Make, wall: Wall, left: str) -> None:
    transport = make(pool_size=1, ssl_context=AUTHORITY.client)
    silent = left == "while waiting"
    wall.then((Stall(),) if silent else (*chunked(b"some", ends=False), Stall()))

    async def first() -> None:
        async with await ask(transport, wall.url) as response:
            if left == "in the body":
                await response.chunk()

    before = asyncio.create_task(first())
    await asyncio.sleep(0)
    tasks = await in_turn(transport, wall, 3)
    if silent:
        await until(lambda: len(wall.requests) == 1)
    if silent or left == "while connecting":
        before.cancel()
    if left == "while connecting":
        wall.forget()
    await asyncio.gather(before, return_exceptions=True)
    assert await asyncio.gather(*tasks) == [b"ok"] * 3
    assert state(transport, in_use=0, idle=1)


async def test_a_place_that_nothing_came_of_is_free_again(make: Make) -> None:
    transport = make(pool_size=1)
    async with Wall() as wall:
        url = wall.url
    tasks = [asyncio.create_task(answer(transport, url)) for _ in range(10)]
    for task in tasks:
        with pytest.raises(ConnectFailed):
            await task
    assert state(transport, in_use=0, idle=0)


async def test_who_waited_too_long_leaves_no_gap(make: Make, wall: Wall) -> None:
    transport = make(pool_size=1, ssl_context=AUTHORITY.client)
    go_on = Moment()
    wall.then((Send(head(200, length=1)), WaitFor(go_on), Send(b"x")))
    async with await ask(transport, wall.url + "/0") as first:
        soon = Limits(connect=0.05, headers=5, idle=5)
        hasty = [
            asyncio.create_task(ask(transport, wall.url + "/9", limits=soon)) for _ in range(3)
        ]
        await asyncio.sleep(0)
        patient = await in_turn(transport, wall, 3)
        for task in hasty:
            with pytest.raises(TimedOut) as caught:
                await task
            assert caught.value.connecting
        assert state(transport, in_use=1, idle=0)
        go_on.set()
        await first.body(ENOUGH)
    await asyncio.gather(*patient)
    assert numbers(wall) == [0, 1, 2, 3]
    assert wall.connections == 1


async def test_a_connection_that_was_closed_while_it_was_kept_takes_nobodys_place(
    make: Make, wall: Wall
) -> None:
    transport = make(pool_size=1, ssl_context=AUTHORITY.client)
    wall.then((*whole(b"first"), Close()))
    await answer(transport, wall.url)
    await wall.deserted().wait()
    assert await asyncio.gather(*(answer(transport, wall.url) for _ in range(5))) == [b"ok"] * 5
    assert wall.connections == 2


# Whom a connection is for


async def test_connections_lead_to_one_origin_each(make: Make) -> None:
    transport = make(ssl_context=AUTHORITY.client)
    async with Wall(whole(b"one")) as one, Wall(whole(b"two"), tls=AUTHORITY.server) as two:
        named = one.url.replace("127.0.0.1", "localhost")
        for _ in range(2):
            assert await answer(transport, one.url) == b"one"
            assert await answer(transport, one.url + "/elsewhere?a=b") == b"one"
            assert await answer(transport, two.url) == b"two"
            assert await answer(transport, named) == b"one"
        assert (one.connections, two.connections) == (2, 1)
        assert state(transport, in_use=0, idle=3)


async def test_the_counts_tell_what_happens(transport: Transport, wall: Wall) -> None:
    go_on = [Moment() for _ in range(3)]
    asked = Moment()

    def slowly(_: Request) -> Script:
        asked.set()
        opening = Send(head(chunked=True))
        return (WaitFor(go_on[0]), opening, WaitFor(go_on[1]), WaitFor(go_on[2]), Send(END))

    wall.answer = slowly
    assert state(transport, in_use=0, idle=0)
    task = asyncio.create_task(ask(transport, wall.url))
    await asked.wait()
    assert state(transport, in_use=1, idle=0)
    go_on[0].set()
    async with await task as response:
        assert state(transport, in_use=1, idle=0)
        go_on[1].set()
        go_on[2].set()
        assert await response.chunk() == b""
        assert state(transport, in_use=0, idle=1)
    assert state(transport, in_use=0, idle=1)


async def test_an_answer_that_came_whole_but_was_not_read_is_closed_or_kept_but_not_in_use(
    transport: Transport, wall: Wall
) -> None:
    async with await ask(transport, wall.url):
        await settle(transport)
    assert "in_use=0" in repr(transport)
    assert await answer(transport, wall.url) == b"ok"
    assert "in_use=0" in repr(transport)


# How long


async def test_of_several_unused_connections_each_is_kept_its_own_time(
    make: Make, wall: Wall
) -> None:
    transport = make(keepalive=0.05, ssl_context=AUTHORITY.client)
    await asyncio.gather(*(answer(transport, wall.url) for _ in range(5)))
    await wall.deserted().wait()
    assert state(transport, in_use=0, idle=0)
    assert await answer(transport, wall.url) == b"ok"


async def test_a_connection_in_use_is_not_ended_by_the_limit_for_unused_ones(
    make: Make, wall: Wall
) -> None:
    transport = make(keepalive=0.02, ssl_context=AUTHORITY.client)
    go_on = Moment()
    wall.then(whole(b"one"), (Send(head(200, length=4)), WaitFor(go_on), Send(b"some")))
    async with Wall() as aside:
        await answer(transport, wall.url)
        async with await ask(transport, wall.url) as response:
            await answer(transport, aside.url)
            await aside.deserted().wait()  # as long as it takes
            go_on.set()
            assert await response.body(ENOUGH) == b"some"


# Names

Found = Sequence[Address]


def lookup(answer: Callable[[], Found]) -> tuple[list[str], Callable[[str, int], object]]:
    asked: list[str] = []

    async def find(host: str, port: int) -> Found:
        asked.append(f"{host}:{port}")
        await asyncio.sleep(0)
        return answer()

    return asked, find


async def test_the_lookup_it_was_given_says_where_names_lead(make: Make) -> None:
    async with Wall(tls=AUTHORITY.server) as wall:
        asked, find = lookup(lambda: [Address(socket.AF_INET, "127.0.0.1", wall.port)])
        transport = make(resolver=find, ssl_context=AUTHORITY.client)
        assert await answer(transport, f"https://localhost:{wall.port}") == b"ok"
        assert asked == [f"localhost:{wall.port}"]
        assert wall.requests[0].headers["host"] == f"localhost:{wall.port}"


async def test_of_several_addresses_those_that_refuse_cost_nothing(make: Make) -> None:
    async with Wall() as nobody:
        closed = nobody.port
    async with Wall() as wall:
        places = [
            Address(socket.AF_INET, "127.0.0.1", closed),
            Address(socket.AF_INET6, "::1", closed),
            Address(socket.AF_INET, "127.0.0.1", wall.port),
        ]
        _, find = lookup(lambda: places)
        transport = make(resolver=find)
        assert await answer(transport, "http://provider.test/") == b"ok"
        assert state(transport, in_use=0, idle=1)


async def test_a_name_without_an_address_is_a_failure_to_connect(make: Make) -> None:
    def none() -> Found:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    _, find = lookup(none)
    transport = make(resolver=find)
    with pytest.raises(ConnectFailed):
        await ask(transport, "http://provider.test/")
    assert state(transport, in_use=0, idle=0)


async def test_a_lookup_that_refuses_is_heard(make: Make) -> None:
    class PrivateError(Exception):
        pass

    def refuse() -> Found:
        raise PrivateError

    _, find = lookup(refuse)
    transport = make(resolver=find)
    with pytest.raises(PrivateError):
        await ask(transport, "http://provider.test/")
    assert state(transport, in_use=0, idle=0)


async def test_the_connect_limit_includes_the_lookup(make: Make) -> None:
    async def never(host: str, port: int) -> Found:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    transport = make(resolver=never)
    limits = Limits(connect=0.05, headers=5, idle=5)
    with pytest.raises(TimedOut) as caught:
        await ask(transport, "http://provider.test/", limits=limits)
    assert caught.value.connecting
    assert state(transport, in_use=0, idle=0)
    task = asyncio.create_task(ask(transport, "http://provider.test/"))
    await until(lambda: state(transport, in_use=1, idle=0))
    await cancelled(task)
    assert state(transport, in_use=0, idle=0)
