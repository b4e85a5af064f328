"""The arithmetic of limits: windows, slices, promises, periods."""

import math
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from manyways.access.windows import (
    CROWD,
    EVER,
    PAUSE,
    Span,
    Window,
    span_of,
    spread,
    whole_seconds,
)
from manyways.types import Period


def full(limit: int, length: float, now: float = 0.0) -> Window:
    """A window into which as much as it takes was let in at this moment, one by one."""
    window = Window(limit, length)
    for _ in range(limit):
        window.add(now, 1)
    return window


def told(window: Window, now: float, need: int = 1) -> float:
    """A refusal: the moment that is told."""
    moment = now + whole_seconds(now, window.opens(now, need))
    window.enqueue(now, need)
    return moment


def moment(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> float:
    return datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp()


# What counts


@given(
    st.integers(1, 6),
    st.lists(st.sampled_from([0.001, 0.01, 0.5, 9.99, 10.0, 20.0]), max_size=60),
)
def test_no_span_of_the_length_has_more_than_the_limit(limit: int, pauses: list[float]) -> None:
    window, now, let_in = Window(limit, 10.0), 5.0, []
    for pause in pauses:
        now += pause
        window.leave(now)
        if window.used < limit:
            window.add(now, 1)
            let_in.append(now)

    for first, behind in zip(let_in, let_in[limit:], strict=False):
        assert behind >= first + 10.0


def test_what_was_let_in_leaves_one_length_later_and_not_before() -> None:
    window = Window(5, 10.0)
    window.add(1.0, 3)

    window.leave(math.nextafter(11.0, 0.0))
    assert window.used == 3
    assert window.empties == 11.0
    window.leave(11.0)
    assert window.used == 0
    assert window.empties is None


def test_what_comes_within_a_slice_leaves_together_with_the_latest_of_it() -> None:
    window = Window(10, 4096.0)
    for now in (10.0, 10.5, 10.9, 11.0):
        window.add(now, 1)

    assert window.empties == 4106.9
    window.leave(4106.5)
    assert window.used == 4
    window.leave(4106.9)
    assert window.used == 1


def test_a_large_limit_has_no_more_entries_than_slices() -> None:
    window = Window(10**6, 60.0)
    for tick in range(50_000):
        now = tick * 0.005
        window.leave(now)
        window.add(now, 1)

    assert 4000 <= len(window._moments) - window._first <= 4097
    assert len(window._moments) <= 4097 * 9 / 8 + 10
    assert window.used == pytest.approx(12_000, abs=4)


def test_entries_of_a_small_limit_take_little_memory_however_long_it_is_used() -> None:
    window = Window(30, 60.0, ones=True)
    for tick in range(1000):
        window.leave(tick * 2.0)
        window.add(tick * 2.0, 1)

    assert len(window._moments) < 40
    assert window._moments.itemsize + window._amounts.itemsize == 12


def test_what_is_given_back_is_free_at_once() -> None:
    window = Window(3, 60.0)
    places = [window.add(float(now), 1) for now in (0, 1, 2)]

    window.correct(places[1], -1)
    assert window.used == 2
    assert window.empties == 60.0
    window.correct(places[0], -1)
    assert window.used == 1
    assert window.empties == 62.0
    window.leave(62.0)
    assert window.used == 0


def test_what_has_left_can_be_corrected_without_harm() -> None:
    window = Window(100, 1.0)
    places = [window.add(float(now), 2) for now in range(50)]
    window.leave(48.5)
    assert window.used == 4

    for place in places[:48]:
        window.correct(place, 5)
    assert window.used == 4
    window.correct(places[48], 5)
    assert window.used == 9


def test_what_takes_more_than_was_reserved_counts_whole() -> None:
    window = Window(100, 60.0)
    place = window.add(0.0, 90)
    window.correct(place, 60)

    assert window.used == 150
    assert window.opens(1.0, 100) == 60.0


def test_the_past_counts_as_far_as_the_window_reaches() -> None:
    window = Window(10, 60.0)
    window.fill(1000.0, [(5.0, 1), (61.0, 4), (60.0, 4), (59.0, 2), (-3.0, 1), (10.0, 0)])

    assert window.used == 4
    assert window.empties == 1001.0
    window.leave(1059.0)
    assert window.used == 1


def test_a_changed_limit_keeps_what_was_counted() -> None:
    window = full(5, 60.0)
    window.change(2, 30.0)
    window.leave(29.0)

    assert window.used == 5
    assert window.empties == 30.0
    assert window.opens(29.0, 1) == 30.0


# What is told


def test_each_of_many_is_told_when_a_slot_of_its_own_is_free() -> None:
    window = Window(3, 60.0)
    for now in (0.0, 10.0, 20.0):
        window.add(now, 1)

    assert [told(window, 20.0) for _ in range(3)] == [60.0, 70.0, 80.0]
    # Then those who come back fill it, each up to two seconds behind the moment it was told.
    assert [told(window, 20.0) for _ in range(6)] == [122.0, 132.0, 142.0, 184.0, 194.0, 204.0]


def crowd(window: Window, count: int, now: float = 0.0) -> list[float]:
    """What each of so many is told who are refused within a second, in order."""
    return sorted(told(window, now + number / count) for number in range(count))


@pytest.mark.parametrize("length", [2.0, 60.0, 30 * 86400.0])
@pytest.mark.parametrize("began", [0.0, 0.3])
def test_no_more_than_the_limit_are_told_to_come_within_one_window(
    length: float, began: float
) -> None:
    moments = crowd(full(30, length), 970, began)

    assert moments[0] <= length + 1.0
    assert moments[-1] < 33 * (length * 4097 / 4096 + 3.0)
    for first, behind in zip(moments, moments[30:], strict=False):
        assert behind > first + length


@pytest.mark.parametrize("length", [2.0, 60.0, 30 * 86400.0])
def test_all_of_many_get_in_when_they_come_back_as_told(length: float) -> None:
    window = full(30, length)
    comes = [at + place % 7 / 10 for place, at in enumerate(crowd(window, 970))]

    for now in sorted(comes):  # the way takes its time
        window.leave(now)
        assert window.used < 30
        window.add(now, 1)


def test_each_of_two_crowds_is_spread_as_if_it_were_alone() -> None:
    window = full(30, 60.0)
    first, second = crowd(window, 970), crowd(window, 970, 10.0)

    assert first[0] == 60.0
    assert second[0] == 60.0
    for moments in (first, second):
        for one, behind in zip(moments, moments[30:], strict=False):
            assert behind > one + 60.0


@pytest.mark.parametrize("pause", [PAUSE, 1.0, 7.3])
def test_a_lone_caller_that_asks_again_and_again_is_told_the_truth_each_time(pause: float) -> None:
    window = full(1, 3600.0)
    asks = [1.0 + number * pause for number in range(int(3590 / pause))]

    assert all(3600.0 <= told(window, now) < 3601.0 for now in asks)


def test_who_asks_without_a_pause_is_told_later_moments_for_a_while_only() -> None:
    window = full(1, 3600.0)
    asks = [number * PAUSE / 2 for number in range(1000)]
    at_most = CROWD / (PAUSE / 2)

    assert max(told(window, now) for now in asks) <= at_most * 3602.0


def test_a_crowd_lasts_no_longer_than_its_window() -> None:
    window = Window(5, 1.0)
    waits = []
    for number in range(1000):
        now = number * 0.05
        window.leave(now)
        if window.used < 5:
            window.add(now, 1)
        else:
            waits.append(told(window, now) - now)

    assert max(waits) < 1.0 + 3 * 3.0 + 1.0  # a second's refusals fill three more windows


def test_a_crowd_leaves_no_trace_when_it_is_over() -> None:
    window = full(30, 60.0)
    crowd(window, 10_000)

    assert told(window, 1.0 + PAUSE) < 61.0 + PAUSE
    assert "10000 queued" not in repr(window)


def test_tokens_are_told_by_their_amount() -> None:
    window = Window(100, 60.0)
    for now in (0.0, 10.0, 20.0):
        window.add(now, 30)

    assert told(window, 20.0, 40) == 60.0  # 10 were free, 30 leave
    assert told(window, 20.0, 50) == 80.0  # 60 more have to leave, no less
    assert told(window, 20.0, 20) == 122.0  # in place of the 40
    assert told(window, 20.0, 90) == 142.0  # of the 50, too


def test_many_that_need_much_fill_window_after_window() -> None:
    window = Window(100, 60.0)
    window.add(0.0, 60)

    moments = [told(window, 1.0, 50) for _ in range(9)]
    assert moments == sorted(moments)
    for first, behind in zip(moments, moments[2:], strict=False):
        assert behind > first + 60.0


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 80)), max_size=30),
    st.lists(st.integers(1, 50), min_size=1, max_size=50),
)
def test_whatever_waits_nobody_is_told_to_come_before_there_is_room(
    limit: int, log: list[tuple[int, int]], needs: list[int]
) -> None:
    window, now = Window(limit, 60.0), 0.0
    for pause, amount in log:
        now += pause
        window.add(now, amount)
    for need in (min(need, limit) for need in needs):
        if window.used + need > limit:
            moment = told(window, now, need)
            later = sum(amount for at, amount in _log(window) if at + 60.0 > moment)
            assert later + need <= limit


