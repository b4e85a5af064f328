"""What every implementation of `manyways.upstream.transport` promises: what it does when a server
closes a connection that it had kept.

`RUNS` in the environment says how many requests the load has, in hundreds.
"""

import asyncio
import os
import random
from collections import Counter

import pytest

from manyways.errors import ConnectFailed, Garbled, Reset, TimedOut
from manyways.upstream.transport import STALE, Limits, Transport
from manyways.watch import TICK
from tests.support import wall as scripted
from tests.support.wall import (
    Close,
    Moment,
    Pause,
    Request,
    Script,
    Send,
    Stall,
    Wall,
    chunked,
    whole,
)
from tests.upstream.exchange import AUTHORITY, LIMITS, Make, answer, ask, cancelled, state, until

RUNS = int(os.environ.get("RUNS", "3"))

SILENT_ENDS: dict[str, Script] = {"closed": (Close(),), "reset": (scripted.Reset(),)}


@pytest.mark.parametrize("end", SILENT_ENDS.values(), ids=SILENT_ENDS)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_whatever_is_asked_is_asked_again_where_nothing_was_said(
    transport: Transport, wall: Wall, end: Script, method: str
) -> None:
    wall.then(whole(b"first"), end)
    for expected in (b"first", b"ok"):
        async with await ask(transport, wall.url, b"{}", method=method) as response:
            assert await response.body(9) == expected
    assert [(request.method, request.body) for request in wall.requests] == [(method, b"{}")] * 3
    assert wall.connections == 2
    assert state(transport, in_use=0, idle=1)


@pytest.mark.parametrize("end", SILENT_ENDS.values(), ids=SILENT_ENDS)
async def test_a_fresh_connection_that_says_nothing_is_no_reason_to_ask_again(
    transport: Transport, wall: Wall, end: Script
) -> None:
    wall.answer = end
    for number in (1, 2, 3):
        with pytest.raises(Reset):
            await answer(transport, wall.url, b"{}")
        assert len(wall.requests) == number
    assert state(transport, in_use=0, idle=0)


SAID: dict[str, bytes] = {
    "a byte": b"H",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
    "100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "a line break": b"\r\n",
}


@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
@pytest.mark.parametrize("end", SILENT_ENDS.values(), ids=SILENT_ENDS)
async def test_whoever_was_told_anything_does_not_ask_again(
    transport: Transport, wall: Wall, said: bytes, end: Script
) -> None:
    wall.then(whole(b"first"), (Send(said), *end))
    await answer(transport, wall.url, b"{}")
    with pytest.raises(Reset):
        await answer(transport, wall.url, b"{}")
    assert len(wall.requests) == 2
    assert state(transport, in_use=0, idle=0)


@pytest.mark.parametrize("first", SILENT_ENDS.values(), ids=SILENT_ENDS)
@pytest.mark.parametrize("second", SILENT_ENDS.values(), ids=SILENT_ENDS)
async def test_it_is_asked_again_once_at_most(
    transport: Transport, wall: Wall, first: Script, second: Script
) -> None:
    wall.then(whole(b"first"), first, second)
    await answer(transport, wall.url, b"{}")
    with pytest.raises(Reset):
        await answer(transport, wall.url, b"{}")
    assert len(wall.requests) == 3


@pytest.mark.parametrize("end", SILENT_ENDS.values(), ids=SILENT_ENDS)
async def test_a_server_that_was_at_work_is_not_asked_again(
    transport: Transport, wall: Wall, end: Script
) -> None:
    """It has read the request, and is paid for what it did: that it hung up in the end is no sign
    that it had closed the connection before."""
    at_work = [Pause(TICK)] * round(2 * STALE / TICK)
    wall.then(whole(b"first"), (*at_work, *end))
    await answer(transport, wall.url, b"{}")
    with pytest.raises(Reset):
        await answer(transport, wall.url, b"{}")
    assert len(wall.requests) == 2
    assert state(transport, in_use=0, idle=0)


async def test_who_asks_is_told_of_the_second_time(transport: Transport, wall: Wall) -> None:
    told: list[int] = []

    async def ask_and_tell() -> None:
        sent = transport.send(
            "POST", wall.url, (), b"{}", LIMITS, on_resend=lambda: told.append(len(wall.requests))
        )
        async with await sent as response:
            await response.body(99)

    wall.then(whole(b"first"), (Close(),))
    await ask_and_tell()
    assert told == []
    await ask_and_tell()
    assert told == [2]


async def test_whoever_ran_out_of_patience_does_not_ask_again(
    transport: Transport, wall: Wall
) -> None:
    wall.then(whole(b"first"), (Stall(),))
    await answer(transport, wall.url, b"{}")
    with pytest.raises(TimedOut) as caught:
        await ask(transport, wall.url, b"{}", limits=Limits(connect=5, headers=0.05, idle=5))
    assert caught.value.phase == "headers"
    assert state(transport, in_use=0, idle=0)
    await wall.deserted().wait()
    assert len(wall.requests) == 2


async def test_whoever_has_left_does_not_ask_again(transport: Transport, wall: Wall) -> None:
    wall.then(whole(b"first"), (Stall(),))
    await answer(transport, wall.url, b"{}")
    task = asyncio.create_task(ask(transport, wall.url, b"{}"))
    await until(lambda: len(wall.requests) == 2)
    await cancelled(task)
    assert state(transport, in_use=0, idle=0)
    await wall.deserted().wait()
    assert len(wall.requests) == 2


