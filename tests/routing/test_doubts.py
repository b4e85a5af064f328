"""One caller's requests that fail, and others that do not: who is believed."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyways.routing.breaker import News
from manyways.routing.doubts import CALLERS, LASTS, MOST, Doubts
from manyways.routing.health import WELL, Health
from tests.support.routing import (
    ASKED,
    OFFERS,
    REST,
    T0,
    answered,
    begun,
    failed,
    health_of,
    is_back,
    no_chance,
)

chances = st.randoms(use_true_random=False).map(lambda source: source.random)


def rests(health: Health) -> bool:
    return bool(health.candidate(ASKED).breaker.why)


def may(health: Health, caller: str, now: float = T0) -> bool:
    """Whether this one may ask."""
    return health.credential(ASKED, now, caller=caller) is not None


def contradicted(health: Health, caller: str, now: float) -> float:
    """It fails until the model rests, and the next one is answered. When that is over."""
    while not rests(health):
        failed(health, now=now, caller=caller)
    now += REST
    answered(health, now=now, caller="ann")
    return now


def test_who_was_wrong_too_often_lets_nothing_rest_any_more() -> None:
    health = health_of(OFFERS, chance=no_chance)
    now = T0
    for _ in range(MOST):
        now = contradicted(health, "eve", now)
    for _ in range(20):
        failed(health, now=now, caller="eve")
        assert not rests(health)
    failed(health, now=now, caller="ann")
    failed(health, now=now, caller="ann")
    assert rests(health), "others are still believed"


def test_what_is_not_believed_makes_a_model_no_dearer() -> None:
    health = health_of(OFFERS, chance=no_chance)
    now = T0
    for _ in range(MOST):
        now = contradicted(health, "eve", now)
    before = health.candidate(ASKED).cost(now, stream=True)
    failed(health, now=now, caller="eve")
    assert health.candidate(ASKED).cost(now, stream=True) == before
    assert health.candidate(ASKED).outcomes["provider_error"] >= MOST + 1, "it is still counted"


def test_who_agrees_with_another_was_not_wrong() -> None:
    health = health_of(OFFERS, chance=no_chance)
    now = T0
    for _ in range(3 * MOST):
        failed(health, now=now, caller="eve")
        failed(health, now=now, caller="bob")
        now += 10 * REST
        failed(health, now=now, caller="bob")
        now += 100 * REST
        answered(health, now=now, caller="ann")
    failed(health, now=now, caller="eve")
    failed(health, now=now, caller="eve")
    assert rests(health)


def test_alone_with_a_model_everybody_is_believed() -> None:
    health = health_of(OFFERS, chance=no_chance)
    now = T0
    for _ in range(5 * MOST):
        while not rests(health):
            failed(health, now=now, caller="eve")
        now += REST
        answered(health, now=now, caller="eve")
    failed(health, now=now, caller="eve")
    failed(health, now=now, caller="eve")
    assert rests(health)


def test_where_nobody_is_answered_any_more_everybody_is_believed() -> None:
    health = health_of(OFFERS, chance=no_chance)
    now = T0
    for _ in range(MOST):
        now = contradicted(health, "eve", now)
    now += WELL
    failed(health, now=now, caller="eve")
    failed(health, now=now, caller="eve")
    assert rests(health)


@pytest.mark.parametrize("code", ["connect", "credentials", "rate_limited"])
def test_what_no_request_can_cause_is_believed_of_everybody(code: str) -> None:
    health = health_of(OFFERS, chance=no_chance)
    now = T0
    for _ in range(MOST):
        now = contradicted(health, "eve", now)
    failed(health, code, now=now, caller="eve")
    assert not is_back(health, now)


@settings(max_examples=30)
@given(chance=chances, evil=st.floats(0.2, 5.0), good=st.floats(0.2, 5.0))
def test_one_caller_takes_a_model_from_nobody(
    chance: Callable[[], float], evil: float, good: float
) -> None:
    """Every request of one caller fails, and all others' are answered at once."""
    health = health_of(OFFERS, chance=chance)
    events = sorted(
        [(T0 + evil * number, "eve") for number in range(200)]
        + [(T0 + good * number, "ann") for number in range(200)]
    )
    for now, caller in events:
        if caller == "ann":
            assert may(health, caller, now)
            answered(health, now=now, caller=caller)
        elif may(health, caller, now):
            failed(health, now=now, caller=caller)