def _log(window: Window) -> list[tuple[float, int]]:
    return list(zip(window._moments, window._amounts, strict=True))[window._first :]


@given(st.floats(0, 1e6), st.floats(0, 1e6))
@example(26.005091196545926, 91.00509119654593)  # 65 s later it would be just before
def test_after_the_seconds_told_the_moment_has_come(now: float, moment: float) -> None:
    seconds = whole_seconds(now, moment)

    assert now + seconds >= moment
    assert seconds == 1 or now + (seconds - 1) < moment + 1e-6


def test_those_who_wait_for_a_place_look_one_after_the_other_and_soon() -> None:
    assert [spread(count, 2) for count in range(12)] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 5, 5]


# Periods


@pytest.mark.parametrize(
    ("per", "now", "start", "end"),
    [
        ("day", moment(2026, 2, 28, 23, 59), moment(2026, 2, 28), moment(2026, 3, 1)),
        ("day", moment(2026, 3, 1), moment(2026, 3, 1), moment(2026, 3, 2)),
        ("month", moment(2026, 2, 28, 23), moment(2026, 2, 1), moment(2026, 3, 1)),
        ("month", moment(2028, 2, 29, 1), moment(2028, 2, 1), moment(2028, 3, 1)),
        ("month", moment(2026, 12, 31, 23), moment(2026, 12, 1), moment(2027, 1, 1)),
        ("month", moment(2026, 1, 1), moment(2026, 1, 1), moment(2026, 2, 1)),
    ],
)
def test_periods_are_of_the_calendar(per: Period, now: float, start: float, end: float) -> None:
    assert span_of(per, now) == Span(start, end)


def test_ever_has_no_end() -> None:
    assert span_of("ever", 1.0) == EVER
    assert EVER.start < 0 < 10**18 < EVER.end
