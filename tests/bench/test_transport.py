"""The benchmark of transports: every answer is counted, and none that is not what was sent."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from bench.bare import Bare
from bench.failures import Unloaded, Wrong
from bench.transport import TRANSPORTS, Plan, found
from bench.upstream import Connection, Metronome

from bench import wire
from manyways.upstream.transport import Limits

LIMITS = Limits(connect=10, headers=10, idle=10)
QUESTION = wire.question(stream=False)


class Miscounting(Connection):
    """Leaves out the last byte of what it has to say, and says so."""

    def _answer(self, head: bytes, body: bytes) -> None:
        said = wire.WHOLE_BODY[:-1]
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said) + said)


class Breaking(Connection):
    """Ends the connection in the middle of an answer."""

    def _answer(self, head: bytes, body: bytes) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        self.transport.close()


class Mute(Connection):
    """Says nothing."""

    def _answer(self, head: bytes, body: bytes) -> None:
        pass


@asynccontextmanager
async def serving(connection: Callable[[Metronome], Connection] = Connection) -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    metronome = Metronome(loop)
    server = await loop.create_server(lambda: connection(metronome), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def _plan(port: int, work: str = "unary", transport: str = "bare") -> Plan:
    return Plan(transport=transport, work=work, port=port, seconds=0.1, warmup=0.0)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("work", ["unary", "dense", "paced", "connections"])
async def test_a_work_has_its_figures(transport: str, work: str) -> None:
    async with serving() as port:
        figures = await found(_plan(port, work, transport))
    assert set(figures) <= {work, f"{work}_cpu"}
    assert all(figure > 0 for figure in figures.values())


async def test_an_answer_that_is_not_what_was_sent_does_not_count() -> None:
    async with serving(Miscounting) as port:
        with pytest.raises(Wrong, match=f"{wire.KILOBYTE - 1} bytes came"):
            await found(_plan(port))


async def test_nothing_is_not_measured() -> None:
    async with serving(Mute) as port:
        with pytest.raises(Unloaded):
            await found(_plan(port))


async def _ask(bare: Bare, port: int) -> bytes:
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    async with await bare.send("POST", url, [], QUESTION, LIMITS) as response:
        assert response.status == 200
        assert int(response.headers["content-length"])
        return await response.body(wire.KILOBYTE)


async def test_the_yardstick_asks_again_over_the_same_connection() -> None:
    made = []

    def connection(metronome: Metronome) -> Connection:
        made.append(Connection(metronome))
        return made[-1]

    async with serving(connection) as port:
        bare = Bare(port)
        assert [await _ask(bare, port) for _ in range(3)] == [wire.WHOLE_BODY] * 3
        assert (len(made), repr(bare)) == (1, "<Bare idle=1>")
        bare.keep(0)
        await _ask(bare, port)
        assert len(made) == 2
        await bare.aclose()


async def test_the_yardstick_takes_no_half_for_a_whole() -> None:
    async with serving(Breaking) as port:
        with pytest.raises(ConnectionError, match="before the answer did"):
            await _ask(Bare(port), port)
