"""The open-loop load: a fixed rate, kept whatever the answers do.

Each request has an intended moment, and its latency is counted from then, also when it had to wait
for a free connection: a gateway that stalls is charged for all who came meanwhile (this is what
"coordinated omission corrected" means). The kernel's own periodic timer keeps the schedule,
because event loops round to a millisecond, which is more than what is measured here.

Run as `python -m bench.openloop`, with a plan as JSON on stdin; latencies come out as JSON.
"""

import asyncio
import ctypes
import gc
import itertools
import os
import sys
import time
from collections import deque
from typing import cast

import msgspec
import uvloop

MOST_CONNECTIONS = 512
DRAIN = 3.0
"""Seconds that the last answers are waited for after the schedule's end."""
_CLOCK_MONOTONIC = 1
_TFD_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC


class Plan(msgspec.Struct, frozen=True):
    """`rate` requests a second for `seconds`, after `warmup` seconds that are not counted. Where
    there are `secrets`, each request has the next of them in place of the first."""

    port: int
    request: bytes
    rate: int
    seconds: float
    warmup: float
    secrets: tuple[bytes, ...] = ()


class Outcome(msgspec.Struct, frozen=True):
    """Latencies in microseconds. A request without an answer stands with what it had waited."""

    latencies: list[int]
    unanswered: int
    wrong: int
    late_p99: int
    """How far the loader itself was behind its schedule, in microseconds."""


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("first", _Timespec))


class Ticker:
    """A file descriptor that becomes readable `rate` times a second, on the kernel's clock."""

    def __init__(self, rate: int) -> None:
        self.interval = 1_000_000_000 // rate
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_FLAGS)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")

    def start(self) -> int:
        """Let it tick; returns the moment of tick 0, in nanoseconds of the monotonic clock."""
        pause = _Timespec(self.interval // 1_000_000_000, self.interval % 1_000_000_000)
        setting = _Itimerspec(pause, pause)
        origin = time.monotonic_ns()
        if self._libc.timerfd_settime(self.fd, 0, ctypes.byref(setting), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")
        return origin

    def ticks(self) -> int:
        """How many ticks passed since the last call."""
        try:
            return int.from_bytes(os.read(self.fd, 8), sys.byteorder)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        os.close(self.fd)


class Answers(asyncio.Protocol):
    """A connection with at most one request on its way."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._received = b""
        self.transport: asyncio.Transport | None = None
        self.intended = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._load.freed(self)

    def ask(self, intended: int) -> None:
        assert self.transport is not None
        self.intended = intended
        self._received = b""
        self.transport.write(self._load.next_request())

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self.intended >= 0 and is_whole(self._received):
            intended, self.intended = self.intended, -1
            self._load.answered(intended, right=self._received.startswith(b"HTTP/1.1 200"))
            self._load.freed(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._load.lost(self)


def is_whole(answer: bytes) -> bool:
    """Whether these bytes are a complete HTTP answer, by its length or its last chunk."""
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    _, named, rest = head.lower().partition(b"\r\ncontent-length:")
    if named:
        return len(body) >= int(rest.partition(b"\r\n")[0])
    return body.endswith(b"0\r\n\r\n")


class Load:
    """The schedule and the connections that serve it.

    Invariant: every intended moment is in exactly one of `latencies`, `waiting`, or the
    `intended` of an open connection.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._secrets = itertools.cycle(plan.secrets)
        self.latencies: list[int] = []
        self.lateness: list[int] = []
        self.waiting: deque[int] = deque()
        self.wrong = 0
        self.unanswered = 0
        self._idle: list[Answers] = []
        self._open: set[Answers] = set()
        self._opening = 0
        self._sent = 0
        self._origin = 0
        self._total = int(plan.rate * (plan.seconds + plan.warmup))
        self._uncounted = int(plan.rate * plan.warmup)
        self._ticker = Ticker(plan.rate)
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._finished = asyncio.Event()

    async def run(self) -> Outcome:
        """Keep the schedule to its end; takes at most its length and `DRAIN`."""
        self._origin = self._ticker.start()
        self._loop.add_reader(self._ticker.fd, self._tick)
        length = self.plan.warmup + self.plan.seconds
        try:
            await asyncio.wait_for(self._finished.wait(), length + DRAIN)
        except TimeoutError:
            self._give_up()
        finally:
            self._loop.remove_reader(self._ticker.fd)
            self._ticker.close()
            for connection in list(self._open):
                if connection.transport is not None:
                    connection.transport.abort()
        late = sorted(self.lateness)
        return Outcome(
            self.latencies, self.unanswered, self.wrong, late[len(late) * 99 // 100] if late else 0
        )

    def next_request(self) -> bytes:
        """What is sent next."""
        plan = self.plan
        if not plan.secrets:
            return plan.request
        return plan.request.replace(plan.secrets[0], next(self._secrets))

    def answered(self, intended: int, *, right: bool) -> None:
        self.wrong += not right
        self._count(intended)
        if self._sent == self._total and not self.waiting and not self._busy():
            self._finished.set()

    def freed(self, connection: Answers) -> None:
        if connection not in self._open:
            self._opening -= 1
            self._open.add(connection)
        if self.waiting:
            connection.ask(self.waiting.popleft())
        else:
            self._idle.append(connection)

    def lost(self, connection: Answers) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if connection.intended >= 0:
            self.unanswered += 1
            self._count(connection.intended)

    def _busy(self) -> bool:
        return any(connection.intended >= 0 for connection in self._open)

    def _count(self, intended: int) -> None:
        moment = self._origin + (intended + 1) * self._ticker.interval
        if intended >= self._uncounted:
            self.latencies.append((time.monotonic_ns() - moment) // 1000)

    def _tick(self) -> None:
        ticks = self._ticker.ticks()
        for _ in range(min(ticks, self._total - self._sent)):
            self._send(self._sent)
            self._sent += 1
            moment = self._origin + self._sent * self._ticker.interval
            self.lateness.append((time.monotonic_ns() - moment) // 1000)
        if self._sent == self._total:
            self._loop.remove_reader(self._ticker.fd)

    def _send(self, intended: int) -> None:
        if self._idle:
            self._idle.pop().ask(intended)
            return
        self.waiting.append(intended)
        if len(self._open) + self._opening < MOST_CONNECTIONS:
            self._opening += 1
            task = self._loop.create_task(self._connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(DRAIN):
                await self._loop.create_connection(
                    lambda: Answers(self), "127.0.0.1", self.plan.port
                )
        except OSError:
            self._opening -= 1

    def _give_up(self) -> None:
        unanswered = [*self.waiting, *(c.intended for c in self._open if c.intended >= 0)]
        self.unanswered += len(unanswered)
        for intended in unanswered:
            self._count(intended)


async def load(plan: Plan) -> Outcome:
    """Carry out a plan in the running loop."""
    return await Load(plan).run()


def main() -> None:
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    gc.disable()
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(load(plan))))


if __name__ == "__main__":
    main()
