"""The arithmetic of limits: windows, slices, promises, periods."""

import math
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from manyways.access.windows import (
    EVER,
    PROMISES,
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
    """A refusal: the moment that is told, and promised."""
    moment = now + whole_seconds(now, window.opens(now, need))
    window.promise(moment, need)
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


# What is promised


def test_each_of_many_is_told_when_a_slot_of_its_own_is_free() -> None:
    window = Window(3, 60.0)
    for now in (0.0, 10.0, 20.0):
        window.add(now, 1)

    assert [told(window, 20.0) for _ in range(3)] == [60.0, 70.0, 80.0]
    # Then those who come back fill it, each within a second of the moment it was told.
    assert [told(window, 20.0) for _ in range(6)] == [121.0, 131.0, 141.0, 182.0, 192.0, 202.0]


def test_no_more_than_the_limit_are_told_to_come_within_one_window() -> None:
    window = full(30, 60.0)
    moments = sorted(told(window, 0.001 * count) for count in range(970))

    assert moments[0] <= 61.0
    assert moments[-1] < 33 * 63.0
    for first, behind in zip(moments, moments[30:], strict=False):
        assert behind > first + 60.0


def test_all_of_many_get_in_when_they_come_back_as_told() -> None:
    window = full(30, 60.0)
    moments = sorted(told(window, 0.001 * count) for count in range(970))

    for place, now in enumerate(moments):
        late = now + place % 7 / 10  # the way takes its time
        window.leave(late)
        assert window.used < 30
        window.add(late, 1)


def test_tokens_are_promised_by_their_amount() -> None:
    window = Window(100, 60.0)
    for now in (0.0, 10.0, 20.0):
        window.add(now, 30)

    assert told(window, 20.0, 40) == 60.0  # 10 were free, 30 leave
    assert told(window, 20.0, 50) == 80.0  # 60 more have to leave, no less
    assert told(window, 20.0, 10) == 80.0
    assert told(window, 20.0, 1) == 121.0


def test_a_promise_lapses_when_nobody_came_for_it() -> None:
    window = Window(100, 60.0)
    window.add(0.0, 50)
    window.add(30.0, 50)
    assert told(window, 31.0, 50) == 60.0

    window.leave(61.0)
    assert window.opens(60.9, 60) == 121.0
    assert window.opens(61.0, 60) == 90.0


def test_nobody_is_kept_waiting_for_promises_that_have_lapsed() -> None:
    window = full(1, 60.0)
    assert [told(window, 0.0) for _ in range(3)] == [60.0, 121.0, 182.0]

    window.leave(122.5)
    window.add(122.5, 1)
    assert window.opens(123.0, 1) == 182.5


def test_who_is_let_in_redeems_the_oldest_promise() -> None:
    window = full(2, 60.0)
    first, second = told(window, 0.0), told(window, 0.0)
    assert (first, second) == (60.0, 60.0)

    window.leave(60.0)
    window.add(60.0, 1)
    window.add(60.0, 1)
    assert told(window, 60.5) == 120.5


def test_promises_are_bounded_and_the_last_is_told_to_all_beyond() -> None:
    window = full(10, 60.0)
    last = [told(window, 0.0) for _ in range(PROMISES)][-1]

    assert told(window, 0.0) == last
    assert len(window._promises) == PROMISES


def test_the_impatient_is_told_enough_even_where_no_promise_is_left() -> None:
    window = Window(10**6, 60.0)
    window.add(0.0, 1)
    window.add(50.0, 10**6 - 1)
    for _ in range(PROMISES):
        window.promise(100.0, 1)

    assert window.opens(51.0, 10**6) == 110.0


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
