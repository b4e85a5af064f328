"""A thousand models over forty providers, verified: how long it takes, and what it costs whom.

python -m bench verification

The gateway has a core of its own; the providers, and a caller who chats meanwhile, have another.
In the middle, the gateway is killed and started again.
"""

import http.client
import itertools
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from rich.console import Console
from rich.table import Table

from bench.failures import Died
from bench.figures import percentile
from bench.parity import ahead
from bench.process import come_first, pinned

if TYPE_CHECKING:
    from tests.support.gateway import Gateway
    from tests.support.many_models import Asked, ManyModels

PROVIDERS: Final = 40
EACH: Final = 25
LATENCY: Final = 0.05
PAUSE: Final = 0.05
CONCURRENCY: Final = 64
"""Enough for all providers to be asked as often as they may be."""
CALLS: Final = 50
"""A second, of the caller."""
QUIET: Final = 15.0
"""Seconds of calls before the verification."""
LONGEST: Final = 900.0
_HERTZ: Final = os.sysconf("SC_CLK_TCK")


class Found(msgspec.Struct, frozen=True):
    """What a run has shown. `seconds` are those in which the gateway was there; `processor` is
    its processor time behind the kill, for `counted` requests; `again` are requests that had
    been answered and kept before the kill; `gaps` are the shortest, the one that 1 % are below
    and the mean time between two requests to the same provider; calls are in ms; memory is the
    resident kilobytes at rest, and the most there were behind the kill."""

    seconds: float
    requests: int
    models: int
    again: int
    twice: int
    counted: int
    processor: float
    gaps: tuple[float, float, float]
    calls_before: tuple[float, float]
    calls_during: tuple[float, float]
    memory: tuple[int, int]
    database: int


def run(console: Console, *, gateway_core: int, load_core: int) -> int:
    """Measure and print. Exit status 1 where a model was left out, or something asked again that
    had been kept."""
    found = measure(gateway_core, load_core)
    show(found, console)
    return 0 if found.models == PROVIDERS * EACH and not found.again else 1


def measure(gateway_core: int, load_core: int) -> Found:
    """Of a gateway of its own, on SQLite."""
    from tests.support.gateway import provider
    from tests.support.many_models import CHECKS, many_models

    with tempfile.TemporaryDirectory(prefix="manyways-verification-") as name:
        folder = Path(name)
        come_first(os.getpid())
        with (
            pinned(load_core),
            many_models(providers=PROVIDERS, each=EACH, latency=LATENCY) as many,
            many_models(providers=1, each=1, latency=0.0) as quick,
        ):
            config = many.config(pause=PAUSE, concurrency=CONCURRENCY)
            config += provider(f"{quick.url}/P0", "m", name="Callers")
            with _gateway(folder, config, gateway_core) as gateway:
                before = _calls(gateway, lambda: time.sleep(QUIET))
                at_rest = _memory(gateway, "VmRSS")
                refresh = str(gateway.ask("/admin/v1/catalog/refresh", {}).json()["id"])
                half = PROVIDERS * EACH * len(CHECKS) // 2
                began = time.monotonic()
                during = _calls(gateway, lambda: _wait(lambda: many.has_asked(half)))
                gateway.stop(signal.SIGKILL)
                seconds = time.monotonic() - began
            seen = len(many.settled())
            kept = _kept(folder, refresh)
            with _gateway(folder, config, gateway_core) as gateway:
                spent = _processor(gateway)
                began = time.monotonic()
                during += _calls(gateway, lambda: _wait(lambda: _is_over(folder, refresh)))
                seconds += time.monotonic() - began
                spent = _processor(gateway) - spent
                peak = _memory(gateway, "VmHWM")
            account = many.settled()
            names = [asked.name for asked in account]
            return Found(
                seconds=seconds,
                requests=len(account),
                models=_verified(folder, refresh),
                again=sum(name in kept for name in names[seen:]),
                twice=len(names) - len(set(names)),
                counted=len(account) - seen,
                processor=spent,
                gaps=_gaps(many, account, seen),
                calls_before=(percentile(before, 0.5), percentile(before, 0.99)),
                calls_during=(percentile(during, 0.5), percentile(during, 0.99)),
                memory=(at_rest, peak),
                database=sum(one.stat().st_size for one in folder.glob("manyways.db*")),
            )


