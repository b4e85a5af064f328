"""When work runs that nobody asked for, and on which node: never what it does.

    leader = Leader(shared, node)
    schedule = Schedule(leader)
    schedule.every(3600.0, "retention", forget_old_records)

Of all nodes one leads, and only there the work runs. It holds a lease in Redis, which it renews.
When it dies, the lease runs out and another node takes over. When it cannot renew the lease, it
stops before another can have it. Without Redis there is one process, and it leads.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, NoReturn

import structlog

from manyways.errors import StoreError
from manyways.store.shared import Away, Script, Shared, key

LEASE: Final = 10.0
"""Seconds a node leads without renewing."""
MARGIN: Final = 0.1
"""The share of a lease that is left when its holder stops."""

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


class _Entry(NamedTuple):
    seconds: float
    name: str
    work: Work


class Schedule:
    """Work that runs again and again on the node that leads."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self._entries: list[_Entry] = []

    def __repr__(self) -> str:
        return f"<Schedule of {', '.join(entry.name for entry in self._entries)}>"

    def every(self, seconds: float, name: str, work: Work) -> None:
        """Run `work` when this node begins to lead, and so many seconds after each end of it.

        Never twice at a time here. It is cancelled when the node leads no more, so it may have
        been done in part. What fails is told in the log, and tried again the next time.
        """
        self._entries.append(_Entry(seconds, name, work))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._leader.until(leads=True)
            tasks = [asyncio.create_task(_again_and_again(entry)) for entry in self._entries]
            try:
                await self._leader.until(leads=False)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


async def _again_and_again(entry: _Entry) -> None:
    while True:
        task = asyncio.ensure_future(entry.work())
        try:
            await asyncio.wait([task])
        finally:
            if not task.done():  # we are cancelled, and do not end before the work has
                task.cancel()
                await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            if isinstance(error, StoreError):  # no fault of ours: it is away
                log.warning("scheduled work failed", work=entry.name, reason=str(error))
            else:
                log.error("scheduled work failed", work=entry.name, exc_info=error)
        await asyncio.sleep(entry.seconds)


async def _for_ever() -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError
