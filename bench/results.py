"""What a run found out, as it is kept in `bench/results.json`."""

import datetime as dt
import os
import platform
import re
from pathlib import Path
from typing import Final

import msgspec

from bench.figures import Figure

DIRECT: Final = "direct"
"""The row of the upstream itself, asked without a gateway."""


class Metric(msgspec.Struct, frozen=True):
    """A column: what is measured, in which unit, and whether more of it is better."""

    name: str
    title: str
    unit: str
    more_is_better: bool


METRICS: Final = (
    Metric("unary", "whole answers", "/s", more_is_better=True),
    Metric("dense", "dense streams", "/s", more_is_better=True),
    Metric("paced", "paced streams", "/s", more_is_better=True),
    Metric("crowd", "paced streams, twice as many", "/s", more_is_better=True),
    Metric("paced_cpu", "processor a paced chunk", "µs", more_is_better=False),
    Metric("added_p50", "added latency p50", "ms", more_is_better=False),
    Metric("added_p90", "added latency p90", "ms", more_is_better=False),
    Metric("added_p99", "added latency p99", "ms", more_is_better=False),
    Metric("idle", "memory idle", "MB", more_is_better=False),
    Metric("stream", "memory a stream", "kB", more_is_better=False),
    Metric("upstream_side", "memory a stream upstream", "kB", more_is_better=False),
    Metric("start", "start to first answer", "s", more_is_better=False),
)


class Machine(msgspec.Struct, frozen=True):
    """Where it was measured."""

    cpu: str
    cores: int
    kernel: str
    system: str
    python: str


class Settings(msgspec.Struct, frozen=True):
    """How it was measured."""

    seconds: float
    rounds: int
    rate: int
    unary_connections: int
    dense_connections: int
    paced_streams: int
    chunks: int
    crowd_streams: int = 0
    silent_streams: int = 0


class Row(msgspec.Struct):
    """A gateway, or the upstream itself. `busy` is the share of its core it used, by work."""

    name: str
    label: str
    version: str = ""
    note: str = ""
    figures: dict[str, Figure] = {}
    busy: dict[str, Figure] = {}
    remarks: list[str] = []

    def remark(self, text: str) -> None:
        """Note something a reader must know; the same thing is noted once."""
        text = discreet(text)
        if text not in self.remarks:
            self.remarks.append(text)


class Results(msgspec.Struct):
    """One run: figures of the same hour, on the same machine."""

    date: str
    machine: Machine
    settings: Settings
    rows: list[Row]
    absent: dict[str, str]
    """Peers that could not be had or did not answer right, with the reason."""
    disturbance: float = 0.0
    """The most that strangers took of the two cores in any measurement, in cores."""

    def row(self, name: str) -> Row | None:
        """The row of that name, if it was measured."""
        return next((row for row in self.rows if row.name == name), None)

    def write(self, path: Path) -> None:
        """Keep it as JSON that can be compared line by line."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")


def discreet(text: str) -> str:
    """The first line of a complaint, fit to be published: addresses and paths are taken out."""
    line = text.strip().partition("\n")[0]
    return re.sub(r"[a-z]+://[^\s'\"]+|(?<![\w.])/[\w.-]+/[^\s'\"]*", "[...]", line)[:200]


def read(path: Path) -> Results:
    """What `Results.write` kept. Raises `OSError`, `msgspec.DecodeError`."""
    return msgspec.json.decode(path.read_bytes(), type=Results)


def today() -> str:
    """The date in UTC, ISO 8601."""
    return dt.datetime.now(dt.UTC).date().isoformat()


def this_machine() -> Machine:
    """The facts that figures depend on; nothing that identifies the machine."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return Machine(
        cpu=models[0] if models else platform.machine(),
        cores=os.cpu_count() or 1,
        kernel=platform.release().partition("-")[0],
        system=platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        python=platform.python_version(),
    )
