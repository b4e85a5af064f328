"""The embedded model, kept alive: a child process, its address, and its next life.

    idle ──start──▶ starting ──its address──▶ ready
                     ▲    │ died, or mute        │ died, or mute
                     │    ▼                      ▼
                     └── resting ◀───────────────┘

`stop` leads from anywhere to `stopped`, and what is not installed from `start` to `missing`;
both are final. A rest doubles with each death from half a second to half a minute, and is
short again after a life of a minute. A child that gives no sign of life is killed, which ends
the requests that it holds.
"""

import asyncio
import contextlib
import json
import random
import secrets
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal

import msgspec
import structlog

from manyways.errors import ConnectFailed, Refusal
from manyways.types import Provider
from manyways.upstream import local_child
from manyways.upstream.openai import OpenAIProvider
from manyways.upstream.transport import Limits, Response, Transport

State = Literal["idle", "starting", "ready", "resting", "stopped", "missing"]

COMMAND: Final = (sys.executable, "-P", "-m", "manyways.upstream.local_child")
"""`-P`: a file in the working directory must not stand in for a module."""

FIRST_REST: Final = 0.5
LONGEST_REST: Final = 30.0
STABLE: Final = 60.0
"""Seconds of life after which the next death counts as the first."""

START_LIMIT: Final = 60.0
"""Seconds in which a child must tell its address: a large file on a slow disk."""

END_LIMIT: Final = 2.0
"""Seconds a child has to end by itself once its standard input has."""

BEATS: Final = 8
"""Signs of life that may fail to come in a row: a child that is late is not mute."""

_LAST_LINES: Final = 20
_LINE: Final = 400
_READ: Final = 4096

log = structlog.get_logger("manyways.local")


class LocalModel:
    """Supervises the child. Use from one event loop.

    `api_key` is what the child wants to see; it is the same in all its lives. `pause` and
    `clock` are how time passes, `command` is what is run.
    """

    def __init__(
        self,
        command: Sequence[str] | None = None,
        *,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.api_key = secrets.token_urlsafe(32)
        self._command = tuple(command or COMMAND)
        self._embedded = command is None
        self._pause = pause
        self._clock = clock
        self._chance = chance
        self._state: State = "idle"
        self._address = ""  # where the child listens, exactly while ready
        self._pid: int | None = None  # of the child, while there is one
        self._deaths = 0
        self._trouble = "it has not been started"  # why it is not ready, in words
        self._settled = asyncio.Event()  # set while waiting is of no use: ready, or final
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        at = f" at {self._address}" if self._address else ""
        return f"<LocalModel {self._state}{at}, deaths: {self._deaths}>"

    @property
    def state(self) -> State:
        """Where in its life it is."""
        return self._state

    @property
    def pid(self) -> int | None:
        """The child's process, while there is one."""
        return self._pid

    def start(self) -> None:
        """Begin to keep a child alive. Returns at once; starting twice changes nothing."""
        if self._state != "idle":
            return
        if self._embedded and (what := local_child.missing()) is not None:
            log.error("embedded model missing", cure=what)
            self._become("missing", what)
            return
        self._become("starting", "it is being loaded")
        self._task = asyncio.get_running_loop().create_task(self._live(), name="local model")

    async def address(self, limit: float) -> str:
        """The child's base URL, up to and including `/v1`, once it is ready.

        Raises `ConnectFailed` if it is not within `limit` seconds, or never will be.
        """
        try:
            async with asyncio.timeout(limit):
                await self._settled.wait()
        except TimeoutError:
            raise ConnectFailed(
                f"the embedded model is not ready after {limit:g} s: {self._trouble}"
            ) from None
        if self._state != "ready":
            raise ConnectFailed(f"the embedded model does not run: {self._trouble}")
        return self._address

    async def stop(self) -> None:
        """End the child and wait until it is gone. Stopping twice changes nothing."""
        self._become("stopped", "it was stopped")
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=2 * END_LIMIT)

    def _become(self, state: State, trouble: str = "", address: str = "") -> None:
        if self._state in {"stopped", "missing"}:
            return
        self._state, self._trouble, self._address = state, trouble, address
        if state in {"ready", "stopped", "missing"}:
            self._settled.set()
        else:
            self._settled.clear()

    async def _live(self) -> None:
        """One life after another."""
        rest = FIRST_REST
        while True:
            born = self._clock()
            reason = await self._one_life()
            self._deaths += 1
            if self._clock() - born >= STABLE:
                rest = FIRST_REST
            # Spread, so that many gateways on one machine don't load all at the same moment.
            seconds = min(LONGEST_REST, rest * (0.75 + 0.5 * self._chance()))
            rest = min(LONGEST_REST, rest * 2)
            self._become("resting", reason)
            log.warning("embedded model died", reason=reason, again_in=round(seconds, 2))
            await self._pause(seconds)
            self._become("starting", reason)

    async def _one_life(self) -> str:
        """From the child's birth to its end, which is our doing if it is mute, or if we are
        cancelled. Why it ended, in words."""
        try:
            child = await asyncio.create_subprocess_exec(
                *self._command, stdin=PIPE, stdout=PIPE, stderr=PIPE
            )
        except OSError as error:
            return f"it cannot be started: {error.strerror}"
        self._pid = child.pid
        last_words = _LastWords()
        listening = asyncio.create_task(last_words.hear(child), name="local model's stderr")
        address, how = None, "it told no address, and ended"
        try:
            address = await self._introduced(child)
            if address is not None:
                self._become("ready", address=address)
                log.info("embedded model ready", pid=child.pid)
                mute = await _fell_silent(child)
                seconds = BEATS * local_child.BEAT
                how = (
                    f"it gave no sign of life for {seconds:g} s, and ended" if mute else "it ended"
                )
                self._become("resting", how)  # nobody is sent there while it goes
                if mute:
                    child.kill()
        finally:
            self._pid = None
            await _end(child, listening)
        return f"{how} with status {child.returncode}{last_words}"

    async def _introduced(self, child: Process) -> str | None:
        """Hand the key over; the base URL that the child answers with, if it does."""
        if child.stdin is None or child.stdout is None:
            raise RuntimeError("a child without pipes")
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            async with asyncio.timeout(START_LIMIT):  # its TimeoutError is an OSError
                child.stdin.write(json.dumps({"api_key": self.api_key}).encode() + b"\n")
                await child.stdin.drain()
                answer = await child.stdout.readline()
            return f"{json.loads(answer)['address']}/v1"
        return None


