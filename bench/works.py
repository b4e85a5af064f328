"""The works: what is asked of a gateway, and what is read off it."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec

from bench import ask, wire
from bench.failures import Died, Unloaded, Wrong
from bench.figures import percentile
from bench.install import HERE
from bench.openloop import DRAIN, Outcome, Plan
from bench.process import Cores, Process, finished
from bench.target import Target
from bench.wrk import Sample, Wrk

UNARY_CONNECTIONS = 64
DENSE_CONNECTIONS = 64
PACED_STREAMS = 500
CROWD_STREAMS = 2 * PACED_STREAMS
"""As many as the load's core bears: of more, the upstream gives no more."""
RATE = 500
WARMUP = 1.0
WARMUP_CONNECTIONS = 8
SETTLING = 5.0
SAMPLING = 0.1


def python_module(name: str) -> list[str]:
    """The command that runs a module of this package."""
    return [sys.executable, "-m", name]


@dataclass(kw_only=True)
class Subject:
    """Who is being measured; `process` is absent where the upstream itself is."""

    name: str
    target: Target
    process: Process | None
    streams: bool
    stream_size: int = 0
    """Bytes of a checked streamed answer on the wire."""

    def question(self, *, stream: bool, pace: str = wire.DENSE) -> bytes:
        return wire.question(stream=stream, pace=pace, model=self.target.model)

    def processor(self) -> float:
        """Seconds of processor time that the gateway has used."""
        return 0.0 if self.process is None else self.process.cpu()


@dataclass(frozen=True, kw_only=True)
class Load:
    """What the works have at their disposal. `core` is the load's; `seconds` last measurements."""

    wrk: Wrk
    core: int
    seconds: float
    cores: Cores


@dataclass(frozen=True)
class Usage:
    """In cores: what the gateway used of its own, and what strangers took of all we need."""

    busy: float = 0.0
    foreign: float = 0.0


@dataclass(frozen=True)
class Reading:
    """Figures by metric, how the gateway's core was used, and how many answers failed."""

    figures: dict[str, float]
    usage: Usage = Usage()
    errors: int = 0


def unary(subject: Subject, load: Load) -> Reading:
    """Whole answers a second, each of 64 connections waiting for its own."""
    question = subject.question(stream=False)
    sample, usage = _run(subject, load, question, UNARY_CONNECTIONS)
    return Reading({"unary": sample.per_second}, usage, sample.errors)


def dense(subject: Subject, load: Load) -> Reading:
    """Streams a second whose chunks all come at once."""
    question = subject.question(stream=True)
    sample, usage = _run(subject, load, question, DENSE_CONNECTIONS)
    return Reading({"dense": _streams(sample, subject)}, usage, sample.errors)


def paced(subject: Subject, load: Load) -> Reading:
    """Streams a second, 500 at a time, their chunks 10 ms apart; and what a chunk costs."""
    question = subject.question(stream=True, pace=wire.PACED)
    sample, usage = _run(subject, load, question, PACED_STREAMS)
    figures = {"paced": _streams(sample, subject)}
    if usage.busy:
        figures["paced_cpu"] = usage.busy / (figures["paced"] * wire.CHUNKS) * 1e6
    return Reading(figures, usage, sample.errors)


def crowd(subject: Subject, load: Load) -> Reading:
    """Streams a second, 1,000 at a time: more than a core can pass on chunk by chunk."""
    question = subject.question(stream=True, pace=wire.PACED)
    sample, usage = _run(subject, load, question, CROWD_STREAMS)
    return Reading({"crowd": _streams(sample, subject)}, usage, sample.errors)


def _streams(sample: Sample, subject: Subject) -> float:
    """Counted in bytes and divided by the size of one: of those that start together, the last
    would otherwise count or not by chance."""
    return sample.bytes_per_second / subject.stream_size


def _run(subject: Subject, load: Load, question: bytes, connections: int) -> tuple[Sample, Usage]:
    target, wrk, seconds = subject.target, load.wrk, load.seconds
    wrk.run(target, question, connections=WARMUP_CONNECTIONS, seconds=WARMUP)
    if subject.process is not None:  # who leaves in the middle is something to work off
        subject.process.settle(SETTLING)
    with _usage(subject, load) as usage:
        sample = wrk.run(target, question, connections=connections, seconds=seconds)
    if not sample.bytes:
        raise Unloaded(f"not one byte came within {seconds:.0f} s")
    return sample, usage()


@contextmanager
def _usage(subject: Subject, load: Load) -> Iterator[Callable[[], Usage]]:
    """How the cores were used from entry to exit; the callable tells, once it is over."""
    found: list[Usage] = []
    started, ours, foreign = time.monotonic(), subject.processor(), load.cores.foreign()
    yield found.pop
    passed = time.monotonic() - started
    busy, taken = subject.processor() - ours, load.cores.foreign() - foreign
    found.append(Usage(busy / passed, max(0.0, taken) / passed))


def latency(subject: Subject, load: Load) -> Reading:
    """Latencies in milliseconds at 500 answers a second, on a schedule nobody can slow down."""
    target = subject.target
    plan = Plan(
        port=target.port,
        request=target.request(subject.question(stream=False)),
        secrets=() if target.secrets is None else tuple(target.secrets.read_bytes().split()),
        rate=RATE,
        seconds=load.seconds,
        warmup=WARMUP,
    )
    with _usage(subject, load) as usage:
        said = finished(
            python_module("bench.openloop"),
            core=load.core,
            limit=load.seconds + WARMUP + DRAIN + 20,
            question=msgspec.json.encode(plan),
            cwd=HERE.parent,
        )
    outcome = msgspec.json.decode(said, type=Outcome)
    shares = {"p50": 0.50, "p90": 0.90, "p99": 0.99}
    figures = {name: percentile(outcome.latencies, share) / 1000 for name, share in shares.items()}
    return Reading(figures, usage(), outcome.unanswered + outcome.wrong)


def idle_memory(process: Process) -> Reading:
    """Resident megabytes after the first answer, once it has come to rest."""
    process.settle()
    return Reading({"idle": process.memory() / 1e6})


def stream_memory(subject: Subject, load: Load) -> Reading:
    """Resident kilobytes that each of 500 streams costs while they run, at the peak.

    Their chunks are 40 ms apart, so that it is streams that are measured, and no backlog.
    """
    process = subject.process
    assert process is not None
    before = process.memory()
    peak = before
    over = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(SAMPLING):
            peak = max(peak, process.memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        question = subject.question(stream=True, pace=wire.HELD)
        sample = load.wrk.run(
            subject.target, question, connections=PACED_STREAMS, seconds=max(load.seconds, 5)
        )
    finally:
        over.set()
        watcher.join()
    return Reading({"stream": (peak - before) / PACED_STREAMS / 1e3}, errors=sample.errors)


def first_answer(process: Process, subject: Subject, *, limit: float) -> float:
    """Seconds from the start of the process to the end of its first right answer.

    Raises `Died` after `limit` seconds, or when it ends before.
    """
    question = subject.question(stream=False)
    while time.monotonic() < process.started + limit:
        process.check()
        try:
            answer = ask.ask(subject.target, question, limit=15.0)
        except (OSError, Wrong):
            time.sleep(0.003)
            continue
        if answer.status == 200:
            return time.monotonic() - process.started
        time.sleep(0.003)
    raise Died(f"no answer within {limit:.0f} s of the start")
