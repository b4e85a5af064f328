"""One exchange over a transport, and what tests of transports wait for."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import pytest

from manyways.errors import TransportError
from manyways.upstream.transport import Limits, Response, Transport
from tests.support.tls import Authority
from tests.support.wall import (
    Moment,
    Wall,
    whole,
)

LIMITS = Limits(connect=5, headers=5, idle=5)
AUTHORITY = Authority()
ENOUGH = 2**30

Make = Callable[..., Transport]


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


async def cancelled(task: "asyncio.Task[Response] | asyncio.Task[bytes]") -> None:
    """Cancel a task once it waits for something."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
