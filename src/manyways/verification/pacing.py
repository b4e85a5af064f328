"""How fast, and for how much money, models are asked when nobody waits for the answer."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

SLOWEST: Final = 64.0
"""A provider that wants fewer requests is asked up to so many times as slowly."""
FIRST_PAUSE: Final = 1.0
"""Seconds between requests to a provider that wants fewer, where none were set."""


class Pace:
    """When one provider may be asked next. A request begins at least `pause` seconds behind the
    one before it; a provider that says "fewer" is left alone for as long as it wants, and asked
    half as often from then on. Each success makes it a little quicker again."""

    def __init__(
        self,
        pause: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._pause = pause
        self._slowness = 1.0
        self._next = 0.0
        self._queue = asyncio.Lock()
        self._clock = clock
        self._sleep = sleep

    def __repr__(self) -> str:
        return f"<Pace {self._pause:g} s × {self._slowness:g}>"

    async def turn(self) -> None:
        """Returns when a request may begin. Turns come in the order they were asked for."""
        async with self._queue:
            while (wait := self._next - self._clock()) > 0:
                await self._sleep(wait)  # it may be told to rest meanwhile
            self._next = self._clock() + self._pause * self._slowness

    def limited(self, seconds: float) -> None:
        """It wants fewer requests, and none for so many seconds."""
        self._slowness = min(SLOWEST, self._slowness * 2)
        self._pause = self._pause or FIRST_PAUSE
        self._next = max(self._next, self._clock() + seconds)

    def went_well(self) -> None:
        """It answered."""
        self._slowness = max(1.0, self._slowness * 0.95)


class Purse:
    """What one verification may still cost, in USD."""

    def __init__(self, budget: float, *, spent: float = 0.0) -> None:
        self.budget = budget
        self.spent = spent
        self._held = 0.0

    def __repr__(self) -> str:
        return f"<Purse {self.spent:.4f} of {self.budget:g} USD spent>"

    @contextlib.contextmanager
    def hold(self, cost: float) -> Iterator[bool]:
        """Whether so much is left; it is kept from others until the end of the block."""
        fits = self.spent + self._held + cost <= self.budget or cost == 0.0
        if fits:
            self._held += cost
        try:
            yield fits
        finally:
            if fits:
                self._held -= cost

    def pay(self, cost: float) -> None:
        """What it came to."""
        self.spent += cost


class Places:
    """Requests under way: so many at most, over all providers, and so many at each."""

    def __init__(self, count: int, each: int) -> None:
        self.all = asyncio.Semaphore(count)
        self._each = each
        self._of: dict[str, asyncio.Semaphore] = {}

    def of(self, provider: str) -> asyncio.Semaphore:
        """A provider's own. Take one of them first, and of `all` last, when nothing else is to
        be waited for."""
        return self._of.setdefault(provider, asyncio.Semaphore(self._each))
