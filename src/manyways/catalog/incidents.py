"""Incidents: from when to when a model, a key or a whole provider was not to be had, and why.

What routing finds out is put together here until it is stored. Somebody rests for seconds, is
tried again, and rests on: as long as nobody has had an answer in between, that is one incident,
which lasts until the first answer, or until the end of the last rest where nobody asked any more:
beyond that, nothing is known.
"""

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from manyways.store.incidents import Sighting, Span

Name = tuple[str, str | None, int | None]
"""What rests: a provider, a model of it or all, a credential of it (from 0) or any."""

BRIEF: Final = 5.0
"""Seconds that an incident lasts at least. What is back sooner, at the first or second try, is
told of by the rate of success."""
SOON: Final = 10.0
"""Seconds after the end of a rest in which an answer still ends the incident. Whoever answers
later may have been well for long."""
QUIET: Final = 900.0
"""Seconds after the end of a rest behind which a failure begins another incident."""
STALE: Final = 2 * QUIET
"""Seconds behind which an incident that nobody has seen any more was left open by a process that
died: more than `QUIET`, so that nobody living comes back to it."""
MOST: Final = 10_000
"""So many incidents can go on at once, and as many be over and not stored. Of more that begin,
none is noted; of more that are over, the oldest are forgotten."""
DAY: Final = 86_400.0


class _Incident:
    """`until` is the end of the latest rest, `noted` what was last handed out of it."""

    __slots__ = ("began", "noted", "until", "why")

    def __init__(self, began: float, until: float, why: str) -> None:
        self.began = began
        self.until = until
        self.why = why
        self.noted: int | None = None


class Incidents:
    """What this process has found out, as far as it is not stored. `clock` tells Unix seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.time, most: int = MOST) -> None:
        self._clock = clock
        self._most = most
        self._open: dict[Name, _Incident] = {}
        self._over: deque[Sighting] = deque(maxlen=most)

    def __repr__(self) -> str:
        return f"<Incidents: {len(self._open)} going on, {len(self._over)} over>"

    def tell(self, name: Name, why: str, seconds: float | None) -> None:
        """Something rests for so many seconds from now on, for the first time or again; `None`
        seconds: it has answered. To be told of every rest, and of this process's own only."""
        now = self._clock()
        known = self._open.get(name)
        if seconds is None:
            if known is not None:
                self._end(name, now if now <= known.until + SOON else known.until)
            return
        if known is not None and now > known.until + QUIET:
            self._end(name, known.until)
            known = None
        if known is not None:
            known.until = max(known.until, now + seconds)
        elif len(self._open) < self._most:
            self._open[name] = _Incident(now, now + seconds, _clean(why))

    def news(self) -> list[Sighting]:
        """What has happened since the last time, to be stored in one go: what is over, then what
        goes on. To be asked for once a minute or so."""
        now = self._clock()
        for name, one in list(self._open.items()):
            if now > one.until + QUIET:
                self._end(name, one.until)
        found = list(self._over)
        self._over.clear()
        for name, one in self._open.items():
            seen = min(now, one.until)
            if seen - one.began >= BRIEF and int(seen) != one.noted:
                one.noted = int(seen)
                found.append(_sighting(name, one, seen))
        return found

    def _end(self, name: Name, at: float) -> None:
        one = self._open.pop(name)
        if one.noted is not None or at - one.began >= BRIEF:
            self._over.append(_sighting(name, one, at, over=True))


def _sighting(name: Name, one: _Incident, seen: float, *, over: bool = False) -> Sighting:
    provider, model, credential = name
    last = max(int(seen), int(one.began), one.noted or 0)  # also where a clock was put back
    return Sighting(
        provider=provider,
        model=model or "",
        credential=-1 if credential is None else credential,
        source="traffic",
        began=int(one.began),
        seen=last,
        ended=last if over else None,
        why=one.why,
    )


def _clean(why: str) -> str:
    """Foreign words as every database keeps them."""
    return why.replace("\0", "").encode(errors="replace").decode()


def by_model(spans: Iterable[Span]) -> Mapping[tuple[str, str], Sequence[Span]]:
    """Spans by provider and model; those of a whole provider are at the empty model."""
    found: dict[tuple[str, str], list[Span]] = defaultdict(list)
    for span in spans:
        found[span.provider, span.model].append(span)
    return dict(found)


def uptime(
    spans: Iterable[Span], *, provider: str, model: str, known_since: float, now: float
) -> float:
    """The share, 0 to 1, of the 24 hours before `now` in which a model was to be had; of the
    time since `known_since`, where that is less. 1 where that is no time at all.

    It was not while one of `spans` went on that is its own or its whole provider's; what goes on
    still has no end. Spans of others are passed over.
    """
    begin = max(now - DAY, known_since)
    if begin >= now:
        return 1.0
    own = sorted(
        (max(span.began, begin), now if span.ended is None else min(span.ended, now))
        for span in spans
        if span.provider == provider and span.model in ("", model)
    )
    down = []
    reached = begin
    for began, ended in own:
        if ended > reached:
            down.append(ended - max(began, reached))
            reached = ended
    return min(1.0, max(0.0, 1 - math.fsum(down) / (now - begin)))
