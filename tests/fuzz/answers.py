"""Whatever a provider sends: the way of an answer, from bytes off a socket to the body, under
coverage-guided fuzzing.

    python -m tests.fuzz.answers -runs=1000000 [folder of inputs to begin with]

An input is a choice of what the answer is for, of how its bytes are split and when they are read,
and the bytes. What must hold of each is in `_exchange`. A line every ten thousand inputs tells how
answers ended, and how much memory the process has grown by since the first of these lines.
"""

import asyncio
import gc
import sys
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, cast

import atheris

with atheris.instrument_imports(include=["manyways.upstream"]):
    from manyways.errors import Cut, Garbled, Reset, TransportError
    from manyways.upstream.decoded import Decoded, decoded
    from manyways.upstream.native.answer import Answer
    from manyways.upstream.native.origin import Route
    from manyways.upstream.native.pool import Pool
    from manyways.upstream.native.wire import Wire
    from manyways.upstream.transport import Response

PAGE = 4096
WARM = 10_000
ROUTE = Route("fuzz", 80, tls=False)
LOOP = asyncio.new_event_loop()
BEGINNINGS = (
    b"",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: keep-alive\r\n\r\n\x1f\x8b\x08\0",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n",
)
ends: Counter[str] = Counter()
grown: list[int] = []


class Socket(asyncio.Transport):
    """The other side of a wire: takes everything, and remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = self.paused = False

    def write(self, data: Any) -> None:
        assert not self.closing

    def abort(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False


class Reading:
    """`answer.chunk()`, taken up by hand as often as something may have come."""

    def __init__(self, answer: Response) -> None:
        self.answer = answer
        self.body = b""
        self.failure: TransportError | None = None
        self.over = False
        self._waiting: Coroutine[Any, None, bytes] | None = None
        self._for: asyncio.Future[None] | None = None

    def go_on(self) -> None:
        while not self.over and (self._for is None or self._for.done()):
            if self._waiting is None:
                self._waiting = self.answer.chunk()
            try:
                self._for = self._waiting.send(None)  # None: others have their turn
                continue
            except StopIteration as done:
                self.body += done.value
                self.over = not done.value
            except TransportError as failure:
                self.failure = failure
                self.over = True
            self._waiting = self._for = None


def one_input(data: bytes) -> None:
    """One connection, and as many answers over it as the bytes are good for."""
    choose = atheris.FuzzedDataProvider(data)
    bodiless = choose.ConsumeBool()
    resets = choose.ConsumeBool()
    splits = [choose.ConsumeIntInRange(1, 64) for _ in range(choose.ConsumeIntInRange(0, 8))]
    beginning = BEGINNINGS[choose.ConsumeIntInRange(0, len(BEGINNINGS) - 1)]
    left = beginning + choose.ConsumeBytes(choose.remaining_bytes())
    pieces = []
    for size in splits:
        pieces.append(left[:size])
        left = left[size:]
    pieces.append(left)
    pool = Pool(ROUTE, LOOP, bound=0, keepalive=60, max_age=60, emptied=lambda _: None)
    wire, socket = Wire(LOOP, ROUTE, pool.drop), Socket()
    wire.connection_made(socket)
    pool.in_use += 1
    pool.busy.add(wire)
    while pieces:
        if not _exchange(pool, wire, socket, pieces, bodiless=bodiless, resets=resets):
            break
        assert pool.take() is wire
    pool.close()
    if pool._sweep is not None:
        pool._sweep.cancel()
    _watch_memory()


def _exchange(
    pool: Pool, wire: Wire, socket: Socket, pieces: list[bytes], *, bodiless: bool, resets: bool
) -> bool:
    """One request and what comes back; whether another may follow."""
    wire.begin((b"request",), bodiless=bodiless)
    reading: Reading | None = None
    fed = 0
    while not (reading is not None and reading.over):
        if socket.closing or not pieces:
            if not socket.closing:
                wire.eof_received()
            wire.connection_lost(ConnectionResetError("reset") if resets else None)
            pieces.clear()
        elif not socket.paused:
            piece = pieces.pop(0)
            fed += len(piece)
            if piece:
                wire.data_received(piece)
        if reading is None and wire.answering:
            assert 200 <= wire.status <= 999
            reading = Reading(
                decoded(Answer(wire, pool, LOOP, idle=60, whole=60, ends=LOOP.time() + 3600))
            )
        if reading is None:
            if wire.failure is not None:
                assert isinstance(wire.failure, Reset | Garbled), wire.failure
                ends[type(wire.failure).__name__] += 1
                pool.give_back(wire)
                return False
            continue
        reading.go_on()
    answer = reading.answer
    if reading.failure is None:
        ends["whole"] += 1
        plain = answer.headers.get("content-length") or ""
        if plain.isdecimal() and not bodiless and answer.status not in {204, 304}:
            assert len(reading.body) == int(plain), "as long as was said"
        assert not bodiless or not reading.body
    else:
        ends[type(reading.failure).__name__] += 1
        assert isinstance(reading.failure, Cut | Garbled), reading.failure
    assert isinstance(answer, Decoded) or len(reading.body) <= fed
    assert repr(answer)
    assert (pool.in_use, pool.idle) in {(0, 0), (0, 1)}, "given back once"
    again = Reading(answer)
    again.go_on()
    assert again.over, "an end stays one"
    assert not again.body
    assert type(again.failure) is type(reading.failure)
    return pool.idle == 1 and not socket.closing


def _watch_memory() -> None:
    """Tells every ten thousand inputs how answers ended, and how much the process has grown."""
    ends["inputs"] += 1
    if ends["inputs"] % WARM:
        return
    LOOP.run_until_complete(asyncio.sleep(0))  # it clears cancelled timers away when it runs
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    grown.append(pages * PAGE)
    told = ", ".join(f"{count} {end}" for end, count in ends.most_common())
    sys.stderr.write(f"{told}; grown by {(grown[-1] - grown[0]) / 2**20:.1f} MiB\n")


def main() -> None:
    atheris.Setup(sys.argv, one_input)
    cast("Any", atheris).Fuzz()


if __name__ == "__main__":
    main()
