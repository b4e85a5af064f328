"""Manyways by itself: on stores of its own, asked with keys of several kinds, and compared with
nobody but itself."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.console import Console

from bench import ask, counters, peers, works
from bench.counters import Counters
from bench.process import Cores
from bench.results import Metric
from bench.run import WORK_FOLDER, Run, Settings
from bench.stores import Stores, secret
from bench.works import Load, Reading, Subject
from bench.wrk import Wrk

METRICS: Final = {
    metric.name: metric
    for metric in (
        Metric("unary", "answers", "/s", more_is_better=True),
        Metric("unary_cpu", "processor", "µs each", more_is_better=False),
        Metric("dense", "streams", "/s", more_is_better=True),
        Metric("dense_cpu", "processor", "µs each", more_is_better=False),
        Metric("added_p50", "added p50", "ms", more_is_better=False),
        Metric("added_p99", "added p99", "ms", more_is_better=False),
        Metric("busiest", "the busiest worker's part", "%", more_is_better=False),
        Metric("start", "start", "s", more_is_better=False),
        Metric("idle", "memory at first", "MB", more_is_better=False),
        Metric("memory", "memory then", "MB", more_is_better=False),
    )
}
"""What can be read off a gateway here: whole answers, streams whose chunks come all at once, and
latency as in the benchmark of all gateways."""
_RESTS: Final = 60.0  # seconds for all records to be moved behind a load
_SETTLES: Final = 4.0  # seconds for the rest of what is left to do then
_IDLE: Final = 3.0  # seconds in which it is seen what a gateway does for nothing
_PAGES: Final = 2.5  # seconds until every worker has told what it counted

_WORKS: Final[Mapping[str, Callable[[Subject, Load], Reading]]] = {
    "unary": works.unary,
    "dense": works.dense,
}


class Stand:
    """The upstream, the load, and room for gateways. Used in a `with`; raises `Missing` without
    wrk."""

    def __init__(self, settings: Settings, console: Console) -> None:
        self.settings = settings
        self.console = console
        self._run = Run(settings, self.say)
        self._idle: dict[int, float] = {}  # by port: cores that a gateway takes for nothing
        cores = (settings.gateway_core, *settings.more_cores, settings.load_core)
        self.load = Load(
            wrk=Wrk(settings.load_core, WORK_FOLDER),
            core=settings.load_core,
            seconds=settings.seconds,
            cores=Cores(cores, self._run.processes),
        )

    def say(self, line: str) -> None:
        """A line about what is going on."""
        self.console.print(line, markup=False, highlight=False)

    def folder(self, name: str) -> Path:
        """A new one."""
        path = WORK_FOLDER / name
        path.mkdir(parents=True)
        return path

    @contextmanager
    def upstream(self) -> Iterator[Subject]:
        """The provider, running: everything else happens inside."""
        with self._run.upstream() as direct:
            yield direct

    @contextmanager
    def gateway(
        self, name: str, stores: Stores, config: str = "", *, workers: int = 1
    ) -> Iterator[tuple[Subject, float]]:
        """A gateway at rest, asked with key 0, which its database must have; and the seconds that
        it took to its first answer."""

        def launch(place: peers.Place) -> peers.Launch:
            path = peers.manyways_config(place, stores.tables + config)
            command = peers.manyways_command(place, path, workers=workers)
            return peers.Launch(command=command, headers={"Authorization": f"Bearer {secret(0)}"})

        peer = peers.Peer(name=name, label=name, have=str, launch=launch)
        with self._run.gateway(peer, WORK_FOLDER / name) as (subject, seconds):
            assert subject.process is not None
            subject.process.come_first()
            subject.process.settle(_SETTLES)
            self._idle[subject.target.port] = _idle(subject)
            _rest(subject)
            yield subject, seconds

    def read(self, work: str, subject: Subject) -> dict[str, float]:
        """What `unary` or `dense` says, and the processor time of an answer under this load: of
        all threads, those included that move records as fast as they may meanwhile."""
        with awake(subject):
            reading = _WORKS[work](subject, self.load)
        self._complain(work, subject, reading)
        figures = reading.figures
        return figures | {f"{work}_cpu": reading.usage.busy / figures[work] * 1e6}

    def weigh(self, work: str, subject: Subject) -> dict[str, float]:
        """The same, but the processor time is until all records are in the database, less what a
        gateway takes when nobody asks; and the share of the answers that the busiest worker
        gave. Takes three times as long."""
        with awake(subject):
            before = counted(subject)
            began, spent = time.monotonic(), subject.processor()
            reading = _WORKS[work](subject, self.load)
            answers = counted(subject).since(before).values()
            spent = subject.processor() - spent
        spent -= self._idle[subject.target.port] * (time.monotonic() - began)
        self._complain(work, subject, reading)
        total = sum(answers)
        return reading.figures | {
            f"{work}_cpu": spent / total * 1e6,
            "busiest": 100 * max(answers) / total,
        }

    def latency(self, subject: Subject, base: Mapping[str, float]) -> dict[str, float]:
        """Percentiles of latency less those of `base`, in milliseconds."""
        with awake(subject):
            reading = works.latency(subject, self.load)
        self._complain("latency", subject, reading)
        return {f"added_{name}": reading.figures[name] - base[name] for name in ("p50", "p99")}

    def _complain(self, work: str, subject: Subject, reading: Reading) -> None:
        if reading.errors:
            self.say(f"    {subject.name}: {work}: {reading.errors} answers failed")


def caller(subject: Subject, name: str, number: int, secrets: Path | None = None) -> Subject:
    """The same gateway, asked with another key; or with all of a file, of which it is the first.

    Raises `Wrong` where it does not answer right.
    """
    target = subject.target.asked_with(secret(number), secrets=secrets)
    asking = replace(subject, name=name, target=target)
    with awake(asking):
        ask.check(target, stream=False)
        asking.stream_size = ask.check(target, stream=True)
    return asking


@contextmanager
def awake(subject: Subject) -> Iterator[None]:
    """Let it run, and rest again afterwards, so that the next one has the core alone."""
    assert subject.process is not None
    subject.process.resume()
    subject.process.check()
    try:
        yield
    finally:
        _rest(subject)


def counted(subject: Subject) -> Counters:
    """What all workers have counted, once all records are in the database."""
    deadline = time.monotonic() + _RESTS
    while (found := counters.read(subject.target.port)).backlog and time.monotonic() < deadline:
        time.sleep(0.5)
    if list(found.answers) not in ([], [""]):  # there are several, and they tell now and then
        time.sleep(_PAGES)
        found = counters.read(subject.target.port)
    return found


def _idle(subject: Subject) -> float:
    """The processor time that it takes in a second while nobody asks."""
    before = subject.processor()
    time.sleep(_IDLE)
    return (subject.processor() - before) / _IDLE


def memory(subject: Subject) -> float:
    """Resident megabytes of all its processes."""
    assert subject.process is not None
    return subject.process.memory() / 1e6


def _rest(subject: Subject) -> None:
    assert subject.process is not None
    subject.process.settle(_SETTLES)
    subject.process.pause()
