"""The processes of a run: pinned to a core, watched, and always stopped."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.failures import Died, Unloaded

STOP_LIMIT = 10.0
PRIORITY = -15
_PAGE = os.sysconf("SC_PAGE_SIZE")
_HERTZ = os.sysconf("SC_CLK_TCK")


def finished(
    command: Sequence[str],
    *,
    core: int,
    limit: float,
    question: bytes = b"",
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> bytes:
    """What a command says on its standard output, given `question` on its standard input.

    Raises `Unloaded` when it fails, or takes more than `limit` seconds; it is ended then.
    """
    with pinned(core), tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=_environment(environment or {}),
            cwd=cwd,
            start_new_session=True,
        )
        with process:
            come_first(process.pid)
            try:
                answer, _ = process.communicate(question, timeout=limit)
            except subprocess.TimeoutExpired as error:
                raise Unloaded(f"{command[0]} took more than {limit:.0f} s") from error
            finally:
                process.kill()
        if process.returncode:
            complaints.seek(0)
            words = (complaints.read() or answer).decode(errors="replace").strip()[-300:]
            raise Unloaded(f"{Path(command[0]).name} failed: {words}")
        return answer


def come_first(pid: int) -> None:
    """Let a session go before strangers' programs, where we are allowed to.

    The scheduler weighs sessions before it weighs the processes within (sched(7), autogroup).
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, PRIORITY)
        Path(f"/proc/{pid}/autogroup").write_text(str(PRIORITY))


@contextmanager
def pinned(core: int, *more: int) -> Iterator[None]:
    """What is started inside runs on this core, or these, as does everything it starts itself."""
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core, *more})
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)


def _dying_with_us() -> list[str]:
    """A prefix that has the kernel end a command when the benchmark itself is killed."""
    setpriv = shutil.which("setpriv")
    return [] if setpriv is None else [setpriv, "--pdeathsig", "KILL", "--"]


def _core_seconds(core: int) -> float:
    """Seconds that programs, or other guests of the host, have used of a core since boot."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, _irq, _softirq, steal = map(int, ticks[:8])
            return (user + nice + system + steal) / _HERTZ
    raise ValueError(f"no core {core}")


def free_port() -> int:
    """A port of loopback nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Process:
    """A running command and all its children, on one core, or on several. Use as `with`: it
    ends there.

    Its output goes to `log`.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        core: int,
        more_cores: Collection[int] = (),
        log: Path,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.core = core
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output, pinned(core, *more_cores):
            self.started = time.monotonic()
            self._process = subprocess.Popen(
                [*_dying_with_us(), *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(environment or {}),
                cwd=cwd,
                start_new_session=True,
            )
        come_first(self.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def tree(self) -> list[int]:
        """The process ids of the command and of everything it started that still runs."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (fields := _stat(int(entry.name))) is not None:
                children.setdefault(int(fields[1]), []).append(int(entry.name))
        found = [self.pid]
        for pid in found:
            found.extend(children.get(pid, ()))
        return found

    def memory(self) -> int:
        """Resident bytes of the whole tree."""
        stats = map(_stat, self.tree())
        return sum(int(fields[21]) * _PAGE for fields in stats if fields is not None)

    def cpu(self) -> float:
        """Seconds of processor time the tree has used, those of it that ended included."""
        stats = map(_stat, self.tree())
        ticks = sum(sum(map(int, fields[11:15])) for fields in stats if fields is not None)
        return ticks / _HERTZ

    def check(self) -> None:
        """Raises `Died` when the command runs no more."""
        if (status := self._process.poll()) is not None:
            words = self.log.read_text(errors="replace").strip()[-600:]
            raise Died(f"ended with status {status}: {words}")

    def pause(self) -> None:
        """Take it off its core, so that the next one has it alone."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal_all(signal.SIGCONT)

    def come_first(self) -> None:
        """As the function: for the sessions, too, that it has begun since."""
        for pid in self.tree():
            come_first(pid)

    def settle(self, limit: float = 60.0) -> bool:
        """Wait until it has worked off what was left to do; whether it did within `limit` s.

        Some go on for long with what nobody waits for any more.
        """
        deadline = time.monotonic() + limit
        before = self.cpu()
        while time.monotonic() < deadline:
            time.sleep(0.25)
            now = self.cpu()
            if now - before <= 0.03:
                return True
            before = now
        return False

    def stop(self) -> None:
        """End the whole tree: asked first, then made to. Never raises, may be called again."""
        sessions = {pid: _session(pid) for pid in self.tree()}
        self.resume()
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            pass
        finally:
            for pid, session in sessions.items():
                _kill(pid, session)
            self._signal(signal.SIGKILL)
            self._process.wait(STOP_LIMIT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _signal_all(self, number: signal.Signals) -> None:
        """To the group, and to children that have left it."""
        self._signal(number)
        for pid in self.tree():
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(pid) != self.pid:
                    os.kill(pid, number)

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return


class Cores:
    """Watches what strangers take of the cores that the benchmark works on.

    Ours is this process, what it has waited for, and `processes`.
    """

    def __init__(self, cores: Sequence[int], processes: Sequence[Process]) -> None:
        self._cores = cores
        self._processes = processes

    def foreign(self) -> float:
        """Seconds of all these cores that went to others, the host's other guests included."""
        ours = sum(process.cpu() for process in self._processes) + sum(os.times()[:4])
        return sum(map(_core_seconds, self._cores)) - ours


def _session(pid: int) -> int | None:
    fields = _stat(pid)
    return None if fields is None else int(fields[3])


def _kill(pid: int, session: int | None) -> None:
    """End a straggler of ours. A process id that was given to a stranger meanwhile is spared."""
    if session is None or _session(pid) != session:
        return
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _stat(pid: int) -> list[str] | None:
    """The fields of `/proc/PID/stat` from the state on (proc(5) counts from 1: ours + 3)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Ours, without proxies (loopback needs none) and without settings of other programs."""
    dropped = ("PYTHON", "MANYWAYS", "VIRTUAL_ENV", "LD_LIBRARY_PATH")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(dropped) and not name.lower().endswith("_proxy")
    }
    return kept | {"NO_PROXY": "*"} | dict(more)
