"""The benchmark's processes: on their core, measured whole, and never left behind."""

import os
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from bench.failures import Died
from bench.process import Cores, Process, free_port, pinned

CORE = min(os.sched_getaffinity(0))
FOREVER = "sleep 600 & echo started; wait"


def _started(process: Process, *, processes: int) -> list[int]:
    """Its tree, once it has come to that many."""
    deadline = time.monotonic() + 20
    while len(tree := process.tree()) < processes:
        assert time.monotonic() < deadline
        process.check()
        os.sched_yield()
    return tree


def _state(pid: int) -> str:
    """As in `/proc/PID/stat`; `Z` also where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def _reaches(pid: int, *, stopped: bool) -> None:
    deadline = time.monotonic() + 20
    while (_state(pid) == "T") != stopped:
        assert time.monotonic() < deadline
        os.sched_yield()


def _runs(pid: int) -> bool:
    return _state(pid) != "Z"


def _ended(tree: Iterable[int]) -> None:
    """A killed process takes the system a moment to end."""
    deadline = time.monotonic() + 5
    while any(map(_runs, tree)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_children_are_counted_pinned_and_stopped_with_their_parent(tmp_path: Path) -> None:
    with Process(["sh", "-c", FOREVER], core=CORE, log=tmp_path / "log") as process:
        tree = _started(process, processes=2)
        assert all(os.sched_getaffinity(pid) == {CORE} for pid in tree)
        assert process.memory() > 100_000
        assert process.cpu() < 5
    _ended(tree)


def test_a_paused_process_can_be_stopped(tmp_path: Path) -> None:
    with Process(["sh", "-c", FOREVER], core=CORE, log=tmp_path / "log") as process:
        tree = _started(process, processes=2)
        process.pause()
    _ended(tree)


def test_a_child_with_a_session_of_its_own_is_paused_and_stopped_too(tmp_path: Path) -> None:
    command = ["sh", "-c", "setsid sleep 600 & echo started; wait"]
    with Process(command, core=CORE, log=tmp_path / "log") as process:
        tree = _started(process, processes=2)
        child = tree[1]
        while os.getsid(child) == process.pid:
            os.sched_yield()
        process.pause()
        _reaches(child, stopped=True)
        process.resume()
        _reaches(child, stopped=False)
    _ended(tree)


def test_one_that_ended_by_itself_tells_its_last_words(tmp_path: Path) -> None:
    with Process(["sh", "-c", "echo no good; exit 3"], core=CORE, log=tmp_path / "log") as process:
        with pytest.raises(Died, match="status 3: no good"):
            _started(process, processes=99)
        process.stop()


def test_settings_of_other_programs_and_proxies_do_not_reach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("MANYWAYS__SERVER__PORT", "1")
    log = tmp_path / "log"
    process = Process(["env"], core=CORE, log=log, environment={"OURS": "1"})
    with process, pytest.raises(Died):
        _started(process, processes=99)
    told = log.read_text()
    assert "OURS=1" in told
    assert "HTTP_PROXY" not in told
    assert "MANYWAYS__" not in told


def test_pinning_is_undone() -> None:
    before = os.sched_getaffinity(0)
    with pinned(CORE):
        assert os.sched_getaffinity(0) == {CORE}
    assert os.sched_getaffinity(0) == before


def test_our_own_time_is_not_foreign() -> None:
    cores = Cores(sorted(os.sched_getaffinity(0)), [])
    before, ours = cores.foreign(), os.times()
    while os.times().user - ours.user < 0.1:
        sum(range(10_000))
    everyone = os.cpu_count() or 1
    passed = os.times().elapsed - ours.elapsed
    assert -0.05 <= cores.foreign() - before <= passed * everyone - 0.05


def test_a_free_port_can_be_had_twice() -> None:
    assert 1024 < free_port() < 65536
