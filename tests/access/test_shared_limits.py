"""Limits that several nodes count together, against a real server: never one over."""

import asyncio
import contextlib
import random
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from manyways.access.limits import Demand, LimitReached, Load, Past, Reservation, Totals
from manyways.access.shared_limits import SharedLimits
from manyways.errors import Refusal, StoreError
from manyways.store.redis_link import LIMIT
from manyways.store.shared import Script, Shared
from manyways.types import Allowance, Caller, Quota, Scope
from tests.support.valkey import Valkey, eventually, running_cluster, running_valkey

pytestmark = pytest.mark.process

SLACK = 0.5
"""Seconds a busy machine may be late."""
RUNS = 20


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    with running_valkey(tmp_path) as running:
        yield running


async def nothing(scope: Scope) -> Past:
    del scope
    return Past()


@contextlib.asynccontextmanager
async def nodes(
    url: str, count: int = 2, *, load: Load = nothing, lease: float = 30.0
) -> AsyncIterator[list[SharedLimits]]:
    """So many gateways that share a server, each with its work in the background."""
    shareds = [await Shared.open(url) for _ in range(count)]
    limits = [
        SharedLimits(shared, load, node=f"node{number}", lease=lease)
        for number, shared in enumerate(shareds)
    ]
    works = [asyncio.create_task(one.run()) for one in limits]
    try:
        await eventually(lambda: max(one.nodes for one in limits) == count)
        yield limits
    finally:
        for work in works:
            work.cancel()
        await asyncio.wait(works)
        await asyncio.gather(*(shared.aclose() for shared in shareds))


def caller(name: str = "a", **limits: Any) -> Caller:
    scopes = (Scope(id=f"key:{name}", allowance=Allowance(**limits)),)
    return Caller(key_id=name, key_type="full", last4="abcd", line=name, scopes=scopes)


async def asked(
    limits: Sequence[SharedLimits], who: Caller, times: int, demand: Demand | None = None
) -> tuple[list[Reservation], list[LimitReached]]:
    """Who got in of so many at once, spread over nodes, and who did not."""
    wanted = demand or Demand()
    answers = await asyncio.gather(
        *(limits[n % len(limits)].reserve(who, wanted) for n in range(times)),
        return_exceptions=True,
    )
    refused = [one for one in answers if isinstance(one, LimitReached)]
    held = [one for one in answers if not isinstance(one, BaseException)]
    assert len(held) + len(refused) == times, answers
    return held, refused


@pytest.mark.parametrize(
    ("limits", "demand"),
    [
        ({"requests": 30, "window": 60.0}, Demand()),
        ({"tokens": 3000, "tokens_window": 60.0}, Demand(tokens=100, fixed=True)),
        ({"concurrent": 30}, Demand()),
        ({"quota": (Quota(requests=30, per="month"),)}, Demand()),
        ({"quota": (Quota(tokens=3000, per="day"),)}, Demand(tokens=100, fixed=True)),
        ({"quota": (Quota(cost=0.3),)}, Demand(cost=0.01, fixed=True)),
    ],
)
async def test_of_a_thousand_at_once_as_many_get_in_as_may(
    valkey: Valkey, limits: dict[str, Any], demand: Demand
) -> None:
    async with nodes(valkey.url) as both:
        for run in range(RUNS):
            held, refused = await asked(both, caller(f"k{run}", **limits), 1000, demand)
            assert len(held) == 30
            assert all(one.retry_after for one in refused)


CHILD = """
import asyncio, sys, time
from tests.access.test_shared_limits import asked, caller, nothing
from manyways.access.shared_limits import SharedLimits
from manyways.store.shared import Script, Shared

async def main(url, runs, begin):
    shared = await Shared.open(url)
    limits = SharedLimits(shared, nothing)
    await asyncio.sleep(begin - time.time())
    for run in range(runs):
        held, _ = await asked([limits], caller(f"k{run}", requests=30, window=600.0), 500)
        print(len(held))
    await shared.aclose()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
"""


