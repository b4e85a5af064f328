"""Limits that many processes and nodes count together, in Redis.

One script reserves from all limits of a request's caller in one step, by Redis's own clock. What
is reserved while a request runs (a place among those that run at once, a part of a quota) is held
by its node for `LEASE` seconds and renewed: a node that dies gives it back.

While Redis is away, nothing waits for it:

    requests and tokens a window    each node lets in its share: the limit divided by the nodes
    concurrent                      the same
    quotas                          nothing is let in: `Refusal`, 503

Every node counts what it lets in itself in memory, too, so that its share is not handed out anew
when Redis goes away in the middle of a window.
"""

import asyncio
import contextlib
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from importlib import resources
from typing import Any, Final

import structlog
from msgspec.structs import replace

from manyways.access.limits import (
    UNLIMITED,
    Demand,
    LimitReached,
    Load,
    LocalLimits,
    Past,
    Reservation,
    Standing,
    check_demand,
    need_of,
)
from manyways.access.meters import BILLION, MOST, Need, billionths
from manyways.access.obstacles import quota_unknown
from manyways.access.shared_plan import Plan, Row
from manyways.access.windows import span_of
from manyways.store.shared import Away, Script, Shared, key
from manyways.types import Caller, Scope

LEASE: Final = 30.0
"""Seconds after which a node that says nothing has lost what it held."""
RENEWALS: Final = 4
"""How often what is held is renewed within a lease."""
BEAT: Final = 1.0
"""Seconds between two signs of life of a node."""
ALIVE: Final = 15
"""Seconds behind its last one that a node counts as one."""
TICK: Final = 1.0
"""Seconds between two looks at what is to be renewed, or sent again."""
WAITING: Final = 100_000
"""Settlements that are kept for when Redis is back; more are dropped, and told in the log."""
PLANS: Final = 20_000
"""Callers whose rows are kept at hand."""
TRIES: Final = 3
"""How often a reservation is tried whose quota is seeded each time, and gone again."""

log = structlog.get_logger("manyways")


def _script(*names: str) -> Script:
    folder = resources.files("manyways.access") / "scripts"
    return Script("\n".join((folder / f"{name}.lua").read_text("utf-8") for name in names))


RESERVE: Final = _script("clock", "window", "meter", "reserve")
SETTLE: Final = _script("clock", "window", "meter", "settle")
SEED: Final = _script("clock", "meter", "seed")
RENEW: Final = _script("clock", "renew")
_BEAT: Final = Script("""
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], time[1], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', time[1] - ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
""")
_RELEASE: Final = Script("for _, key in ipairs(KEYS) do redis.call('ZREM', key, ARGV[1]) end")
_LEAVE: Final = Script("redis.call('ZREM', KEYS[1], ARGV[1])")
_NODES: Final = key("nodes")


