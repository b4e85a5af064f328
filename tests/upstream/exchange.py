"""One exchange over a transport, and what tests of transports wait for."""

import asyncio
import resource
import socket
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

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


def idle(transport: Transport) -> int:
    """How many connections it keeps unused, as its repr tells."""
    return int(repr(transport).rpartition("idle=")[2].rstrip(">"))


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


class Interrupted:
    """Runs a coroutine as a task, and cancels it at its `at`-th wait.

    As it begins to wait; or, where that is to be `late`, in the moment between the end of the
    wait and the task's going on: what it waited for is there then, and nobody takes it. Or
    `again` at each wait that follows, too. `waits` counts them.
    """

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, object],
        at: int,
        *,
        late: bool = False,
        again: bool = False,
    ) -> None:
        self.waits = 0
        self._at = at
        self._late = late
        self._again = again
        self.task = asyncio.create_task(self._run(coroutine))

    async def end(self) -> bool:
        """Wait for its end. Whether it was cancelled; raises what it raised else."""
        await asyncio.wait([self.task], timeout=5)
        assert self.task.done(), f"hangs after {self.waits} waits"
        if self.task.cancelled():
            return True
        self.task.result()
        return False

    async def _run(self, coroutine: Coroutine[Any, Any, object]) -> None:
        await self._step(coroutine)

    @types.coroutine
    def _step(self, coroutine: Coroutine[Any, Any, object]) -> Generator[Any, Any, None]:
        resume: Callable[[Any], Any] = coroutine.send
        value: Any = None
        while True:
            try:
                waited_for = resume(value)
            except StopIteration:
                return
            self.waits += 1
            if self.waits == self._at or (self._again and self.waits > self._at):
                if self._late and waited_for is not None:
                    waited_for.add_done_callback(lambda _: self.task.cancel())
                else:
                    self.task.cancel()
            try:
                value = yield waited_for
                resume = coroutine.send
            except BaseException as error:  # noqa: BLE001  it is the coroutine's to judge
                resume, value = coroutine.throw, error


@asynccontextmanager
async def many_open_files(count: int) -> AsyncIterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f"this machine allows no more than {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def full() -> Iterator[str]:
    """The address of a listener that takes no more connections: whoever tries gets no word."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Nothing more can be opened; what is open stays."""
    import encodings.idna  # noqa: F401  it would be looked for now

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
