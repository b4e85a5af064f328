"""Requests that run no more, and have yet to be settled: their place is free, the rest is not."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from manyways.access.limits import Demand, Limits, LocalLimits
from manyways.access.shared_limits import SharedLimits
from manyways.store.shared import Shared
from manyways.types import Allowance, Caller, Quota
from tests.support.limits import ANY, Clocks, Database, caller, done, old_process, refused, told
from tests.support.valkey import Valkey, eventually, running_valkey

ONE = Allowance(concurrent=1)
LEASE = 6.0
"""Seconds of what Redis holds: it is renewed in every quarter of them."""
SHORT = 1.5


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as running:
        yield running


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.process)])
async def limits(request: pytest.FixtureRequest) -> AsyncIterator[Limits]:
    if request.param == "memory":
        yield old_process(Clocks(), Database())
        return
    valkey: Valkey = request.getfixturevalue("valkey")
    valkey.ask("FLUSHALL")
    shared = await Shared.open(valkey.url)
    counted = SharedLimits(shared, Database().load, lease=LEASE)
    running = asyncio.create_task(counted.run())
    try:
        yield counted
    finally:
        running.cancel()
        await asyncio.wait({running})
        await shared.aclose()


async def refuses(limits: Limits, who: Caller, demand: Demand = ANY) -> str:
    """The code with which it does."""
    if isinstance(limits, LocalLimits):
        return told(refused(limits, who, demand))[0]
    try:
        await limits.reserve(who, demand)
    except Exception as refusal:  # noqa: BLE001 - whatever it is, its code is told
        return str(getattr(refusal, "code", refusal))
    raise AssertionError("it got in")


async def renewed(valkey: Valkey) -> None:
    """Once what is held of a quota is held for longer."""
    (name,) = [each for each in valkey.ask("KEYS", "*held*") if valkey.ask("ZCARD", each)]

    def until() -> float:
        return float(valkey.ask("ZRANGE", name, 0, 0, "WITHSCORES")[1])

    first = until()
    await eventually(lambda: until() > first)


async def test_its_place_is_free_at_once(limits: Limits) -> None:
    who = caller(ONE)
    left = await limits.reserve(who, ANY)
    assert await refuses(limits, who) == "concurrent_requests"
    left.release()
    left.release()
    await limits.reserve(who, ANY)
    assert await refuses(limits, who) == "concurrent_requests"


async def test_it_is_settled_without_freeing_a_place_twice(limits: Limits) -> None:
    who = caller(ONE)
    left = await limits.reserve(who, ANY)
    left.release()
    await limits.reserve(who, ANY)
    done(left)
    assert await refuses(limits, who) == "concurrent_requests"


async def test_a_release_behind_the_settling_frees_nothing(limits: Limits) -> None:
    who = caller(ONE)
    over = await limits.reserve(who, ANY)
    done(over)
    await limits.reserve(who, ANY)
    over.release()
    assert await refuses(limits, who) == "concurrent_requests"


@pytest.mark.parametrize(
    ("allowance", "code"),
    [
        (Allowance(tokens=100, tokens_window=60.0, concurrent=5), "rate_limit_exceeded"),
        (Allowance(quota=(Quota(tokens=100, per="day"),), concurrent=5), "quota_exceeded"),
        (Allowance(quota=(Quota(cost=1.0),), concurrent=5), "quota_exceeded"),
    ],
)
async def test_what_it_has_reserved_is_held_until_it_is_settled(
    limits: Limits, allowance: Allowance, code: str, request: pytest.FixtureRequest
) -> None:
    who = caller(allowance)
    demand = Demand(tokens=60, cost=0.6, fixed=True)
    left = await limits.reserve(who, demand)
    left.release()
    if not isinstance(limits, LocalLimits) and allowance.quota:
        await renewed(request.getfixturevalue("valkey"))
    assert await refuses(limits, who, demand) == code
    left.settle(counted=True, tokens=10, cost=0.1)
    await limits.reserve(who, Demand(tokens=90, cost=0.9, fixed=True))
    assert await refuses(limits, who, Demand(tokens=1, cost=0.01, fixed=True)) == code


async def test_who_is_owed_is_not_forgotten() -> None:
    """Else it would be loaded again from records, and miss what is settled later."""
    limits = old_process(Clocks(), Database(), most=3)
    quota = Allowance(quota=(Quota(tokens=100),))
    left = await limits.reserve(caller(quota, name="left"), Demand(tokens=60))
    left.release()
    for count in range(20):
        done(await limits.reserve(caller(quota, name=str(count)), ANY))
    left.settle(counted=True, tokens=100, cost=0.0)
    assert told(refused(limits, caller(quota, name="left")))[0] == "quota_exceeded"


@pytest.mark.process
async def test_a_place_is_not_taken_again_by_what_is_renewed(valkey: Valkey) -> None:
    """Nor where Redis does not hear of the release: then its lease ends."""
    valkey.ask("FLUSHALL")
    shared = await Shared.open(valkey.url)
    limits = SharedLimits(shared, Database().load, lease=SHORT)
    running = asyncio.create_task(limits.run())
    try:
        who = caller(Allowance(concurrent=1, quota=(Quota(tokens=100),)))
        left = await limits.reserve(who, Demand(tokens=60))
        (place,) = valkey.ask("KEYS", "*running*")
        (member,) = valkey.ask("ZRANGE", place, 0, -1)
        left.release()
        await eventually(lambda: valkey.ask("ZCARD", place) == 0)
        valkey.ask("ZADD", place, time.time() + SHORT, member)  # as if it had not come
        await asyncio.sleep(1.2 * SHORT)
        await limits.reserve(who, Demand(tokens=10))
        done(left, tokens=60)
    finally:
        running.cancel()
        await asyncio.wait({running})
        await shared.aclose()
