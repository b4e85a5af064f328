"""An event loop whose clock jumps to the next timer instead of waiting for it.

    with virtual_time() as run:
        run(something_that_sleeps_for_an_hour())

Only for code without sockets: what comes from outside takes real time.
"""

import asyncio
import contextlib
import selectors
from collections.abc import Callable, Coroutine, Iterator
from typing import Any


class _Jump(selectors.DefaultSelector):
    """A selector that does not wait: it moves the clock on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is not None:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop itself; `time()` is virtual seconds."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)
        self._clock_resolution = 1e-6  # sums of years of seconds are no more exact than that

    def time(self) -> float:
        return self._jump.now


@contextlib.contextmanager
def virtual_time() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """A function that runs a coroutine to its end, in virtual time."""
    loop = VirtualLoop()
    try:
        yield loop.run_until_complete
    finally:
        loop.close()
