"""What a request costs between the HTTP server and the transport, without either.

python -m bench path            processor time and Python calls of a request, by work
python -m bench.path unary      the calls of one request, in their order

A gateway is set up as ever, and asked within this process: its callers and its provider are in
memory. Each piece of a request's body takes a turn of the event loop, and so do the provider's
headers and each read of a stream: all of it in a `dense` one, one event each in a `paced` one.
"""

import asyncio
import gc
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple, Self

import uvloop
from rich.console import Console
from rich.table import Table

from bench import peers, wire
from bench.stores import make_keys, opened, secret, sqlite
from manyways import logs
from manyways.app import gateway as app
from manyways.app.upstreams import Upstreams
from manyways.config import Settings, load
from manyways.edge.http import Edge
from manyways.types import Provider
from manyways.upstream.openai import OpenAIProvider
from manyways.upstream.transport import Limits, untold

AT_ONCE: Final = 16
"""Requests that are under way together."""
BATCHES: Final = 60
_LIMITED: Final = '[keys.types.limited]\nrequests = 1_000_000_000\nwindow = "1m"\n'
_UNASKED: Final = "[catalog]\nprobe = false\n"
_EVENTS: Final = (
    wire.ROLE_EVENT, *wire.WORD_EVENTS, wire.FINISH_EVENT, wire.USAGE_EVENT, wire.DONE_EVENT
)  # fmt: skip


class Work(NamedTuple):
    """What is asked: with which key, for what, and how the answer comes; `batch` requests are
    timed together."""

    key: int
    stream: bool
    chunks: Sequence[bytes]
    batch: int


WORKS: Final = {
    "unary": Work(0, False, (wire.WHOLE_BODY,), 320),
    "limited": Work(1, False, (wire.WHOLE_BODY,), 320),
    "dense": Work(0, True, (b"".join(_EVENTS),), 64),
    "paced": Work(0, True, _EVENTS, 32),
}


class _Answer:
    """Implements `transport.Response`."""

    status = 200

    def __init__(self, chunks: Sequence[bytes], *, streamed: bool) -> None:
        kind = "text/event-stream" if streamed else "application/json"
        self.headers: Mapping[str, str] = {"Content-Type": kind}
        self._chunks: Iterator[bytes] = iter(chunks)
        self._streamed = streamed

    async def chunk(self) -> bytes:
        if self._streamed:
            await asyncio.sleep(0)
        return next(self._chunks, b"")

    async def body(self, limit: int) -> bytes:
        del limit
        return next(self._chunks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        pass


class _Memory:
    """Implements `transport.Transport`: always answers the same."""

    def __init__(self) -> None:
        self.work = WORKS["unary"]

    async def send(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        limits: Limits,
        *,
        on_resend: Callable[[], object] = untold,
    ) -> _Answer:
        del method, url, headers, body, limits, on_resend
        await asyncio.sleep(0)
        return _Answer(self.work.chunks, streamed=self.work.stream)

    async def aclose(self) -> None:
        pass


class _Caller:
    """Asks the same again and again, as the HTTP server hands it over."""

    def __init__(self, work: Work) -> None:
        self._body = wire.question(stream=work.stream)
        self._scope = {
            "type": "http",
            "method": "POST",
            "path": peers.CHAT,
            "query_string": b"",
            "client": ("127.0.0.1", 40000),
            "headers": [
                (b"host", b"127.0.0.1:8080"),
                (b"content-type", b"application/json"),
                (b"authorization", b"Bearer " + secret(work.key).encode()),
                (b"content-length", b"%d" % len(self._body)),
            ],
        }

    async def ask(self, edge: Edge) -> None:
        """One request."""
        pieces = iter((self._body, b""))

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0)
            piece = next(pieces)
            return {"type": "http.request", "body": piece, "more_body": bool(piece)}

        await edge(self._scope, receive, self._send)

    async def _send(self, message: dict[str, Any]) -> None:
        if message.get("status", 200) != 200:
            raise RuntimeError(f"an answer went wrong: {message}")


