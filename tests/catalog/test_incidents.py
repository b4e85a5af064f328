"""Incidents of one process, in virtual time; and the uptime that follows from them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.catalog.incidents import (
    BRIEF,
    DAY,
    QUIET,
    SOON,
    Incidents,
    Name,
    by_model,
    uptime,
)
from manyways.routing.breaker import News
from manyways.store.incidents import Sighting, Span
from tests.support.routing import ASKED, OFFERS, answered, failed, health_of, is_back

NOON = 1_800_000_000
MODEL: Name = ("Capi", "gpt-4o", None)


class Day:
    """A day of one process: its clock is moved by hand."""

    def __init__(self, *, most: int = 100) -> None:
        self.now = float(NOON)
        self.incidents = Incidents(clock=lambda: self.now, most=most)

    def rests(self, at: float, seconds: float, name: Name = MODEL, why: str = "timeout") -> None:
        self.now = NOON + at
        self.incidents.tell(name, why, seconds)

    def answers(self, at: float, name: Name = MODEL) -> None:
        self.now = NOON + at
        self.incidents.tell(name, "", None)

    def news(self, at: float) -> list[Sighting]:
        self.now = NOON + at
        return self.incidents.news()

    def spans(self, at: float) -> list[tuple[int, int | None]]:
        """From noon: when each began and ended."""
        return [
            (one.began - NOON, None if one.ended is None else one.ended - NOON)
            for one in self.news(at)
        ]


def test_an_incident_lasts_until_the_first_answer() -> None:
    day = Day()
    day.rests(0, 1)
    day.rests(1, 4)
    day.rests(5, 10)
    day.answers(16)

    assert day.news(60) == [
        Sighting(
            provider="Capi",
            model="gpt-4o",
            source="traffic",
            began=NOON,
            seen=NOON + 16,
            ended=NOON + 16,
            why="timeout",
        )
    ]
    assert day.news(120) == []


def test_while_it_goes_on_it_is_told_of_again_and_again() -> None:
    day = Day()
    day.rests(0, 10)
    for at in range(10, 120, 10):
        day.rests(at, 10)

    (first,) = day.news(60)
    (second,) = day.news(119)

    assert (first.began, first.seen, first.ended) == (NOON, NOON + 60, None)
    assert (second.began, second.seen, second.ended) == (NOON, NOON + 119, None)


def test_what_is_back_at_once_is_no_incident() -> None:
    day = Day()
    day.rests(0, 1)
    day.answers(BRIEF - 0.5)

    assert day.news(60) == []


def test_whether_a_short_one_is_one_is_not_decided_too_early() -> None:
    day = Day()
    day.rests(0, 10)

    assert day.news(2) == []
    assert day.spans(8) == [(0, None)]


def test_where_nobody_asks_any_more_it_is_known_to_last_as_long_as_its_rest() -> None:
    day = Day()
    day.rests(0, 10)

    (told,) = day.news(60)
    assert (told.seen, told.ended) == (NOON + 10, None)
    assert day.news(120) == []  # nothing new
    assert day.spans(10 + QUIET + 1) == [(0, 10)]


def test_an_answer_long_after_the_rest_does_not_prove_that_it_was_out_until_then() -> None:
    day = Day()
    day.rests(0, 10)
    day.answers(10 + SOON + 1)

    assert day.spans(60) == [(0, 10)]


def test_who_fails_again_without_an_answer_in_between_was_out_all_the_time() -> None:
    day = Day()
    day.rests(0, 1)
    day.rests(300, 4)
    day.rests(600, 10)
    day.answers(612)

    assert day.spans(660) == [(0, 612)]


def test_a_failure_after_a_long_quiet_begins_another_incident() -> None:
    day = Day()
    day.rests(0, 10)
    day.rests(11 + QUIET, 10)

    assert day.spans(11 + QUIET + 10) == [(0, 10), (11 + QUIET, None)]


def test_keys_and_whole_providers_have_incidents_of_their_own() -> None:
    day = Day()
    day.rests(0, 30, ("Capi", None, None), "connect: refused")
    day.rests(0, 30, ("Capi", None, 1), "credentials: 401")
    day.rests(0, 30, ("Capi", "gpt-4o", 0), "rate_limited: 429")

    told = {(one.model, one.credential, one.why) for one in day.news(60)}

    assert told == {
        ("", -1, "connect: refused"),
        ("", 1, "credentials: 401"),
        ("gpt-4o", 0, "rate_limited: 429"),
    }


def test_foreign_words_are_made_fit_for_every_database() -> None:
    day = Day()
    day.rests(0, 30, why="a\0b\ud800c")

    assert [one.why for one in day.news(60)] == ["ab?c"]


def test_the_room_for_incidents_has_a_bound() -> None:
    day = Day(most=3)
    for number in range(5):
        day.rests(0, 60, ("Capi", f"m{number}", None))
    assert repr(day.incidents) == "<Incidents: 3 going on, 0 over>"

    for number in range(3):
        day.answers(30, ("Capi", f"m{number}", None))
    for number in range(3, 5):
        day.rests(30, 60, ("Capi", f"m{number}", None))
        day.answers(60, ("Capi", f"m{number}", None))

    assert [one.model for one in day.news(90)] == ["m2", "m3", "m4"]  # the oldest are gone


def test_a_clock_that_is_put_back_ends_no_incident_before_it_began() -> None:
    day = Day()
    day.rests(0, 60)
    (told,) = day.news(30)
    day.answers(-500)

    (over,) = day.news(-499)
    assert over.ended == told.seen


def test_what_routing_finds_out_becomes_one_incident_of_the_right_length() -> None:
    day = Day()
    health = health_of(OFFERS)

    def share(news: News) -> None:
        if not news.probing:
            day.incidents.tell(news.name, news.why, news.seconds)

    health.share(share)
    for second in range(180):  # somebody asks every second; two minutes long it fails
        day.now = NOON + second
        if is_back(health, day.now):
            if second < 120:
                failed(health, now=day.now)
            else:
                answered(health, now=day.now)

    (told,) = day.news(180)
    assert (told.provider, told.model) == (ASKED.provider, ASKED.id)
    assert told.why == "provider_error: words"
    assert told.began == NOON
    assert told.ended is not None
    assert 120 <= told.ended - NOON <= 130  # the longest rest is ten seconds


# Uptime


def span(began: float, ended: float | None, model: str = "gpt-4o", provider: str = "Capi") -> Span:
    at = None if ended is None else int(NOON + ended)
    return Span(provider, model, int(NOON + began), at)


def up(spans: list[Span], *, known_since: float = -10 * DAY) -> float:
    return uptime(spans, provider="Capi", model="gpt-4o", known_since=NOON + known_since, now=NOON)


@pytest.mark.parametrize(
    ("spans", "hours_down"),
    [
        ([], 0),
        ([span(-7200, -3600)], 1),
        ([span(-3600, None)], 1),
        ([span(-3600, None, "")], 1),  # its whole provider
        ([span(-3600, None, "mini"), span(-3600, None, "gpt-4o", "Other")], 0),
        ([span(-7200, -3600), span(-5400, -1800, "")], 1.5),  # each second counts once
        ([span(-3 * DAY, -DAY + 3600)], 1),  # what was before is over
        ([span(-3 * DAY, None)], 24),
    ],
)
def test_uptime_is_the_share_of_a_day_without_incidents(
    spans: list[Span], hours_down: float
) -> None:
    assert up(spans) == pytest.approx(1 - hours_down / 24)


def test_of_a_model_that_is_new_the_share_of_its_own_time_is_told() -> None:
    assert up([span(-1800, None)], known_since=-3600) == pytest.approx(0.5)
    assert up([span(-7200, None)], known_since=-3600) == 0.0
    assert up([span(-7200, None)], known_since=0) == 1.0


SPANS = st.lists(
    st.builds(
        lambda began, took, model: span(began, None if took is None else began + took, model),
        st.integers(-int(1.5 * DAY), -1),
        st.none() | st.integers(0, int(DAY)),
        st.sampled_from(["gpt-4o", "", "mini"]),
    ),
    max_size=8,
)


@given(SPANS, st.integers(-int(2 * DAY), -1))
def test_uptime_is_what_counting_minutes_would_tell(spans: list[Span], known_since: int) -> None:
    begin = max(-int(DAY), known_since)
    step = max(1, -begin // 400)
    moments = range(begin, 0, step)
    down = sum(
        any(
            one.began - NOON <= moment < (1 if one.ended is None else one.ended - NOON)
            for one in spans
            if one.model != "mini"
        )
        for moment in moments
    )
    assert up(spans, known_since=known_since) == pytest.approx(
        1 - down / len(moments), abs=0.002 + 2 * (len(spans) + 1) / len(moments)
    )


@given(SPANS, SPANS)
def test_more_incidents_never_make_uptime_better(some: list[Span], others: list[Span]) -> None:
    assert 0.0 <= up(some + others) <= up(some) + 1e-9
    assert up(some + some) == pytest.approx(up(some))


def test_spans_are_grouped_by_their_model() -> None:
    whole, own, mate = span(-10, None, ""), span(-9, None), span(-8, None, "mini")

    assert by_model([whole, own, mate, own]) == {
        ("Capi", ""): [whole],
        ("Capi", "gpt-4o"): [own, own],
        ("Capi", "mini"): [mate],
    }
