"""The closed-loop load: wrk, with as many connections as asked, each waiting for its answer."""

from pathlib import Path

import msgspec

from bench import install
from bench.failures import Unloaded
from bench.process import finished
from bench.target import Target

PACKAGES = ("wrk", "libluajit-5.1-2", "libluajit-5.1-common")
SCRIPT = Path(__file__).with_name("post.lua")
GRACE = 30.0
"""Seconds beyond its own duration that wrk may take to start and to stop."""


class Sample(msgspec.Struct, frozen=True):
    """What one run of wrk saw. Only complete answers count as requests; bytes count all."""

    requests: int
    bytes: int
    duration_us: int
    refused: int
    """Answers with a status above 399."""
    broken: int
    """Connections that failed."""
    late: int
    p50_us: float
    p90_us: float
    p99_us: float

    @property
    def per_second(self) -> float:
        return self.requests / (self.duration_us / 1e6)

    @property
    def bytes_per_second(self) -> float:
        return self.bytes / (self.duration_us / 1e6)

    @property
    def errors(self) -> int:
        return self.refused + self.broken


class Wrk:
    """wrk on one core. Raises `Missing` where it cannot be had."""

    def __init__(self, core: int, folder: Path) -> None:
        self._program = install.debian("wrk", PACKAGES)
        self._core = core
        self._body = folder / "question.json"

    def run(self, target: Target, body: bytes, *, connections: int, seconds: float) -> Sample:
        """Ask `target` the same thing again and again, with all its keys in turn, from the first
        on. Raises `Unloaded` if wrk fails."""
        self._body.write_bytes(body)
        command = [str(self._program.path), "-t1", f"-c{connections}", f"-d{seconds:.0f}s"]
        command += ["--timeout", "30s", "-s", str(SCRIPT)]
        for name, value in target.headers.items():
            command += ["-H", f"{name}: {value}"]
        environment = {**self._program.environment, "BENCH_BODY": str(self._body)}
        if target.secrets is not None:
            environment["BENCH_SECRETS"] = str(target.secrets)
        said = finished(
            [*command, target.url],
            core=self._core,
            limit=seconds + GRACE,
            environment=environment,
        )
        lines = [line for line in said.splitlines() if line.startswith(b'{"requests"')]
        if not lines:
            raise Unloaded(f"wrk told no figures: {said.decode().strip()[-300:]}")
        return msgspec.json.decode(lines[-1], type=Sample)
