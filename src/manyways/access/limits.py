"""How much a caller may use: reserved before a model is asked, settled once the answer is there.

A limit is borne by a scope: a key, or an account. All limits of all scopes of a caller are looked
at and taken from in one step, so that a request takes from all of them or from none.

    requests, tokens    at most so many in any span of the window's length, never one over
    concurrent          at once
    quota               in a calendar day or month (UTC), or ever

Tokens and costs are not known before an answer is there. What a request may use at most is
reserved, and the true figure takes its place when the reservation is settled; so what runs at the
same time cannot be over a limit together. An answer that turns out larger than was reserved
counts whole: the limit may then be over, and nobody new gets in until it is not.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, NamedTuple, Protocol

from msgspec import Struct

from manyways.access.bearers import Bearer, Share
from manyways.access.meters import MOST, Need, billionths
from manyways.access.obstacles import Obstacle, check_size
from manyways.access.windows import NO_LIMIT, Window
from manyways.errors import Refusal
from manyways.types import Caller, Period, Scope


class Demand(Struct, frozen=True, kw_only=True):
    """What a request may use at most: `tokens` of prompt and answer together, `cost` in USD; and
    what it may use with the shortest answer, `least_tokens` and `least_cost`, which are no more.

    `fixed`: the caller has set the length of the answer itself. Then the most has to fit into
    every limit. Otherwise the least has. Into what is left of a quota the least has to fit as
    well, and as much of the rest is reserved as there is: only the answer itself can tell what it
    takes. A window of tokens renews, and waiting helps: it has to have room for the most, or,
    where that is more than its whole limit, to be empty, and all of it is reserved.
    """

    tokens: int = 0
    cost: float = 0.0
    least_tokens: int = 0
    least_cost: float = 0.0
    fixed: bool = False


class Standing(NamedTuple):
    """Where a caller stands with its limit of requests; of several the one with the least left.

    `remaining` is what is left after this request. `reset` is the Unix second, rounded up, at
    which the oldest request that counts leaves the window.
    """

    limit: int
    remaining: int
    reset: int


class LimitReached(Refusal):
    """A limit refuses. `retry_after` is set: who waits that long, and is alone, gets in.

    `code` is `rate_limit_exceeded` (a window), `quota_exceeded` or `concurrent_requests`.
    """

    def __init__(self, caller: Caller, obstacle: Obstacle, standing: Standing | None) -> None:
        """`obstacle` is the one that keeps the caller waiting longest."""
        super().__init__(obstacle.code, obstacle.message(caller), retry_after=obstacle.wait)
        self.obstacle = obstacle
        self.standing = standing


class Reservation(Protocol):
    """What a request has taken from its limits, until it is settled."""

    @property
    def standing(self) -> Standing | None:
        """As the answer's headers tell it; `None` where requests are not limited."""
        ...

    def release(self) -> None:
        """The request runs no more, though what it has used is yet to be found out: its place
        among those that run at once is free, and the rest is held until it is settled."""
        ...

    def settle(self, *, counted: bool, tokens: int, cost: float) -> None:
        """The request is over, and has used so much (`cost` in USD). To be called once, however
        it ended; at once, never fails, and a second call does nothing.

        `counted=False` gives the request itself back: it failed through no fault of the caller.
        """
        ...


class Limits(Protocol):
    """Who keeps count."""

    def admit(self, caller: Caller, demand: Demand) -> Reservation | None:
        """Reserve from memory, at once. `None` says nothing yet: ask `reserve`.

        Raises `LimitReached`, and `Refusal` where the demand can never be met.
        """
        ...

    async def reserve(self, caller: Caller, demand: Demand) -> Reservation:
        """Reserve, asking the database or Redis first where that is needed.

        Raises as `admit` does, and `StoreError` where what was used before cannot be found out.
        """
        ...

    def peek(self, caller: Caller) -> Standing | None:
        """Where the caller stands, without counting anything: for answers to requests that were
        refused before they were counted. `None` also where it is not known yet."""
        ...


class Totals(NamedTuple):
    """What was used in a period; `cost` in USD."""

    requests: int = 0
    tokens: int = 0
    cost: float = 0.0


class Past(Struct, kw_only=True):
    """What a scope used before this process counted it.

    `requests` are those that count, in any order and in slices of time: how many seconds ago the
    latest of a slice was admitted, how many they were, and their tokens; as far back as the
    scope's longest window reaches. `totals` are of the current
    period (as in `Totals`), for each that the scope has a quota of; an absent one is empty.
    """

    requests: list[tuple[float, int, int]] = []
    totals: Mapping[Period, tuple[int, int, float]] = {}