class LocalProvider(OpenAIProvider):
    """The embedded model, asked. llama.cpp's server counts the tokens of one answer only, however
    many are asked for: so here it gives one."""

    def __init__(self, provider: Provider, transport: Transport, model: LocalModel) -> None:
        super().__init__(provider, transport, address=model, api_keys=(model.api_key,))

    def label(self, credential: int) -> str:  # noqa: ARG002  (there is only one)
        """The child's key is made anew at each start, and stands in nobody's configuration."""
        return "no key"

    async def chat(
        self, body: bytes, limits: Limits, *, stream: bool, credential: int = 0
    ) -> Response:
        """As every provider's; also raises `Refusal` where several answers are asked for."""
        if (_decode_asked(body).n or 1) > 1:
            raise Refusal(
                "not_supported",
                "n: the embedded model gives one answer to a request; leave n out, or name"
                " another model.",
                param="n",
            )
        return await super().chat(body, limits, stream=stream, credential=credential)


class _Asked(msgspec.Struct):
    n: int | None = None


_decode_asked = msgspec.json.Decoder(_Asked).decode


async def _fell_silent(child: Process) -> bool:
    """Wait for the end of its signs of life: whether they only fail to come.

    Waited for one by one: if it was us who stood still, those that came meanwhile are heard.
    """
    missed = 0
    while missed < BEATS and child.stdout is not None:
        try:
            async with asyncio.timeout(local_child.BEAT):
                if not await child.stdout.read(_READ):
                    return False
            missed = 0
        except TimeoutError:
            missed += 1
    return True


async def _end(child: Process, listening: asyncio.Task[None]) -> None:
    """See the child off, whatever state it is in, and us."""
    try:
        if child.stdin is not None:
            child.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_LIMIT):
                await child.wait()
    finally:
        if child.returncode is None:
            child.kill()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_LIMIT):
                await child.wait()
        # Its pipes are closed once they are read to their ends.
        emptying = asyncio.create_task(_read_out(child.stdout), name="local model's stdout")
        await asyncio.wait([listening, emptying], timeout=END_LIMIT)
        listening.cancel()
        emptying.cancel()


async def _read_out(pipe: asyncio.StreamReader | None) -> None:
    while pipe is not None and await pipe.read(_READ):
        pass


class _LastWords:
    """The end of what a child said on stderr, in bounded memory."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._open = b""

    def __str__(self) -> str:
        lines = [*self._lines, self._open.decode(errors="replace")]
        said = " | ".join(line.strip() for line in lines if line.strip())
        return f"; its last words: {said}" if said else ""

    async def hear(self, child: Process) -> None:
        """Read stderr to its end."""
        if child.stderr is None:
            return
        while data := await child.stderr.read(_READ):
            *lines, self._open = (self._open + data).split(b"\n")
            self._lines.extend(line[-_LINE:].decode(errors="replace") for line in lines)
            self._open = self._open[-_LINE:]
