"""What one scope has used of everything that can be limited: plain values, time handed in.

`now` is the clock of windows, which never jumps; `wall` is Unix seconds, and may.
"""

from collections.abc import Iterator, Mapping, Sequence

from manyways.access.meters import BILLION, Charge, Meters, Need
from manyways.access.obstacles import NEVER, Kind, Obstacle
from manyways.access.windows import NO_LIMIT, Window, spread, whole_seconds
from manyways.types import Allowance, Period, Scope


class Bearer:
    """One scope: its limits as last told, and what counts against them.

    What was once counted goes on being counted when its limit is lifted: a limit that comes back
    finds it. What was never limited was not counted.
    """

    __slots__ = ("_crowd", "allowance", "concurrent", "meters", "owing", "requests", "running",
                 "scope", "tokens")  # fmt: skip

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.allowance: Allowance | None = None  # which `adapt` was told last
        self.requests: Window | None = None
        self.tokens: Window | None = None
        self.meters: Meters | None = None
        self.concurrent = NO_LIMIT
        self.running = 0
        self.owing = 0  # requests that run no more, and have yet to be settled
        # A second, and how many it saw refused because others were running.
        self._crowd = (0, 0)

    def __repr__(self) -> str:
        return f"<Bearer {self.scope.id} {self.running} running, {self.requests}, {self.tokens}>"

    def lacks(self, allowance: Allowance, wall: float, reach: float) -> bool:
        """Whether the past is needed for these limits: a quota of which nobody knows what was
        used, or a window that is not kept yet and goes back further than `reach` seconds."""
        if self.requests is None and allowance.requests and (allowance.window or 0.0) > reach:
            return True
        if self.tokens is None and allowance.tokens and (allowance.tokens_window or 0.0) > reach:
            return True
        if not allowance.quota:
            return False
        return self.meters is None or self.meters.lacks(allowance.quota, wall)

    def adapt(
        self,
        scope: Scope,
        now: float,
        wall: float,
        requests: Sequence[tuple[float, int, int]] = (),
        totals: Mapping[Period, tuple[int, int, float]] | None = None,
    ) -> None:
        """The scope's limits hold from now on. What was not counted here is taken from the
        past: `requests`, seconds ago and tokens, and `totals` of periods, cost in USD."""
        allowance = scope.allowance
        self.scope = scope
        self.allowance = allowance
        if self.requests is not None:
            _change(self.requests, allowance.requests, allowance.window)
        elif allowance.requests and allowance.window:
            self.requests = Window(allowance.requests, allowance.window, ones=True)
            self.requests.fill(now, [(age, count) for age, count, _ in requests])
        if self.tokens is not None:
            _change(self.tokens, allowance.tokens, allowance.tokens_window)
        elif allowance.tokens and allowance.tokens_window:
            self.tokens = Window(allowance.tokens, allowance.tokens_window)
            self.tokens.fill(now, [(age, tokens) for age, _, tokens in requests])
        self.concurrent = allowance.concurrent or NO_LIMIT
        if allowance.quota and self.meters is None:
            self.meters = Meters()
        if self.meters is not None:
            self.meters.adapt(allowance.quota, wall, totals or {})

    def has_room(self, need: Need, now: float, wall: float) -> bool:
        """Whether nothing is in the way."""
        window = self.requests
        if window is not None:
            window.leave(now)
            if window.used >= window.limit:
                return False
        window = self.tokens
        if window is not None:
            window.leave(now)
            if window.used + min(need.tokens, window.limit) > window.limit:
                return False
        if self.running >= self.concurrent:
            return False
        return self.meters is None or next(self.meters.shortages(need, wall), None) is None

    def take(self, need: Need, now: float, wall: float) -> "Share":
        """Reserve; there has to be room."""
        self.running += 1
        place = 0
        if self.requests is not None:
            place = self.requests.add(now, 1)
        reserved = (0, 0)
        if self.tokens is not None:
            tokens = min(need.tokens, self.tokens.limit)
            reserved = (self.tokens.add(now, tokens), tokens)
        charges = None if self.meters is None else self.meters.charge(need, wall)
        return Share(self, wall, place, reserved, charges)

    def obstacles(
        self, need: Need, now: float, wall: float
    ) -> Iterator[tuple[Obstacle, Window | None]]:
        """All that is in the way, with the window where it is one."""
        window = self.requests
        if window is not None:
            window.leave(now)
            if window.used >= window.limit:
                yield self._barred(window, "requests", 1, now), window
        window = self.tokens
        if window is not None:
            window.leave(now)
            tokens = min(need.tokens, window.limit)
            if window.used + tokens > window.limit:
                yield self._barred(window, "tokens", tokens, now), window
        if self.running >= self.concurrent:
            yield self._crowded(now), None
        if self.meters is None:
            return
        for per, kind, rule, meter in self.meters.shortages(need, wall):
            wait = NEVER if per == "ever" else whole_seconds(wall, meter.span.end)
            numbers = [getattr(rule, kind), getattr(meter, kind), need.least(kind)]
            if kind == "cost":
                numbers = [amount / BILLION for amount in numbers]
            yield (
                Obstacle(
                    scope=self.scope,
                    kind=kind,
                    limit=numbers[0],
                    used=numbers[1],
                    need=numbers[2],
                    wait=wait,
                    per=per,
                    at_least=need.is_open(kind),
                ),
                None,
            )

    def rests(self, now: float) -> bool:
        """Whether nothing counts at this moment, but for quotas."""
        for window in (self.requests, self.tokens):
            if window is not None:
                window.leave(now)
                if window.empties is not None:
                    return False
        return not (self.running or self.owing)

    def _barred(self, window: Window, kind: Kind, need: int, now: float) -> Obstacle:
        return Obstacle(
            scope=self.scope,
            kind=kind,
            limit=window.limit,
            used=window.used,
            need=need,
            wait=whole_seconds(now, window.opens(now, need)),
            length=window.length,
        )

    def _crowded(self, now: float) -> Obstacle:
        second, count = self._crowd
        count = count if second == int(now) else 0
        self._crowd = (int(now), count + 1)
        return Obstacle(
            scope=self.scope,
            kind="requests",
            limit=self.concurrent,
            used=self.running,
            need=1,
            wait=spread(count, self.concurrent),
        )


