"""The parent of several workers: it starts them, replaces them, and stops with them.

Workers here are scripts of a few lines, so that each behaves as a test wants.
"""

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from manyways.cli import workers
from manyways.cli.workers import WorkerFailed, Workers

pytestmark = pytest.mark.process

GOOD = """
import os, sys, signal, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
number = sys.argv[sys.argv.index("--worker") + 1]
open(f"{folder}/started-{number}-{os.getpid()}", "w").close()
print("ready", flush=True)
time.sleep(60)
"""
WORDLESS = "import sys; sys.exit(3)"
SILENT = "import time; time.sleep(60)"
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""
CROOKED = """
import sys, signal, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def listeners() -> Iterator[list[socket.socket]]:
    found = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    yield found
    for one in found:
        one.close()


@pytest.fixture
def log() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


def team(
    listeners: list[socket.socket], script: str, folder: Path | None = None, drain: float = 5.0
) -> Workers:
    command = [sys.executable, "-c", f"folder = {str(folder)!r}\n{script}"]
    return Workers(command, listeners, drain)


def started(folder: Path, number: int) -> list[int]:
    return [int(file.name.rpartition("-")[2]) for file in folder.glob(f"started-{number}-*")]


async def eventually(folder: Path, number: int, count: int) -> list[int]:
    async with asyncio.timeout(20):
        while len(found := started(folder, number)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return found


@asynccontextmanager
async def running(workers: Workers) -> AsyncIterator[asyncio.Task[None]]:
    """Until it serves; stopped at the end."""
    ready = asyncio.Event()
    task = asyncio.create_task(workers.run(ready.set))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({task, waiting}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    try:
        yield task
    finally:
        if not task.done():
            os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait({task}, timeout=20)


async def test_each_has_its_number_and_its_socket(
    listeners: list[socket.socket], tmp_path: Path
) -> None:
    script = GOOD + "\n"
    echo = script.replace(
        'print("ready"',
        "import socket\n"
        'listener = socket.socket(fileno=int(sys.argv[sys.argv.index("--listener") + 1]))\n'
        'open(f"{folder}/port-{number}", "w").write(str(listener.getsockname()[1]))\n'
        'print("ready"',
    )
    async with running(team(listeners, echo, tmp_path)) as task:
        ports = [int((tmp_path / f"port-{number}").read_text()) for number in (1, 2)]
        assert ports == [listener.getsockname()[1] for listener in listeners]
    await task


async def test_one_that_dies_is_replaced_and_told_of(
    listeners: list[socket.socket],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    log: list[Any],
) -> None:
    monkeypatch.setattr(workers, "_FIRST_PAUSE", 0.01)
    async with running(team(listeners, GOOD, tmp_path)) as task:
        (first,) = started(tmp_path, 2)
        os.kill(first, signal.SIGKILL)
        heirs = await eventually(tmp_path, 2, 2)
        assert len(set(heirs)) == 2
        assert len(started(tmp_path, 1)) == 1, "the other one lives on"
    await task
    (line,) = [line for line in log if line["event"] == "worker died"]
    assert (line["worker"], line["status"], line["again_in_s"]) == (2, -signal.SIGKILL, 0.01)


async def test_one_that_dies_again_and_again_is_started_less_and_less_often(
    listeners: list[socket.socket],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    log: list[Any],
) -> None:
    monkeypatch.setattr(workers, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(workers, "_LONGEST_PAUSE", 0.04)
    once = f"""
import os, sys
number = sys.argv[sys.argv.index("--worker") + 1]
if number == "1" and os.path.exists("{tmp_path}/before"):
    sys.exit(5)
"""
    async with running(team(listeners, once + GOOD, tmp_path)) as task:
        (tmp_path / "before").touch()
        os.kill(started(tmp_path, 1)[0], signal.SIGKILL)
        async with asyncio.timeout(20):
            while sum(line["event"] == "worker died" for line in log) < 5:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    await task
    pauses = [line["again_in_s"] for line in log if line["event"] == "worker died"]
    assert pauses[:5] == [0.01, 0.02, 0.04, 0.04, 0.04]
    assert any(line["event"] == "worker does not start" for line in log)


async def test_one_that_cannot_start_at_first_ends_them_all(
    listeners: list[socket.socket], tmp_path: Path
) -> None:
    script = 'import sys\nif "2" in sys.argv[-1:]: sys.exit(3)\n' + GOOD
    called: list[bool] = []
    with pytest.raises(WorkerFailed, match="Worker 2 did not start"):
        await team(listeners, script, tmp_path).run(lambda: called.append(True))
    assert called == []
    for process in started(tmp_path, 1):
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.parametrize("script", [WORDLESS, SILENT], ids=["ends", "says nothing"])
async def test_one_that_is_not_ready_in_time_failed(
    listeners: list[socket.socket], script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "START_LIMIT", 0.5)
    began = time.monotonic()
    with pytest.raises(WorkerFailed):
        await team(listeners, script).run(lambda: None)
    assert time.monotonic() - began < 10


async def test_one_that_does_not_stop_is_killed(
    listeners: list[socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    log: list[Any],
) -> None:
    monkeypatch.setattr(workers, "MARGIN", 0.3)
    async with running(team(listeners, DEAF, drain=0.0)) as task:
        pass
    assert task.done()
    assert [line["event"] for line in log].count("worker does not stop, and is killed") == 2


async def test_one_that_does_not_stop_well_is_told_of(
    listeners: list[socket.socket], log: list[Any]
) -> None:
    async with running(team(listeners, CROOKED)) as task:
        pass
    assert task.done()
    assert [line["status"] for line in log if "did not stop well" in str(line["event"])] == [4, 4]
