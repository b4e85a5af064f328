"""Where Manyways spends its core: a sampling profiler beside one of the works."""

import collections
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from bench import install, wire, works
from bench.failures import Missing, Unloaded
from bench.goals import OURS
from bench.process import pinned
from bench.run import WORK_FOLDER, Run, Settings
from bench.wrk import Wrk

RATE: Final = 400
"""Samples a second."""
SHOWN: Final = 40
LOOP: Final = "event loop, Granian"
_HERTZ: Final = os.sysconf("SC_CLK_TCK")


def profile(work: str, settings: Settings, console: Console) -> None:
    """Print the parts and the functions in which the work holds the interpreter longest, and the
    threads; of the first Manyways among the peers.

    Native code without the interpreter's lock (Granian's threads) shows only as threads.

    Raises `Missing` without the profiler, `Unloaded` when it cannot look inside.
    """
    question, connections = _load(work)
    spy = install.venv("profile").parent / "py-spy"
    peer = next((peer for peer in settings.peers if peer.name.startswith(OURS)), None)
    if peer is None:
        raise Missing("only Manyways can be profiled")
    peer.have()
    run = Run(settings, console.print)
    wrk = Wrk(settings.load_core, WORK_FOLDER)
    raw = WORK_FOLDER / f"profile-{work}.folded"
    with run.upstream(), run.gateway(peer, WORK_FOLDER / peer.name) as (subject, _):
        assert subject.process is not None
        wrk.run(subject.target, question, connections=connections, seconds=2)
        subject.process.settle()  # it counts what those had who left in the middle
        command = [str(spy), "record", "--pid", str(subject.process.pid), "--subprocesses"]
        command += ["--format", "raw", "--output", str(raw), "--rate", str(RATE), "--gil"]
        command += ["--function", "--nonblocking", "--duration", str(int(settings.seconds))]
        before = _threads(subject.process.tree())
        with pinned(settings.load_core):
            watching = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            sample = wrk.run(
                subject.target, question, connections=connections, seconds=settings.seconds + 1
            )
            words, _ = watching.communicate(timeout=30)
        finally:
            watching.kill()
            watching.wait()
        after = _threads(subject.process.tree())
    if watching.returncode or not raw.exists():
        raise Unloaded(f"py-spy failed: {words.decode(errors='replace').strip()[-300:]}")
    rate = f"{sample.per_second:,.0f} answers/s while being watched"
    console.print(f"{peer.label}, {work}: {rate}", highlight=False)
    _show_threads(before, after, console)
    _show_parts(raw.read_text().splitlines(), console)
    _show(raw.read_text().splitlines(), console)
    console.print("every stack is kept in bench/.work, for a flame graph")


def _load(work: str) -> tuple[bytes, int]:
    loads = {
        "unary": (wire.question(stream=False), works.UNARY_CONNECTIONS),
        "dense": (wire.question(stream=True), works.DENSE_CONNECTIONS),
        "paced": (wire.question(stream=True, pace=wire.PACED), works.PACED_STREAMS),
    }
    if work not in loads:
        raise Missing(f"only {', '.join(loads)} can be profiled")
    return loads[work]


def counted(stacks: Sequence[str]) -> tuple[dict[str, int], dict[str, int], int]:
    """Samples by function, of its own and with all it calls, and their sum.

    A line of `stacks` is `outer;inner;innermost COUNT`; a function that calls itself counts once.
    """
    own: collections.Counter[str] = collections.Counter()
    whole: collections.Counter[str] = collections.Counter()
    for line in stacks:
        frames, _, count = line.rpartition(" ")
        names = frames.split(";")
        own[names[-1]] += int(count)
        for name in set(names):
            whole[name] += int(count)
    return dict(own), dict(whole), sum(own.values())


def parts(stacks: Sequence[str]) -> dict[str, int]:
    """Samples by part of Manyways, that of the innermost frame which is its own: what a library
    does counts for who called it. `LOOP` is what nobody of ours asked for."""
    found: collections.Counter[str] = collections.Counter()
    for line in stacks:
        frames, _, count = line.rpartition(" ")
        own = (_part(frame) for frame in reversed(frames.split(";")))
        found[next((part for part in own if part is not None), LOOP)] += int(count)
    return dict(found)


def _part(frame: str) -> str | None:
    """The folder or module that a frame such as `chat (manyways/flow.py:12)` belongs to; of
    `upstream`, the one below it. `None` for other people's code."""
    _, ours, path = frame.rpartition("(manyways/")
    if not ours:
        _, ours, path = frame.rpartition("src/manyways/")
    first, *more = path.partition(":")[0].split("/")
    if not ours:
        return None
    if first in ("cli", "__main__.py"):  # below these lies the event loop
        return LOOP
    return "/".join([first, *more[: first == "upstream"]])


def _show_parts(stacks: Sequence[str], console: Console) -> None:
    found = parts(stacks)
    total = sum(found.values()) or 1
    table = Table("share", "part", title="Parts, with what libraries do for them")
    for part in sorted(found, key=lambda name: found[name], reverse=True):
        table.add_row(f"{found[part] / total:.1%}", part)
    console.print(table)


def _show(stacks: Sequence[str], console: Console) -> None:
    own, whole, total = counted(stacks)
    for title, counts in (("by its own time", own), ("with all it calls", whole)):
        table = Table("own", "whole", "function", title=f"Functions {title}")
        dearest = sorted(counts, key=lambda name: counts[name], reverse=True)
        for name in dearest[:SHOWN]:
            shares = (own.get(name, 0) / total, whole[name] / total)
            table.add_row(*(f"{share:.1%}" for share in shares), _short(name))
        console.print(table)


def _short(frame: str) -> str:
    for root in ("site-packages/", "src/", "lib/python"):
        before, found, after = frame.rpartition(root)
        if found:
            return before.partition("(")[0] + "(" + after
    return frame


def _threads(tree: Sequence[int]) -> dict[str, float]:
    """Processor seconds by thread, for all processes of a tree."""
    seconds: dict[str, float] = {}
    for pid in tree:
        for task in Path(f"/proc/{pid}/task").glob("*/stat"):
            try:
                name, _, fields = task.read_text().rpartition(")")
            except OSError:
                continue
            used = fields.split()
            label = f"{name.partition('(')[2]} {task.parent.name}"
            seconds[label] = (int(used[11]) + int(used[12])) / _HERTZ
    return seconds


def _show_threads(
    before: Mapping[str, float], after: Mapping[str, float], console: Console
) -> None:
    used = {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}
    total = sum(used.values()) or 1.0
    table = Table("share", "seconds", "thread", title="Threads")
    for name, seconds in sorted(used.items(), key=lambda item: -item[1])[:12]:
        table.add_row(f"{seconds / total:.1%}", f"{seconds:.2f}", name)
    console.print(table)
