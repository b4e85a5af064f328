"""The closed-loop load: wrk, with as many connections as asked, each waiting for its answer."""

import os
import subprocess
from pathlib import Path

import msgspec

from bench import install
from bench.failures import Unloaded
from bench.process import pinned
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
        """Ask `target` the same thing again and again. Raises `Unloaded` if wrk fails."""
        self._body.write_bytes(body)
        command = [str(self._program.path), "-t1", f"-c{connections}", f"-d{seconds:.0f}s"]
        command += ["--timeout", "30s", "-s", str(SCRIPT)]
        for name, value in target.headers.items():
            command += ["-H", f"{name}: {value}"]
        environment = os.environ | self._program.environment | {"BENCH_BODY": str(self._body)}
        with pinned(self._core):
            done = subprocess.run(
                [*command, target.url],
                capture_output=True,
                text=True,
                timeout=seconds + GRACE,
                check=False,
                env=environment,
            )
        lines = [line for line in done.stdout.splitlines() if line.startswith('{"requests"')]
        if done.returncode or not lines:
            raise Unloaded(f"wrk failed: {(done.stderr or done.stdout).strip()[-300:]}")
        return msgspec.json.decode(lines[-1], type=Sample)
