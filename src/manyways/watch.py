"""A time limit on whatever a task is waiting for, whose end can be moved for free.

A stream moves its idle limit with every event, tens of thousands of times a second. A timer
cancelled and set anew each time costs more than the event; so this one is left to ring, and
looks then whether the limit has moved in the meantime.
"""

import asyncio
from types import TracebackType
from typing import Self


class TimeLimit:
    """`with TimeLimit(5.0) as limit:` raises `TimeoutError` in the task that entered it once
    five seconds have passed since the last `limit.restart(...)`.

    It cancels the task and turns its own cancellation, and no other, into `TimeoutError`,
    as `asyncio.timeout` does. `why` is free for the owner to say what is being waited for.
    """

    __slots__ = ("_cancelling", "_due", "_expired", "_handle", "_loop", "_task", "seconds", "why")

    def __init__(self, seconds: float, why: str = "") -> None:
        self._loop = asyncio.get_running_loop()
        self.seconds = seconds
        self.why = why
        self._due = 0.0
        self._expired = False
        self._handle: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0

    def __repr__(self) -> str:
        state = "expired" if self._expired else "running" if self._handle else "idle"
        return f"<TimeLimit {self.why or 'wait'} {self.seconds:g} s {state}>"

    @property
    def expired(self) -> bool:
        """Whether this limit has cancelled its task."""
        return self._expired

    def restart(self, seconds: float, why: str | None = None) -> None:
        """From now on, `seconds` are left."""
        self.seconds = seconds
        if why is not None:
            self.why = why
        self._due = due = self._loop.time() + seconds
        if self._handle is not None and self._handle.when() > due:
            self._handle.cancel()
            self._handle = self._loop.call_at(due, self._ring)

    def _ring(self) -> None:
        if self._loop.time() < self._due:
            self._handle = self._loop.call_at(self._due, self._ring)
            return
        self._handle = None
        self._expired = True
        if self._task is not None:
            self._task.cancel()

    def __enter__(self) -> Self:
        self._task = asyncio.current_task(self._loop)
        if self._task is None:
            raise RuntimeError("a TimeLimit holds for a task")
        self._cancelling = self._task.cancelling()
        self._due = self._loop.time() + self.seconds
        self._handle = self._loop.call_at(self._due, self._ring)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        task, self._task = self._task, None
        if not self._expired or task is None:
            return
        if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError(f"{self.why or 'waiting'} took over {self.seconds:g} s") from error