Load = Callable[[Scope], Awaitable[Past]]
"""Finds out a scope's past, in bounded time. Raises `StoreError`."""


MOST_BEARERS: Final = 100_000
LOOKED_AT: Final = 4
"""Bearers that are looked at for each new one, whether they can be forgotten."""
LOOKS: Final = 64
"""That many at a time, and no more: those that came last are not looked at."""


class Unlimited:
    """The reservation of a caller whom nothing limits."""

    standing: Final = None

    def release(self) -> None:
        """Nothing was taken."""

    def settle(self, *, counted: bool, tokens: int, cost: float) -> None:
        """Nothing was taken."""


UNLIMITED: Final = Unlimited()
_LEAST: Final = Need(1, 1, 1, 1)


def need_of(demand: Demand) -> Need:
    """The demand in the units that are counted, 1 at least of each."""
    if not (demand.tokens or demand.cost):
        return _LEAST
    tokens, cost = min(max(demand.tokens, 1), MOST), max(billionths(demand.cost), 1)
    if demand.fixed:
        return Need(tokens, cost, tokens, cost)
    least_tokens = min(max(demand.least_tokens, 1), tokens)
    return Need(tokens, cost, least_tokens, min(max(billionths(demand.least_cost), 1), cost))


def check_demand(caller: Caller, demand: Demand) -> None:
    """Whether the caller's limits can ever meet it. Raises `Refusal`: waiting does not help."""
    if demand.tokens or demand.cost:
        least = demand.least_tokens, demand.least_cost
        check_size(caller, (demand.tokens, demand.cost) if demand.fixed else least, least)


class _Held:
    """A `Reservation` in this process."""

    __slots__ = ("_shares", "standing")

    def __init__(self, shares: list[Share], standing: Standing | None) -> None:
        self._shares = shares
        self.standing = standing

    def release(self) -> None:
        for share in self._shares:
            share.release()

    def settle(self, *, counted: bool, tokens: int, cost: float) -> None:
        shares, self._shares = self._shares, []
        if not 0 <= tokens <= MOST:
            tokens = min(max(tokens, 0), MOST)
        amount = billionths(cost)
        for share in shares:
            share.settle(counted, tokens, amount)


