"""What every implementation of `manyways.upstream.transport` promises: how fast a body flows.

At once to who reads, together where it came together, and not at all to who does not read.
"""

import asyncio
import os

import pytest

from manyways.errors import Cut
from manyways.upstream.transport import Limits, Transport
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
from tests.upstream.exchange import ENOUGH, answer, ask, reluctant, settle, state, until

HELD = 8 * 2**20
"""Bytes that a server may get rid of while nobody reads. Most of it is the kernel's."""


async def stalled(transport: Transport, wall: Wall) -> int:
    """How many bytes the server has got rid of, once it does not get on any more."""
    sent = -1
    while wall.requests[-1].sent != sent:
        sent = wall.requests[-1].sent
        await settle(transport)
    return sent


# At once

FIRST: dict[str, bytes] = {
    "with the head": head(chunked=True) + piece(b"some"),
    "half a chunk": head(chunked=True) + b"ff\r\nsome",
    "a chunk whose line is not over": head(chunked=True) + b"4\r\nsome",
    "a chunk whose line is half over": head(chunked=True) + b"4\r\nsome\r",
    "with the size of the next": head(chunked=True) + piece(b"some") + b"ff",
    "short of its length": head(200, length=100) + b"some",
    "without a length": head(200) + b"some",
}


@pytest.mark.parametrize("data", FIRST.values(), ids=FIRST)
async def test_what_has_come_is_handed_on_though_more_is_to_come(
    transport: Transport, wall: Wall, data: bytes
) -> None:
    wall.answer = (Send(data), Stall())
    async with await ask(transport, wall.url) as response:
        assert await response.chunk() == b"some"


@pytest.mark.parametrize("end", [END, END + b"x", b"zz\r\n", b""], ids=["", "more", "noise", "cut"])
async def test_what_came_with_the_end_is_handed_on_before_it(
    transport: Transport, wall: Wall, end: bytes
) -> None:
    turn = Moment()
    wall.answer = (Send(head(chunked=True)), WaitFor(turn), Send(piece(b"some") + end), Close())
    async with await ask(transport, wall.url) as response:
        turn.set()
        assert await response.chunk() == b"some"


async def test_chunks_that_came_together_are_handed_on_together(
    transport: Transport, wall: Wall
) -> None:
    turns = [Moment() for _ in range(3)]
    together = b"".join(piece(b"event %d\n\n" % number) for number in range(50))
    body = b"".join(b"event %d\n\n" % number for number in range(50))
    wall.answer = (
        Send(head(chunked=True)),
        *(step for turn in turns for step in (WaitFor(turn), Send(together))),
        Send(END),
    )
    async with await ask(transport, wall.url) as response:
        for turn in turns:
            turn.set()
            assert await response.chunk() == body
        assert await response.chunk() == b""


async def test_chunks_that_came_while_nobody_read_are_handed_on_in_order(
    transport: Transport, wall: Wall
) -> None:
    pieces = [b"event %d\n\n" % number for number in range(50)]
    wall.answer = chunked(*pieces)
    async with await ask(transport, wall.url) as response:
        await until(lambda: len(wall.requests) == 1)
        await settle(transport)
        assert await response.body(ENOUGH) == b"".join(pieces)


# Large ones

SIZE = 4 * 2**20 + 1


@pytest.mark.parametrize("framing", ["length", "one chunk", "many chunks", "close"])
async def test_a_large_body_arrives_as_it_was_sent(
    transport: Transport, wall: Wall, framing: str
) -> None:
    body = os.urandom(SIZE)
    scripts: dict[str, Script] = {
        "length": whole(body),
        "one chunk": chunked(body),
        "many chunks": (
            Send(head(chunked=True)),
            Send(b"".join(piece(body[at : at + 1000]) for at in range(0, SIZE, 1000)) + END),
        ),
        "close": until_close(body),
    }
    wall.answer = scripts[framing]
    assert await answer(transport, wall.url) == body