async def test_the_headers_limit_begins_anew_with_the_second_try(
    transport: Transport, wall: Wall
) -> None:
    """And ends that one: a request may take twice its limit, and no more."""
    wall.then(whole(b"first"), (Close(),), (Stall(),))
    await answer(transport, wall.url, b"{}")
    with pytest.raises(TimedOut) as caught:
        await ask(transport, wall.url, b"{}", limits=Limits(connect=5, headers=0.05, idle=5))
    assert caught.value.phase == "headers"
    assert len(wall.requests) == 3
    assert state(transport, in_use=0, idle=0)


async def test_a_large_request_that_a_server_did_not_read_arrives_whole_the_second_time(
    transport: Transport,
) -> None:
    """The server closes while it is being written."""
    body = os.urandom(2**23)
    received: list[bytes] = []
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if connections == 1:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst")
                await reader.readexactly(200_000)
            else:
                assert f"Content-Length: {len(body)}".encode() in head
                received.append(await reader.readexactly(len(body)))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond")
                await reader.read()
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        assert await answer(transport, url) == b"first"
        assert await answer(transport, url, body) == b"second"
        assert received == [body]
        await transport.aclose()


async def test_the_second_try_needs_no_second_place(make: Make, wall: Wall) -> None:
    transport = make(pool_size=1, ssl_context=AUTHORITY.client)
    wall.then(whole(b"first"), (Close(),))
    await answer(transport, wall.url, b"{}")
    tasks = [asyncio.create_task(answer(transport, wall.url, b"{}")) for _ in range(5)]
    assert await asyncio.wait_for(asyncio.gather(*tasks), 5) == [b"ok"] * 5
    assert len(wall.requests) == 7
    assert wall.connections == 2
    assert state(transport, in_use=0, idle=1)


async def test_a_server_that_is_gone_for_good_is_told_as_such(
    transport: Transport, wall: Wall
) -> None:
    """There is no second try without a second connection."""
    wall.then((*whole(b"first"), Close()))
    await answer(transport, wall.url, b"{}")
    await wall.deserted().wait()
    wall.answer = (Close(),)
    with pytest.raises(Reset):
        await answer(transport, wall.url, b"{}")
    assert state(transport, in_use=0, idle=0)


async def test_a_server_that_closes_its_half_has_closed_the_connection(
    transport: Transport,
) -> None:
    """Of two requests, each has its own, and the server is not kept waiting for more."""
    ends = [Moment(), Moment()]
    to_come = iter(ends)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.write_eof()
        await reader.read()
        next(to_come).set()
        writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for end in ends:
            assert await answer(transport, url) == b"ok"
            await end.wait()
        assert "in_use=0" in repr(transport)


@pytest.mark.parametrize("closes", [True, False])
async def test_a_server_that_speaks_before_it_was_asked_is_answered_for_at_once(
    transport: Transport, closes: bool
) -> None:
    """Whether that is an answer depends on who was first; nobody waits for another."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbusy")
        await writer.drain()
        if not closes:
            await reader.read()
        writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for _ in range(3):
            try:
                async with await ask(transport, url, b"{}") as response:
                    assert (response.status, await response.body(9)) == (503, b"busy")
            except (Reset, Garbled, ConnectFailed):
                pass
            assert state(transport, in_use=0, idle=0)


class Fickle:
    """Answers with what it was asked, and closes connections between answers, as it likes.

    With the answer; a moment later, so that the next request may be under way; or when a request
    has come, but never the first of its connection. `answered` counts the answers by what they
    were.
    """

    def __init__(self, seed: int) -> None:
        self.answered: Counter[bytes] = Counter()
        self.unanswered = 0
        self._chance = random.Random(seed)
        self._known: set[Moment] = set()

    def __call__(self, request: Request) -> Script:
        chance = self._chance
        used = request.left in self._known
        self._known.add(request.left)
        how = chance.random()
        if used and how < 0.05:
            self.unanswered += 1
            return ((Close(),), (scripted.Reset(),))[chance.random() < 0.3]
        self.answered[request.body] += 1
        script = (chunked if chance.random() < 0.3 else whole)(request.body)
        if how < 0.1:
            return (*script, Close())
        if how < 0.2:
            return (*script, Pause(chance.random() * 0.001), Close())
        return script


@pytest.mark.parametrize("bound", [0, 4])
async def test_nothing_is_lost_and_nothing_doubled_when_a_server_closes_as_it_likes(
    make: Make, wall: Wall, bound: int
) -> None:
    transport = make(pool_size=bound, ssl_context=AUTHORITY.client)
    fickle = wall.answer = Fickle(seed=RUNS)
    waiting = iter(range(RUNS * 100))

    async def caller(chance: random.Random) -> None:
        for number in waiting:
            body = b"%d" % number
            assert await answer(transport, wall.url, body) == body
            if chance.random() < 0.5:  # the longer a connection rests, the likelier it is closed
                await asyncio.sleep(chance.random() * 0.001)

    async with asyncio.TaskGroup() as group:
        for seed in range(16):
            group.create_task(caller(random.Random(seed)))
    assert fickle.answered == Counter(b"%d" % number for number in range(RUNS * 100))
    assert fickle.unanswered
    assert len(wall.requests) == RUNS * 100 + fickle.unanswered
    assert "in_use=0" in repr(transport)