@asynccontextmanager
async def _running(memory: _Memory, folder: Path) -> AsyncIterator[Edge]:
    place = peers.Place(port=0, upstream=0, folder=folder)
    stores = sqlite(folder)
    settings = load(peers.manyways_config(place, stores.tables + _LIMITED + _UNASKED))
    with opened(stores) as database, _reached_by(memory):
        make_keys(database, "admin", [0])
        make_keys(database, "limited", [1])
        async with app.gateway(settings, database) as edge:
            yield edge


@contextmanager
def _reached_by(memory: _Memory) -> Iterator[None]:
    """Gateways that are made meanwhile have no other transport."""

    @asynccontextmanager
    async def upstreams(settings: Settings) -> AsyncIterator[Upstreams]:
        providers = {one.name: OpenAIProvider(one, memory) for one in settings.providers}

        async def ask(provider: Provider) -> bytes:
            raise RuntimeError(f"the models of {provider.name} are configured")

        yield Upstreams(providers, ask, memory)

    names = vars(app)
    real = names["upstreams"]
    names["upstreams"] = upstreams
    try:
        yield
    finally:
        names["upstreams"] = real


async def _answered(edge: Edge, caller: _Caller, count: int) -> None:
    """So many requests, `AT_ONCE` at a time."""
    loop = asyncio.get_running_loop()
    for _ in range(0, count, AT_ONCE):
        tasks = [loop.create_task(caller.ask(edge)) for _ in range(min(AT_ONCE, count))]
        for task in tasks:
            await task


async def _timed(edge: Edge, work: Work) -> float:
    """Microseconds of processor time that a request takes, at best."""
    caller = _Caller(work)
    best = float("inf")
    for _ in range(BATCHES):
        began = time.thread_time()
        await _answered(edge, caller, work.batch)
        best = min(best, time.thread_time() - began)
        await asyncio.sleep(0.002)  # the ledger's turn
    return best / work.batch * 1e6


async def _called(edge: Edge, work: Work) -> list[tuple[int, str]]:
    """Every Python function that a request calls, in order, and how deep; a coroutine that goes on
    is one more call."""
    caller = _Caller(work)
    await _answered(edge, caller, 1)
    found: list[tuple[int, str]] = []
    depth = 0

    def note(frame: FrameType, event: str, _: object) -> None:
        nonlocal depth
        if event == "call":
            found.append((depth, _named(frame.f_code)))
            depth += 1
        elif event == "return":
            depth -= 1

    sys.setprofile(note)
    try:
        await _answered(edge, caller, 1)
    finally:
        sys.setprofile(None)
    return found


def _named(code: CodeType) -> str:
    return f"{code.co_qualname}  {Path(code.co_filename).name}:{code.co_firstlineno}"


@asynccontextmanager
async def gateway() -> AsyncIterator[tuple[_Memory, Edge]]:
    """A gateway, and what its provider is."""
    memory = _Memory()
    with (
        tempfile.TemporaryDirectory() as folder,
        Path(os.devnull).open("w") as silence,  # noqa: ASYNC230  (there is nothing to wait for)
    ):
        logs.configure(logs.Settings(format="json"), silence)
        async with _running(memory, Path(folder)) as edge:
            yield memory, edge


async def calls(name: str) -> list[tuple[int, str]]:
    """As `_called`, of the work with that name."""
    async with gateway() as (memory, edge):
        memory.work = WORKS[name]
        return await _called(edge, memory.work)


async def _measured() -> list[tuple[str, float, int]]:
    """Each work, what a request of it takes, and how many calls."""
    found = []
    async with gateway() as (memory, edge):
        gc.collect()
        gc.freeze()
        for name, work in WORKS.items():
            memory.work = work
            found.append((name, await _timed(edge, work), len(await _called(edge, work))))
    return found


def main(console: Console) -> int:
    """Measure every work, and print what was found."""
    table = Table("work", "µs a request", "Python calls", title="From the server to the transport")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, microseconds, count in uvloop.run(_measured()):
        table.add_row(name, f"{microseconds:.1f}", str(count))
    console.print(table)
    return 0


if __name__ == "__main__":
    for level, function in uvloop.run(calls(sys.argv[1])):
        print("  " * level + function)
