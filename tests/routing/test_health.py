"""What is remembered of candidates, in virtual time."""

import heapq
import math
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyways.errors import AttemptFailed
from manyways.routing.commands import Cancel, Commands, Start, Wait
from manyways.routing.health import (
    ENOUGH,
    FACTOR,
    IMPATIENCE,
    JITTER,
    LEASE,
    SAMPLES,
    SILENCES,
    Health,
    Ticket,
)
from manyways.routing.plan import Plan
from manyways.routing.resolve import Wish, resolve
from manyways.routing.settings import Settings
from manyways.types import NO_NEEDS, Model
from tests.support.routing import REST, SETTINGS, T0, health_of, model, no_chance, shop

OFFERS = shop("Capi/gpt-4o", "Capi/mini", "Other/gpt-4o")
ASKED, MATE, TWIN = OFFERS.models


def begun(health: Health, row: Model = ASKED, *, key: int = 0, now: float = T0) -> Ticket:
    ticket = Ticket(health.candidate(row), key, now, stream=True)
    health.begin(ticket)
    return ticket


def answered(health: Health, row: Model = ASKED, *, key: int = 0, now: float = T0) -> None:
    ticket = begun(health, row, key=key, now=now)
    health.spoke(ticket, now)
    health.succeeded(ticket, now)


def failed(
    health: Health,
    code: str = "provider_error",
    row: Model = ASKED,
    *,
    key: int = 0,
    now: float = T0,
    took: float = 0.0,
    retry_after: float | None = None,
) -> None:
    health.failed(begun(health, row, key=key, now=now - took), now, code, "words", retry_after)


def is_back(health: Health, at: float, row: Model = ASKED) -> bool:
    """Whether it may be asked, where nobody else asks."""
    return health.credential(row, at) is not None


def back_in(health: Health, row: Model = ASKED, *, now: float = T0) -> float:
    return health.back_at(row, now)[0] - now


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
    health = health_of(OFFERS)
    failed(health)
    health.dropped(begun(health, now=T0 + 2), outran_at=T0 + 3)
    assert back_in(health, now=T0 + 3) == REST * FACTOR
    assert health.candidate(ASKED).breaker.why == "provider_error: words", "why it began"
    assert health.candidate(ASKED).outcomes == {"provider_error": 1, "cancelled": 1}


def test_a_probe_that_is_outrun_rests_all_it_was_the_probe_of() -> None:
    health = health_of(OFFERS)
    failed(health, "connect", MATE)
    failed(health)
    health.dropped(begun(health, now=T0 + 2), outran_at=T0 + 3)
    assert not is_back(health, T0 + 2 + REST * FACTOR, MATE)
    assert is_back(health, T0 + 3 + REST * FACTOR, MATE)


@pytest.mark.parametrize(("code", "first"), [("credentials", 15), ("model_gone", 60)])
def test_a_probe_that_is_outrun_keeps_the_rests_of_what_it_looked_for(
    code: str, first: int
) -> None:
    health = health_of(OFFERS)
    failed(health, code)
    health.dropped(begun(health, now=T0 + first), outran_at=T0 + first + 1)
    assert back_in(health, now=T0 + first + 1) == first * FACTOR


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


# Keys and order


def test_keys_take_turns() -> None:
    health = health_of(OFFERS, keys={"Capi": 3})
    taken = []
    for _ in range(4):
        key = health.credential(ASKED, T0)
        assert key is not None
        begun(health, key=key)
        taken.append(key)
    assert taken == [0, 1, 2, 0]


def test_the_key_whose_rest_is_over_first_is_known() -> None:
    health = health_of(OFFERS, keys={"Capi": 2})
    failed(health, "rate_limited", key=0, retry_after=50)
    failed(health, "rate_limited", key=1, retry_after=20)
    assert health.back_at(ASKED, T0) == (T0 + 20, 1)


def cost(health: Health, now: float, row: Model = ASKED) -> float:
    return health.candidate(row).cost(now, stream=True)


def test_old_failures_fade() -> None:
    health = health_of(OFFERS)
    for _ in range(5):
        failed(health)
    fresh = cost(health, T0)
    assert fresh > 2 * cost(health, T0, TWIN)
    assert cost(health, T0 + 600) < fresh / 30


def test_an_old_latency_fades() -> None:
    health = health_of(OFFERS)
    health.spoke(begun(health, now=T0 - 8), T0)
    health.dropped(begun(health))
    assert cost(health, T0) > 3 * cost(health, T0, TWIN)
    assert cost(health, T0 + 600) < cost(health, T0) / 30


def test_a_recovery_is_the_end_of_what_was_held_against_it() -> None:
    health = health_of(OFFERS)
    for i in range(3):
        failed(health, now=T0 + 20 * i)
    answered(health, now=T0 + 60)
    assert cost(health, T0 + 60) <= cost(health, T0, TWIN)


