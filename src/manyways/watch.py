"""A time limit on whatever a task is waiting for, whose end can be moved for free.

A stream moves its idle limit with every event, tens of thousands of times a second, and every
request has several limits that hardly ever run out. A timer of its own for each costs more than
what it watches. So all limits of an event loop share one timer, which looks every 50 ms whose
time has come: a limit may be that much late, and never early.
"""

import asyncio
from types import TracebackType
from typing import Self

TICK = 0.05
"""Seconds between two looks."""


class TimeLimit:
    """`with TimeLimit(5.0) as limit:` raises `TimeoutError` in the task that entered it once
    five seconds have passed since the last `limit.restart(...)`.

    It cancels the task and turns its own cancellation, and no other, into `TimeoutError`,
    as `asyncio.timeout` does. `why` is free for the owner to say what is being waited for.
    """

    __slots__ = ("_cancelling", "_clock", "_due", "_entered", "_expired", "_task",
                 "seconds", "why")  # fmt: skip

    def __init__(self, seconds: float, why: str = "") -> None:
        self.seconds = seconds
        self.why = why
        self._clock = _clock()
        self._due = 0.0
        self._entered = 0
        self._expired = False
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0

    def __repr__(self) -> str:
        state = "expired" if self._expired else "running" if self._task else "idle"
        return f"<TimeLimit {self.why or 'wait'} {self.seconds:g} s {state}>"

    @property
    def expired(self) -> bool:
        """Whether this limit has cancelled its task."""
        return self._expired

    @property
    def awake(self) -> float:
        """Seconds since it was entered, in steps of `TICK`, without those in which the loop stood
        still: what happened meanwhile was not seen to happen, so they say nothing of how long it
        took."""
        return (self._clock.looks - self._entered) * TICK

    def restart(self, seconds: float, why: str | None = None, now: float | None = None) -> None:
        """From now on, `seconds` are left. `now` is for who has just asked the loop's clock."""
        self.seconds = seconds
        if why is not None:
            self.why = why
        self._due = (self._clock.now() if now is None else now) + seconds

    def __enter__(self) -> Self:
        clock = self._clock
        task = asyncio.current_task(clock.loop)
        if task is None:
            raise RuntimeError("a TimeLimit holds for a task")
        self._task = task
        self._cancelling = task.cancelling()
        self._due = clock.now() + self.seconds
        self._entered = clock.looks
        clock.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._clock.limits.discard(self)
        task, self._task = self._task, None
        if not self._expired or task is None:
            return
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError(f"{self.why or 'waiting'} took over {self.seconds:.3g} s") from error

    def ring(self, now: float) -> None:
        """Cancel the task if the time has come. Called by the clock."""
        if self._due <= now and self._task is not None:
            self._expired = True
            self._clock.limits.discard(self)
            self._task.cancel()


class _Clock:
    """The shared timer of one event loop: it runs while there are `limits` to look at, and counts
    its `looks`."""

    __slots__ = ("_running", "limits", "looks", "loop", "now")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.now = loop.time
        self.limits: set[TimeLimit] = set()
        self.looks = 0
        self._running = False

    def add(self, limit: TimeLimit) -> None:
        self.limits.add(limit)
        if not self._running:
            self._running = True
            self.loop.call_later(TICK, self._look)

    def _look(self) -> None:
        self.looks += 1
        now = self.now()
        for limit in tuple(self.limits):
            limit.ring(now)
        self._running = bool(self.limits)
        if self._running:
            self.loop.call_later(TICK, self._look)


_latest: _Clock | None = None


def _clock() -> _Clock:
    """The clock of the running loop. A process has one loop, or one after the other."""
    global _latest  # noqa: PLW0603  (a dictionary of loops would cost more than a limit)
    loop = asyncio.get_running_loop()
    clock = _latest  # another thread with a loop of its own may change it meanwhile
    if clock is None or clock.loop is not loop:
        clock = _latest = _Clock(loop)
    return clock
