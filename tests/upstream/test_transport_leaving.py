"""What every implementation of `manyways.upstream.transport` promises to who leaves: at any moment
at all, the connection is closed at once, nothing stays behind, and the next request is served.

`RUNS` in the environment says how many connections are opened and left, in hundreds.
"""

import asyncio
import os
from asyncio import CancelledError
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from manyways.errors import TimedOut
from manyways.upstream.aiohttp_transport import AiohttpTransport
from manyways.upstream.transport import Limits, Transport
from tests.support.proxy import Proxy
from tests.support.wall import (
    END,
    Close,
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
    Interrupted,
    Make,
    answer,
    ask,
    idle,
    many_open_files,
    state,
    until,
)

RUNS = int(os.environ.get("RUNS", "3"))

STREAM: Script = (
    Send(b"HTTP/1.1 100 Continue\r\n\r\n"),
    Send(head(chunked=True)),
    Send(piece(b"one")),
    Send(piece(b"two")),
    Send(END),
)


WHEN: dict[str, dict[str, bool]] = {"early": {}, "late": {"late": True}, "again": {"again": True}}


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def agree(wall: Wall, transport: Transport) -> bool:
    """Whether the server has the connections open that are kept, and no others."""
    return wall.open_connections == idle(transport)


async def stream(transport: Transport, url: str, body: bytes = b"{}") -> None:
    async with await ask(transport, url, body) as response:
        while await response.chunk():
            pass


class Scene:
    """What an exchange has around it. `prepare` is what happens before it, each time anew."""

    def __init__(self, wall: Wall, keywords: dict[str, object], size: int = 2) -> None:
        self.wall = wall
        self.keywords = keywords
        self.body = b"x" * size

    async def prepare(self, transport: Transport) -> list["asyncio.Task[Any]"]:
        self.wall.forget()
        return []


class Kept(Scene):
    async def prepare(self, transport: Transport) -> list["asyncio.Task[Any]"]:
        await super().prepare(transport)
        await answer(transport, self.wall.url)
        return []


class KeptAndClosed(Kept):
    async def prepare(self, transport: Transport) -> list["asyncio.Task[Any]"]:
        tasks = await super().prepare(transport)
        self.wall.then((Close(),))
        return tasks


class InLine(Scene):
    """One is before it, and one behind it."""

    async def prepare(self, transport: Transport) -> list["asyncio.Task[Any]"]:
        await super().prepare(transport)
        first = asyncio.create_task(answer(transport, self.wall.url))
        await asyncio.sleep(0)
        return [first]


@asynccontextmanager
async def scene(name: str, wall: Wall) -> AsyncIterator[Scene]:
    trusted: dict[str, object] = {"ssl_context": AUTHORITY.client}
    async with AsyncExitStack() as stack:
        match name:
            case "new":
                yield Scene(wall, trusted)
            case "large":
                yield Scene(wall, trusted, size=2**21)
            case "kept":
                yield Kept(wall, trusted)
            case "kept and closed":
                yield KeptAndClosed(wall, trusted)
            case "in line":
                yield InLine(wall, {**trusted, "pool_size": 1})
            case "proxy":
                proxy = await stack.enter_async_context(Proxy())
                yield Scene(wall, {**trusted, "proxy": proxy.url})


@pytest.mark.parametrize("name", ["new", "large", "kept", "kept and closed", "in line", "proxy"])
@pytest.mark.parametrize("when", WHEN)
async def test_whoever_leaves_at_any_wait_leaves_nothing_behind(
    make: Make, wall: Wall, name: str, when: str
) -> None:
    if (name, when) == ("in line", "late") and make().__class__ is AiohttpTransport:
        pytest.skip("aiohttp's pool forgets a turn that nobody took")
    wall.answer = STREAM
    async with scene(name, wall) as around:
        for at in range(1, 1000):
            transport = make(**around.keywords)
            before = await around.prepare(transport)
            interrupted = Interrupted(stream(transport, wall.url, around.body), at, **WHEN[when])
            await asyncio.sleep(0)
            behind = [asyncio.create_task(answer(transport, wall.url)) for _ in before]
            left = await interrupted.end()
            assert left == (interrupted.waits >= at)
            if not before:
                assert "in_use=0" in repr(transport)
            await asyncio.wait_for(asyncio.gather(*before, *behind), 5)
            assert "in_use=0" in repr(transport)
            await until(partial(agree, wall, transport))
            wall.forget()
            assert await answer(transport, wall.url) == b"onetwo"
            await transport.aclose()
            await wall.deserted().wait()
            if not left:
                break
        assert at > 2


LEFT = ["connecting", "asked", "in the head", "in the body", "at its end", "out of time", "unread"]


async def test_thousands_of_connections_are_opened_and_left(make: Make, wall: Wall) -> None:
    """In every way there is, some at once; nothing of them is left."""
    transport = make(ssl_context=AUTHORITY.client)
    half: Script = (Send(b"HTTP/1.1 200 OK\r\nX: "), Stall())
    scripts: dict[str, Script] = {
        "connecting": (Stall(),),
        "asked": (Stall(),),
        "in the head": half,
        "in the body": (*chunked(b"some", ends=False), Stall()),
        "at its end": (*whole(b"ok"), Close()),
        "out of time": half,
        "unread": (*chunked(b"some", ends=False), Stall()),
    }
    wall.answer = lambda request: scripts[request.body.decode()]

    async def visit(how: str) -> None:
        limits = Limits(connect=5, headers=0.1 if how == "out of time" else 30, idle=30)
        async with await ask(transport, wall.url, how.encode(), limits=limits) as response:
            if how != "unread":
                await response.chunk()
                await response.chunk()

    async def batch(size: int) -> None:
        hows = [LEFT[number % len(LEFT)] for number in range(size)]
        came = len(wall.requests)
        tasks = [asyncio.create_task(visit(how)) for how in hows]
        await asyncio.sleep(0)
        for task, how in zip(tasks, hows, strict=True):
            if how == "connecting":
                task.cancel()
        await until(lambda: len(wall.requests) == came + size - hows.count("connecting"))
        for task, how in zip(tasks, hows, strict=True):
            if how in {"asked", "in the head", "in the body"}:
                task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert "in_use=0" in repr(transport)
        for how, end in zip(hows, ends, strict=True):
            if how in {"at its end", "unread"}:
                assert end is None
            else:
                assert isinstance(end, TimedOut if how == "out of time" else CancelledError)
        await wall.deserted().wait()

    async with many_open_files(4096):
        await batch(len(LEFT))  # what is opened but once
        before = open_files()
        for _ in range(RUNS):
            await batch(100)
            await until(lambda: open_files() <= before)
    if not isinstance(transport, AiohttpTransport):  # which counts those that the server closed
        assert state(transport, in_use=0, idle=0)
