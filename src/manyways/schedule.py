"""When work runs that nobody asked for, and on which node: never what it does.

    leader = Leader(shared, node)
    schedule = Schedule(leader)
    schedule.every(3600.0, "retention", forget_old_records)
    schedule.daily("02:00", ZoneInfo("Europe/Moscow"), "verification", verify)

Of all nodes one leads, and only there the work runs. It holds a lease in Redis, which it renews.
When it dies, the lease runs out and another node takes over. When it cannot renew the lease, it
stops before another can have it. Without Redis there is one process, and it leads.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from functools import partial
from typing import Any, Final, NamedTuple, NoReturn
from zoneinfo import ZoneInfo

import structlog

from manyways.errors import StoreError
from manyways.store.shared import Away, Script, Shared, key

LEASE: Final = 10.0
"""Seconds a node leads without renewing."""
MARGIN: Final = 0.1
"""The share of a lease that is left when its holder stops."""

SOON: Final = 0.01
"""Seconds that are not worth measuring."""
LOOK: Final = 3600.0
"""Seconds between two looks at the calendar: whoever sets the clock is noticed."""
AGAIN: Final = 60.0
"""Seconds until daily work that failed is tried again."""

Work = Callable[[], Awaitable[None]]

log = structlog.get_logger("manyways")

_HOLD = Script("""
local holder = redis.call('GET', KEYS[1])
if not holder then
    if ARGV[3] == '0' then return 0 end
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
    return 1
end
if holder ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
""")

_LEAVE = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
""")


class Leader:
    """Whether this process leads. `node` is its name, which no other process has."""

    def __init__(self, shared: Shared | None, node: str, *, lease: float = LEASE) -> None:
        self._shared = shared
        self._node = node
        self._lease = lease
        self._key = key("leader")
        self._until = 0.0  # of the loop's clock
        self._patient_until = 0.0
        self._changed = asyncio.Event()
        self._end: asyncio.TimerHandle | None = None
        if shared is not None:
            shared.on_back(self._be_patient)

    def __repr__(self) -> str:
        return f"<Leader {self._node} {'leads' if self.leads else 'follows'}>"

    @property
    def leads(self) -> bool:
        """True at no two nodes at a time."""
        return self._shared is None or asyncio.get_running_loop().time() < self._until

    async def run(self) -> None:
        """Hold the lease, or wait for it, until cancelled. Then another may have it at once."""
        if self._shared is None:
            await _for_ever()
        try:
            while True:
                await self._hold(self._shared)
                await asyncio.sleep(self._lease / (3 if self.leads else 10))
        finally:
            if self.leads:
                self._shared.post(_LEAVE, [self._key], self._node)
                self._stop()

    async def until(self, leads: bool) -> None:
        """Returns once this process leads, or does not any more."""
        while self.leads != leads:
            await self._changed.wait()

    async def _hold(self, shared: Shared) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        may_take = int(self.leads or began >= self._patient_until)
        try:
            lease = round(self._lease * 1000)
            holds = await shared.run(_HOLD, [self._key], self._node, lease, may_take)
        except Away:
            return  # `_end` comes in time
        if not holds:
            if self.leads:
                self._stop("another node leads")
            return
        led = self.leads  # it may have ended while we asked
        self._until = began + self._lease * (1 - MARGIN)
        if self._end is not None:
            self._end.cancel()
        self._end = loop.call_at(self._until, self._stop, "the lease could not be renewed")
        if self.leads and not led:
            log.info("leading", node=self._node)
            self._tell()

    def _stop(self, why: str = "") -> None:
        """Lead no more; of one's own accord, where nothing else is said."""
        if why:
            log.warning("leading no more", node=self._node, why=why)
        else:
            log.info("leading no more", node=self._node, why="it is being stopped")
        self._until = 0.0
        if self._end is not None:
            self._end.cancel()
            self._end = None
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _be_patient(self) -> None:
        """Redis may have come back without the lease of somebody who still leads."""
        self._patient_until = asyncio.get_running_loop().time() + self._lease


