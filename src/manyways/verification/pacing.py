"""How fast, and for how much money, models are asked when nobody waits for the answer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Final

from manyways.errors import ManywaysError

SLOWEST: Final = 64.0
"""A provider that wants fewer requests is asked up to so many times as slowly."""
FIRST_PAUSE: Final = 1.0
"""Seconds between requests to a provider that wants fewer, where none were set."""
MOST_REFUSALS: Final = 16
"""Requests in a row that a provider wants later: then it is asked nothing more."""


MOST_SILENCES: Final = 8
"""Requests in a row that a provider did not answer in time: the same."""


class Postponed(ManywaysError):
    """Nothing was found out this time: the provider wants fewer requests, or it would cost more
    than it may. `asked` tells whether it was asked at all, `soon` whether that need not wait for
    another day."""

    def __init__(self, words: str, *, asked: bool, soon: bool = False) -> None:
        super().__init__(words)
        self.asked = asked
        self.soon = soon


class Pace:
    """When one provider may be asked next. A request begins at least `pause` seconds behind the
    one before it; a provider that says "fewer" is left alone for as long as it wants, and asked
    half as often from then on. Each success makes it a little quicker again. One that says so
    `MOST_REFUSALS` times in a row is left alone, and one that has fallen silent, too."""

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._slowness = 1.0
        self._next = self._rests_until = 0.0  # of the loop's clock
        self._refusals = self._silences = 0  # in a row
        self._queue = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Pace {self._pause:g} s × {self._slowness:g}>"

    @contextlib.asynccontextmanager
    async def turn(self, places: asyncio.Semaphore) -> AsyncIterator[None]:
        """A request, from its beginning to its end, in one of `places`. Turns come in the order
        they were asked for, and only the first who waits for one waits for a place. Raises
        `Postponed`: whoever has no turn was not asked, and nothing is known of it."""
        async with self._queue:
            while True:
                await self._waited()
                await places.acquire()
                if self._next <= _now():
                    break
                places.release()  # it was told to rest meanwhile
            self._next = _now() + self._pause * self._slowness
        try:
            yield
        finally:
            places.release()

    def limited(self, seconds: float) -> None:
        """It wants fewer requests, and none for so many seconds. What it says to several that
        were under way together makes it slower only once."""
        now = _now()
        if now >= self._rests_until:
            self._slowness = min(SLOWEST, self._slowness * 2)
        self._pause = self._pause or FIRST_PAUSE
        self._refusals += 1
        self._rests_until = max(self._rests_until, now + seconds)
        self._next = max(self._next, self._rests_until)

    def silent(self) -> None:
        """It did not answer in time."""
        self._silences += 1

    def went_well(self) -> None:
        """It answered."""
        self._refusals = self._silences = 0
        self._slowness = max(1.0, self._slowness * 0.95)

    @property
    def trouble(self) -> str | None:
        """Why the provider is left alone; `None` where it is not."""
        if self._refusals >= MOST_REFUSALS:
            return f"its provider wants no more: it refused {self._refusals} in a row"
        if self._silences >= MOST_SILENCES:
            return f"its provider left {self._silences} in a row without an answer"
        return None

    def trust(self) -> None:
        """Whoever begins finds out for itself whether it wants more, and whether it is there."""
        self._refusals = self._silences = 0

    async def _waited(self) -> None:
        while True:
            if (trouble := self.trouble) is not None:
                raise Postponed(trouble, asked=False, soon=self._refusals < MOST_REFUSALS)
            wait = self._next - _now()
            if wait <= 0:
                return
            await asyncio.sleep(wait)  # it may be told to rest meanwhile


class Purse:
    """What one verification may still cost, in USD. Of several providers, none gets more than
    `share` of it: what its models cost is its own word."""

    def __init__(self, budget: float, *, spent: float = 0.0, share: float = 1.0) -> None:
        self.budget = budget
        self.spent = spent
        self.share = share
        self.refused = 0
        """Requests that were not made, for they might have cost more than was left."""
        self._spent_at: dict[str, float] = {}
        self._held = 0.0
        self._holders = 0
        self._returned = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Purse {self.spent:.4f} of {self.budget:g} USD spent>"

    @contextlib.asynccontextmanager
    async def hold(self, cost: float, provider: str = "") -> AsyncIterator[bool]:
        """Whether so much is left; it is kept from others until the end of the block. As long as
        what others hold may come back, it is waited for."""
        while cost and self._fits(cost) and not self._fits(cost + self._held):
            await self._returned.wait()
        own = self._spent_at.get(provider, 0.0) + cost
        fits = not cost or (self._fits(cost + self._held) and own <= self.budget * self.share)
        held = cost if fits else 0.0
        self.refused += not fits
        self._held += held
        self._holders += 1
        try:
            yield fits
        finally:
            self._holders -= 1
            self._held = self._held - held if self._holders else 0.0  # sums of floats drift
            self._returned.set()
            self._returned = asyncio.Event()

    def pay(self, cost: float, provider: str = "") -> None:
        """What it came to."""
        self.spent += cost
        self._spent_at[provider] = self._spent_at.get(provider, 0.0) + cost

    def _fits(self, cost: float) -> bool:
        return self.spent + cost <= self.budget


class Places:
    """Requests under way: so many at most, over all providers, and so many at each, those that
    wait for their turn included."""

    def __init__(self, count: int, each: int) -> None:
        self.all = asyncio.Semaphore(count)
        self._each = each
        self._of: dict[str, asyncio.Semaphore] = {}

    def of(self, provider: str) -> asyncio.Semaphore:
        """A provider's own: take one of them first, and of `all` in its `Pace`."""
        return self._of.setdefault(provider, asyncio.Semaphore(self._each))


class Manners:
    """How providers are asked, by all that ask them at a time: `count` requests at once, `each` at
    one provider, and a pace for each of them, with its own of `pauses` or the usual one."""

    def __init__(
        self, *, count: int, each: int, pause: float, pauses: Mapping[str, float] | None = None
    ) -> None:
        self.places = Places(count, each)
        self._pause = pause
        self._pauses = pauses or {}
        self._paces: dict[str, Pace] = {}

    def __repr__(self) -> str:
        return f"<Manners towards {len(self._paces)} providers>"

    def pace(self, provider: str) -> Pace:
        """A provider's, the same each time."""
        if provider not in self._paces:
            self._paces[provider] = Pace(self._pauses.get(provider, self._pause))
        return self._paces[provider]


def _now() -> float:
    return asyncio.get_running_loop().time()
