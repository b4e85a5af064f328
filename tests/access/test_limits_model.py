"""Limits against a plain model: a list of everything that was ever admitted, looked through whole.

Time is virtual. The wall clock jumps by hours, back and forth; the other one only runs.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    multiple,
    rule,
)

from manyways.access.limits import (
    Demand,
    LimitReached,
    LocalLimits,
    Past,
    Reservation,
    Totals,
)
from manyways.errors import Refusal
from manyways.types import Allowance, Caller, Period, Quota, Scope
from tests.support.limits import Clocks, Database, caller, old_process

BASE = datetime(2026, 2, 27, 21, tzinfo=UTC).timestamp()
ERRORS_OF_SLICES = 1 / 4096

amounts = st.sampled_from([1, 2, 3, 5])
lengths = st.sampled_from([1.0, 10.0, 60.0])
tokens = st.sampled_from([0, 1, 10, 40, 100, 300])
costs = st.sampled_from([0.0, 0.1, 0.25, 0.7])
steps = st.sampled_from([1 / 512, 1 / 64, 0.25, 0.75, 1.0, 7.0, 30.0, 59.0, 60.0, 3600.0, 40000.0])


@st.composite
def all_demands(draw: st.DrawFn) -> Demand:
    most, cost = draw(tokens), draw(costs)
    prompt = draw(st.sampled_from([0.0, 0.4, 0.9, 1.0]))
    return Demand(
        tokens=most,
        cost=cost,
        least_tokens=int(prompt * most),
        least_cost=prompt * cost,
        fixed=draw(st.booleans()),
    )


demands = all_demands()
quotas = st.builds(
    Quota,
    requests=st.none() | st.integers(3, 12),
    tokens=st.none() | st.sampled_from([60, 100, 500]),
    cost=st.none() | st.sampled_from([0.5, 2.0]),
    per=st.sampled_from(["day", "month", "ever"]),
)


@st.composite
def allowances(draw: st.DrawFn) -> Allowance:
    return Allowance(
        requests=draw(amounts),
        window=draw(lengths),
        tokens=draw(st.sampled_from([50, 100, 250])),
        tokens_window=draw(lengths),
        concurrent=draw(st.none() | st.integers(1, 4)),
        quota=tuple(draw(st.lists(quotas, max_size=3))),
    )


@dataclass
class Use:
    """One admitted request, as one scope sees it."""

    moment: float
    tokens: int
    requests: int = 1


@dataclass
class Spent:
    requests: int = 0
    tokens: int = 0
    cost: int = 0


@dataclass
class Ledger:
    """One scope, remembered whole. Costs are in billionths."""

    scope: Scope
    uses: list[Use] = field(default_factory=list)
    spent: dict[tuple[object, ...], Spent] = field(default_factory=dict)
    running: int = 0

    def meter(self, per: Period, wall: float) -> Spent:
        day = datetime.fromtimestamp(wall, UTC)
        name = {"day": (day.year, day.month, day.day), "month": (day.year, day.month), "ever": ()}
        return self.spent.setdefault((per, *name[per]), Spent())

    def within(self, now: float, length: float) -> list[Use]:
        return [use for use in self.uses if use.moment + length > now]

    def requests_used(self, now: float, late: float = 0.0) -> int:
        length = (self.scope.allowance.window or 0.0) * (1 + late)
        return sum(use.requests for use in self.within(now, length))

    def tokens_used(self, now: float, late: float = 0.0) -> int:
        length = (self.scope.allowance.tokens_window or 0.0) * (1 + late)
        return sum(use.tokens for use in self.within(now, length))

    def reserved(self, demand: Demand) -> int:
        return min(max(demand.tokens, 1), self.scope.allowance.tokens or 0)

    def windows_have_room(self, demand: Demand, now: float, late: float = 0.0) -> bool:
        allowance = self.scope.allowance
        used = self.tokens_used(now, late) + self.reserved(demand)
        return self.requests_used(now, late) < (allowance.requests or 0) and used <= (
            allowance.tokens or 0
        )

    @property
    def crowded(self) -> bool:
        return self.running >= (self.scope.allowance.concurrent or 10**9)

    def quotas_have_room(self, demand: Demand, wall: float, *, ever: bool = False) -> bool:
        for quota in self.scope.allowance.quota:
            if ever and quota.per != "ever":
                continue
            spent = self.meter(quota.per, wall)
            if quota.requests is not None and spent.requests + 1 > quota.requests:
                return False
            for limit, used, need in (
                (quota.tokens, spent.tokens, max(due(demand)[0], 1)),
                (
                    quota.cost and round(quota.cost * 1e9),
                    spent.cost,
                    max(round(due(demand)[1] * 1e9), 1),
                ),
            ):
                if limit is not None and used + need > limit:
                    return False
        return True

    def can_ever_be(self, need: tuple[int, float]) -> bool:
        allowance = self.scope.allowance
        tokens, cost = need
        return tokens <= (allowance.tokens or 0) and all(
            tokens <= (10**9 if quota.tokens is None else quota.tokens)
            and cost <= (10**9 if quota.cost is None else quota.cost)
            for quota in allowance.quota
        )

    def left(self, per: Period, wall: float) -> tuple[int, int]:
        """What quotas of the kind leave of tokens and cost."""
        spent = self.meter(per, wall)
        mine = [quota for quota in self.scope.allowance.quota if quota.per == per]
        told = [quota.tokens for quota in mine if quota.tokens is not None]
        paid = [round(quota.cost * 1e9) for quota in mine if quota.cost is not None]
        return (
            max(0, min(told, default=10**18) - spent.tokens),
            max(0, min(paid, default=10**18) - spent.cost),
        )


def due(demand: Demand) -> tuple[int, float]:
    """What has to be there before it is let in: all, or only what the shortest answer takes."""
    if demand.fixed:
        return demand.tokens, demand.cost
    return demand.least_tokens, demand.least_cost


def cost_of(demand: Demand) -> int:
    return max(round(demand.cost * 1e9), 1)


@dataclass
class Running:
    """A reservation, and all that the model has changed for it."""

    reservation: Reservation
    ledgers: list[Ledger]
    uses: list[Use]
    charges: list[tuple[Spent, int, int]]


class LimitsModel(RuleBasedStateMachine):
    running = Bundle("running")

    @initialize(
        key_a=allowances(),
        key_b=allowances(),
        account=allowances(),
        past=st.lists(
            st.tuples(st.sampled_from([0.5, 2.0, 30.0, 70.0]), st.sampled_from([1, 20])),
            max_size=2,
        ),
        young=st.booleans(),
    )
    def begin(
        self,
        key_a: Allowance,
        key_b: Allowance,
        account: Allowance,
        past: list[tuple[float, int]],
        young: bool,
    ) -> None:
        self.loop = asyncio.new_event_loop()
        self.now, self.shift = 1000.0, 0.0
        self.ledgers = {
            name: Ledger(Scope(id=name, allowance=allowance))
            for name, allowance in (("key:a", key_a), ("key:b", key_b), ("account:c", account))
        }
        self.unloaded = set(self.ledgers) if young else set()
        self.past = past if young else []
        self.limits = LocalLimits(
            self.load,
            clock=lambda: self.now,
            wall=lambda: self.wall,
            since=1000.0 if young else -1e9,
        )

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.close()

    @property
    def wall(self) -> float:
        return BASE + self.now - 1000.0 + self.shift

    async def load(self, scope: Scope) -> Past:
        """What the database says: the past, and before that nothing."""
        ledger = self.ledgers[scope.id]
        requests = []
        if scope.id in self.unloaded:
            self.unloaded.discard(scope.id)
            requests = [(age, 1, amount) for age, amount in self.past]
            ledger.uses = [Use(self.now - age, amount) for age, amount in self.past]
            for per in {quota.per for quota in scope.allowance.quota}:
                ledger.meter(per, self.wall).requests += len(self.past)
        totals = {}
        for quota in scope.allowance.quota:
            spent = ledger.meter(quota.per, self.wall)
            totals[quota.per] = Totals(spent.requests, spent.tokens, spent.cost / 1e9)
        return Past(requests=requests, totals=totals)

    def caller(self, key: str) -> tuple[Caller, list[Ledger]]:
        ledgers = [self.ledgers[key], self.ledgers["account:c"]]
        scopes = tuple(ledger.scope for ledger in ledgers)
        return Caller(key_id=key, key_type="full", last4="wxyz", scopes=scopes), ledgers

    def ask(self, key: str, demand: Demand) -> Reservation | Refusal:
        caller, _ = self.caller(key)
        try:
            return self.limits.admit(caller, demand) or self.loop.run_until_complete(
                self.limits.reserve(caller, demand)
            )
        except Refusal as refusal:
            return refusal

    def note(self, key: str, demand: Demand, reservation: Reservation) -> Running:
        _, ledgers = self.caller(key)
        uses, charges = [], []
        for ledger in ledgers:
            ledger.running += 1
            use = Use(self.now, ledger.reserved(demand))
            ledger.uses.append(use)
            uses.append(use)
            for per in {quota.per for quota in ledger.scope.allowance.quota}:
                spent = ledger.meter(per, self.wall)
                left_tokens, left_cost = ledger.left(per, self.wall)
                amount = min(max(demand.tokens, 1), left_tokens)
                cost = min(cost_of(demand), left_cost)
                spent.requests += 1
                spent.tokens += amount
                spent.cost += cost
                charges.append((spent, amount, cost))
        return Running(reservation, ledgers, uses, charges)

    @rule(target=running, key=st.sampled_from(["key:a", "key:b"]), demand=demands)
    def admit(self, key: str, demand: Demand) -> object:
        answer = self.ask(key, demand)
        _, ledgers = self.caller(key)

        if not all(ledger.can_ever_be(due(demand)) for ledger in ledgers):
            least = demand.least_tokens, demand.least_cost
            shorter_answer_helps = all(ledger.can_ever_be(least) for ledger in ledgers)
            assert isinstance(answer, Refusal)
            assert answer.code == "invalid_request"
            assert answer.param == ("max_tokens" if shorter_answer_helps else "messages")
            return multiple()
        others = all(
            ledger.quotas_have_room(demand, self.wall) and not ledger.crowded for ledger in ledgers
        )
        if isinstance(answer, Refusal):
            assert isinstance(answer, LimitReached)
            assert (answer.retry_after or 0) >= 1
            late = 2 * ERRORS_OF_SLICES
            strictly = all(one.windows_have_room(demand, self.now, late) for one in ledgers)
            assert not (others and strictly), answer
            return multiple()
        assert others
        assert all(one.windows_have_room(demand, self.now) for one in ledgers)
        return self.note(key, demand, answer)

    @rule(target=running, key=st.sampled_from(["key:a", "key:b"]), demand=demands)
    def follow_retry_after(self, key: str, demand: Demand) -> object:
        """A caller that waits as told gets in, unless what it waits for is not time."""
        answer = self.ask(key, demand)
        _, ledgers = self.caller(key)
        if isinstance(answer, Refusal):
            if not isinstance(answer, LimitReached) or any(
                one.crowded or not one.quotas_have_room(demand, self.wall, ever=True)
                for one in ledgers
            ):
                return multiple()
            assert answer.retry_after is not None
            self.now += answer.retry_after
            answer = self.ask(key, demand)
            if not all(one.quotas_have_room(demand, self.wall) for one in ledgers):
                assert isinstance(answer, LimitReached)  # the clock has been in this day before
                return multiple()
            assert not isinstance(answer, Refusal), answer
        return self.note(key, demand, answer)

    @rule(key=st.sampled_from(["key:a", "key:b"]), demand=demands, times=st.integers(2, 40))
    def ask_without_waiting(self, key: str, demand: Demand, times: int) -> None:
        """Whatever is promised to the impatient, nobody is kept out by it."""
        _, ledgers = self.caller(key)
        if self.unloaded or all(one.windows_have_room(demand, self.now) for one in ledgers):
            return
        for _ in range(times):
            assert isinstance(self.ask(key, demand), Refusal)

    @rule(one=running, data=st.data())
    def settle(self, one: Running, data: st.DataObject) -> None:
        counted = data.draw(st.booleans())
        used, cost = data.draw(tokens), data.draw(costs)
        one.reservation.settle(counted=counted, tokens=used, cost=cost)
        if not one.ledgers:  # for the second time
            return
        for ledger, use in zip(one.ledgers, one.uses, strict=True):
            ledger.running -= 1
            use.requests = int(counted)
            use.tokens = used
        for spent, reserved, reserved_cost in one.charges:
            spent.requests -= not counted
            spent.tokens += used - reserved
            spent.cost += round(cost * 1e9) - reserved_cost
        one.ledgers, one.uses, one.charges = [], [], []

    @rule(step=steps)
    def wait(self, step: float) -> None:
        self.now += step

    @rule(shift=st.integers(-24, 24))
    def wall_clock_jumps(self, shift: int) -> None:
        self.shift = shift * 3600.0

    @rule(
        name=st.sampled_from(["key:a", "key:b", "account:c"]),
        requests=amounts,
        most=st.sampled_from([50, 100, 250]),
        concurrent=st.none() | st.integers(1, 4),
    )
    def operator_changes_limits(
        self, name: str, requests: int, most: int, concurrent: int | None
    ) -> None:
        ledger = self.ledgers[name]
        old = ledger.scope.allowance
        changed = Allowance(
            requests=requests,
            window=old.window,
            tokens=most,
            tokens_window=old.tokens_window,
            concurrent=concurrent,
            quota=old.quota,
        )
        ledger.scope = Scope(id=name, allowance=changed)

    @rule(key=st.sampled_from(["key:a", "key:b"]))
    def look(self, key: str) -> None:
        caller, ledgers = self.caller(key)
        standing = self.limits.peek(caller)
        if standing is None or self.unloaded & {ledger.scope.id for ledger in ledgers}:
            return
        least, most = (
            min(
                max(0, (one.scope.allowance.requests or 0) - one.requests_used(self.now, late))
                for one in ledgers
            )
            for late in (2 * ERRORS_OF_SLICES, 0.0)
        )
        assert least <= standing.remaining <= most


LimitsModel.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestLimitsModel = LimitsModel.TestCase


@given(
    kind=st.sampled_from(["tokens", "cost"]),
    limit=st.integers(1, 100),
    asked=st.lists(
        st.tuples(st.integers(1, 60), st.integers(0, 60), st.integers(0, 60)), max_size=20
    ),
)
async def test_no_prompt_gets_in_that_is_more_than_a_quota_has_left(
    kind: str, limit: int, asked: list[tuple[int, int, int]]
) -> None:
    """One request after the other: how long its prompt is, the longest answer, and the true one.
    Only the answers may be more, and only of the last one that gets in."""
    limits = old_process(Clocks(), Database())
    who = caller(Allowance(quota=(Quota(tokens=limit) if kind == "tokens" else Quota(cost=limit),)))
    used = 0
    for prompt, most, true in asked:
        demand = Demand(
            tokens=prompt + most,
            cost=float(prompt + most),
            least_tokens=prompt,
            least_cost=float(prompt),
        )
        if used + prompt <= limit:
            reservation = await limits.reserve(who, demand)
            reservation.settle(counted=True, tokens=prompt + true, cost=float(prompt + true))
            used += prompt + true
            continue
        with pytest.raises(Refusal) as caught:
            await limits.reserve(who, demand)
        assert caught.value.code == ("invalid_request" if prompt > limit else "quota_exceeded")
