"""The arithmetic of limits: plain values, time handed in.

A window is a log of what was let in. Everything in it has a moment, and leaves one length behind
it. So that a large limit takes little memory, what comes within a slice (a 4096th of the length)
behind the first of an entry joins it, and the entry has the moment of its latest part: the limit
is never exceeded, and at most a slice too strict.

Who is refused is told when there will be room. So that a thousand who are refused at once do not
all come back at once, they stand in a queue: each is told the moment at which there is room for
all before it as well, and once those have filled the window, one window later. The queue is that
of one crowd: of refusals with less than `PAUSE` between them, for `CROWD` at most. Who is refused
after that may be one of the same who has not waited, and nobody knows: it begins a new queue, and
hears the true moment. So who asks every second is told no more than there is to wait.
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
PAUSE: Final = 0.5
"""Seconds without a refusal, behind which a crowd is over."""
CROWD: Final = 3.0
"""Seconds a crowd lasts at most; never longer than its window."""
GRACE: Final = 1.0
"""Seconds behind the moment told within which its caller is thought to be back."""
NO_LIMIT: Final = 2**62


class Window:
    """At most `limit` in any span of `length` seconds.

    Moments are handed in and never go back. `leave(now)` comes before any other question.
    """

    __slots__ = ("_amounts", "_closes", "_crowd_began", "_crowd_grew", "_dropped", "_first",
                 "_moments", "_queued", "_width", "length", "limit", "used")  # fmt: skip

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
        # The latest crowd: when its first and its last was refused, and what all of it needs.
        self._crowd_began = self._crowd_grew = -math.inf
        self._queued = 0
        self.used = 0
        self.change(limit, length)

    def __repr__(self) -> str:
        entries = len(self._moments) - self._first
        return (
            f"<Window {self.used} of {self.limit} in {self.length:g} s,"
            f" {entries} entries, {self._queued} queued>"
        )

    def change(self, limit: int, length: float) -> None:
        """Other numbers from now on; what was counted stays, but for what leaves meanwhile: a
        length that comes back does not find it again."""
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
        """Let in, 1 or more; says where it was put."""
        moments = self._moments
        if now < self._closes and len(moments) > self._first:
            moments[-1] = now
            self._amounts[-1] += amount
        else:
            moments.append(now)
            self._closes = now + self._width
            self._amounts.append(amount)
        self.used += amount
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
        some, behind the crowd that was refused just now. `need` is no more than the limit."""
        alone = self.used + need - self.limit
        if not self._is_crowded(now):
            return self._left(alone)
        # All before it fill the window again and again, each time a little later: whole seconds
        # are told, and it takes a while to be back.
        surplus = alone + self._queued
        later = max(0, -((self.used - surplus) // self.limit))
        behind = later * (self.length + 1.0 + max(GRACE, self._width))
        return self._left(max(surplus - later * self.limit, alone)) + behind

    def enqueue(self, now: float, need: int) -> None:
        """Who needs so much was told what `opens` says."""
        if not self._is_crowded(now):
            self._crowd_began = now
            self._queued = 0
        self._crowd_grew = now
        self._queued += need

    def _is_crowded(self, now: float) -> bool:
        """Whether who is refused now belongs to the latest crowd."""
        return now < self._crowd_grew + PAUSE and now < self._crowd_began + min(CROWD, self.length)

    def _left(self, surplus: int) -> float:
        """The moment at which so much of the log has left."""
        for index in range(self._first, len(self._moments)):
            surplus -= self._amounts[index]
            if surplus <= 0:
                return self._moments[index] + self.length
        raise ValueError(f"{self} never has that much room")

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