async def test_two_processes_let_in_no_more_than_one(valkey: Valkey) -> None:
    begin = str(time.time() + 2.0)
    children = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CHILD, valkey.url, str(RUNS), begin),
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        for _ in range(2)
    ]
    told = await asyncio.gather(*(child.communicate() for child in children))
    counts = [[int(line) for line in out.split(b"\n") if line.strip().isdigit()] for out, _ in told]
    assert [one + other for one, other in zip(*counts, strict=True)] == [30] * RUNS


async def test_who_waits_as_told_and_is_alone_gets_in(valkey: Valkey) -> None:
    now = 1_800_000_000.0
    shared = await Shared.open(valkey.url)
    try:
        limits = SharedLimits(shared, nothing, clock=lambda: now, wall=lambda: now)
        who = caller(requests=3, window=10.0, tokens=50, tokens_window=61.5)
        for _ in range(30):
            held, refused = await asked([limits], who, 1, Demand(tokens=20))
            if refused:
                now += refused[0].retry_after or 0
                held, refused = await asked([limits], who, 1, Demand(tokens=20))
            assert not refused
            held[0].settle(counted=True, tokens=7, cost=0.0)
            now += 0.7
    finally:
        await shared.aclose()


async def test_what_was_not_used_is_given_back(valkey: Valkey) -> None:
    who = caller(
        requests=2, window=60.0, tokens=100, tokens_window=60.0, concurrent=2,
        quota=(Quota(tokens=150, per="day"),),
    )  # fmt: skip
    async with nodes(valkey.url) as (one, other):
        held, _ = await asked([one, other], who, 2, Demand(tokens=50))
        assert not (await asked([one], who, 1, Demand(tokens=50)))[0]
        held[0].settle(counted=False, tokens=0, cost=0.0)
        held[0].settle(counted=False, tokens=0, cost=0.0)
        held[1].settle(counted=True, tokens=10, cost=0.0)
        held, _ = await asked([one], who, 3, Demand(tokens=50))
        assert len(held) == 1
        assert held[0].standing is not None
        assert held[0].standing[:2] == (2, 0)
        assert one.peek(who) == held[0].standing


async def test_a_key_and_its_account_are_taken_from_together(valkey: Valkey) -> None:
    account = Scope(id="account:a", allowance=Allowance(requests=3, window=60.0))
    callers = [
        Caller(
            key_id=name, key_type="full", last4="abcd", line=name, account_id="a",
            scopes=(Scope(id=f"key:{name}", allowance=Allowance(requests=2, window=60.0)), account),
        )
        for name in ("one", "two")
    ]  # fmt: skip
    async with nodes(valkey.url) as both:
        first, _ = await asked(both, callers[0], 10)
        second, refused = await asked(both, callers[1], 10)
        assert (len(first), len(second)) == (2, 1)
        assert "account" in refused[0].message
        second[0].settle(counted=False, tokens=0, cost=0.0)
        assert len((await asked(both, callers[1], 10))[0]) == 1


async def test_who_leaves_while_it_asks_takes_nothing(valkey: Valkey) -> None:
    who = caller(requests=1, window=60.0, concurrent=1)
    async with nodes(valkey.url, 1) as (limits,):
        asking = asyncio.create_task(limits.reserve(who, Demand()))
        await asyncio.sleep(0)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking

        async def gets_in() -> bool:
            return bool((await asked([limits], who, 1))[0])

        async with asyncio.timeout(5.0):
            while not await gets_in():
                pass


