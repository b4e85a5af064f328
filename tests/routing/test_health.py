"""What is remembered of candidates, in virtual time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.routing.breaker import LEASE
from manyways.routing.health import FACTOR, IMPATIENCE, JITTER, SILENCES, Health
from tests.support.routing import (
    ASKED,
    MATE,
    OFFERS,
    REST,
    SETTINGS,
    T0,
    TWIN,
    answered,
    back_in,
    begun,
    failed,
    health_of,
    is_back,
    no_chance,
)

# What rests


@pytest.mark.parametrize("code", ["provider_error", "reset", "cut", "timeout", "no_answer"])
def test_a_failure_rests_the_candidate_alone(code: str) -> None:
    health = health_of(OFFERS)
    failed(health, code)
    assert not is_back(health, T0 + 1.9)
    assert is_back(health, T0 + 2)
    assert is_back(health, T0, MATE)
    assert is_back(health, T0, TWIN)


@pytest.mark.parametrize("code", ["connect", "tls"])
def test_what_cannot_be_reached_rests_the_whole_provider(code: str) -> None:
    health = health_of(OFFERS)
    failed(health, code)
    assert not is_back(health, T0, MATE)
    assert is_back(health, T0, TWIN)
    assert is_back(health, T0 + 2, MATE)


def test_a_key_that_is_not_accepted_rests_for_every_model_of_its_provider() -> None:
    health = health_of(OFFERS, keys={"Capi": 2})
    failed(health, "credentials", key=0)
    assert [health.credential(row, T0) for row in (ASKED, MATE)] == [1, 1]
    failed(health, "credentials", key=1)
    assert not is_back(health, T0, MATE)
    assert is_back(health, T0, TWIN)
    assert is_back(health, T0 + 15)


def test_a_limited_rate_rests_one_key_at_one_model() -> None:
    health = health_of(OFFERS, keys={"Capi": 2})
    failed(health, "rate_limited", key=1, retry_after=30)
    assert {health.credential(ASKED, T0) for _ in range(3)} == {0}
    failed(health, "rate_limited", key=0, retry_after=60)
    assert not is_back(health, T0 + 29)
    assert health.credential(ASKED, T0 + 30) == 1
    assert is_back(health, T0, MATE)


def test_a_model_that_is_gone_rests_for_minutes() -> None:
    health = health_of(OFFERS)
    failed(health, "model_gone")
    assert back_in(health) == 60


# How long


def test_each_further_rest_is_longer_up_to_a_limit() -> None:
    health, now = health_of(OFFERS), T0
    rests = []
    for _ in range(4):
        failed(health, now=now)
        rests.append(back_in(health, now=now))
        now += rests[-1]
    assert rests == [REST, REST * FACTOR, 10, 10]


@given(chance=st.floats(0, 0.999))
def test_a_rest_is_up_to_a_fifth_shorter_by_chance(chance: float) -> None:
    health = health_of(OFFERS, chance=lambda: chance)
    failed(health)
    assert REST * (1 - JITTER) <= back_in(health) <= REST


def test_a_silence_is_not_asked_again_in_the_time_it_took() -> None:
    health = health_of(OFFERS)
    failed(health, "timeout", took=7)
    assert back_in(health) == 7


@pytest.mark.parametrize(
    ("code", "told", "taken"),
    [
        ("rate_limited", 45.0, 45.0),
        ("rate_limited", 86_400.0, 3600.0),
        ("provider_error", 20.0, 20.0),
        ("provider_error", 86_400.0, 60.0),
    ],
)
def test_a_provider_that_tells_a_time_is_taken_at_its_word_within_reason(
    code: str, told: float, taken: float
) -> None:
    health = health_of(OFFERS)
    failed(health, code, retry_after=told)
    assert back_in(health) == taken


def test_a_word_that_proved_wrong_counts_for_less_than_what_is_known() -> None:
    health, now = health_of(OFFERS), T0
    rests = []
    for _ in range(4):
        failed(health, now=now, retry_after=0.5)
        rests.append(back_in(health, now=now))
        now += rests[-1]
    assert rests == [0.5, REST, REST * FACTOR, 10]


# What counts


def test_a_stray_failure_of_one_that_nearly_always_answers_is_no_reason_to_rest() -> None:
    health = health_of(OFFERS)
    for _ in range(20):
        answered(health)
    failed(health)
    assert is_back(health, T0)
    failed(health)
    assert not is_back(health, T0)


def test_two_strays_with_a_success_between_them_are_two_strays() -> None:
    health = health_of(OFFERS)
    for _ in range(20):
        answered(health)
    failed(health)
    answered(health)
    failed(health)
    assert is_back(health, T0)


@pytest.mark.parametrize(("took", "retry_after"), [(1.0, None), (0.0, 5.0)])
def test_a_slow_failure_or_one_that_tells_a_time_is_never_a_stray(
    took: float, retry_after: float | None
) -> None:
    health = health_of(OFFERS)
    for _ in range(20):
        answered(health, now=T0 - 5)
    failed(health, took=took, retry_after=retry_after)
    assert not is_back(health, T0)


def test_a_failure_is_old_news_once_somebody_who_began_later_was_answered() -> None:
    health = health_of(OFFERS)
    slow = begun(health, now=T0 - 10)
    answered(health, now=T0 - 5)
    health.failed(slow, T0, "timeout")
    assert is_back(health, T0)
    assert health.candidate(ASKED).outcomes["timeout"] == 1


def test_a_break_after_the_first_token_counts_whoever_was_answered_since() -> None:
    health = health_of(OFFERS)
    cut = begun(health, now=T0 - 10)
    health.spoke(cut, T0 - 9)
    answered(health, now=T0 - 5)
    health.failed(cut, T0, "cut")
    assert not is_back(health, T0)


def test_who_was_asked_although_it_rests_and_fails_says_nothing_new() -> None:
    health = health_of(OFFERS)
    failed(health)
    failed(health, now=T0 + 1)
    assert back_in(health) == REST


def test_many_that_fail_together_count_once() -> None:
    health = health_of(OFFERS)
    for ticket in [begun(health) for _ in range(50)]:
        health.failed(ticket, T0 + 1, "reset")
    assert back_in(health, now=T0 + 1) == REST
    assert health.candidate(ASKED).breaker.rests == 1


def test_a_success_closes_all_on_its_way_at_once() -> None:
    health = health_of(OFFERS)
    failed(health)
    failed(health, "connect", MATE)
    failed(health, "credentials", MATE)
    assert not is_back(health, T0)
    answered(health, now=T0 + 1)
    assert is_back(health, T0 + 1)
    assert is_back(health, T0 + 1, MATE)


def test_a_success_that_began_before_the_failure_proves_nothing() -> None:
    health = health_of(OFFERS)
    late = begun(health, now=T0 - 5)
    failed(health)
    health.spoke(late, T0 + 1)
    health.succeeded(late, T0 + 1)
    assert not is_back(health, T0 + 1)


def test_after_a_success_the_next_rest_is_a_short_one_again() -> None:
    health = health_of(OFFERS)
    for _ in range(3):
        failed(health, now=T0 + 20)
    answered(health, now=T0 + 40)
    failed(health, now=T0 + 60)
    assert back_in(health, now=T0 + 60) == REST


def test_the_first_token_proves_what_failed_before_it() -> None:
    health = health_of(OFFERS)
    failed(health, "timeout")
    health.spoke(begun(health, now=T0 + 2), T0 + 2)
    assert is_back(health, T0 + 2)


def test_what_failed_after_its_first_token_is_proven_by_a_whole_answer_only() -> None:
    health = health_of(OFFERS)
    cut = begun(health)
    health.spoke(cut, T0)
    health.failed(cut, T0, "cut")
    probe = begun(health, now=T0 + 2)
    health.spoke(probe, T0 + 2)
    assert not is_back(health, T0 + 2)
    health.succeeded(probe, T0 + 3)
    assert is_back(health, T0 + 3)


def test_whoever_refuses_a_request_is_well() -> None:
    health = health_of(OFFERS)
    failed(health)
    health.refused(begun(health, now=T0 + 1))
    assert is_back(health, T0 + 1)


def test_an_end_is_heard_once() -> None:
    health = health_of(OFFERS)
    ticket = begun(health)
    health.succeeded(ticket, T0)
    health.failed(ticket, T0, "reset")
    health.dropped(ticket)
    assert is_back(health, T0)
    assert health.candidate(ASKED).running == 0


# Callers that leave


def leave(health: Health, waited: float) -> None:
    health.left(begun(health, now=T0 - waited), T0)


def test_callers_that_leave_a_long_silence_one_after_the_other_have_told_something() -> None:
    health = health_of(OFFERS)
    for _ in range(SILENCES - 1):
        leave(health, IMPATIENCE + 1)
        assert is_back(health, T0)
    leave(health, IMPATIENCE + 1)
    assert not is_back(health, T0)
    assert health.candidate(ASKED).breaker.why.startswith("timeout: callers left after 3 s")


def test_callers_that_leave_early_have_told_nothing() -> None:
    health = health_of(OFFERS)
    health.spoke(begun(health, now=T0 - 2), T0)  # two seconds are usual
    for _ in range(SILENCES):
        leave(health, 5.9)
        leave(health, IMPATIENCE)
    assert is_back(health, T0)


def test_a_word_in_between_makes_a_silence_one_of_nobodys() -> None:
    health = health_of(OFFERS)
    for _ in range(3):
        for _ in range(SILENCES - 1):
            leave(health, IMPATIENCE + 1)
        health.spoke(begun(health, now=T0 - 0.1), T0)
    assert is_back(health, T0)


def test_a_caller_that_leaves_an_answer_under_way_has_told_nothing() -> None:
    health = health_of(OFFERS)
    for _ in range(SILENCES):
        heard = begun(health, now=T0 - 9)
        health.spoke(heard, T0 - 8)
        health.left(heard, T0)
    assert is_back(health, T0)


# What is remembered of a provider


def test_a_costly_failure_is_remembered_against_the_provider_until_one_of_it_has_spoken() -> None:
    health = health_of(OFFERS)
    assert not health.was_costly(ASKED)
    failed(health, took=4)
    assert health.was_costly(ASKED)
    assert not health.was_costly(MATE), "it is known by the one that failed"
    answered(health, TWIN, now=T0 + 1)
    assert health.was_costly(ASKED)
    answered(health, MATE, now=T0 + 1)
    assert not health.was_costly(ASKED)


def test_a_costly_failure_is_not_forgotten_when_a_probe_is_outrun() -> None:
    health = health_of(OFFERS)
    failed(health, "timeout", took=10)
    health.dropped(begun(health, now=T0 + 10), outran_at=T0 + 10.5)
    assert health.was_costly(ASKED)


@pytest.mark.parametrize(("code", "took"), [("provider_error", 0.9), ("model_gone", 4.0)])
def test_what_failed_quickly_or_is_gone_was_not_costly(code: str, took: float) -> None:
    health = health_of(OFFERS)
    failed(health, code, took=took)
    assert not health.was_costly(ASKED)


def test_an_answer_that_broke_was_not_costly() -> None:
    health = health_of(OFFERS)
    cut = begun(health, now=T0 - 10)
    health.spoke(cut, T0 - 9)
    health.failed(cut, T0, "cut")
    assert not health.was_costly(ASKED)


# Telling


def test_it_is_told_once_that_something_rests_and_once_that_it_is_back() -> None:
    told: list[object] = []
    health = Health(SETTINGS, {"Capi": 2}, chance=no_chance, tell=lambda *what: told.append(what))
    failed(health)
    failed(health, now=T0 + 2)
    failed(health, "connect", MATE, now=T0 + 3)
    failed(health, "credentials", key=1, now=T0 + 3)
    failed(health, "rate_limited", key=1, now=T0 + 3, retry_after=30)
    assert told == [
        (("Capi", "gpt-4o", None), "provider_error: words", REST),
        (("Capi", None, None), "connect: words", REST),
        (("Capi", None, 1), "credentials: words", 15),
        (("Capi", "gpt-4o", 1), "rate_limited: words", 30),
    ]
    told.clear()
    for _ in range(2):
        answered(health, now=T0 + 20)
    assert told == [
        (("Capi", "gpt-4o", None), "provider_error: words", None),
        (("Capi", None, None), "connect: words", None),
    ]


def test_a_stray_is_not_told() -> None:
    told: list[object] = []
    health = Health(SETTINGS, {"Capi": 1}, chance=no_chance, tell=lambda *what: told.append(what))
    for _ in range(20):
        answered(health)
    failed(health)
    answered(health)
    assert told == []


# Half-open


def test_one_probe_passes_among_many() -> None:
    health = health_of(OFFERS)
    failed(health)
    later = T0 + REST
    passed = 0
    for _ in range(100):
        if health.credential(ASKED, later) is not None:
            begun(health, now=later)
            passed += 1
    assert passed == 1


def test_a_probe_that_proved_nothing_leaves_its_place_to_the_next() -> None:
    health = health_of(OFFERS)
    failed(health)
    probe = begun(health, now=T0 + 2)
    assert not is_back(health, T0 + 2)
    health.dropped(probe)
    assert is_back(health, T0 + 2)


def test_a_probe_that_hangs_keeps_its_place_for_a_while_only() -> None:
    health = health_of(OFFERS)
    failed(health)
    begun(health, now=T0 + 2)
    assert not is_back(health, T0 + 2 + LEASE - 0.1)
    later = T0 + 2 + LEASE
    assert is_back(health, later)
    assert health.is_probe(begun(health, now=later))
    assert not is_back(health, later)


def test_a_probe_that_fails_rests_it_for_longer() -> None:
    health = health_of(OFFERS)
    failed(health)
    failed(health, now=T0 + 2)
    assert back_in(health, now=T0 + 2) == REST * FACTOR


def test_a_probe_is_known_as_one_until_it_has_ended() -> None:
    health = health_of(OFFERS)
    assert not health.is_probe(begun(health))
    failed(health)
    probe, beside = begun(health, now=T0 + 2), begun(health, now=T0 + 2)
    assert (health.is_probe(probe), health.is_probe(beside)) == (True, False)
    health.succeeded(probe, T0 + 3)
    assert not health.is_probe(probe)


def test_a_probe_that_is_outrun_rests_it_for_longer() -> None:
    """The rest begins where the probe did."""
    health = health_of(OFFERS)
    failed(health)
    health.dropped(begun(health, now=T0 + 2), outran_at=T0 + 3)
    assert back_in(health, now=T0 + 2) == REST * FACTOR
    assert health.candidate(ASKED).breaker.why == "provider_error: words", "why it began"
    assert health.candidate(ASKED).outcomes == {"provider_error": 1, "cancelled": 1}


def test_a_probe_that_is_outrun_rests_all_it_was_the_probe_of() -> None:
    health = health_of(OFFERS)
    failed(health, "connect", MATE)
    failed(health)
    health.dropped(begun(health, now=T0 + 2), outran_at=T0 + 3)
    assert not is_back(health, T0 + 2 + REST * FACTOR - 0.1, MATE)
    assert is_back(health, T0 + 2 + REST * FACTOR, MATE)


@pytest.mark.parametrize(("code", "first"), [("credentials", 15), ("model_gone", 60)])
def test_a_probe_that_is_outrun_keeps_the_rests_of_what_it_looked_for(
    code: str, first: int
) -> None:
    health = health_of(OFFERS)
    failed(health, code)
    health.dropped(begun(health, now=T0 + first), outran_at=T0 + first + 1)
    assert back_in(health, now=T0 + first) == first * FACTOR


def test_a_race_as_long_as_its_rest_is_followed_by_a_short_one() -> None:
    health = health_of(OFFERS)
    failed(health)
    health.dropped(begun(health, now=T0 + 2), outran_at=T0 + 2 + REST * FACTOR)
    assert back_in(health, now=T0 + 2 + REST * FACTOR) == REST


def test_a_probe_that_has_spoken_is_not_outrun() -> None:
    health = health_of(OFFERS)
    failed(health)
    probe = begun(health, now=T0 + 2)
    health.spoke(probe, T0 + 2)
    health.dropped(probe, outran_at=T0 + 3)
    assert is_back(health, T0 + 3)


def test_whoever_is_no_probe_rests_for_no_race_it_lost() -> None:
    health = health_of(OFFERS)
    health.dropped(begun(health), outran_at=T0 + 3)
    assert is_back(health, T0 + 3)


def test_an_attempt_during_a_rest_is_no_probe_but_its_success_counts() -> None:
    health = health_of(OFFERS)
    failed(health)
    desperate = begun(health, now=T0 + 1)
    assert is_back(health, T0 + 2), "the probe's place is free"
    health.spoke(desperate, T0 + 1.5)
    assert is_back(health, T0 + 1.5)