def test_whoever_lost_a_race_is_known_to_be_slow() -> None:
    health = health_of(OFFERS)
    health.dropped(begun(health, now=T0 - 6), outran_at=T0)
    assert cost(health, T0) == 6.0
    unknown = cost(health, T0, TWIN)
    health.dropped(begun(health, TWIN, now=T0 - 6))
    assert cost(health, T0, TWIN) == unknown, "who was left by its caller proved nothing"


def test_who_is_unknown_is_worth_a_try_but_not_a_flood() -> None:
    health = health_of(OFFERS)
    health.spoke(known := begun(health, now=T0 - 1), T0)
    health.succeeded(known, T0)
    assert cost(health, T0, TWIN) < cost(health, T0)
    for _ in range(100):
        begun(health, TWIN)
    assert cost(health, T0, TWIN) > cost(health, T0)


def test_whoever_lost_a_race_before_its_usual_time_is_no_faster_for_it() -> None:
    health = health_of(OFFERS)
    health.spoke(begun(health, now=T0 - 2), T0)
    health.dropped(begun(health, now=T0 - 0.1), outran_at=T0)
    health.dropped(begun(health, now=T0 - 4), outran_at=T0)
    assert list(health.candidate(ASKED).samples) == [2, 4]


def test_whoever_is_due_has_rested_and_was_not_tried_since() -> None:
    health = health_of(OFFERS)
    assert not health.is_due(ASKED)
    failed(health)
    assert is_back(health, T0 + 2)
    assert health.is_due(ASKED)
    answered(health, now=T0 + 2)
    assert not health.is_due(ASKED)


def test_a_percentile_of_too_few_is_not_known() -> None:
    health = health_of(OFFERS)
    for i in range(ENOUGH):
        assert health.candidate(ASKED).percentile(0.5) is None
        health.spoke(begun(health, now=T0 - i), T0)
    assert health.candidate(ASKED).percentile(0.5) == ENOUGH // 2
    assert health.candidate(ASKED).percentile(0.95) == ENOUGH - 1


def test_what_is_no_longer_offered_is_forgotten_unless_it_is_at_work() -> None:
    health = health_of(OFFERS)
    failed(health)
    failed(health, row=TWIN)
    working = begun(health, TWIN)
    health.keep([MATE])
    assert is_back(health, T0), "nothing is known of it any more"
    assert not is_back(health, T0, TWIN)
    health.dropped(working)
    health.keep([MATE])
    assert is_back(health, T0, TWIN)


def test_a_newer_row_of_the_catalog_keeps_what_was_learned() -> None:
    health = health_of(OFFERS)
    failed(health)
    assert not is_back(health, T0, model("Capi/gpt-4o", quality_score=9.0))
    assert health.candidate(ASKED).model is ASKED


# An outage, as the callers of a whole gateway meet it


class Outage:
    """A primary that is dead from `T0` to `T0 + seconds`, asked once every `every` seconds, as
    the plans of real requests decide. Whoever is well speaks after `FIRST` seconds.

    With `whole`, all of its provider is dead. `probes` are the moments at which the dead were
    asked, `waited` the seconds each caller had to wait, by the moment at which it came.
    """

    def __init__(
        self,
        *,
        seconds: float,
        every: float,
        phase: float,
        chance: Callable[[], float],
        code: str = "",
        whole: bool = False,
    ) -> None:
        self.ends = T0 + seconds
        self.settings = Settings()
        self.health = health_of(OFFERS, self.settings, chance=chance)
        self.chance = chance
        self.code = code
        self.dead = (ASKED, MATE) if whole else (ASKED,)
        self.probes: list[float] = []
        self.waited: dict[float, float] = {}
        self.back: float | None = None
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        for row in OFFERS.models:  # what each of them usually takes is known
            for _ in range(SAMPLES):
                ticket = begun(self.health, row, now=T0 - 1000)
                self.health.spoke(ticket, T0 - 1000 + FIRST)
                self.health.succeeded(ticket, T0 - 999)
        for i in range(-30, int((seconds + 60) / every)):
            self._at(T0 + phase + i * every, self._comes)
        while self._events:
            now, _, happens = heapq.heappop(self._events)
            happens(now)

    def _at(self, moment: float, happens: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (moment, id(happens), happens))

    def _comes(self, now: float) -> None:
        plan = Plan(
            resolve(OFFERS, Wish(models=("Capi/gpt-4o",)), NO_NEEDS, self.settings.order),
            self.health,
            self.settings,
            deadline=now + 170,
            stream=True,
            chance=self.chance,
        )
        self._obey(plan, now, plan.begin(now), now)

    def _obey(self, plan: Plan, came: float, commands: Commands, now: float) -> None:
        for command in commands:
            if isinstance(command, Start):
                self._ask(plan, came, command, now)
            elif isinstance(command, Wait):
                self._at(command.until, lambda when: self._obey(plan, came, plan.rang(when), when))
            else:
                assert isinstance(command, Cancel), "everybody is answered"

    def _ask(self, plan: Plan, came: float, start: Start, now: float) -> None:
        attempt = plan.attempts[start.attempt]

        def speaks(when: float) -> None:
            if attempt.outcome is None:
                self.waited[came] = when - came
                self._obey(plan, came, plan.spoke(attempt.id, when), when)
                self._obey(plan, came, plan.succeeded(attempt.id, when), when)

        def fails(when: float) -> None:
            if attempt.outcome is None:
                failure = AttemptFailed(self.code or "timeout", "down")
                self._obey(plan, came, plan.failed(attempt.id, failure, when), when)

        if start.model in self.dead and T0 <= now < self.ends:
            self.probes.append(now)
            if self.code:
                fails(now)
            else:
                self._at(now + start.limit, fails)
            return
        if start.model is ASKED and now >= self.ends and self.back is None:
            self.back = now
        self._at(now + FIRST, speaks)

    @property
    def came_back_after(self) -> float:
        assert self.back is not None
        return self.back - self.ends

    def longest_wait(self, since: float, until: float = math.inf) -> float:
        """Of those who came so many seconds after its beginning."""
        return max(waited for came, waited in self.waited.items() if since <= came - T0 < until)


