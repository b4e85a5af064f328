"""The benchmark's upstream: right answers whatever way requests arrive, at the right pace."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest
from bench.failures import Wrong
from bench.target import Target
from bench.upstream import TICK, Connection, Metronome

from bench import ask, wire

LIMIT = 10.0


@asynccontextmanager
async def serving() -> AsyncIterator[Target]:
    loop = asyncio.get_running_loop()
    metronome = Metronome(loop)
    server = await loop.create_server(lambda: Connection(metronome), "127.0.0.1", 0)
    async with server:
        yield Target(port=server.sockets[0].getsockname()[1])


@pytest.mark.parametrize("stream", [False, True])
async def test_every_word_arrives(stream: bool) -> None:
    async with serving() as target:
        size = await asyncio.to_thread(ask.check, target, stream=stream, limit=LIMIT)
    assert size > (20_000 if stream else wire.KILOBYTE)


async def test_what_is_asked_of_the_wrong_server_is_noticed() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
        await reader.read()
        writer.close()
        await writer.wait_closed()
        over.set()

    over = asyncio.Event()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        target = Target(port=server.sockets[0].getsockname()[1])
        with pytest.raises(Wrong, match="status 404: no"):
            await asyncio.to_thread(ask.check, target, stream=False, limit=LIMIT)
        await asyncio.wait_for(over.wait(), LIMIT)


class Wire(asyncio.Transport):
    """A transport that keeps what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


class Clock:
    """A loop's clock and its timers, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self._timers: list[tuple[float, Callable[[], object]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object]) -> None:
        self._timers.append((when, callback))

    def move(self, seconds: float) -> None:
        """Let time pass in one leap, as a busy loop does; then what is due runs."""
        self.now += seconds
        due = [timer for timer in self._timers if timer[0] <= self.now]
        self._timers = [timer for timer in self._timers if timer[0] > self.now]
        for _, callback in due:
            callback()

    @property
    def idle(self) -> bool:
        return not self._timers


@contextmanager
def connected() -> Iterator[tuple[Clock, Wire, Connection]]:
    clock, wire_ = Clock(), Wire()
    connection = Connection(Metronome(clock))
    connection.connection_made(wire_)
    yield clock, wire_, connection


def _request(*, stream: bool = False, pace: str = wire.DENSE) -> bytes:
    return Target(port=1).request(wire.question(stream=stream, pace=pace))


def test_requests_may_come_in_pieces_or_many_at_once() -> None:
    one = _request()
    with connected() as (_, sent, connection):
        connection.data_received(one)
        (answer,) = sent.written
        for byte in one:
            connection.data_received(bytes([byte]))
        assert sent.written == [answer] * 2
        connection.data_received(one * 3 + one[:700])
        assert sent.written == [answer] * 5
        connection.data_received(one[700:])
        assert sent.written == [answer] * 6


def test_a_paced_stream_gets_a_chunk_a_pause_and_no_more() -> None:
    with connected() as (clock, sent, connection):
        connection.data_received(_request(stream=True, pace=wire.PACED))
        assert len(sent.written) == 1
        counts = []
        for _ in range(1020):
            clock.move(TICK * 1.0000001)
            counts.append(len(sent.written) - 1)
        gaps = [counts.index(number + 1) - counts.index(number) for number in range(1, 101)]
        assert set(gaps) == {10}
        assert clock.idle
        assert wire.streamed_text(_dechunked(b"".join(sent.written))) == wire.STREAMED_TEXT


def test_a_late_tick_is_made_up_for() -> None:
    with connected() as (clock, sent, connection):
        connection.data_received(_request(stream=True, pace=wire.PACED))
        clock.move(0.5)
        assert 49 <= len(sent.written) - 1 <= 51


def test_the_next_request_waits_for_the_stream_before_it() -> None:
    with connected() as (clock, sent, connection):
        connection.data_received(_request(stream=True, pace=wire.PACED) + _request())
        clock.move(0.5)
        assert not any(b"Content-Length" in piece for piece in sent.written)
        clock.move(0.6)
        assert b"Content-Length" in sent.written[-1]


def test_a_caller_that_left_ends_its_stream() -> None:
    with connected() as (clock, sent, connection):
        connection.data_received(_request(stream=True, pace=wire.PACED))
        sent.close()
        clock.move(0.02)
        assert len(sent.written) == 1
        assert clock.idle


def _dechunked(raw: bytes) -> bytes:
    body, rest = b"", raw.partition(b"\r\n\r\n")[2]
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body
