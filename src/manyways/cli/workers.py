"""Several processes that serve one address: started together, replaced when they die.

The parent only watches. Each worker is the same command again, handed a listening socket of its
own and two pipes: it says "ready" on its standard output, and stops when its standard input ends,
so that none outlives a parent that was killed. The system deals out connections among the
sockets; the parent keeps them all open, so that callers of a worker that died wait for the next
one, and are not turned away.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import structlog

from manyways.errors import ManywaysError

READY: Final = b"ready\n"
START_LIMIT: Final = 60.0
"""Seconds a worker may take until it is ready."""
MARGIN: Final = 15.0
"""Seconds beyond `server.drain` after which a worker that does not stop is killed."""
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_LONG_ENOUGH: Final = 60.0
"""Seconds of life after which a death is the first one again."""

log = structlog.get_logger("manyways.workers")


class WorkerFailed(ManywaysError):
    """A worker ended before it was ready; what it had to say stands above."""


class Workers:
    """Runs `command` once for each listener, with the socket's number and its own behind it."""

    def __init__(
        self, command: Sequence[str], listeners: Sequence[socket.socket], drain: float
    ) -> None:
        self._command = command
        self._listeners = listeners
        self._count = len(listeners)
        self._limit = drain + MARGIN
        self._running: dict[int, Process] = {}
        self._told: set[Process] = set()  # to stop
        self._stopping = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Workers {len(self._running)} of {self._count}>"

    async def run(self, ready: Callable[[], None]) -> None:
        """Until SIGTERM or SIGINT, then until the last has stopped. `ready` is called once all
        of them serve. Raises `WorkerFailed` where one cannot start at first."""
        with self._signals():
            try:
                numbers = range(self._count)
                starts = (self._start(number) for number in numbers)
                for failure in await asyncio.gather(*starts, return_exceptions=True):
                    if failure is not None:
                        raise failure
                if not self._stopping.is_set():
                    ready()
                keepers = [asyncio.create_task(self._keep(number)) for number in numbers]
                stopping = asyncio.create_task(self._stopping.wait())
                await asyncio.wait({stopping, *keepers}, return_when=asyncio.FIRST_COMPLETED)
                await self._stop()
                await asyncio.gather(stopping, *keepers)
            finally:
                await self._stop()

    async def _start(self, number: int) -> None:
        listener = self._listeners[number].fileno()
        process = await asyncio.create_subprocess_exec(
            *self._command,
            "--listener",
            str(listener),
            "--worker",
            str(number + 1),
            stdin=PIPE,
            stdout=PIPE,
            pass_fds=(listener,),
            start_new_session=True,  # the terminal's Ctrl-C is passed on by us, and once
        )
        self._running[number] = process
        if self._stopping.is_set():
            self._tell(process)
        if process.stdout is None:
            raise RuntimeError("a worker without a pipe")
        said = b""
        try:
            async with asyncio.timeout(START_LIMIT):
                said = await process.stdout.readline()
        except TimeoutError:
            process.kill()
        if said != READY and not self._stopping.is_set():
            await process.wait()
            raise WorkerFailed(f"Worker {number + 1} did not start; what it said stands above.")

    async def _keep(self, number: int) -> None:
        """Replace a worker as often as it dies, with a growing pause in between."""
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            began = loop.time()
            status = await self._running[number].wait()
            if self._stopping.is_set():
                return
            if loop.time() - began > _LONG_ENOUGH:
                pause = _FIRST_PAUSE
            log.error("worker died", worker=number + 1, status=status, again_in_s=pause)
            await self._pause(pause)
            pause = min(_LONGEST_PAUSE, pause * 2)
            if not self._stopping.is_set():
                try:
                    await self._start(number)
                except WorkerFailed as failure:
                    log.warning("worker does not start", reason=str(failure))

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def _stop(self) -> None:
        self._stopping.set()
        for process in self._running.values():
            if process not in self._told:
                self._tell(process)
        told, self._told = self._told, set()
        if not told:
            return
        _, late = await asyncio.wait(
            [asyncio.create_task(process.wait()) for process in told], timeout=self._limit
        )
        for process in told:
            if process.returncode is None:
                log.error("worker does not stop, and is killed", pid=process.pid)
                process.kill()
            elif process.returncode not in {0, -signal.SIGTERM}:  # that one had just begun
                log.error("worker did not stop well", pid=process.pid, status=process.returncode)
        if late:
            await asyncio.wait(late)

    def _tell(self, process: Process) -> None:
        """Ask one to stop, if it runs."""
        if process.returncode is None:
            process.terminate()
            self._told.add(process)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, self._heard)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _heard(self) -> None:
        """Passed on at once, and each time: a second signal means that nobody should wait."""
        self._stopping.set()
        for process in self._running.values():
            self._tell(process)


def follow_parent() -> None:
    """In a worker: stop, as on SIGTERM, when the parent is gone."""

    entrance = sys.stdin.fileno()

    def watch() -> None:
        # Not through sys.stdin: whoever waits inside it at the end makes Python abort.
        while os.read(entrance, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
