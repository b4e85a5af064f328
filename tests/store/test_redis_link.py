"""When what is said to Redis is on its way: on the loop that serves, plain and over TLS."""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from manyways.store.shared import Away, Script, Shared, key
from tests.support.tls import Authority
from tests.support.valkey import Valkey, running_valkey

pytestmark = pytest.mark.process

COUNT = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
NUMBER = key("{a}", "number")
PATIENCE = 5.0


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with running_valkey(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """Whom the system trusts."""
    authority = Authority()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.write(tmp_path)[0]))
    return authority


@contextlib.contextmanager
def behind_tls(valkey: Valkey, authority: Authority) -> Iterator[str]:
    """The URL of a relay that speaks TLS, on a loop of its own: ours may be kept busy."""
    ports: queue.Queue[int] = queue.Queue()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()
    relays: set[asyncio.Task[None]] = set()

    async def serve() -> None:
        server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=authority.server)
        async with server:
            ports.put(server.sockets[0].getsockname()[1])
            await ended.wait()
        if relays:
            await asyncio.wait(relays)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        relays.add(task)
        onward, back = await asyncio.open_connection("127.0.0.1", valkey.port)
        ways = [asyncio.ensure_future(way) for way in (copy(reader, back), copy(onward, writer))]
        over = asyncio.ensure_future(ended.wait())
        await asyncio.wait([*ways, over], return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        for one in (back, writer):
            one.transport.abort()
        await asyncio.wait(ways)
        for one in (back, writer):
            with contextlib.suppress(OSError):
                await one.wait_closed()

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        thread = threading.Thread(target=runner.run, args=(serve(),))
        thread.start()
        try:
            yield f"rediss://127.0.0.1:{ports.get(timeout=PATIENCE)}/0"
        finally:
            loop.call_soon_threadsafe(ended.set)
            thread.join()


def served(
    url: str, work: Callable[[Shared], Awaitable[Any]], run: Callable[..., Any] = uvloop.run
) -> Any:
    """What comes of work on the loop that the gateway runs on, unless it is another's."""

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Shared]:
        shared = await Shared.open(url)
        try:
            yield shared
        finally:
            await shared.aclose()

    async def working() -> Any:
        async with opened() as shared:
            return await work(shared)

    return run(working())


@pytest.mark.parametrize("secure", [False, True])
def test_what_is_posted_has_left_before_anything_else_can_happen(
    valkey: Valkey, authority: Authority, *, secure: bool
) -> None:
    """Whoever hears of an answer and asks another node comes behind what it has settled."""

    async def post(shared: Shared) -> Any:
        await shared.ask("SET", NUMBER, 0)
        shared.post(COUNT, [NUMBER], 7)
        until = time.monotonic() + PATIENCE
        while (seen := valkey.ask("GET", NUMBER)) != "7" and time.monotonic() < until:
            time.sleep(0.01)  # noqa: ASYNC251  (the loop must not turn)
        return seen

    with contextlib.ExitStack() as stack:
        url = stack.enter_context(behind_tls(valkey, authority)) if secure else valkey.url
        assert served(url, post) == "7"


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run])
def test_over_tls_it_answers_as_it_does_without(
    valkey: Valkey, authority: Authority, run: Callable[..., Any]
) -> None:
    async def many(shared: Shared) -> list[Any]:
        await shared.ask("SET", NUMBER, 0)
        return await asyncio.gather(*(shared.run(COUNT, [NUMBER], 1) for _ in range(500)))

    with behind_tls(valkey, authority) as url:
        assert served(url, many, run) == list(range(1, 501))


def test_a_certificate_nobody_vouches_for_is_told(valkey: Valkey) -> None:
    async def why(shared: Shared) -> str:
        with pytest.raises(Away):
            await shared.ask("GET", NUMBER)
        return shared.why

    with behind_tls(valkey, Authority()) as url:
        assert "its certificate is not accepted" in served(url, why)