async def test_whoever_leaves_at_whatever_moment_leaves_nothing_behind(valkey: Valkey) -> None:
    chance = random.Random(1)
    who = caller(
        requests=10**6, window=60.0, concurrent=5, tokens=10**6, tokens_window=60.0,
        quota=(Quota(tokens=10**6, per="day"),),
    )  # fmt: skip
    settled = 0

    async def request(limits: SharedLimits) -> None:
        nonlocal settled
        held = await limits.reserve(who, Demand(tokens=10))
        try:
            await asyncio.sleep(chance.random() * 0.005)
        finally:
            held.settle(counted=True, tokens=1, cost=0.0)
            settled += 1

    async with nodes(valkey.url) as both:
        for turn in range(150):
            if turn % 50 == 10:
                valkey.ask("SCRIPT", "FLUSH")
            tasks = [asyncio.create_task(request(both[number % 2])) for number in range(6)]
            for task in tasks:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
                if chance.random() < 0.6:
                    task.cancel()
            await asyncio.sleep(chance.random() * 0.004)
            for task in tasks:
                if chance.random() < 0.3:
                    task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(
                end is None or isinstance(end, LimitReached | asyncio.CancelledError)
                for end in ends
            )
        await eventually(lambda: not any(limits._held for limits in both))
        for name in ("manyways:{a}:key:a:running", "manyways:{a}:key:a:held-day"):
            await eventually(partial(_is_empty, valkey, name))
        used = valkey.ask("HMGET", "manyways:{a}:key:a:used-day", "requests", "tokens", "cost")
        assert used == [str(settled), str(settled), "0"]


def _is_empty(valkey: Valkey, name: str) -> bool:
    return bool(valkey.ask("ZCARD", name) == 0)


async def test_who_leaves_while_redis_hangs_takes_nothing_when_it_goes_on(valkey: Valkey) -> None:
    who = caller(concurrent=1, quota=(Quota(tokens=100),))
    async with nodes(valkey.url, 1) as (limits,):
        (await limits.reserve(who, Demand())).settle(counted=False, tokens=0, cost=0.0)
        await eventually(lambda: bool(valkey.ask("ZCARD", "manyways:{a}:key:a:running") == 0))
        valkey.pause()
        asking = asyncio.create_task(limits.reserve(who, Demand(tokens=100)))
        await asyncio.sleep(0.1)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        await eventually(lambda: limits._shared.away)
        valkey.resume()
        await eventually(lambda: not limits._shared.away and not limits._unsettled)
        held, _ = await asked([limits], who, 1, Demand(tokens=100, fixed=True))
        assert held


async def test_a_node_that_died_gives_back_its_places_and_one_that_lives_keeps_them(
    valkey: Valkey,
) -> None:
    lease = 1.0
    living = caller("living", concurrent=1)
    dead = caller("dead", concurrent=1, quota=(Quota(tokens=10),))
    async with nodes(valkey.url, lease=lease) as (one, other):
        await asked([one], living, 1)
        ghost = await Shared.open(valkey.url)
        nobody = SharedLimits(ghost, nothing, lease=lease)  # its `run` does not: it is dead
        await nobody.reserve(dead, Demand(tokens=10, fixed=True))
        await ghost.aclose()
        began = time.monotonic()
        demand = Demand(tokens=10, fixed=True)
        while not (await asked([other], dead, 1, demand))[0]:
            assert time.monotonic() - began < lease + SLACK
            await asyncio.sleep(0.02)
        assert time.monotonic() - began > lease / 2
        while time.monotonic() - began < 2.5 * lease:
            assert not (await asked([other], living, 1))[0], "it was renewed"
            await asyncio.sleep(0.05)


async def test_a_slow_node_settles_what_it_was_thought_to_have_lost(valkey: Valkey) -> None:
    now = 1_800_000_000.0
    shared = await Shared.open(valkey.url)
    try:
        limits = SharedLimits(shared, nothing, clock=lambda: now, wall=lambda: now)
        who = caller(quota=(Quota(tokens=100),))
        held, _ = await asked([limits], who, 1, Demand(tokens=100))
        now += 31.0
        assert (await asked([limits], who, 1, Demand(tokens=40)))[0], "it was given back"
        held[0].settle(counted=True, tokens=60, cost=0.0)
        assert not (await asked([limits], who, 1, Demand(tokens=1)))[0], "60 and 40 are used"
    finally:
        await shared.aclose()


