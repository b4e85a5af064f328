from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.access.throttle import MINUTE, STEP, Throttle, origin_of

NOW = 1_800_000_000.0
WHO = "192.0.2.1"


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("unix:/run/manyways.sock", "unix:/run/manyways.sock"),
        ("x" * 1000, "x" * 64),
    ],
)
def test_an_address_stands_for_whoever_has_it(address: str, origin: str) -> None:
    assert origin_of(address) == origin


def test_so_many_may_fail_and_then_it_has_to_wait() -> None:
    throttle = Throttle(3)
    for _ in range(3):
        assert throttle.wait(WHO, NOW) == 0
        throttle.failed(WHO, NOW)
    assert MINUTE < throttle.wait(WHO, NOW) <= MINUTE + STEP
    assert throttle.wait("192.0.2.2", NOW) == 0


def test_a_clock_that_was_set_back_locks_nobody_out() -> None:
    throttle = Throttle(1)
    throttle.failed(WHO, NOW)
    assert throttle.wait(WHO, NOW) > 0
    assert throttle.wait(WHO, NOW - 3600) == 0


def test_who_is_through_waiting_is_forgotten() -> None:
    throttle = Throttle(1)
    throttle.failed(WHO, NOW)
    throttle.wait(WHO, NOW + MINUTE + STEP)
    assert repr(throttle) == "<Throttle 1 a minute, 0 origins>"


def test_where_there_are_too_many_the_one_that_failed_longest_ago_is_forgotten() -> None:
    throttle = Throttle(1, max_origins=2)
    for who in ("a", "b", "a", "c"):
        throttle.failed(who, NOW)
    assert [throttle.wait(who, NOW) > 0 for who in "abc"] == [True, False, True]
    assert repr(throttle) == "<Throttle 1 a minute, 2 origins>"


@given(
    limit=st.integers(1, 5),
    pauses=st.lists(st.floats(0, 40, allow_nan=False), min_size=1, max_size=60),
)
def test_never_one_too_many_in_any_minute(limit: int, pauses: list[float]) -> None:
    throttle = Throttle(limit)
    now, failed = NOW, list[float]()
    for pause in pauses:
        now += pause
        if throttle.wait(WHO, now) == 0:
            throttle.failed(WHO, now)
            failed.append(now)
    for first in failed:
        assert sum(first <= moment < first + MINUTE for moment in failed) <= limit


@given(
    limit=st.integers(1, 5),
    pauses=st.lists(st.floats(0, 40, allow_nan=False), min_size=1, max_size=60),
)
def test_whoever_waits_as_told_may_go_on_and_nobody_waits_much_more_than_a_minute(
    limit: int, pauses: list[float]
) -> None:
    throttle = Throttle(limit)
    now = NOW
    for pause in pauses:
        now += pause
        wait = throttle.wait(WHO, now)
        assert wait <= MINUTE + STEP
        now += wait
        assert throttle.wait(WHO, now) == 0
        throttle.failed(WHO, now)


@given(st.lists(st.floats(0, 10, allow_nan=False), max_size=200))
def test_an_origin_takes_little_room_however_large_the_limit(pauses: list[float]) -> None:
    throttle = Throttle(10**15)
    now = NOW
    for pause in pauses:
        now += pause
        throttle.failed(WHO, now)
    steps = list(throttle._failures.get(WHO, {}))
    assert len(steps) <= MINUTE // STEP + 2
    assert all(earlier < later for earlier, later in pairwise(steps))
