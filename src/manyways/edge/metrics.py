"""`GET /metrics`: plain counters, put into Prometheus' words only when somebody asks.

Requests pay for an addition or two. The library that writes the format is imported at the
first scrape, and writes in a thread: requests go on meanwhile.
"""

import asyncio
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Final

from msgspec import Struct

from manyways.attempts.tally import Tally
from manyways.catalog.snapshot import Snapshot
from manyways.edge.exchange import Exchange
from manyways.edge.team import Team
from manyways.routing.standing import Standing

BOUNDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper ends, in seconds, of the classes in which durations are counted."""

_ONE_MODEL: Final = "/models/"
_OTHER: Final = "other"


class EndpointCounts:
    """What came to one endpoint. `seconds` is the sum of all; `classes` are by `BOUNDS`, and
    the last one is for what took longer."""

    __slots__ = ("classes", "name", "seconds", "statuses")

    def __init__(self, name: str) -> None:
        self.name = name
        self.statuses: dict[int, int] = {}
        self.seconds = 0.0
        self.classes = [0] * (len(BOUNDS) + 1)

    def __repr__(self) -> str:
        return f"<EndpointCounts {self.name} {self.statuses}>"

    def copy(self) -> "EndpointCounts":
        """The counts as they are now."""
        made = EndpointCounts(self.name)
        made.statuses = dict(self.statuses)
        made.seconds = self.seconds
        made.classes = list(self.classes)
        return made


class RequestCounts:
    """Counts requests by endpoint and status since the start of the process.

    Endpoints are named by their path below the mount, so that all mounts count together; what
    is no route of ours is `other`. So whoever asks for a million paths makes no million counts.
    """

    def __init__(
        self, mounts: Iterable[str], mounted: Iterable[str], rooted: Iterable[str]
    ) -> None:
        mounts, mounted = tuple(mounts), tuple(mounted)
        self._by_name = {
            name: EndpointCounts(name) for name in (*mounted, *rooted, f"{_ONE_MODEL}{{id}}")
        }
        self._other = EndpointCounts(_OTHER)
        self._one_model = self._by_name[f"{_ONE_MODEL}{{id}}"]
        self._model_prefixes = tuple(mount + _ONE_MODEL for mount in mounts)
        self._by_path = {path: self._by_name[path] for path in rooted} | {
            mount + path: self._by_name[path] for mount in mounts for path in mounted
        }

    def __repr__(self) -> str:
        count = sum(sum(one.statuses.values()) for one in self._all())
        return f"<RequestCounts {count} requests>"

    def count(self, path: str, status: int, seconds: float) -> None:
        """A request to `path` is over; it took `seconds`."""
        endpoint = self._by_path.get(path) or self._unlisted(path)
        statuses = endpoint.statuses
        if status in statuses:
            statuses[status] += 1
        else:
            statuses[status] = 1
        endpoint.seconds += seconds
        endpoint.classes[bisect_left(BOUNDS, seconds)] += 1

    def read(self) -> tuple[EndpointCounts, ...]:
        """The endpoints that were asked, as they are now."""
        return tuple(one.copy() for one in self._all() if one.statuses)

    def _all(self) -> Iterable[EndpointCounts]:
        return (*self._by_name.values(), self._other)

    def _unlisted(self, path: str) -> EndpointCounts:
        return self._one_model if path.startswith(self._model_prefixes) else self._other


class UsageReading(Struct, frozen=True, kw_only=True):
    """The account of usage at one moment: what waits to be in the database, about so many
    records and bytes, the oldest so many seconds old; what waits for the journal, was lost to
    it, or was set aside; and refusals by limits, by code. `redis` is whether it is connected,
    `None` without one; `leads` whether this process does the scheduled work."""

    records: int = 0
    bytes: int = 0
    age: float = 0.0
    waiting: int = 0
    lost: int = 0
    set_aside: int = 0
    refusals: dict[str, int] = {}
    redis: bool | None = None
    leads: bool = True


class Reading(Struct, frozen=True, kw_only=True):
    """Everything the page tells, at one moment. `now` is Unix seconds."""

    now: float
    active: int
    requests: tuple[EndpointCounts, ...]
    standings: tuple[Standing, ...]
    totals: dict[str, int]
    continuations: dict[str, int]
    resends: dict[str, int] = {}
    catalog: Snapshot
    usage: UsageReading


class MetricsPage:
    """`GET /metrics`. `active` tells how many requests are under way, `catalog` the models
    that there are, `usage` how its account stands, `resends` how often requests to each provider
    were sent again, `clock` Unix seconds. One of a `team` tells what all of it has to tell."""

    def __init__(
        self,
        *,
        counts: RequestCounts,
        standings: Callable[[], Iterable[Standing]],
        tally: Tally,
        active: Callable[[], int],
        catalog: Callable[[], Snapshot] = Snapshot,
        usage: Callable[[], UsageReading] = UsageReading,
        resends: Callable[[], dict[str, int]] = dict,
        team: Team | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._usage = usage
        self._resends = resends
        self._team = team
        self._counts = counts
        self._standings = standings
        self._tally = tally
        self._active = active
        self._catalog = catalog
        self._clock = clock
        # The page needs no key: however many ask, one page is written at a time.
        self._turn = asyncio.Lock()

    async def metrics(self, exchange: Exchange) -> None:
        """The text format of Prometheus, version 0.0.4, which every one of them reads."""
        if self._team is None:
            body = await self.page()
        else:
            mine = await self._team.tell(self.page)
            body = await asyncio.to_thread(self._team.together, mine)
        await exchange.answer(
            body,
            200,
            [
                (b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),
                (b"cache-control", b"no-store"),
            ],
        )

    async def page(self) -> bytes:
        """What this process has to tell."""
        async with self._turn:
            return await asyncio.to_thread(_write, self._read())

    def _read(self) -> Reading:
        tally = self._tally
        return Reading(
            now=self._clock(),
            active=self._active(),
            requests=self._counts.read(),
            standings=tuple(self._standings()),
            totals={
                "fallbacks": tally.fallbacks,
                "hedges": tally.hedges,
                "hedges_won": tally.hedges_won,
                "cut_answers": tally.cut,
                "callers_left": tally.left,
                "answers_drained": tally.drained,
            },
            continuations=dict(tally.continuations),
            resends=self._resends(),
            catalog=self._catalog(),
            usage=self._usage(),
        )


def _write(reading: Reading) -> bytes:
    from manyways.edge import exposition

    return exposition.write(reading)