async def test_a_quota_goes_on_from_the_records_which_are_asked_once(valkey: Valkey) -> None:
    loaded: list[str] = []

    async def load(scope: Scope) -> Past:
        loaded.append(scope.id)
        await asyncio.sleep(0.05)
        return Past(totals={"day": Totals(requests=5, tokens=900, cost=0.0)})

    who = caller(quota=(Quota(tokens=1000, per="day"),))
    async with nodes(valkey.url, load=load) as both:
        held, _ = await asked(both, who, 200, Demand(tokens=10, fixed=True))
        assert len(held) == 10
        assert len(loaded) == len(both)
        valkey.ask("FLUSHALL")
        held, _ = await asked(both, who, 200, Demand(tokens=10, fixed=True))
        assert len(held) == 10, "what Redis has lost is loaded anew"


async def test_records_that_cannot_be_read_are_told(valkey: Valkey) -> None:
    async def load(scope: Scope) -> Past:
        raise StoreError(f"{scope.id}: the database is locked")

    who = caller(quota=(Quota(tokens=1000),))
    async with nodes(valkey.url, 1, load=load) as (limits,):
        with pytest.raises(StoreError, match="locked"):
            await limits.reserve(who, Demand())


# Redis goes away


@pytest.mark.parametrize(("how", "undo"), [("kill", "restart"), ("pause", "resume")])
async def test_without_redis_quotas_are_closed_and_windows_go_on_with_each_nodes_share(
    valkey: Valkey, how: str, undo: str
) -> None:
    quota = caller("quota", quota=(Quota(tokens=1000),))
    window = caller("window", requests=30, window=600.0)
    fresh = caller("fresh", requests=30, window=600.0)
    async with nodes(valkey.url) as (one, other):
        await eventually(lambda: one.nodes == other.nodes == 2)
        assert len((await asked([one], window, 12))[0]) == 12
        getattr(valkey, how)()
        began = time.monotonic()
        for limits in (one, other):
            with pytest.raises(Refusal) as caught:
                await limits.reserve(quota, Demand())
            told = caught.value
            assert (told.code, told.status, told.retry_after) == ("server_error", 503, 5)
            assert told.message == (
                "The quota of the API key ending in abcd cannot be looked up at the moment."
                " Ask again in 5 s."
            )
        assert time.monotonic() - began < 2 * (LIMIT + SLACK)
        began = time.monotonic()
        assert len((await asked([one], window, 100))[0]) == 3, "15 are its share, 12 were let in"
        assert len((await asked([other], window, 100))[0]) == 15
        held, refused = await asked([one, other], fresh, 200)
        assert len(held) == 30
        assert all(one.retry_after for one in refused)
        assert time.monotonic() - began < SLACK, "nobody waits for who is known to be away"
        getattr(valkey, undo)()

        async def healed() -> bool:
            with contextlib.suppress(Refusal):
                await one.reserve(quota, Demand())
                await other.reserve(quota, Demand())
                return True
            return False

        async with asyncio.timeout(5.0):
            while not await healed():  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_without_redis_the_limit_is_told_and_what_this_node_may_let_in_of_it(
    valkey: Valkey,
) -> None:
    account = Scope(id="account:a", allowance=Allowance(requests=13, window=60.0))
    key = Scope(id="key:a", allowance=Allowance(requests=10, window=30.0))
    both = Caller(key_id="a", key_type="full", last4="abcd", account_id="a", scopes=(key, account))
    crowded = caller("crowded", concurrent=4)
    tokens = caller("tokens", tokens=1000, tokens_window=60.0)
    async with nodes(valkey.url) as (one, other):
        await eventually(lambda: one.nodes == other.nodes == 2)
        held, _ = await asked([one], both, 2)
        valkey.kill()
        await eventually(lambda: one._shared.away)
        held, refused = await asked([one], both, 5)
        assert [one.standing and one.standing[:2] for one in held] == [(10, 2), (10, 1), (10, 0)]
        assert one.peek(both) == held[-1].standing
        assert refused[0].standing == held[-1].standing
        assert refused[0].message == (
            "The API key ending in abcd may make 10 requests in any 30 seconds, at the moment only"
            " 5 of them on this gateway, as the gateways cannot reach each other, and has done so."
            f" Ask again in {refused[0].retry_after} s."
        )
        _, refused = await asked([one], crowded, 3)
        assert refused[0].message == (
            "The API key ending in abcd may have 4 requests running at once, at the moment only"
            " 2 of them on this gateway, as the gateways cannot reach each other, and has."
            " Ask again when one of them is over."
        )
        _, refused = await asked([one], tokens, 2, Demand(tokens=300))
        assert refused[0].message == (
            "The API key ending in abcd may use 1,000 tokens in any minute, at the moment only"
            " 500 of them on this gateway, as the gateways cannot reach each other;"
            " 300 tokens are used or reserved, and this request may take 300 tokens."
            " Ask again in 60 s."
        )