class SharedLimits:
    """Keeps count in Redis, for all nodes. `run` has to go on in the background."""

    def __init__(
        self,
        shared: Shared,
        load: Load,
        *,
        node: str = "",
        at_least: int = 1,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] | None = None,
        lease: float = LEASE,
    ) -> None:
        """`node` is this process's name, without a colon, and `at_least` how many nodes there are
        surely: its own workers, also while Redis cannot tell of them. `wall` says the day of what
        is loaded. Tests say the time with `clock`, in place of Redis. What is held is renewed
        after a quarter of `lease`, in seconds."""
        self._shared = shared
        self._load = load
        self._node = node or secrets.token_hex(8)
        self._wall = wall
        self._clock = clock
        self._lease = lease
        self._count = 0
        self._plans: OrderedDict[str, Plan] = OrderedDict()
        # What was let in here, and what is while Redis is away. It has no past to load.
        self._near = LocalLimits(_no_past, clock or time.monotonic, wall, since=float("-inf"))
        self._seeding: dict[str, asyncio.Task[None]] = {}
        self._held: dict[str, _Held] = {}
        self._due: deque[tuple[float, str]] = deque()  # when to renew what, in order
        self._unsettled: deque[tuple[Plan, list[Any]]] = deque()
        self._dropped = 0
        self._wake = asyncio.Event()
        self._at_least = at_least
        self.nodes = at_least
        shared.on_back(self._back)

    def __repr__(self) -> str:
        return (
            f"<SharedLimits {self._node} of {self.nodes}, {len(self._held)} held,"
            f" {len(self._unsettled)} to be settled>"
        )

    def admit(self, caller: Caller, demand: Demand) -> Reservation | None:  # noqa: ARG002  (`Limits`)
        """As in `Limits`: nothing is known without asking, but for who has no limits."""
        return None if caller.scopes else UNLIMITED

    async def reserve(self, caller: Caller, demand: Demand) -> Reservation:
        """As in `Limits`. Raises `Refusal` (503) for a quota while Redis is away."""
        if not caller.scopes:
            return UNLIMITED
        check_demand(caller, demand)
        plan = self._plan(caller)
        near = Demand(tokens=demand.tokens, cost=demand.cost)
        self._count += 1
        name = f"{self._node}.{self._count}"
        away_before = self._shared.away
        try:
            held = await self._reserve(plan, name, need_of(demand))
        except Away as away:
            if plan.held and not away_before:
                self._void(plan, name)
            if plan.quota is not None:
                raise quota_unknown(caller, plan.quota) from away
            return self._reserve_alone(plan, near, demand.least_tokens)
        held.nearby = self._near.admit(plan.share(0), near)
        return held

    def peek(self, caller: Caller) -> Standing | None:
        """As in `Limits`: what this node was told last."""
        plan = self._plans.get(caller.key_id)
        standing = None if plan is None else plan.standing
        if standing is None or standing.reset > self._wall():
            return standing
        return Standing(standing.limit, standing.limit, int(self._wall()))

    async def run(self) -> None:
        """Say that this node lives, renew what it holds, settle what could not be settled;
        until cancelled."""
        loop = asyncio.get_running_loop()
        beat = loop.time()
        try:
            while True:
                self._wake.clear()
                with contextlib.suppress(Away):
                    if loop.time() >= beat:
                        alive = await self._shared.run(_BEAT, [_NODES], self._node, ALIVE)
                        self.nodes = max(self._at_least, alive)
                        beat = loop.time() + BEAT
                    self._renew(loop.time())
                    await self._settle_waiting()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(TICK, self._lease / RENEWALS)):
                        await self._wake.wait()
        finally:
            self._shared.post(_LEAVE, [_NODES], self._node)

    # Reserving

    def _plan(self, caller: Caller) -> Plan:
        plan = self._plans.get(caller.key_id)
        if plan is None or (plan.caller is not caller and plan.caller.scopes != caller.scopes):
            plan = self._plans[caller.key_id] = Plan(caller)
            if len(self._plans) > PLANS:
                self._plans.popitem(last=False)
        return plan

    async def _reserve(self, plan: Plan, name: str, need: Need) -> "_Held":
        for _ in range(TRIES):
            answer = await self._shared.run(
                RESERVE, plan.keys, self._now(), name, self._lease, need.tokens, need.cost,
                need.least_tokens, need.least_cost, *plan.words,
                orphaned=lambda answer: self._orphaned(plan, name, answer),
            )  # fmt: skip
            if answer[0] == b"in":
                return self._taken(plan, name, answer)
            if answer[0] == b"out":
                plan.standing = _standing(*answer[1:4])
                number, kind, used, wait = answer[4:]
                obstacle = plan.rows[number].obstacle(kind.decode(), int(used), need, wait)
                raise LimitReached(plan.caller, obstacle, plan.standing)
            unknown = answer[1:]
            for number, start in zip(unknown[::2], unknown[1::2], strict=True):
                await self._seed(plan.rows[number], start)
        raise Away("what was used of a quota is forgotten again and again")

    def _taken(self, plan: Plan, name: str, answer: list[Any]) -> "_Held":
        plan.standing = _standing(*answer[1])
        held = _Held(self, plan, name, answer[2])
        if plan.held:
            self._held[name] = held
            self._due.append((asyncio.get_running_loop().time() + self._lease / RENEWALS, name))
        return held

    def _reserve_alone(self, plan: Plan, demand: Demand, least: int) -> Reservation:
        """Of this node's share, while nobody can be asked. `least` tokens have to fit into it."""
        share = plan.share(self.nodes)
        beyond = plan.beyond(share, least)
        if beyond is not None:
            plan.standing = self._standing_alone(plan, share)
            raise LimitReached(plan.caller, beyond, plan.standing)
        try:
            taken = self._near.admit(share, demand)
        except LimitReached as refusal:
            plan.standing = self._standing_alone(plan, share)
            obstacle = plan.whole(refusal.obstacle)
            raise LimitReached(plan.caller, obstacle, plan.standing) from None
        assert taken is not None  # noqa: S101  (it has nothing to load)
        plan.standing = self._standing_alone(plan, share)
        return _Alone(taken, plan.standing)

    def _standing_alone(self, plan: Plan, share: Caller) -> Standing | None:
        """What is left of shares, and the limits they are of."""
        limits = {scope.id: scope.allowance.requests for scope in plan.caller.scopes}
        told = []
        for scope in share.scopes:
            standing = self._near.peek(replace(share, scopes=(scope,)))
            limit = limits[scope.id]
            if standing is not None and limit:
                told.append(standing._replace(limit=limit))
        return min(told, key=lambda one: one.remaining, default=None)

    def _orphaned(self, plan: Plan, name: str, answer: Any) -> None:
        """Its caller had left when the reservation came."""
        if isinstance(answer, Away):
            if plan.held:
                self._void(plan, name)
        elif answer[0] == b"in":
            self._taken(plan, name, answer).settle(counted=False, tokens=0, cost=0.0)

    async def _seed(self, row: Row, start: int) -> None:
        """Tell Redis what was used of a quota since its period began."""
        task = self._seeding.get(row.keys[0])
        if task is None:
            task = asyncio.create_task(self._tell_past(row, start))
            self._seeding[row.keys[0]] = task
            task.add_done_callback(lambda task: self._seeded(row.keys[0], task))
        # Whoever leaves must not take the answer from the others who wait for it.
        await asyncio.shield(task)

    async def _tell_past(self, row: Row, start: int) -> None:
        per = row.per
        if per is None:
            raise ValueError(f"{row.kind} is no quota")
        totals = (await self._load(row.scope)).totals.get(per, (0, 0, 0.0))
        if per != "ever" and span_of(per, self._wall()).start != start:
            totals = (0, 0, 0.0)  # by one of the two clocks, the period has only just begun
        requests, tokens, cost = totals
        await self._shared.run(
            SEED, row.keys[:1], self._now(), per, start, requests, tokens, round(cost * BILLION)
        )

    def _seeded(self, name: str, task: "asyncio.Task[None]") -> None:
        del self._seeding[name]
        if not task.cancelled():
            task.exception()  # whoever waited has heard of it

    # Settling

    def release(self, held: "_Held") -> None:
        """Of a reservation whose request runs no more. Where that does not reach Redis, the place
        is free when its lease is over: it is renewed no more."""
        plan = held.plan
        places = [self._key_held(plan, number) for number in plan.running]
        if places:
            self._shared.post(_RELEASE, places, held.name)

    def settle(self, held: "_Held", *, counted: bool, tokens: int, cost: float) -> None:
        """Of a reservation that is over."""
        self._held.pop(held.name, None)
        plan = held.plan
        if counted and not plan.settles:
            return
        words = [
            self._now(), held.name, int(counted), min(max(tokens, 0), MOST), billionths(cost), 0,
            *plan.settling(held.taken),
        ]  # fmt: skip
        self._shared.post(
            SETTLE, plan.keys, *words, failed=lambda sent: self._again(plan, words, sent=sent)
        )

    def _void(self, plan: Plan, name: str) -> None:
        """It may have been reserved, and nobody knows what."""
        words = [self._now(), name, 0, 0, 0, 2, *plan.settling([b""] * len(plan.rows))]
        self._again(plan, words, sent=False)

    def _again(self, plan: Plan, words: list[Any], *, sent: bool) -> None:
        words[5] = words[5] or (1 if sent else 3)
        if len(self._unsettled) < WAITING:
            self._unsettled.append((plan, words))
        else:
            self._dropped += 1

    async def _settle_waiting(self) -> None:
        if self._dropped and not self._shared.away:
            log.error("settlements were dropped: limits count what was reserved",
                      count=self._dropped)  # fmt: skip
            self._dropped = 0
        while self._unsettled:
            plan, words = self._unsettled[0]
            try:
                await self._shared.run(SETTLE, plan.keys, *words)
            except Away:
                words[5] = 2 if words[5] == 2 else 1
                raise
            self._unsettled.popleft()

    def _renew(self, now: float, *, all_of_them: bool = False) -> None:
        for _ in range(len(self._due)):
            due, name = self._due[0]
            if due > now and not all_of_them:
                return
            self._due.popleft()
            if name not in self._held:
                continue
            self._due.append((now + self._lease / RENEWALS, name))
            held = self._held[name]
            plan = held.plan
            numbers = [each for each in plan.held if held.runs or each not in plan.running]
            words: list[Any] = []
            for number in numbers:
                running = number in plan.running
                words += ("running", name) if running else ("quota", held.taken[number])
            keys = [self._key_held(plan, number) for number in numbers]
            self._shared.post(RENEW, keys, self._now(), self._lease, *words)

    @staticmethod
    def _key_held(plan: Plan, number: int) -> str:
        row = plan.rows[number]
        return row.keys[0] if row.kind == "running" else row.keys[1]

    def _back(self) -> None:
        """Redis is there again, perhaps without what it knew."""
        self._renew(asyncio.get_running_loop().time(), all_of_them=True)
        self._wake.set()

    def _now(self) -> str | float:
        return "" if self._clock is None else self._clock()


