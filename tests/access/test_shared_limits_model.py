"""Counting in Redis is counting in memory: the same answers at the same moments."""

import asyncio
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from manyways.access.limits import Demand, LimitReached, LocalLimits, Past, Reservation, Totals
from manyways.access.shared_limits import SharedLimits
from manyways.access.windows import span_of
from manyways.errors import Refusal
from manyways.store.shared import Script, Shared
from manyways.types import Allowance, Caller, Period, Quota, Scope
from tests.support.valkey import Valkey, running_valkey

pytestmark = pytest.mark.process

T0 = 1_798_750_000.0  # four hours before a year ends
HOUR = 3600.0
NEVER = 1e9
"""Seconds of a lease that nobody has to renew."""
WAITS = [0.0005, 0.01, 0.4, 0.9, 1.0, 5.0, 59.0, HOUR, 5 * HOUR]

allowances = st.builds(
    Allowance,
    requests=st.none() | st.integers(1, 5),
    window=st.sampled_from([5.0, 60.0, HOUR]),
    tokens=st.none() | st.integers(1, 50),
    tokens_window=st.sampled_from([5.0, 60.0, HOUR]),
    concurrent=st.none() | st.integers(1, 3),
    quota=st.lists(
        st.builds(
            Quota,
            requests=st.none() | st.integers(1, 10),
            tokens=st.none() | st.integers(1, 100),
            cost=st.none() | st.sampled_from([0.01, 0.5, 2.0]),
            per=st.sampled_from(["day", "month", "ever"]),
        ),
        max_size=3,
    ).map(tuple),
)


@st.composite
def all_demands(draw: st.DrawFn) -> Demand:
    tokens, cost = draw(st.integers(0, 60)), draw(st.sampled_from([0.0, 0.004, 0.3, 1.0]))
    prompt = draw(st.sampled_from([0.0, 0.4, 0.9, 1.0]))
    return Demand(
        tokens=tokens,
        cost=cost,
        least_tokens=int(prompt * tokens),
        least_cost=prompt * cost,
        fixed=draw(st.booleans()),
    )


steps = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from(WAITS)),
    st.tuples(
        st.just("reserve"),
        st.integers(0, 1),
        all_demands(),
    ),
    st.tuples(
        st.just("settle"),
        st.integers(0, 5),
        st.booleans(),
        st.integers(0, 70),
        st.sampled_from([0.0, 0.003, 0.4]),
    ),
)


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as running:
        yield running


class Pair:
    """Both kinds of limits, asked the same at the same moment."""

    def __init__(self, shared: Shared) -> None:
        self.now = T0
        self.local = LocalLimits(self._past, self._clock, self._clock, since=float("-inf"))
        self.shared = SharedLimits(
            shared, self._past, clock=self._clock, wall=self._clock, lease=NEVER
        )
        self.held: list[tuple[Reservation, Reservation]] = []

    def _clock(self) -> float:
        return self.now

    async def _past(self, scope: Scope) -> Past:
        del scope
        used = Totals(requests=1, tokens=3, cost=0.001)
        return Past(totals=dict.fromkeys(("day", "month", "ever"), used))

    async def reserve(self, caller: Caller, demand: Demand) -> tuple[Any, Any]:
        """What both said, in comparable form."""
        answers: list[Any] = []
        held: list[Reservation] = []
        for limits in (self.local, self.shared):
            try:
                held.append(await limits.reserve(caller, demand))
                answers.append(held[-1].standing)
            except LimitReached as refusal:
                words = (refusal.code, refusal.retry_after, refusal.message, refusal.standing)
                answers.append(words)
            except Refusal as refusal:
                answers.append((refusal.code, refusal.message, refusal.param))
        if len(held) == 2:
            self.held.append((held[0], held[1]))
        return answers[0], answers[1]


def callers(key: Allowance, account: Allowance) -> list[Caller]:
    """Two keys of one account."""
    both = []
    for name in ("one", "two"):
        scopes = (Scope(id=f"key:{name}", allowance=key), Scope(id="account:a", allowance=account))
        both.append(
            Caller(
                key_id=name,
                key_type="full",
                last4="abcd",
                line=name,
                account_id="a",
                scopes=tuple(scope for scope in scopes if scope.allowance.limits),
            )
        )
    return both


PERIOD = Script(
    (files("manyways.access") / "scripts" / "clock.lua").read_text()
    + """
local start, finish = period(ARGV[2])
return {string.format('%.0f', start), string.format('%.0f', finish)}
"""
)


@given(wall=st.integers(0, 2**33), per=st.sampled_from(["day", "month"]))
def test_redis_and_memory_have_the_same_calendar(valkey: Valkey, wall: int, per: Period) -> None:
    span = span_of(per, wall)
    told = valkey.ask("EVAL", PERIOD.source, 0, wall, per)
    assert [float(one) for one in told] == [span.start, span.end]


@settings(max_examples=150)
@given(key=allowances, account=allowances, told=st.lists(steps, max_size=40))
def test_redis_and_memory_say_the_same(
    valkey: Valkey, key: Allowance, account: Allowance, told: list[Any]
) -> None:
    async def play() -> None:
        valkey.ask("FLUSHALL")
        shared = await Shared.open(valkey.url)
        try:
            pair = Pair(shared)
            both = callers(_valid(key), _valid(account))
            for step in told:
                match step:
                    case ("wait", seconds):
                        pair.now += seconds
                    case ("reserve", number, demand):
                        local, remote = await pair.reserve(both[number], demand)
                        assert remote == local
                    case ("settle", number, counted, tokens, cost) if pair.held:
                        for one in pair.held.pop(number % len(pair.held)):
                            one.settle(counted=counted, tokens=tokens, cost=cost)
        finally:
            await shared.aclose()

    asyncio.run(play())


def _valid(allowance: Allowance) -> Allowance:
    """A quota says at least one amount."""
    quota = tuple(
        one for one in allowance.quota if (one.requests, one.tokens, one.cost) != (None,) * 3
    )
    return replace(allowance, quota=quota)
