"""Limits in one process: reserved together, settled, told."""

import asyncio
import re

import pytest

from manyways.access.limits import (
    UNLIMITED,
    Demand,
    LimitReached,
    LocalLimits,
    Past,
    Standing,
    Totals,
)
from manyways.errors import Refusal
from manyways.types import Allowance, Caller, Quota
from tests.support.limits import (
    ANY,
    HOUR,
    NOON,
    THIRTY,
    Clocks,
    Database,
    admit,
    caller,
    done,
    old_process,
    refused,
    told,
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


# Requests


def test_exactly_thirty_of_a_thousand_get_in(limits: LocalLimits) -> None:
    who, let_in = caller(THIRTY), 0
    for _ in range(1000):
        try:
            done(admit(limits, who))
        except LimitReached:
            continue
        let_in += 1

    assert let_in == 30


def test_the_standing_is_that_after_this_request(limits: LocalLimits, clocks: Clocks) -> None:
    who = caller(Allowance(requests=3, window=60.0))
    first = admit(limits, who).standing
    clocks.wait(10.5)
    second = admit(limits, who).standing

    assert first == Standing(limit=3, remaining=2, reset=int(NOON) + 60)
    assert second == Standing(limit=3, remaining=1, reset=int(NOON) + 60)


def test_the_moment_of_reset_is_rounded_up(limits: LocalLimits, clocks: Clocks) -> None:
    clocks.wait(0.25)
    standing = admit(limits, caller(THIRTY)).standing

    assert standing is not None
    assert standing.reset == int(NOON) + 61


def test_of_several_limits_the_one_with_the_least_left_is_told(limits: LocalLimits) -> None:
    key, account = Allowance(requests=5, window=10.0), Allowance(requests=3, window=60.0)
    assert admit(limits, caller(key, account)).standing == (3, 2, int(NOON) + 60)
    assert admit(limits, caller(key, Allowance(requests=90, window=60.0))).standing == (
        5,
        3,
        int(NOON) + 10,
    )


def test_who_is_refused_is_told_where_it_stands(limits: LocalLimits, clocks: Clocks) -> None:
    who = caller(Allowance(requests=1, window=60.0))
    admit(limits, who)
    clocks.wait(20.0)
    reached = refused(limits, who)

    assert told(reached) == ("rate_limit_exceeded", 40)
    assert reached.standing == Standing(limit=1, remaining=0, reset=int(NOON) + 60)
    assert reached.message == (
        "The API key ending in wxyz may make 1 request in any minute, and has done so."
        " Ask again in 40 s."
    )


def test_whoever_asks_too_early_is_told_the_true_moment_each_time(
    limits: LocalLimits, clocks: Clocks
) -> None:
    who = caller(Allowance(requests=1, window=60.0))
    done(admit(limits, who))
    for asked in range(1, 60):
        clocks.wait(1.0)
        reached = refused(limits, who)
        assert reached.retry_after == 60 - asked
        assert reached.standing is not None
        assert reached.standing.reset == int(NOON) + 60

    clocks.wait(1.0)
    done(admit(limits, who))


def test_peeking_counts_nothing(limits: LocalLimits, clocks: Clocks) -> None:
    who = caller(Allowance(requests=2, window=60.0))
    assert limits.peek(who) == (2, 2, int(NOON))
    admit(limits, who)
    clocks.wait(5.0)

    assert limits.peek(who) == limits.peek(who) == (2, 1, int(NOON) + 60)
    clocks.wait(55.0)
    assert limits.peek(who) == (2, 2, int(NOON) + 60)


def test_a_limit_on_something_else_has_no_standing(limits: LocalLimits) -> None:
    who = caller(Allowance(tokens=10, tokens_window=60.0, concurrent=1))
    assert limits.peek(who) is None
    assert admit(limits, who).standing is None
    assert refused(limits, who).standing is None


def test_what_failed_through_no_fault_of_the_caller_is_given_back(limits: LocalLimits) -> None:
    who = caller(Allowance(requests=1, window=60.0, quota=(Quota(requests=1),)))
    asyncio.run(limits.reserve(who, ANY)).settle(counted=False, tokens=0, cost=0.0)
    reservation = admit(limits, who)
    refused(limits, who)
    done(reservation)
    refused(limits, who)


def test_settling_a_second_time_does_nothing(limits: LocalLimits) -> None:
    who = caller(Allowance(requests=2, window=60.0, concurrent=2))
    first = admit(limits, who)
    admit(limits, who)
    for _ in range(3):
        first.settle(counted=False, tokens=0, cost=0.0)

    admit(limits, who)
    assert told(refused(limits, who))[0] == "rate_limit_exceeded"


def test_who_is_unlimited_costs_nothing(limits: LocalLimits, database: Database) -> None:
    who = Caller(key_id="k", key_type="admin", last4="wxyz")
    assert limits.admit(who, Demand(tokens=10**9)) is UNLIMITED
    done(admit(limits, who), tokens=5)
    assert admit(limits, who).standing is None
    assert limits.peek(who) is None
    assert repr(limits) == "<LocalLimits 0 scopes, 0 loading>"


# All or none


@pytest.mark.parametrize(
    ("account", "first"),
    [
        (Allowance(requests=1, window=60.0), ANY),
        (Allowance(tokens=100, tokens_window=60.0), Demand(tokens=100)),
        (Allowance(concurrent=1), ANY),
        (Allowance(quota=(Quota(requests=1),)), ANY),
        (Allowance(quota=(Quota(cost=0.5, per="month"),)), Demand(cost=0.5)),
    ],
)
def test_what_one_scope_refuses_takes_nothing_of_another(
    limits: LocalLimits, account: Allowance, first: Demand
) -> None:
    key = Allowance(
        requests=3, window=60.0, tokens=200, tokens_window=60.0, quota=(Quota(requests=3),)
    )
    both, alone = caller(key, account), caller(key)
    asyncio.run(limits.reserve(both, first))
    for _ in range(10):
        refused(limits, both, Demand(tokens=10))

    standing = admit(limits, alone, Demand(tokens=99)).standing
    assert standing is not None
    assert standing.remaining == 1
    admit(limits, alone)
    assert told(refused(limits, alone))[1] == 86400


def test_the_longest_wait_is_told_by_its_own_name(limits: LocalLimits, clocks: Clocks) -> None:
    who = caller(
        Allowance(requests=1, window=10.0, concurrent=1),
        Allowance(requests=1, window=30.0, quota=(Quota(requests=1, per="day"),)),
    )
    asyncio.run(limits.reserve(who, ANY))
    reached = refused(limits, who)
    assert told(reached) == ("quota_exceeded", 12 * 3600)
    assert reached.message.startswith("The account of the API key ending in wxyz may make 1 req")

    clocks.wait(12 * HOUR)
    assert told(refused(limits, who)) == ("concurrent_requests", 1)


# Tokens


def test_tokens_are_reserved_and_settled_to_what_they_were(
    limits: LocalLimits, clocks: Clocks
) -> None:
    who = caller(Allowance(tokens=100, tokens_window=60.0))
    first = admit(limits, who, Demand(tokens=90))
    reached = refused(limits, who, Demand(tokens=20))
    assert told(reached) == ("rate_limit_exceeded", 60)
    assert reached.message == (
        "The API key ending in wxyz may use 100 tokens in any minute; 90 tokens are used or"
        " reserved, and this request may take 20 tokens. Ask again in 60 s."
    )

    done(first, tokens=30)
    clocks.wait(1.0)
    done(admit(limits, who, Demand(tokens=70)), tokens=120)
    assert told(refused(limits, who, Demand(tokens=1))) == ("rate_limit_exceeded", 60)


def test_tokens_settled_long_after_they_left_the_window_change_nothing(
    limits: LocalLimits, clocks: Clocks
) -> None:
    who = caller(Allowance(tokens=100, tokens_window=60.0))
    first = admit(limits, who, Demand(tokens=90))
    clocks.wait(100.0)
    second = admit(limits, who, Demand(tokens=60))
    done(first, tokens=10**9)
    third = admit(limits, who, Demand(tokens=40))
    done(second, tokens=60)
    done(third, tokens=40)
    refused(limits, who, Demand(tokens=1))


def test_nobody_new_gets_in_where_nothing_is_left(limits: LocalLimits) -> None:
    who = caller(Allowance(tokens=100, tokens_window=60.0))
    done(admit(limits, who, Demand(tokens=100)), tokens=100)
    refused(limits, who, Demand(tokens=0))


def test_what_a_limit_can_never_meet_is_refused_where_the_caller_can_ask_for_less(
    limits: LocalLimits,
) -> None:
    who = caller(Allowance(tokens=1000, tokens_window=HOUR))
    with pytest.raises(Refusal) as caught:
        limits.admit(who, Demand(tokens=5000, fixed=True))

    assert (caught.value.code, caught.value.param) == ("invalid_request", "max_tokens")
    assert not isinstance(caught.value, LimitReached)
    assert caught.value.message == (
        "With its max_tokens, this request may take 5,000 tokens, and the API key ending in"
        " wxyz may only use 1,000 tokens in any hour. Lower max_tokens."
    )
    with pytest.raises(Refusal, match=re.escape("may take $2.50, and the account of the API key")):
        limits.admit(
            caller(THIRTY, Allowance(quota=(Quota(cost=0.05, per="day"),))),
            Demand(cost=2.5, fixed=True),
        )


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize(
    ("allowance", "allowed"),
    [
        (Allowance(tokens=1000, tokens_window=HOUR), "1,000 tokens in any hour"),
        (Allowance(quota=(Quota(tokens=1000, per="day"),)), "1,000 tokens in a day (UTC)"),
        (Allowance(quota=(Quota(tokens=1000, per="ever"),)), "1,000 tokens in all"),
    ],
)
def test_a_prompt_that_a_limit_can_never_meet_is_refused_however_short_the_answer(
    limits: LocalLimits, allowance: Allowance, allowed: str, fixed: bool
) -> None:
    who = caller(Allowance(concurrent=3), allowance)
    with pytest.raises(Refusal) as caught:
        limits.admit(who, Demand(tokens=5000, least_tokens=1001, fixed=fixed))

    assert (caught.value.code, caught.value.param) == ("invalid_request", "messages")
    assert not isinstance(caught.value, LimitReached)
    assert caught.value.message == (
        "Even with the shortest answer, this request may take 1,001 tokens, and the account of the"
        f" API key ending in wxyz may only use {allowed}. Shorten the prompt."
    )


async def test_a_prompt_that_is_as_long_as_a_limit_gets_in(limits: LocalLimits) -> None:
    for name, allowance in (
        ("a", Allowance(tokens=1000, tokens_window=HOUR)),
        ("b", Allowance(quota=(Quota(tokens=1000, cost=1.0, per="day"),))),
    ):
        who = caller(allowance, name=name)
        demand = Demand(tokens=5000, cost=5.0, least_tokens=1000, least_cost=1.0)
        done(await limits.reserve(who, demand), tokens=1000, cost=1.0)


def test_a_prompt_that_costs_more_than_a_quota_is_refused_however_short_the_answer(
    limits: LocalLimits,
) -> None:
    who = caller(Allowance(quota=(Quota(cost=1.0, per="month"),)))
    with pytest.raises(Refusal) as caught:
        limits.admit(who, Demand(tokens=9, cost=3.0, least_tokens=5, least_cost=2.5))

    assert caught.value.param == "messages"
    assert caught.value.message == (
        "Even with the shortest answer, this request may take $2.50, and the API key ending in"
        " wxyz may only use $1.00 in a month (UTC). Shorten the prompt, or list only cheaper"
        " models in models."
    )


def test_where_a_prompt_and_an_answer_are_too_long_it_is_told_what_is_needed_in_the_end(
    limits: LocalLimits,
) -> None:
    who = caller(
        Allowance(tokens=3000, tokens_window=HOUR), Allowance(tokens=1000, tokens_window=HOUR)
    )
    demand = Demand(tokens=5000, least_tokens=2000, fixed=True)
    with pytest.raises(Refusal, match=re.escape("may take 2,000 tokens, and the account")):
        limits.admit(who, demand)


def test_prompts_alone_are_never_more_than_a_window(limits: LocalLimits, clocks: Clocks) -> None:
    """Nobody says how long the answers may get, and each takes a single token."""
    who = caller(Allowance(tokens=2000, tokens_window=60.0))
    demand = Demand(tokens=5000, least_tokens=900)
    used: list[tuple[float, int]] = []
    for _ in range(500):
        try:
            reservation = admit(limits, who, demand)
        except LimitReached:
            clocks.wait(0.7)
            continue
        used.append((clocks.now, 900))
        clocks.wait(0.3)
        done(reservation, tokens=900)
        within = sum(tokens for moment, tokens in used if moment > clocks.now - 60.0)
        assert within <= 2000
    assert len(used) >= 4


def test_what_a_quota_has_left_has_to_do_for_the_prompt(
    limits: LocalLimits, clocks: Clocks
) -> None:
    who = caller(Allowance(quota=(Quota(tokens=1000, cost=1.0, per="day"),)))
    done(asyncio.run(limits.reserve(who, Demand(tokens=900))), tokens=900, cost=0.9)
    reached = refused(limits, who, Demand(tokens=4000, least_tokens=101))
    assert told(reached) == ("quota_exceeded", 12 * 3600)
    assert reached.message.startswith(
        "The API key ending in wxyz may use 1,000 tokens in a day (UTC); 900 tokens are used or"
        " reserved, and this request may take 101 tokens even with the shortest answer."
    )
    dear = refused(limits, who, Demand(cost=4.0, least_cost=0.25))
    assert "and this request may take $0.25 even with the shortest answer." in dear.message

    last = admit(limits, who, Demand(tokens=4000, cost=4.0, least_tokens=100, least_cost=0.1))
    done(last, tokens=3000, cost=3.0)
    refused(limits, who)
    clocks.wait(12 * HOUR)
    admit(limits, who, Demand(tokens=4000, least_tokens=101))


def test_what_a_limit_can_never_meet_takes_all_of_it_where_the_caller_said_nothing(
    limits: LocalLimits,
) -> None:
    who = caller(Allowance(tokens=1000, tokens_window=HOUR))
    done(admit(limits, who, Demand(tokens=5000)), tokens=400)
    assert told(refused(limits, who, Demand(tokens=5000))) == ("rate_limit_exceeded", 3600)
    admit(limits, who, Demand(tokens=600))


def test_strange_figures_are_settled_without_harm(limits: LocalLimits) -> None:
    who = caller(Allowance(tokens=1000, tokens_window=HOUR, quota=(Quota(cost=1.0, tokens=10**6),)))
    for tokens, cost in ((-5, -1.0), (0, float("nan")), (1, 1e-12)):
        reservation = asyncio.run(limits.reserve(who, Demand(tokens=1000, cost=0.5)))
        done(reservation, tokens=tokens, cost=cost)
    done(admit(limits, who, Demand(tokens=999)), tokens=10**40, cost=float("inf"))
    refused(limits, who)


# At once


def test_no_more_run_at_once_than_allowed(limits: LocalLimits) -> None:
    who = caller(Allowance(concurrent=2))
    first = admit(limits, who)
    admit(limits, who)
    reached = refused(limits, who)
    assert told(reached) == ("concurrent_requests", 1)
    assert "may have 2 requests running at once" in reached.message

    first.settle(counted=False, tokens=0, cost=0.0)
    admit(limits, who)
    refused(limits, who)


def test_of_many_who_wait_for_a_place_not_all_look_at_once(
    limits: LocalLimits, clocks: Clocks
) -> None:
    who = caller(Allowance(concurrent=1))
    admit(limits, who)

    assert [refused(limits, who).retry_after for _ in range(7)] == [1, 2, 3, 4, 5, 5, 5]
    clocks.wait(1.0)
    assert refused(limits, who).retry_after == 1


# Quotas


@pytest.mark.parametrize(
    ("quota", "wait"),
    [
        (Quota(requests=2, per="day"), 12 * 3600),
        (Quota(requests=2, per="month"), 36 * 3600),
        (Quota(requests=2, per="ever"), 86400),
    ],
)
def test_a_quota_begins_anew_with_its_period(
    limits: LocalLimits, clocks: Clocks, quota: Quota, wait: int
) -> None:
    who = caller(Allowance(quota=(quota,)))
    done(asyncio.run(limits.reserve(who, ANY)))
    done(admit(limits, who))
    reached = refused(limits, who)
    assert told(reached) == ("quota_exceeded", wait)

    clocks.wait(wait)
    if quota.per == "ever":
        assert refused(limits, who).message.endswith(
            "This does not renew by itself: ask the operator for more."
        )
    else:
        admit(limits, who)


def test_the_last_answer_may_take_what_is_left_and_no_more_follow(limits: LocalLimits) -> None:
    who = caller(Allowance(quota=(Quota(tokens=1000, cost=1.0, per="month"),)))
    done(asyncio.run(limits.reserve(who, Demand(tokens=900))), tokens=900)
    assert told(refused(limits, who, Demand(tokens=200, fixed=True)))[0] == "quota_exceeded"

    last = admit(limits, who, Demand(tokens=200))
    refused(limits, who)
    done(last, tokens=150)
    reached = refused(limits, who)
    assert reached.message.startswith(
        "The API key ending in wxyz may use 1,000 tokens in a month (UTC); 1,050 tokens are used"
    )


def test_money_is_given_back_to_the_last_crumb(limits: LocalLimits) -> None:
    who = caller(Allowance(quota=(Quota(cost=0.3),)))
    for _ in range(1000):
        done(asyncio.run(limits.reserve(who, Demand(cost=0.1))), cost=0.0)
    for _ in range(3):
        done(admit(limits, who, Demand(cost=0.1, fixed=True)), cost=0.1)
    assert "may use $0.30 in all; $0.30 are used" in refused(limits, who, Demand(cost=0.01)).message


def test_what_was_reserved_yesterday_is_settled_there(limits: LocalLimits, clocks: Clocks) -> None:
    who = caller(Allowance(quota=(Quota(tokens=100, per="day"),)))
    late = asyncio.run(limits.reserve(who, Demand(tokens=100)))
    clocks.wait(12 * HOUR)
    done(admit(limits, who, Demand(tokens=40)), tokens=40)
    done(late, tokens=10)

    admit(limits, who, Demand(tokens=60, fixed=True))
    refused(limits, who, Demand(tokens=1, fixed=True))


def test_a_wall_clock_that_jumps_frees_and_blocks_no_window(
    limits: LocalLimits, clocks: Clocks
) -> None:
    who = caller(Allowance(requests=1, window=60.0, quota=(Quota(requests=9, per="day"),)))
    asyncio.run(limits.reserve(who, ANY))
    for jump in (5 * HOUR, -9 * HOUR, 4 * HOUR):
        clocks.wall += jump
        reached = refused(limits, who)
        assert told(reached) == ("rate_limit_exceeded", 60)
        assert reached.standing is not None
        assert reached.standing.reset == clocks.wall + 60
        clocks.now += 61.0
        limits.admit(who, ANY)


async def test_a_wall_clock_that_jumps_to_another_day_and_back_frees_no_quota(
    limits: LocalLimits, clocks: Clocks, database: Database
) -> None:
    who = caller(Allowance(quota=(Quota(requests=1, per="day"),)))
    done(await limits.reserve(who, ANY))
    clocks.wall += 13 * HOUR
    done(admit(limits, who))
    clocks.wall -= 13 * HOUR
    refused(limits, who)

    # Of a day before it was started nothing is known here.
    clocks.wall -= 13 * HOUR
    assert limits.admit(who, ANY) is None
    database.pasts["key:one"] = Past(totals={"day": Totals(requests=1)})
    with pytest.raises(LimitReached):
        await limits.reserve(who, ANY)
    assert database.asked == ["key:one"] * 2