async def test_a_prompt_that_is_longer_than_a_share_waits_until_redis_is_back(
    valkey: Valkey,
) -> None:
    who = caller(requests=10, window=60.0, tokens=1000, tokens_window=60.0)
    short, long = Demand(tokens=4000, least_tokens=500), Demand(tokens=4000, least_tokens=501)
    async with nodes(valkey.url) as both:
        await eventually(lambda: all(one.nodes == 2 for one in both))
        valkey.kill()
        await eventually(lambda: all(one._shared.away for one in both))
        held, refused = await asked(both, who, 2, long)
        assert not held
        assert [one.retry_after for one in refused] == [5, 5]
        assert refused[0].message == (
            "The API key ending in abcd may use 1,000 tokens in any minute, at the moment only 500"
            " of them on this gateway, as the gateways cannot reach each other; this request may"
            " take 501 tokens even with the shortest answer. Ask again in 5 s."
        )
        held, _ = await asked(both, who, 2, short)
        assert len(held) == 2
        for one in held:
            one.settle(counted=False, tokens=0, cost=0.0)
        valkey.start()
        await eventually(lambda: not any(one._shared.away for one in both))
        assert len((await asked(both, who, 1, long))[0]) == 1


async def test_of_many_prompts_at_once_as_many_get_in_as_fit(valkey: Valkey) -> None:
    """Nobody says how long the answers may get: only one request at a time gets what is left."""
    async with nodes(valkey.url) as both:
        for limits in (
            {"quota": (Quota(tokens=1000),)},
            {"quota": (Quota(cost=1.0, per="month"),)},
        ):
            who = caller(f"k{limits}", **limits)
            demand = Demand(tokens=4000, cost=4.0, least_tokens=300, least_cost=0.3)
            for _ in range(3):
                held, _ = await asked(both, who, 100, demand)
                assert len(held) == 1
                held[0].settle(counted=True, tokens=300, cost=0.3)
                for one in both:  # what is settled is sent before this
                    await one._shared.run(Script("return 1"), ["settled"])
            held, refused = await asked(both, who, 100, demand)
            assert not held
            assert all(one.retry_after for one in refused)


async def test_a_node_that_is_alone_has_the_whole_limit_without_redis(valkey: Valkey) -> None:
    who = caller(requests=3, window=60.0)
    async with nodes(valkey.url, 1) as (limits,):
        valkey.kill()
        await eventually(lambda: limits._shared.away)
        held, refused = await asked([limits], who, 4)
        assert len(held) == 3
        assert "may make 3 requests in any minute, and has done so." in refused[0].message


