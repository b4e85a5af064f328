"""One run: every gateway started, checked, measured in turn, and stopped whatever happens."""

import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import ask, install, results, transport, wire, works
from bench.failures import BenchError, Died
from bench.figures import Figure
from bench.peers import Launch, Peer, Place
from bench.process import Cores, Process, free_port
from bench.target import Target
from bench.works import Load, Reading, Subject
from bench.wrk import Wrk

WORK_FOLDER: Final = install.HERE / ".work"
START_LIMIT: Final = 90.0
WORKS: Final = ("unary", "dense", "paced", "crowd", "latency", "memory", "start")
STREAMED: Final = ("dense", "paced", "crowd")
COLD: Final = ("memory", "start")
"""Works that need a process which has not served anything yet."""

_BEFALLS_ONE: Final = (BenchError, OSError, subprocess.SubprocessError)
"""What costs one gateway its figures, and no other."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure. `gateway_core` is the gateway's alone; the load and the upstream run on
    `load_core`."""

    peers: Sequence[Peer]
    works: Sequence[str] = WORKS
    seconds: float = 5.0
    rounds: int = 3
    gateway_core: int = 0
    load_core: int = 1
    more_cores: Collection[int] = ()
    """More that the gateway may use."""


class Run:
    """A run under way. `say` gets a line whenever there is something to tell."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._say = say
        self._rows: dict[str, results.Row] = {}
        self._rounds: dict[tuple[str, str], list[float]] = {}
        self._busy: dict[tuple[str, str], list[float]] = {}
        self._absent: dict[str, str] = {}
        self._foreign = 0.0
        self.processes: list[Process] = []
        """Those that run, and are ours."""
        self._upstream_port = free_port()
        shutil.rmtree(WORK_FOLDER, ignore_errors=True)
        WORK_FOLDER.mkdir(parents=True)

    def measure(self) -> results.Results:
        """Install what is missing, then measure. Raises `Missing` without wrk."""
        settings = self._settings
        self._say("installing the load generator and the peers (kept for the next time)")
        wrk = Wrk(settings.load_core, WORK_FOLDER)
        present = [peer for peer in settings.peers if self._have(peer)]
        cores = Cores((settings.gateway_core, settings.load_core), self.processes)
        load = Load(wrk=wrk, core=settings.load_core, seconds=settings.seconds, cores=cores)
        with self.upstream() as direct:
            if any(work in COLD for work in settings.works):
                self._cold_rounds(present, load)
            if any(work not in COLD for work in settings.works):
                self._warm_rounds(present, direct, load)
        return self._results()

    def _have(self, peer: Peer) -> bool:
        try:
            version = peer.have()
        except _BEFALLS_ONE as error:
            self._leave_out(peer, str(error))
            return False
        self._say(f"  {peer.label} {version}")
        self._rows[peer.name] = results.Row(peer.name, peer.label, version, peer.note)
        return True

    def _leave_out(self, peer: Peer, reason: str) -> None:
        self._say(f"  {peer.label} is left out: {reason}")
        self._absent[peer.label] = results.discreet(reason)

    @contextmanager
    def upstream(self) -> Iterator[Subject]:
        """The provider behind all gateways, running and checked."""
        port = self._upstream_port
        with self._process(
            [*works.python_module("bench.upstream"), "--port", str(port)],
            core=self._settings.load_core,
            folder=WORK_FOLDER / "upstream",
            cwd=install.HERE.parent,
        ) as process:
            direct = Subject(
                name=results.DIRECT, target=Target(port=port), process=None, streams=True
            )
            works.first_answer(process, direct, limit=START_LIMIT)
            self._check(direct)
            self._rows[results.DIRECT] = results.Row(
                results.DIRECT, "upstream, asked directly", note="No gateway at all."
            )
            yield direct

    # --- one gateway

    @contextmanager
    def gateway(self, peer: Peer, folder: Path) -> Iterator[tuple[Subject, float]]:
        """A gateway that answers, and the seconds it took to its first answer."""
        place = Place(port=free_port(), upstream=self._upstream_port, folder=folder)
        folder.mkdir(parents=True, exist_ok=True)
        launch = peer.launch(place)
        with self._process(
            launch.command,
            core=self._settings.gateway_core,
            more_cores=self._settings.more_cores,
            folder=folder,
            environment=launch.environment,
            cwd=folder,
        ) as process:
            port = _picked_port(launch, process) if launch.port_file else place.port
            target = Target(port=port, path=launch.path, headers=launch.headers, model=launch.model)
            subject = Subject(name=peer.name, target=target, process=process, streams=peer.streams)
            yield subject, works.first_answer(process, subject, limit=START_LIMIT)

    @contextmanager
    def _process(
        self,
        command: Sequence[str | Path],
        *,
        core: int,
        more_cores: Collection[int] = (),
        folder: Path,
        cwd: Path,
        environment: Mapping[str, str] | None = None,
    ) -> Iterator[Process]:
        """A process that counts as ours for as long as it runs."""
        with Process(
            command,
            core=core,
            more_cores=more_cores,
            log=folder / "output.log",
            environment=environment,
            cwd=cwd,
        ) as process:
            self.processes.append(process)
            try:
                yield process
            finally:
                self.processes.remove(process)

    def _check(self, subject: Subject) -> None:
        """See every word of a whole and of a streamed answer arrive, before anything counts."""
        ask.check(subject.target, stream=False)
        if subject.streams:
            ask.check(subject.target, stream=True)
            subject.stream_size = ask.check(subject.target, stream=True, pace=wire.PACED)

    # --- rounds

    def _cold_rounds(self, peers: Sequence[Peer], load: Load) -> None:
        for number in range(1, self._settings.rounds + 1):
            for peer in [peer for peer in peers if peer.name in self._rows]:
                folder = WORK_FOLDER / f"{peer.name}-cold-{number}"
                try:
                    with self.gateway(peer, folder) as (subject, seconds):
                        self._cold(subject, seconds, load)
                    if peer.transport and "memory" in self._settings.works:
                        self._keep(subject, "memory", self._upstream_side(peer))
                except _BEFALLS_ONE as error:
                    self._rows.pop(peer.name)
                    self._leave_out(peer, str(error))

    def _cold(self, subject: Subject, seconds: float, load: Load) -> None:
        wanted = self._settings.works
        if "start" in wanted:
            self._keep(subject, "start", Reading({"start": seconds}))
        if "memory" in wanted:
            assert subject.process is not None
            self._keep(subject, "memory", works.idle_memory(subject.process))
            if subject.streams:
                ask.check(subject.target, stream=True)
                self._keep(subject, "memory", works.stream_memory(subject, load))

    def _upstream_side(self, peer: Peer) -> Reading:
        """What the transport of a gateway, by itself, keeps for each stream."""
        plan = transport.Plan(
            transport=peer.transport, work="memory", port=self._upstream_port, seconds=1.0
        )
        figures = transport.measured(plan, self._settings.gateway_core)
        return Reading({"upstream_side": figures["memory"]})

    def _warm_rounds(self, peers: Sequence[Peer], direct: Subject, load: Load) -> None:
        with ExitStack() as stack:
            subjects = [direct]
            for peer in [peer for peer in peers if peer.name in self._rows]:
                try:
                    subjects.append(self._ready(peer, stack))
                except _BEFALLS_ONE as error:
                    self._rows.pop(peer.name)
                    self._leave_out(peer, str(error))
            for number in range(1, self._settings.rounds + 1):
                for work in self._settings.works:
                    if work not in COLD:
                        self._say(f"round {number} of {self._settings.rounds}: {work}")
                        self._warm_round(work, subjects, load)

    def _ready(self, peer: Peer, stack: ExitStack) -> Subject:
        """A gateway that was seen to answer right and rests now; `stack` will stop it."""
        with ExitStack() as attempt:
            subject, _ = attempt.enter_context(self.gateway(peer, WORK_FOLDER / peer.name))
            self._check(subject)
            self._rest(subject)
            stack.push(attempt.pop_all())
        return subject

    def _warm_round(self, work: str, subjects: Sequence[Subject], load: Load) -> None:
        base: Reading | None = None
        for subject in subjects:
            if not subject.streams and work in STREAMED:
                continue
            if work == "latency" and self._too_slow(subject):
                continue
            try:
                with self._awake(subject):
                    reading = _WARM[work](subject, load)
            except _BEFALLS_ONE as error:
                self._rows[subject.name].remark(f"{work}: {error}")
                continue
            if subject.name == results.DIRECT:
                base = reading
            elif work == "latency" and base is not None:
                reading = _with_added(reading, base)
            self._keep(subject, work, reading)

    @contextmanager
    def _awake(self, subject: Subject) -> Iterator[None]:
        """Let it run, alone; afterwards let it finish what was left half done, and rest again."""
        if subject.process is not None:
            subject.process.resume()
            subject.process.check()
        try:
            yield
        finally:
            self._rest(subject)

    def _rest(self, subject: Subject) -> None:
        if subject.process is None:
            return
        if not subject.process.settle():
            self._rows[subject.name].remark("still busy a minute after everyone had left")
        subject.process.pause()

    def _too_slow(self, subject: Subject) -> bool:
        """Whether it was seen to answer fewer than the fixed rate asks for."""
        rounds = self._rounds.get((subject.name, "unary"))
        if not rounds or max(rounds) > works.RATE:
            return False
        self._rows[subject.name].remark(f"latency: cannot keep up with {works.RATE} answers/s")
        return True

    def _keep(self, subject: Subject, work: str, reading: Reading) -> None:
        for metric, value in reading.figures.items():
            self._rounds.setdefault((subject.name, metric), []).append(value)
            self._say(f"    {subject.name:12} {metric:10} {value:12.2f}   {_shares(reading)}")
        if reading.usage.busy:
            self._busy.setdefault((subject.name, work), []).append(reading.usage.busy)
        self._foreign = max(self._foreign, reading.usage.foreign)
        if reading.errors:
            self._rows[subject.name].remark(f"{work}: {reading.errors} failed answers in a round")

    def _results(self) -> results.Results:
        for kept, of_row in ((self._rounds, "figures"), (self._busy, "busy")):
            for (name, metric), rounds in kept.items():
                if name in self._rows:
                    getattr(self._rows[name], of_row)[metric] = Figure(tuple(rounds))
        settings = results.Settings(
            seconds=self._settings.seconds,
            rounds=self._settings.rounds,
            rate=works.RATE,
            unary_connections=works.UNARY_CONNECTIONS,
            dense_connections=works.DENSE_CONNECTIONS,
            paced_streams=works.PACED_STREAMS,
            chunks=wire.CHUNKS,
            crowd_streams=works.CROWD_STREAMS,
            silent_streams=transport.SILENT_STREAMS,
        )
        order = [results.DIRECT, *(peer.name for peer in self._settings.peers)]
        rows = [self._rows[name] for name in order if name in self._rows]
        return results.Results(
            results.today(),
            results.this_machine(),
            settings,
            rows,
            self._absent,
            disturbance=self._foreign,
        )


_WARM: Final = {
    "unary": works.unary,
    "dense": works.dense,
    "paced": works.paced,
    "crowd": works.crowd,
    "latency": works.latency,
}


def _shares(reading: Reading) -> str:
    usage = reading.usage
    return f"its core {usage.busy:4.0%}, strangers {usage.foreign:4.0%}" if usage.busy else ""


def _with_added(reading: Reading, base: Reading) -> Reading:
    added = {f"added_{name}": value - base.figures[name] for name, value in reading.figures.items()}
    return Reading(reading.figures | added, reading.usage, reading.errors)


def _picked_port(launch: Launch, process: Process) -> int:
    assert launch.port_file is not None
    deadline = process.started + START_LIMIT
    while not launch.port_file.exists():
        process.check()
        if time.monotonic() > deadline:
            raise Died(f"no port named within {START_LIMIT:.0f} s")
        time.sleep(0.003)
    return int(launch.port_file.read_text())