class LocalLimits:
    """Keeps count in memory, for one process.

    A scope is loaded when it is first asked for, if it has a quota, or a window that goes back
    further than this process. It is forgotten when nothing of it counts any more; one with a
    quota only when memory is full and `evictable` says that all records are in the database,
    where it will be loaded from. A scope that still counts is never forgotten: where more than
    `most` do, more are kept, and they go again as they come to rest.
    """

    def __init__(
        self,
        load: Load,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        *,
        since: float | None = None,
        most: int = MOST_BEARERS,
        evictable: Callable[[], bool] = lambda: True,
    ) -> None:
        """`clock` tells the time of windows, and `wall` the day of quotas. From `since` on, by
        `clock`, all use has been counted here: the start of the process, by default now."""
        self._load = load
        self._clock = clock
        self._wall = wall
        self._since = clock() if since is None else since
        self._most = most
        self._evictable = evictable
        # Those that have their past. The first are looked at next, whether they can go.
        self._bearers: OrderedDict[str, Bearer] = OrderedDict()
        self._met = 0  # how many have come since it was looked whether some can go
        self._loading: dict[str, asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"<LocalLimits {len(self._bearers)} scopes, {len(self._loading)} loading>"

    def admit(self, caller: Caller, demand: Demand) -> Reservation | None:
        """As in `Limits`."""
        if not caller.scopes:
            return UNLIMITED
        check_demand(caller, demand)
        now = self._clock()
        wall = self._wall()
        if self._met:
            self._forget(now)
        bearers = []
        for scope in caller.scopes:
            bearer = self._bearer(scope, now, wall)
            if bearer is None:
                return None
            bearers.append(bearer)
        need = need_of(demand)
        for bearer in bearers:
            if not bearer.has_room(need, now, wall):
                raise self._refusal(caller, bearers, need, now, wall)
        shares = [bearer.take(need, now, wall) for bearer in bearers]
        return _Held(shares, _standing(bearers, now, wall))

    async def reserve(self, caller: Caller, demand: Demand) -> Reservation:
        """As in `Limits`."""
        while True:  # what was loaded may have been changed or forgotten meanwhile
            reservation = self.admit(caller, demand)
            if reservation is not None:
                return reservation
            now, wall = self._clock(), self._wall()
            tasks = [
                self._loader(scope)
                for scope in caller.scopes
                if self._bearer(scope, now, wall) is None
            ]
            for task in tasks:
                # Whoever leaves must not take the answer from the others who wait for it.
                await asyncio.shield(task)

    def peek(self, caller: Caller) -> Standing | None:
        """As in `Limits`."""
        now, wall = self._clock(), self._wall()
        bearers = [
            self._bearer(scope, now, wall) for scope in caller.scopes if scope.allowance.requests
        ]
        known = [bearer for bearer in bearers if bearer is not None]
        if len(known) < len(bearers):
            return None
        for bearer in known:
            if bearer.requests is not None:
                bearer.requests.leave(now)
        return _standing(known, now, wall)

    def _bearer(self, scope: Scope, now: float, wall: float) -> Bearer | None:
        """Where the scope is counted, with its limits as they are now; `None` where its past
        has to be loaded first."""
        bearer = self._bearers.get(scope.id)
        allowance = scope.allowance
        if bearer is not None and bearer.allowance is allowance:
            meters = bearer.meters
            return bearer if meters is None or meters.knows(wall) else None
        found = bearer or Bearer(scope)
        if found.lacks(allowance, wall, now - self._since):
            return None
        found.adapt(scope, now, wall)
        if bearer is None:
            self._keep(found)
        return found

    def _keep(self, bearer: Bearer) -> None:
        self._bearers[bearer.scope.id] = bearer
        self._met += 1

    def _forget(self, now: float) -> None:
        """Look whether some can go, for those that have come. Nobody may have one in hand: what
        is about to count does not count yet."""
        bearers = self._bearers
        looks = min(LOOKED_AT * self._met, LOOKS, len(bearers))
        self._met = 0
        for _ in range(looks):
            name, oldest = next(iter(bearers.items()))
            if self._can_go(oldest, now):
                del bearers[name]
            else:
                bearers.move_to_end(name)

    def _can_go(self, bearer: Bearer, now: float) -> bool:
        if not bearer.rests(now):
            return False
        # What would have to be loaded again stays as long as there is room.
        allowance = bearer.scope.allowance
        reach = now - self._since
        if (
            bearer.meters is None
            and max(allowance.window or 0.0, allowance.tokens_window or 0.0) <= reach
        ):
            return True
        return len(self._bearers) >= self._most and self._evictable()

    def _loader(self, scope: Scope) -> asyncio.Task[None]:
        task = self._loading.get(scope.id)
        if task is None:
            task = asyncio.create_task(self._take_in(scope))
            self._loading[scope.id] = task
            task.add_done_callback(_heard)
        return task

    async def _take_in(self, scope: Scope) -> None:
        try:
            past = await self._load(scope)
        finally:
            del self._loading[scope.id]
        now, wall = self._clock(), self._wall()
        bearer = self._bearers.get(scope.id)
        found = bearer or Bearer(scope)
        found.adapt(scope, now, wall, past.requests, past.totals)
        if bearer is None:
            self._keep(found)

    def _refusal(
        self, caller: Caller, bearers: list[Bearer], need: Need, now: float, wall: float
    ) -> LimitReached:
        """Told is the longest wait. Only there it is queued: by then there will be room
        everywhere else."""
        obstacles = [one for bearer in bearers for one in bearer.obstacles(need, now, wall)]
        longest, window = max(obstacles, key=_wait)
        if window is not None:
            window.enqueue(now, int(longest.need))
        return LimitReached(caller, longest, _standing(bearers, now, wall))


def _wait(found: tuple[Obstacle, Window | None]) -> int:
    return found[0].wait


def _standing(bearers: Iterable[Bearer], now: float, wall: float) -> Standing | None:
    """Of the limit of requests with the least left."""
    least = None
    for bearer in bearers:
        window = bearer.requests
        if window is None or window.limit == NO_LIMIT:
            continue
        if least is None or window.limit - window.used < least.limit - least.used:
            least = window
    if least is None:
        return None
    empties = least.empties
    reset = wall if empties is None else wall + (empties - now)
    return Standing(least.limit, max(least.limit - least.used, 0), math.ceil(reset))


def _heard(task: asyncio.Task[None]) -> None:
    """An error nobody waits for any more is no news."""
    if not task.cancelled():
        task.exception()


def wants_tokens(caller: Caller) -> bool:
    """Whether tokens or cost of the caller are limited: only then is a prompt worth counting."""
    for scope in caller.scopes:
        allowance = scope.allowance
        if allowance.tokens:
            return True
        for quota in allowance.quota:
            if quota.tokens is not None or quota.cost is not None:
                return True
    return False
