"""Our transports by themselves: what an exchange with a provider costs, without a gateway.

python -m bench transport [--seconds 3] [--rounds 3] [--work unary,dense]

One after the other, each in a process of its own on the gateway's core, against the benchmark's
upstream on the other; in turn within each round. Beside them stands, as `bare`, the least code that
does it at all (`bare.py`), which keeps no promise. The child runs as `python -m bench.transport`,
with a plan as JSON on its standard input.
"""

import asyncio
import contextlib
import gc
import os
import resource
import ssl
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import msgspec
import uvloop
from rich.console import Console

from bench import wire, works
from bench.comparison import Comparison
from bench.failures import BenchError, Died, Missing, Unloaded, Wrong
from bench.install import HERE
from bench.process import Process, finished, free_port
from bench.results import Metric
from bench.target import Target
from manyways.upstream.transport import Limits, Response, Transport

TRANSPORTS: Final = ("aiohttp", "native", "bare")
BARE: Final = (
    "bare is no transport: the least code that asks over uvloop and httptools, without time limits,"
    " bounds or checks. It shows what there is to be had on this machine."
)
"""What the tables' row of that name is, for who reads them."""
METRICS: Final = (
    Metric("unary", "whole answers", "/s", more_is_better=True),
    Metric("unary_cpu", "processor", "µs each", more_is_better=False),
    Metric("dense", "dense chunks", "/s", more_is_better=True),
    Metric("paced_cpu", "processor", "µs a paced chunk", more_is_better=False),
    Metric("memory", "memory", "kB a stream", more_is_better=False),
    Metric("connections", "connections", "/s", more_is_better=True),
    Metric("tls", "over TLS", "/s", more_is_better=True),
    Metric("tls_memory", "memory", "kB a TLS stream", more_is_better=False),
    Metric("handshakes", "handshakes", "/s", more_is_better=True),
)
SILENT_STREAMS: Final = 2000
"""Open at once where memory is measured."""

_AT_ONCE: Final = {"paced": 500, "connections": 16, "handshakes": 16}
_SECURE: Final = ("tls", "tls_memory", "handshakes")
_CLOSED: Final = ("connections", "handshakes")
_ORDINARY: Final = 64  # at once, of every other work
_OPENING: Final = 100  # streams that are being opened together
_LIMITS: Final = Limits(connect=20, headers=20, idle=20)
_WHOLE: Final = len(wire.WHOLE_BODY)
_STREAM: Final = sum(
    map(len, (wire.ROLE_EVENT, *wire.WORD_EVENTS, wire.FINISH_EVENT, wire.DONE_EVENT))
)
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_Tasks = list[asyncio.Task[None]]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is to do. `authority` is what it trusts, in PEM, where the port speaks TLS."""

    transport: str
    work: str
    port: int
    seconds: float
    authority: str | None = None
    warmup: float = 1.0

    @property
    def at_once(self) -> int:
        return _AT_ONCE.get(self.work, _ORDINARY)

    @property
    def url(self) -> str:
        scheme = "http" if self.authority is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}{Target(port=self.port).path}"


WORKS: Final = (
    "unary",
    "dense",
    "paced",
    "memory",
    "connections",
    "tls",
    "tls_memory",
    "handshakes",
)
_PACES: Final = {
    "dense": wire.DENSE,
    "paced": wire.PACED,
    "memory": wire.SILENT,
    "tls_memory": wire.SILENT,
}


# The parent


def main(
    console: Console,
    *,
    chosen: Sequence[str],
    seconds: float,
    rounds: int,
    cores: tuple[int, int],
) -> int:
    """Measure and tell; always 0. Raises `Missing` without what makes certificates."""
    compared = Comparison([metric for metric in METRICS if _work_of(metric) in chosen])
    able = [name for name in TRANSPORTS if _is_there(name, console)]
    with _upstreams(cores[1], secure=any(work in _SECURE for work in chosen)) as (ports, authority):
        for number in range(1, rounds + 1):
            for work in chosen:
                console.print(f"round {number} of {rounds}: {work}", highlight=False)
                secure = work in _SECURE
                for name in able:
                    plan = Plan(
                        transport=name,
                        work=work,
                        port=ports[secure],
                        seconds=seconds,
                        authority=authority if secure else None,
                    )
                    try:
                        compared.keep(name, measured(plan, cores[0]))
                    except BenchError as error:
                        console.print(f"  {name}: {error}", style="red", markup=False)
    turns = "1 round" if rounds == 1 else f"{rounds} rounds"
    compared.show(console, title=f"Transports: median of {turns}, ± half the spread")
    if "bare" in compared.subjects:
        console.print(BARE, style="dim", markup=False)
    return 0


def measured(plan: Plan, core: int) -> dict[str, float]:
    """What a child found, by metric. Raises `Unloaded` when it fails."""
    said = finished(
        works.python_module("bench.transport"),
        core=core,
        limit=plan.seconds + 60,
        question=msgspec.json.encode(plan),
        cwd=HERE.parent,
    )
    return msgspec.json.decode(said, type=dict[str, float])


def _work_of(metric: Metric) -> str:
    return metric.name.removesuffix("_cpu")


def _is_there(name: str, console: Console) -> bool:
    try:
        _check(name)
    except Missing as error:
        console.print(f"{name} is left out: {error}", markup=False)
        return False
    return True


def _check(name: str) -> None:
    if name == "native":
        try:
            import manyways.upstream.native as _  # noqa: F401
        except ImportError as error:
            raise Missing(str(error)) from error


@contextmanager
def _upstreams(core: int, *, secure: bool) -> Iterator[tuple[list[int], str | None]]:
    """The ports of the upstream, plain and over TLS, and who signed the latter's certificate."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="manyways-bench-")))
        ports = [stack.enter_context(_upstream(core, folder / "plain"))]
        if not secure:
            yield ports, None
            return
        certificate, authority = _certificate(folder)
        ports.append(stack.enter_context(_upstream(core, folder / "secure", certificate)))
        yield ports, authority


