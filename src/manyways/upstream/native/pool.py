"""The connections along one route. Whatever needs no waiting is decided at once.

A connection is given to one request at a time: an idle one if there is one, the one used last
first; else a new one may be made, as far as the bound allows; else the request waits in line.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from itertools import takewhile
from typing import Final

from manyways.upstream.native.origin import Route
from manyways.upstream.native.wire import Wire

_MORE: Final = None
"""What one in line gets where there is room for another connection."""


class Pool:
    """At most `bound` connections at once (0: no bound), kept `keepalive` seconds while unused
    and used no longer than `max_age` seconds. `emptied` is called when nothing is left in it.

    `in_use` counts the connections that serve a request (`busy`) or are being made for one. It and
    the idle ones are never more than the bound; and nobody is in line while there is room.
    """

    def __init__(
        self,
        route: Route,
        loop: asyncio.AbstractEventLoop,
        *,
        bound: int,
        keepalive: float,
        max_age: float,
        emptied: Callable[[Route], object],
    ) -> None:
        self.route = route
        self.in_use = 0
        self.closed = False
        self.busy: set[Wire] = set()
        self._loop = loop
        self._bound = bound
        self._keepalive = keepalive
        self._max_age = max_age
        self._emptied = emptied
        self._idle: dict[Wire, None] = {}  # the one used last is the last
        self._line: OrderedDict[asyncio.Future[Wire | None], None] = OrderedDict()
        self._sweep: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Pool {self.route} in_use={self.in_use} idle={self.idle} line={len(self._line)}>"

    @property
    def idle(self) -> int:
        return len(self._idle)

    def take(self) -> Wire | None:
        """An idle connection, if there is one that can be used, and nobody waits for it."""
        while self._idle:
            wire, _ = self._idle.popitem()
            if wire.open and wire.born + self._max_age > self._loop.time():
                self.in_use += 1
                self.busy.add(wire)
                return wire
            wire.abort()
        return None

    async def turn(self) -> Wire | None:
        """A connection, or leave (`None`) to make one, which is counted as in use from now on."""
        if self._bound and self.in_use + len(self._idle) >= self._bound:
            return await self._wait()
        self.in_use += 1
        return None

    def give_back(self, wire: Wire) -> None:
        """A request is through with a connection, which is kept if it can serve another one."""
        now = self._loop.time()
        if wire.reusable and now < wire.born + self._max_age and self._keepalive > 0:
            self.busy.discard(wire)
            wire.rest(now)
            self._pass_on(wire)
        else:
            self.discard(wire)

    def discard(self, wire: Wire) -> None:
        """A request has no use for its connection any more, and nobody else may have it."""
        self.busy.discard(wire)
        wire.abort()
        self.gone()

    def gone(self) -> None:
        """A connection in use, or one that was being made, is no more."""
        if not self._next(_MORE):
            self.in_use -= 1
            self._tell_if_empty()

    def drop(self, wire: Wire) -> None:
        """An idle connection was closed by the other side."""
        if wire in self._idle:
            del self._idle[wire]
            self._tell_if_empty()

    def replace(self, wire: Wire) -> None:
        """One in use turned out to be closed. Its place stays taken, for another one; those that
        have been idle for as long are not trusted any more."""
        self.busy.discard(wire)
        self._close_while(lambda idle: idle.rested <= wire.rested)

    def close(self) -> None:
        """Close every connection, those that are given back later as well."""
        self.closed = True
        for wire in (*self.busy, *self._idle):
            wire.abort()

    async def _wait(self) -> Wire | None:
        waiter: asyncio.Future[Wire | None] = self._loop.create_future()
        self._line[waiter] = None
        try:
            wire = await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._line.pop(waiter, None)
            elif waiter.exception() is None:  # given just before: the next one gets it
                self._pass_on(waiter.result())
            raise
        if wire is not None and not wire.open:
            wire.abort()
            return None  # leave to make one in its place
        if wire is not None:
            self.busy.add(wire)
        return wire

    def _pass_on(self, wire: Wire | None) -> None:
        """What one request leaves goes to the next one, or to rest."""
        if wire is not None and self.closed:
            wire.abort()
        if wire is None or not wire.open:
            self.gone()
        elif not self._next(wire):
            self.in_use -= 1
            self._idle[wire] = None
            if self._sweep is None:
                self._sweep = self._loop.call_later(self._keepalive, self._let_go)

    def _next(self, wire: Wire | None) -> bool:
        """Hand a connection, or leave to make one, to the first in line."""
        while self._line:
            waiter, _ = self._line.popitem(last=False)
            if not waiter.done():
                waiter.set_result(wire)
                return True
        return False

    def _let_go(self) -> None:
        """Close what was idle for long enough, and was closed by the other side."""
        now = self._loop.time()
        self._close_while(lambda idle: idle.rested + self._keepalive <= now)
        self._sweep = None
        for oldest in self._idle:
            at = oldest.rested + self._keepalive
            self._sweep = self._loop.call_at(at, self._let_go)
            break
        self._tell_if_empty()

    def _close_while(self, past: Callable[[Wire], bool]) -> None:
        """Close idle connections, those first that have been idle for longest."""
        for wire in [*takewhile(past, self._idle)]:
            del self._idle[wire]
            wire.abort()

    def _tell_if_empty(self) -> None:
        if not (self.in_use or self._idle or self._line):
            if self._sweep is not None:
                self._sweep.cancel()
                self._sweep = None
            self._emptied(self.route)
