"""The arithmetic of limits: plain values, time handed in.

A window is a log of what was let in. Everything in it has a moment, and leaves one length behind
it. So that a large limit takes little memory, what comes within a slice (a 4096th of the length)
behind the first of an entry joins it, and the entry has the moment of its latest part: the limit
is never exceeded, and at most a slice too strict.

Who is refused is told when there will be room. So that a thousand who are refused at once do not
all come back at once, each is promised room of its own: the log is thought to go on with what
was promised, each entry at the moment its caller will be back. The next one is told the moment
at which enough of all that has left.
"""

import math
from array import array
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from manyways.types import Period

SLICES: Final = 4096
"""Into how many a window is cut at most."""
SHORTEST_SLICE: Final = 0.001
"""Seconds; shorter windows have fewer slices."""
PROMISES: Final = 1000
"""Promises that a window keeps. Who is refused beyond that is told the moment of the last."""
GRACE: Final = 1.0
"""Seconds behind the moment told within which its caller is thought to be back."""
NO_LIMIT: Final = 2**62


class Window:
    """At most `limit` in any span of `length` seconds.

    Moments are handed in and never go back. `leave(now)` comes before any other question.
    """

    __slots__ = ("_amounts", "_closes", "_dropped", "_first", "_moments", "_promises", "_width",
                 "length", "limit", "used")  # fmt: skip

    def __init__(self, limit: int, length: float, *, ones: bool = False) -> None:
        """`ones`: every amount will be 1. That takes less memory."""
        # Two columns, oldest entry first. Before `_first` stands what has left; `_dropped` more
        # were there before. The entry at `_first` is not empty, and `used` is the sum from there
        # on. Until `_closes`, what is let in joins the last entry.
        self._moments = array("d")
        self._amounts = array("i" if ones else "q")
        self._first = 0
        self._dropped = 0
        self._closes = -math.inf
        self._promises: list[tuple[float, int]] = []  # kept until when, and how much
        self.used = 0
        self.change(limit, length)

    def __repr__(self) -> str:
        entries = len(self._moments) - self._first
        return (
            f"<Window {self.used} of {self.limit} in {self.length:g} s,"
            f" {entries} entries, {len(self._promises)} promises>"
        )

    def change(self, limit: int, length: float) -> None:
        """Other numbers from now on; what was counted stays."""
        self.limit = limit
        self.length = length
        self._width = max(length / SLICES, SHORTEST_SLICE)

    def fill(self, now: float, past: Iterable[tuple[float, int]]) -> None:
        """Take in what was let in before there was this window: (seconds ago, amount)."""
        for age, amount in sorted(past, reverse=True):
            if age < self.length and amount > 0:
                self.add(now - max(age, 0.0), amount)

    def leave(self, now: float) -> None:
        """Let go of everything that is older than the window."""
        moments = self._moments
        first = self._first
        length = self.length
        if first == len(moments) or moments[first] + length > now:
            return
        amounts = self._amounts
        while first < len(moments) and (moments[first] + length <= now or not amounts[first]):
            self.used -= amounts[first]
            first += 1
        self._begin(first)

    def add(self, now: float, amount: int) -> int:
        """Let in, 1 or more; says where it was put. It redeems the oldest promise."""
        moments = self._moments
        if now < self._closes and len(moments) > self._first:
            moments[-1] = now
            self._amounts[-1] += amount
        else:
            moments.append(now)
            self._closes = now + self._width
            self._amounts.append(amount)
        self.used += amount
        if self._promises:
            self._lapse(now)
            del self._promises[:1]
        return self._dropped + len(moments) - 1

    def correct(self, place: int, by: int) -> None:
        """What was put there was more or less by so much. What has left is left alone.

        An empty entry may go before its time: so what may still be corrected is 1 or more.
        """
        index = place - self._dropped
        first = self._first
        if index < first:
            return
        amounts = self._amounts
        amounts[index] += by
        self.used += by
        if index == first and not amounts[first]:
            while first < len(amounts) and not amounts[first]:
                first += 1
            self._begin(first)

    @property
    def empties(self) -> float | None:
        """The moment at which the oldest leaves; `None` for an empty window."""
        if self._first == len(self._moments):
            return None
        return self._moments[self._first] + self.length

    def opens(self, now: float, need: int) -> float:
        """The moment at which `need`, which the window has no room for now, will surely have
        some, behind all that was promised. `need` is no more than the limit."""
        self._lapse(now)
        moment = self._opens(self.used + need - self.limit, ())
        if len(self._promises) >= PROMISES:
            return max(moment, self._promises[-1][0] - self._grace)
        promised = sum(amount for _, amount in self._promises)
        return max(moment, self._opens(self.used + promised + need - self.limit, self._promises))

    def promise(self, moment: float, need: int) -> None:
        """Who needs so much was told to come at this moment."""
        if len(self._promises) < PROMISES:
            self._promises.append((moment + self._grace, need))

    @property
    def _grace(self) -> float:
        return max(GRACE, self._width)

    def _opens(self, surplus: int, promises: Iterable[tuple[float, int]]) -> float:
        """The moment at which so much of the log, continued by promises, has left."""
        for index in range(self._first, len(self._moments)):
            surplus -= self._amounts[index]
            if surplus <= 0:
                return self._moments[index] + self.length
        for until, amount in promises:
            surplus -= amount
            if surplus <= 0:
                return until + self.length
        raise ValueError(f"{self} never has that much room")

    def _lapse(self, now: float) -> None:
        promises = self._promises
        lapsed = 0
        while lapsed < len(promises) and promises[lapsed][0] <= now:
            lapsed += 1
        del promises[:lapsed]

    def _begin(self, first: int) -> None:
        """Entries before this one are gone. Their room is given back now and then."""
        if first > 4 + len(self._moments) // 8:
            del self._moments[:first]
            del self._amounts[:first]
            self._dropped += first
            first = 0
        self._first = first


class Span(NamedTuple):
    """A quota's period, in Unix seconds: from `start` on, before `end`."""

    start: float
    end: float


EVER: Final = Span(-math.inf, math.inf)


def span_of(per: Period, wall: float) -> Span:
    """The calendar day or month, UTC, in which a moment (Unix seconds) lies; or all time."""
    if per == "ever":
        return EVER
    if per == "day":
        start = wall // 86400 * 86400
        return Span(start, start + 86400)
    day = datetime.fromtimestamp(wall // 86400 * 86400, UTC).replace(day=1)
    following = day.replace(year=day.year + day.month // 12, month=day.month % 12 + 1)
    return Span(day.timestamp(), following.timestamp())


def whole_seconds(now: float, moment: float) -> int:
    """How long to wait, so that it is surely `moment` when that is over; at least a second."""
    seconds = max(1, math.ceil(moment - now))
    # The sum is rounded as the clock's own will be.
    return seconds if now + seconds >= moment else seconds + 1


def spread(refused: int, at_once: int) -> int:
    """Seconds to wait for a place among those who run, where so many were told to wait within
    the same second before: nobody knows when a place is free, but not all should look at once."""
    return 1 + min(refused // at_once, 4)