class Due(NamedTuple):
    """What is due on a day: `day` is its date where the clock stands, like `2026-11-23`, and
    `at` the moment in Unix seconds."""

    day: str
    at: float


DueWork = Callable[[Due], Awaitable[None]]


def latest_due(at: str, zone: ZoneInfo, now: float) -> Due:
    """What was due last, at a time of day (`"02:00"`) in a time zone; `now` is Unix seconds.

    Each day has one: where clocks are set forward over that time, as long after midnight as on
    other days; where it comes twice, the first.
    """
    return _nearest(at, zone, now, back=True)


def next_due(at: str, zone: ZoneInfo, now: float) -> Due:
    """What is due next."""
    return _nearest(at, zone, now, back=False)


def _nearest(at: str, zone: ZoneInfo, now: float, *, back: bool) -> Due:
    today = datetime.fromtimestamp(now, zone).date()
    around = [_due(at, zone, today + timedelta(days=days)) for days in (-1, 0, 1, 2)]
    if back:
        return max((due for due in around if due.at <= now), key=lambda due: due.at)
    return min((due for due in around if due.at > now), key=lambda due: due.at)


def _due(at: str, zone: ZoneInfo, day: date) -> Due:
    moment = datetime.combine(day, time_of_day.fromisoformat(at), zone).timestamp()
    # Where a whole day is left out, the clock says the next one.
    return Due(datetime.fromtimestamp(moment, zone).date().isoformat(), moment)


class Schedule:
    """Work that runs again and again on the node that leads. `clock` tells Unix seconds."""

    def __init__(self, leader: Leader, *, clock: Callable[[], float] = time.time) -> None:
        self._leader = leader
        self._clock = clock
        self._entries: list[tuple[str, Callable[[], Coroutine[Any, Any, None]]]] = []

    def __repr__(self) -> str:
        return f"<Schedule of {', '.join(name for name, _ in self._entries)}>"

    def every(self, seconds: float, name: str, work: Work) -> None:
        """Run `work` when this node begins to lead, and so many seconds after each end of it.

        Never twice at a time here. It is cancelled when the node leads no more, so it may have
        been done in part. What fails is told in the log, and tried again the next time.
        """

        async def again_and_again() -> None:
            while True:
                await _carried_out(name, work)
                await asyncio.sleep(seconds)

        self._entries.append((name, again_and_again))

    def daily(self, at: str, zone: ZoneInfo, name: str, work: DueWork) -> None:
        """Run `work` every day at a time of day, and when this node begins to lead with what was
        due last. So what nobody was there for is made up for, and `work` has to know whether a
        day has had its due. What fails is told in the log, and tried again in a minute.
        """

        async def day_by_day() -> None:
            done = ""
            while True:
                due = latest_due(at, zone, self._clock())
                wait = LOOK
                if due.day != done:
                    if await _carried_out(name, partial(work, due)):
                        done = due.day
                    else:
                        wait = AGAIN
                coming = next_due(at, zone, self._clock()).at - self._clock()
                await asyncio.sleep(max(SOON, min(wait, coming)))

        self._entries.append((name, day_by_day))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._leader.until(leads=True)
            tasks = [asyncio.create_task(entry()) for _, entry in self._entries]
            try:
                await self._leader.until(leads=False)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


async def _carried_out(name: str, work: Work) -> bool:
    """Whether it went well. Where it is cancelled, this ends behind it."""
    task = asyncio.ensure_future(work())
    try:
        await asyncio.wait([task])
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    if task.cancelled():
        return False
    error = task.exception()
    if isinstance(error, StoreError):  # no fault of ours: it is away
        log.warning("scheduled work failed", work=name, reason=str(error))
    elif error is not None:
        log.error("scheduled work failed", work=name, exc_info=error)
    return error is None


async def _for_ever() -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError
