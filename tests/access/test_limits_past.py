"""Limits that change, what was used before they were kept here, and what is forgotten."""

import asyncio

import pytest

from manyways.access.limits import Demand, LimitReached, LocalLimits, Past, Totals, wants_tokens
from manyways.errors import StoreError
from manyways.types import Allowance, Quota
from tests.support.limits import (
    ANY,
    NOON,
    THIRTY,
    Clocks,
    Database,
    admit,
    caller,
    done,
    old_process,
    refused,
    young_process,
)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def limits(clocks: Clocks, database: Database) -> LocalLimits:
    return old_process(clocks, database)


# Changes


def test_a_changed_limit_holds_at_once_and_keeps_what_was_counted(limits: LocalLimits) -> None:
    for count in range(5):
        standing = admit(limits, caller(THIRTY)).standing
        assert standing is not None
        assert standing.remaining == 29 - count
    assert refused(limits, caller(Allowance(requests=3, window=60.0))).standing == (
        3,
        0,
        int(NOON) + 60,
    )
    assert limits.peek(caller(Allowance(requests=6, window=60.0))) == (6, 1, int(NOON) + 60)


def test_a_limit_that_was_lifted_and_comes_back_finds_its_count(limits: LocalLimits) -> None:
    admit(limits, caller(Allowance(requests=2, window=60.0)))
    lifted = caller(Allowance(concurrent=9))
    assert admit(limits, lifted).standing is None
    assert limits.peek(lifted) is None
    refused(limits, caller(Allowance(requests=2, window=60.0)))


@pytest.mark.parametrize(
    "quota", [Quota(tokens=100, per="day"), Quota(requests=2), Quota(cost=1.0, per="month")]
)
async def test_a_quota_that_comes_while_requests_run_counts_them(
    limits: LocalLimits, quota: Quota
) -> None:
    running = admit(limits, caller(THIRTY))
    who = caller(Allowance(quota=(quota,)))
    done(await limits.reserve(who, Demand(tokens=10, cost=0.1)), tokens=10, cost=0.1)
    done(running, tokens=90, cost=0.9)
    refused(limits, who)


# The past


async def test_a_young_process_asks_what_was_admitted_before(
    clocks: Clocks, database: Database
) -> None:
    limits = young_process(clocks, database)
    who = caller(Allowance(requests=3, window=60.0, tokens=100, tokens_window=60.0))
    database.pasts["key:one"] = Past(requests=[(70.0, 1, 50), (20.0, 1, 30), (10.0, 1, 20)])
    assert limits.admit(who, ANY) is None
    assert limits.peek(who) is None

    reservation = await limits.reserve(who, Demand(tokens=50))
    assert reservation.standing == (3, 0, int(NOON) + 40)
    assert refused(limits, who, Demand(tokens=50)).retry_after == 50
    assert database.asked == ["key:one"]


def test_a_process_older_than_the_window_asks_nobody(clocks: Clocks, database: Database) -> None:
    limits = young_process(clocks, database)
    clocks.wait(60.0)
    admit(limits, caller(THIRTY))
    assert database.asked == []


async def test_a_quota_is_always_asked_for(limits: LocalLimits, database: Database) -> None:
    used = Totals(requests=7, tokens=900, cost=0.5)
    database.pasts["key:one"] = Past(totals={"month": used})
    who = caller(Allowance(quota=(Quota(tokens=1000, per="month"), Quota(cost=9.0, per="ever"))))

    await limits.reserve(who, Demand(tokens=100, fixed=True))
    refused(limits, who, Demand(tokens=1, fixed=True))


async def test_many_who_need_the_same_past_share_one_look(
    limits: LocalLimits, database: Database
) -> None:
    database.gate = asyncio.Event()
    both = caller(Allowance(quota=(Quota(requests=30),)), Allowance(quota=(Quota(requests=40),)))
    tasks = [asyncio.create_task(limits.reserve(both, ANY)) for _ in range(200)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.sleep(0)
    database.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert sorted(database.asked) == ["account:them", "key:one"]
    assert isinstance(results[0], asyncio.CancelledError)
    assert sum(isinstance(one, LimitReached) for one in results) == 169
    assert repr(limits) == "<LocalLimits 2 scopes, 0 loading>"


async def test_nobody_gets_in_while_the_past_cannot_be_loaded(
    limits: LocalLimits, database: Database
) -> None:
    who = caller(Allowance(quota=(Quota(requests=30),)))
    database.failure = StoreError("away")
    with pytest.raises(StoreError, match="away"):
        await limits.reserve(who, ANY)
    assert limits.admit(who, ANY) is None

    database.failure = None
    await limits.reserve(who, ANY)
    admit(limits, who)


# Memory


def test_scopes_that_count_nothing_any_more_are_forgotten(
    limits: LocalLimits, clocks: Clocks
) -> None:
    for count in range(500):
        done(admit(limits, caller(THIRTY, name=str(count))))
    assert repr(limits) == "<LocalLimits 500 scopes, 0 loading>"
    clocks.wait(61.0)
    for count in range(500, 1000):
        clocks.wait(1.0)
        done(admit(limits, caller(THIRTY, name=str(count))))

    assert int(repr(limits).split()[1]) < 80


def test_scopes_that_count_are_kept_beyond_the_bound(clocks: Clocks, database: Database) -> None:
    limits = old_process(clocks, database, most=10)
    one = Allowance(requests=1, window=60.0)
    running = [admit(limits, caller(one, name=str(count))) for count in range(50)]

    for count in range(50):
        refused(limits, caller(one, name=str(count)))
    for reservation in running:
        reservation.settle(counted=False, tokens=0, cost=0.0)
    for count in range(50, 80):
        admit(limits, caller(one, name=str(count))).settle(counted=False, tokens=0, cost=0.0)
    assert int(repr(limits).split()[1]) < 10


async def test_a_quota_is_forgotten_when_memory_is_full_and_its_records_are_safe(
    clocks: Clocks, database: Database
) -> None:
    safe = False
    limits = old_process(clocks, database, most=10, evictable=lambda: safe)
    quota = Allowance(quota=(Quota(requests=5),))
    for count in range(20):
        done(await limits.reserve(caller(quota, name=str(count)), ANY))
    assert repr(limits) == "<LocalLimits 20 scopes, 0 loading>"
    safe = True
    for count in range(20, 30):
        done(await limits.reserve(caller(quota, name=str(count)), ANY))

    assert int(repr(limits).split()[1]) <= 10
    assert limits.admit(caller(quota, name="0"), ANY) is None
    database.pasts["key:0"] = Past(totals={"ever": Totals(requests=5)})
    with pytest.raises(LimitReached):
        await limits.reserve(caller(quota, name="0"), ANY)


def test_prompts_are_worth_counting_only_where_tokens_or_money_are_limited() -> None:
    assert not wants_tokens(caller(THIRTY, Allowance(quota=(Quota(requests=1),), concurrent=1)))
    assert wants_tokens(caller(THIRTY, Allowance(tokens=5, tokens_window=1.0)))
    assert wants_tokens(caller(Allowance(quota=(Quota(requests=1), Quota(tokens=1)))))
    assert wants_tokens(caller(THIRTY, Allowance(quota=(Quota(cost=1.0),))))