async def test_large_bodies_flow_both_ways_beside_each_other(
    transport: Transport, wall: Wall
) -> None:
    wall.answer = lambda request: whole(request.body)
    bodies = [os.urandom(SIZE // 4) for _ in range(8)]
    answers = await asyncio.gather(*(answer(transport, wall.url, body) for body in bodies))
    assert answers == bodies
    assert state(transport, in_use=0, idle=8)


# Not at all

ENDLESS: dict[str, Script] = {
    "without a length": (Send(head(200)), Forever(b"x" * 16_000)),
    "of a great length": (Send(head(200, length=2**40)), Forever(b"x" * 16_000)),
    "of large chunks": (Send(head(chunked=True)), Forever(piece(b"x" * 16_000))),
    "of small chunks": (Send(head(chunked=True)), Forever(piece(b"x" * 16) * 700)),
}


@pytest.mark.parametrize("script", ENDLESS.values(), ids=ENDLESS)
async def test_a_server_gets_rid_of_no_more_than_a_bound_while_nobody_reads(
    transport: Transport, wall: Wall, script: Script
) -> None:
    """And of more as soon as somebody reads. Who leaves instead closes at once."""
    wall.answer = script
    async with await ask(transport, wall.url) as response:
        sent = await stalled(transport, wall)
        assert sent < HELD
        received = 0
        while received < 2 * sent:
            part = await response.chunk()
            assert len(part) <= 2**20
            received += len(part)
        assert await stalled(transport, wall) < received * 2 + HELD
        assert not wall.requests[0].left.is_set()
    assert "in_use=0" in repr(transport)
    await wall.requests[0].left.wait()


async def test_one_that_nobody_reads_holds_up_no_other(transport: Transport, wall: Wall) -> None:
    wall.then(ENDLESS["of large chunks"])
    async with await ask(transport, wall.url):
        await stalled(transport, wall)
        for _ in range(20):
            assert await answer(transport, wall.url) == b"ok"
        assert wall.connections == 2


async def test_the_time_in_which_nobody_reads_is_not_the_servers(
    transport: Transport, wall: Wall
) -> None:
    wall.answer = whole(bytes(16 * 2**20))
    limits = Limits(connect=5, headers=5, idle=0.05)
    async with await ask(transport, wall.url, limits=limits) as response:
        received = len(await response.chunk())
        for _ in range(2):
            await stalled(transport, wall)
            await asyncio.sleep(0.12)
            received += len(await response.chunk())
        received += len(await response.body(ENOUGH))
        assert received == 16 * 2**20


async def test_an_end_behind_what_nobody_reads_is_found_when_it_is_read(
    transport: Transport, wall: Wall
) -> None:
    """Be it a good one or a cut: the socket stands still before it."""
    size = 2 * 2**20
    for script, ends_well in (
        ((*whole(bytes(size)), Close()), True),
        (until_close(bytes(size)), True),
        ((*whole(bytes(size), claims=size + 1), Close()), False),
    ):
        wall.answer = script
        async with await ask(transport, wall.url) as response:
            await stalled(transport, wall)
            received = 0
            try:
                while part := await response.chunk():
                    received += len(part)
                    await asyncio.sleep(0)
                assert ends_well
            except Cut:
                assert not ends_well
            assert received == size
        assert "in_use=0" in repr(transport)


async def test_an_answer_that_nobody_reads_is_bounded_while_the_request_is_still_written(
    transport: Transport,
) -> None:
    """Both directions stand still at once, and whoever leaves then leaves nothing behind."""
    async with reluctant(head(200) + b"x" * 1000) as (url, read, go_on):
        async with await ask(transport, url, bytes(2**26)) as response:
            assert await response.chunk() == b"x" * 1000
        assert state(transport, in_use=0, idle=0)
        go_on.set()
        assert await asyncio.wait_for(read, 5) < 2**25