class Share:
    """What one request has taken from one bearer."""

    __slots__ = ("_bearer", "_charges", "_place", "_requests", "_reserved", "_runs", "_tokens",
                 "_wall")  # fmt: skip

    def __init__(
        self,
        bearer: Bearer,
        wall: float,
        place: int,
        reserved: tuple[int, int],
        charges: dict[Period, Charge] | None,
    ) -> None:
        """`place` is where the request was put, `reserved` where its tokens, and how many."""
        self._bearer = bearer
        self._runs = True
        self._wall = wall
        # The windows as they are now: the bearer may get others while the request runs.
        self._requests = bearer.requests
        self._place = place
        self._tokens = bearer.tokens
        self._reserved = reserved
        self._charges = charges

    def release(self) -> None:
        """It runs no more."""
        if self._runs:
            self._runs = False
            self._bearer.running -= 1
            self._bearer.owing += 1

    def settle(self, counted: bool, tokens: int, cost: int) -> None:
        """It has come to this much, `cost` in billionths of a dollar."""
        bearer = self._bearer
        if self._runs:
            bearer.running -= 1
        else:
            bearer.owing -= 1
        if not counted and self._requests is not None:
            self._requests.correct(self._place, -1)
        if self._tokens is not None:
            place, reserved = self._reserved
            self._tokens.correct(place, tokens - reserved)
        if bearer.meters is not None:
            bearer.meters.settle(self._charges or {}, self._wall, counted, tokens, cost)


def _change(window: Window, limit: int | None, length: float | None) -> None:
    if limit and length:
        window.change(limit, length)
    else:
        window.change(NO_LIMIT, window.length)