def test_where_one_caller_failed_the_first_other_one_looks_and_nobody_else() -> None:
    health = health_of(OFFERS, chance=no_chance)
    while not rests(health):
        failed(health, caller="eve")
    assert not may(health, "eve")
    assert not may(health, ""), "who that is, nobody knows"
    assert may(health, "ann")
    probe = begun(health, caller="ann")
    assert health.is_probe(probe)
    assert not may(health, "bob")
    health.failed(probe, T0, "provider_error")
    assert not any(may(health, caller) for caller in ("eve", "ann", "bob")), "all agree"


def test_callers_who_fail_together_agree() -> None:
    health = health_of(OFFERS, chance=no_chance)
    running = begun(health, caller="ann", now=T0 - 5)
    failed(health, "timeout", caller="eve", took=4)
    assert may(health, "bob")
    health.failed(running, T0, "timeout")
    assert not any(may(health, caller) for caller in ("eve", "ann", "bob"))


def test_the_probe_of_another_gateway_takes_a_model_from_nobody_it_has_not_failed_for() -> None:
    health = health_of(OFFERS, chance=no_chance)
    while not rests(health):
        failed(health, caller="eve")
    health.heard(News(name=("Capi", "gpt-4o", None), seconds=10, probing=True), T0)
    assert may(health, "ann")


def test_a_key_a_provider_or_a_limit_that_failed_is_tried_by_nobody_before_its_time() -> None:
    for code in ("connect", "credentials", "rate_limited"):
        health = health_of(OFFERS, chance=no_chance)
        failed(health, code, caller="eve")
        assert not may(health, "ann"), code


def test_whom_one_gateway_names_another_one_learns_to_doubt() -> None:
    here, there = (health_of(OFFERS, chance=no_chance) for _ in range(2))
    now = T0

    def hears(news: News) -> None:
        there.heard(news, now)

    there.candidate(ASKED)
    here.share(hears)
    for _ in range(MOST):
        there.candidate(ASKED).breaker.doubted = 0.0  # it hears the other one again
        while not rests(here):
            failed(here, now=now, caller="eve")
        now += REST
        answered(there, now=now, caller="ann")
        answered(here, now=now, caller="bob")
    assert there.candidate(ASKED).doubts.hold("eve", now)
    assert here.candidate(ASKED).doubts.hold("eve", now)


def test_a_doubt_ends_and_returns_at_the_first_word_that_is_wrong_again() -> None:
    doubts = Doubts()
    for number in range(MOST):
        assert not doubts.hold("eve", T0)
        doubts.add("eve", T0 + number)
    last = T0 + MOST - 1
    assert doubts.hold("eve", last + LASTS - 1)
    assert not doubts.hold("eve", last + LASTS)
    doubts.add("eve", last + LASTS)
    assert doubts.hold("eve", last + LASTS)


def test_words_that_were_wrong_long_ago_do_not_add_up() -> None:
    doubts = Doubts()
    for number in range(10 * MOST):
        doubts.add("eve", T0 + number * LASTS)
    assert not doubts.hold("eve", T0 + 10 * MOST * LASTS)


def test_of_too_many_callers_the_first_are_forgotten() -> None:
    doubts = Doubts()
    for caller in ("eve", *map(str, range(CALLERS))):
        for _ in range(MOST):
            doubts.add(caller, T0)
    assert not doubts.hold("eve", T0)
    assert doubts.hold("0", T0)
    assert doubts.hold(str(CALLERS - 1), T0)