@pytest.mark.parametrize("how", ["kill", "pause"])
async def test_when_redis_goes_under_load_nobody_waits_longer_than_the_limit(
    valkey: Valkey, how: str
) -> None:
    who = caller(requests=10**6, window=60.0, concurrent=10**6)
    slowest = 0.0

    async def work(limits: SharedLimits) -> None:
        nonlocal slowest
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            began = time.monotonic()
            held = await limits.reserve(who, Demand())
            slowest = max(slowest, time.monotonic() - began)
            await asyncio.sleep(0.002)
            held.settle(counted=True, tokens=1, cost=0.0)

    async with nodes(valkey.url) as both:
        works = [asyncio.create_task(work(limits)) for limits in both for _ in range(50)]
        await asyncio.sleep(0.5)
        getattr(valkey, how)()
        await asyncio.gather(*works)
        assert slowest < LIMIT + SLACK


async def test_what_could_not_be_settled_is_settled_when_redis_is_back(
    valkey: Valkey,
) -> None:
    who = caller(concurrent=2, quota=(Quota(tokens=100),))
    async with nodes(valkey.url, 1) as (limits,):
        held, _ = await asked([limits], who, 2, Demand(tokens=50))
        valkey.pause()
        held[0].settle(counted=True, tokens=10, cost=0.0)
        with pytest.raises(Refusal, match="cannot be looked up"):
            await limits.reserve(who, Demand())
        held[1].settle(counted=True, tokens=20, cost=0.0)
        valkey.resume()
        meter = "manyways:{a}:key:a:used-ever"
        await eventually(lambda: bool(valkey.ask("HGET", meter, "tokens") == "30"))
        await eventually(lambda: bool(valkey.ask("ZCARD", "manyways:{a}:key:a:running") == 0))
        assert valkey.ask("HGET", meter, "requests") == "2"


async def test_places_of_requests_that_run_are_taken_again_when_redis_lost_them(
    valkey: Valkey,
) -> None:
    who = caller(concurrent=2)
    async with nodes(valkey.url) as (one, other):
        held, _ = await asked([one], who, 2)
        assert len(held) == 2
        valkey.kill()
        valkey.restart()
        await eventually(lambda: bool(valkey.ask("ZCARD", "manyways:{a}:key:a:running") == 2))
        async with asyncio.timeout(5.0):
            while (await asked([other], who, 1))[0]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)  # until the other has found it again, too


async def test_what_runs_while_redis_loses_its_memory_counts_when_it_is_over(
    valkey: Valkey,
) -> None:
    who = caller(quota=(Quota(tokens=1000, per="day"),))
    async with nodes(valkey.url, 1) as (limits,):
        held, _ = await asked([limits], who, 1, Demand(tokens=100))
        valkey.ask("FLUSHALL")
        other, _ = await asked([limits], who, 1, Demand(tokens=10))
        held[0].settle(counted=True, tokens=900, cost=0.5)
        other[0].settle(counted=True, tokens=10, cost=0.25)
        meter = "manyways:{a}:key:a:used-day"
        fields = "requests", "tokens", "cost"
        used = ["2", "910", "750000000"]
        await eventually(lambda: bool(valkey.ask("HMGET", meter, *fields) == used))


async def test_a_node_that_leaves_is_not_counted_any_more(valkey: Valkey) -> None:
    async with nodes(valkey.url, 2):
        assert valkey.ask("ZCARD", "manyways:nodes") == 2
    assert valkey.ask("ZCARD", "manyways:nodes") == 0


async def test_a_cluster_counts_as_one_server_does(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as servers:
        async with nodes(f"redis+cluster://127.0.0.1:{servers[0].port}") as both:
            for run in range(RUNS):
                who = caller(
                    f"k{run}", requests=30, window=60.0, tokens=10**6, tokens_window=60.0,
                    concurrent=100, quota=(Quota(tokens=10**6, per="day"),),
                )  # fmt: skip
                held, _ = await asked(both, who, 200, Demand(tokens=10))
                assert len(held) == 30