class _Held:
    """A `Reservation` in Redis."""

    __slots__ = ("_limits", "_open", "name", "nearby", "plan", "runs", "standing", "taken")

    def __init__(self, limits: SharedLimits, plan: Plan, name: str, taken: list[bytes]) -> None:
        self.plan = plan
        self.name = name
        self.taken = taken
        self.standing = plan.standing
        self.nearby: Reservation | None = None
        self.runs = True
        self._limits = limits
        self._open = True

    def release(self) -> None:
        if not (self._open and self.runs):
            return
        self.runs = False
        if self.nearby is not None:
            self.nearby.release()
        self._limits.release(self)

    def settle(self, *, counted: bool, tokens: int, cost: float) -> None:
        if not self._open:
            return
        self._open = False
        if self.nearby is not None:
            self.nearby.settle(counted=counted, tokens=tokens, cost=cost)
        self._limits.settle(self, counted=counted, tokens=tokens, cost=cost)


class _Alone:
    """A `Reservation` of a share."""

    __slots__ = ("_taken", "standing")

    def __init__(self, taken: Reservation, standing: Standing | None) -> None:
        self._taken = taken
        self.standing = standing

    def release(self) -> None:
        self._taken.release()

    def settle(self, *, counted: bool, tokens: int, cost: float) -> None:
        self._taken.settle(counted=counted, tokens=tokens, cost=cost)


def _standing(limit: int, remaining: int, reset: int) -> Standing | None:
    return None if limit < 0 else Standing(limit, remaining, reset)


async def _no_past(scope: Scope) -> Past:  # noqa: ARG001  (a `Load`)
    return Past()