def show(found: Found, console: Console) -> None:
    """As a table."""
    table = Table(
        title=f"{found.models:,} models over {PROVIDERS} providers, verified;"
        f" {LATENCY * 1000:g} ms an answer, a kill in the middle"
    )
    table.add_column("what")
    table.add_column("found", justify="right")
    lowest, low, mean = (gap * 1000 for gap in found.gaps)
    at_rest, peak = (size / 1000 for size in found.memory)
    for name, value in (
        ("seconds", f"{found.seconds:.1f}"),
        ("requests", f"{found.requests:,}"),
        ("requests/s", f"{found.requests / found.seconds:,.0f}"),
        ("asked again, though it was kept", f"{found.again}"),
        ("asked again, under way at the kill", f"{found.twice}"),
        (f"between two to a provider, mean (at least {PAUSE * 1000:g})", f"{mean:.1f} ms"),
        ("  1 % are below", f"{low:.1f} ms"),
        ("  the shortest, as they arrive", f"{lowest:.1f} ms"),
        ("processor, each", f"{found.processor / found.counted * 1e6:,.0f} µs"),
        ("a caller's answer before, p50 and p99", _both(found.calls_before)),
        ("a caller's answer meanwhile, p50 and p99", _both(found.calls_during)),
        ("memory at rest, and at most", f"{at_rest:.0f} and {peak:.0f} MB"),
        ("database", f"{found.database / 1e6:.1f} MB"),
    ):
        table.add_row(name, value)
    console.print(table)


def _both(times: tuple[float, float]) -> str:
    return f"{times[0]:.1f} and {times[1]:.1f} ms"


@contextmanager
def _gateway(folder: Path, config: str, core: int) -> Iterator["Gateway"]:
    from tests.support.gateway import running_gateway

    ours = os.sched_getaffinity(0)
    with ahead(core), running_gateway(folder, config) as gateway:
        os.sched_setaffinity(0, ours)
        come_first(gateway.process.pid)
        yield gateway


def _calls(gateway: "Gateway", meanwhile: Callable[[], None]) -> list[float]:
    """Milliseconds of a caller's chats, each from when it was due."""
    over = threading.Event()
    taken: list[float] = []

    def call() -> None:
        body = json.dumps(
            {"model": "Callers/m", "messages": [{"role": "user", "content": "Hello?"}]}
        )
        headers = {"Authorization": f"Bearer {gateway.key}", "Content-Type": "application/json"}
        host = gateway.root.removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=30.0)
        due = time.monotonic()
        while not over.wait(max(0.0, due - time.monotonic())):
            connection.request("POST", "/v1/chat/completions", body, headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                taken.append((time.monotonic() - due) * 1000)
            due += 1 / CALLS

    caller = threading.Thread(target=call)
    caller.start()
    try:
        meanwhile()
    finally:
        over.set()
        caller.join()
    return taken


def _wait(done: Callable[[], bool]) -> None:
    give_up = time.monotonic() + LONGEST
    while not done():
        if time.monotonic() > give_up:
            raise Died(f"the verification is not over within {LONGEST:.0f} s")
        time.sleep(0.5)


def _gaps(many: "ManyModels", account: Sequence["Asked"], seen: int) -> tuple[float, float, float]:
    """Between two requests to the same provider, on the same side of the kill."""
    gaps: list[float] = []
    for part in (account[:seen], account[seen:]):
        for provider in {name for name, _ in many.names}:
            times = [asked.at for asked in part if asked.provider == provider]
            gaps += [after - one for one, after in itertools.pairwise(times)]
    return min(gaps), percentile(gaps, 0.01), sum(gaps) / len(gaps)


def _memory(gateway: "Gateway", what: str) -> int:
    lines = Path(f"/proc/{gateway.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def _processor(gateway: "Gateway") -> float:
    fields = Path(f"/proc/{gateway.process.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / _HERTZ


def _rows(folder: Path, query: str, *values: str) -> list[tuple[str, ...]]:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(folder / "manyways.db")) as database:
        return database.execute(query, values).fetchall()


def _kept(folder: Path, refresh: str) -> set[tuple[str, str, str]]:
    query = "SELECT provider, model, name FROM catalog_checks WHERE run_id = ?"
    return {(provider, model, name) for provider, model, name in _rows(folder, query, refresh)}


def _is_over(folder: Path, refresh: str) -> bool:
    return _rows(folder, "SELECT status FROM catalog_runs WHERE id = ?", refresh) == [("done",)]


def _verified(folder: Path, refresh: str) -> int:
    query = "SELECT model FROM catalog_verifications WHERE run_id = ? AND verdict = 'passed'"
    query += " AND provider <> 'Callers'"
    return len(_rows(folder, query, refresh))