@contextmanager
def _upstream(core: int, folder: Path, certificate: Path | None = None) -> Iterator[int]:
    port = free_port()
    command = [*works.python_module("bench.upstream"), "--port", str(port)]
    if certificate is not None:
        command += ["--certificate", str(certificate)]
    log = folder / "output.log"
    with Process(command, core=core, log=log, cwd=HERE.parent) as process:
        deadline = time.monotonic() + 20
        while b"listening" not in log.read_bytes():
            process.check()
            if time.monotonic() > deadline:
                raise Died("the upstream does not answer")
            time.sleep(0.01)
        yield port


def _certificate(folder: Path) -> tuple[Path, str]:
    """A certificate for loopback with its key, and its authority's own, in PEM."""
    try:
        import trustme
    except ImportError as error:
        raise Missing("trustme is not installed: make install-dev") from error
    authority = trustme.CA()
    path = folder / "certificate.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
    return path, authority.cert_pem.bytes().decode()


# The child


def make(plan: Plan) -> Transport:
    """The transport that a plan names."""
    context = None
    if plan.authority is not None:
        context = ssl.create_default_context(cadata=plan.authority)
    if plan.transport == "native":
        from manyways.upstream.native import NativeTransport

        return NativeTransport(ssl_context=context)
    if plan.transport == "aiohttp":
        from manyways.upstream.aiohttp_transport import AiohttpTransport

        return AiohttpTransport(ssl_context=context)
    from bench.bare import Bare

    return Bare(plan.port, context)


class Callers:
    """Many that ask for the same again and again, and count what they get."""

    def __init__(self, plan: Plan, transport: Transport) -> None:
        self.answers = 0
        self.received = 0
        """Bytes of bodies."""
        self._plan = plan
        self._transport = transport
        self._streamed = plan.work in _PACES
        self._whole = _STREAM if self._streamed else _WHOLE
        self._body = wire.question(stream=self._streamed, pace=_PACES.get(plan.work, wire.DENSE))
        self._headers = [("Content-Type", "application/json"), ("Authorization", "Bearer x")]
        if plan.work in _CLOSED:
            self._headers.append(("Connection", "close"))

    async def ask(self) -> Response:
        return await self._transport.send(
            "POST", self._plan.url, self._headers, self._body, _LIMITS
        )

    async def go_on(self) -> None:
        """For ever; raises `Wrong` where an answer is not what was sent."""
        while True:
            got = 0
            async with await self.ask() as response:
                if self._streamed:
                    while data := await response.chunk():
                        self.received += len(data)
                        got += len(data)
                else:
                    got = len(await response.body(_WHOLE))
                    self.received += got
            if got != self._whole:
                raise Wrong(f"{got} bytes came, {self._whole} were sent")
            self.answers += 1


async def found(plan: Plan) -> dict[str, float]:
    """What a plan measures, in the running loop."""
    transport = make(plan)
    try:
        callers = Callers(plan, transport)
        gc.collect()
        gc.freeze()
        if plan.work in ("memory", "tls_memory"):
            return {plan.work: await _memory(callers)}
        return await _asked(plan, callers)
    finally:
        await transport.aclose()


async def _asked(plan: Plan, callers: Callers) -> dict[str, float]:
    async with _running([callers.go_on() for _ in range(plan.at_once)]) as tasks:
        await _pass(tasks, plan.warmup)
        began, spent = time.monotonic(), time.process_time()
        answers, received = callers.answers, callers.received
        await _pass(tasks, plan.seconds)
        seconds, spent = time.monotonic() - began, time.process_time() - spent
        answers = callers.answers - answers
        chunks = (callers.received - received) / _STREAM * wire.CHUNKS
    if not chunks:
        raise Unloaded("not one byte came")
    if plan.work == "paced":
        return {"paced_cpu": spent / chunks * 1e6}
    if plan.work == "dense":
        return {"dense": chunks / seconds}
    figures = {plan.work: answers / seconds}
    return figures | {"unary_cpu": spent / answers * 1e6} if plan.work == "unary" else figures


@asynccontextmanager
async def _running(coroutines: Iterable[Coroutine[None, None, None]]) -> AsyncIterator[_Tasks]:
    """Tasks that go on until they are left."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _pass(tasks: _Tasks, seconds: float) -> None:
    """Let time pass. Raises what ended one of the tasks, which none of them should."""
    ended, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in ended:
        task.result()


async def _memory(callers: Callers) -> float:
    """Kilobytes for each of many streams of which a chunk has come, and that are waited for."""
    places = asyncio.Semaphore(_OPENING)
    begun = 0

    async def wait() -> None:
        nonlocal begun
        async with places:
            response = await callers.ask()
            await response.chunk()
        begun += 1
        async with response:
            await response.chunk()

    async with _running(wait() for _ in range(_OPENING)) as first:  # what is loaded once
        while begun < _OPENING:
            await _pass(first, 0.01)
    begun = 0
    gc.collect()
    before = _resident()
    async with _running(wait() for _ in range(SILENT_STREAMS)) as tasks:
        while begun < SILENT_STREAMS:
            await _pass(tasks, 0.01)
        gc.collect()
        return (_resident() - before) / SILENT_STREAMS / 1e3


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def _child() -> None:
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(found(plan))))


if __name__ == "__main__":
    _child()