FIRST = 0.5
"""Seconds to the first token of whoever is well."""
PATIENCE = 1.5 * FIRST
"""How long a probe is waited for by itself."""

chances = st.randoms(use_true_random=False).map(lambda source: source.random)
lasting = st.floats(30, 120)


@settings(max_examples=60, deadline=None)
@given(
    chance=chances,
    phase=st.floats(0, 3.999),
    seconds=lasting,
    code=st.sampled_from(["connect", "provider_error", "reset"]),
)
def test_in_an_outage_the_dead_one_sees_probes_and_is_back_within_15_seconds(
    chance: Callable[[], float], phase: float, seconds: float, code: str
) -> None:
    outage = Outage(seconds=seconds, every=4, phase=phase, chance=chance, code=code)
    early = 4  # one is taken for a stray, and the first rests are short
    assert len(outage.probes) <= early + seconds / 12, "not a request every 4 seconds"
    assert outage.came_back_after <= 15


@settings(max_examples=40, deadline=None)
@given(chance=chances, phase=st.floats(0, 0.099), seconds=lasting)
def test_under_load_the_dead_one_sees_no_more_probes_than_when_it_is_quiet(
    chance: Callable[[], float], phase: float, seconds: float
) -> None:
    outage = Outage(seconds=seconds, every=0.1, phase=phase, chance=chance, code="connect")
    assert len(outage.probes) <= 4 + seconds / 8, "of ten requests a second"
    assert outage.came_back_after <= 10.1


@settings(max_examples=60, deadline=None)
@given(chance=chances, phase=st.floats(0, 3.999), seconds=lasting, whole=st.booleans())
def test_a_silent_one_costs_few_callers_their_time(
    chance: Callable[[], float], phase: float, seconds: float, whole: bool
) -> None:
    """Who came before the first silence of a model was over has waited it out. Everybody else
    waits for a probe at most, and for whoever outruns it: hardly longer than usual, while few
    of the latest first tokens are those of probes, and half of the limit at most."""
    outage = Outage(seconds=seconds, every=4, phase=phase, chance=chance, whole=whole)
    known = 12 * len(outage.dead)
    assert len(outage.probes) <= 3 * len(outage.dead) + 2 + seconds / 8
    assert outage.longest_wait(since=0) <= 10 + FIRST + 1e-6
    assert outage.longest_wait(since=phase + known, until=60) <= PATIENCE + FIRST + 1e-6
    assert outage.longest_wait(since=phase + known) <= 5 + FIRST + 1e-6


@settings(max_examples=60, deadline=None)
@given(
    chance=chances,
    every=st.floats(0.2, 8),
    phase=st.floats(0, 0.999),
    seconds=lasting,
    whole=st.booleans(),
)
def test_a_silent_one_is_back_a_race_and_a_rest_and_a_request_later_at_the_latest(
    chance: Callable[[], float], every: float, phase: float, seconds: float, whole: bool
) -> None:
    """The last probe may begin just before the end: it is outrun, and a rest follows."""
    outage = Outage(seconds=seconds, every=every, phase=phase * every, chance=chance, whole=whole)
    race = 5 + FIRST
    assert outage.came_back_after <= race + Settings().rest_limit + every + 1e-6


@pytest.mark.parametrize("whole", [False, True])
def test_a_silent_one_is_back_within_15_seconds_but_for_one_time_in_twenty(whole: bool) -> None:
    """Sixteen are the most: a probe at the last moment, a race, a rest, and then the fourth
    request behind that probe, where the third comes before the rest is over."""
    luck = Random(1)
    back = [
        Outage(
            seconds=luck.uniform(30, 120),
            every=4,
            phase=luck.uniform(0, 4),
            chance=luck.random,
            whole=whole,
        ).came_back_after
        for _ in range(100)
    ]
    assert max(back) <= 16
    assert sum(seconds <= 15 for seconds in back) >= 95
