"""Which key is taken, and in which order candidates come, by what is remembered of them."""

from manyways.routing.candidate import ENOUGH
from manyways.routing.health import Health
from manyways.types import Model
from tests.support.routing import (
    ASKED,
    MATE,
    OFFERS,
    T0,
    TWIN,
    answered,
    begun,
    failed,
    health_of,
    is_back,
    model,
)


def test_keys_take_turns() -> None:
    health = health_of(OFFERS, keys={"Capi": 3})
    taken = []
    for _ in range(4):
        key = health.credential(ASKED, T0)
        assert key is not None
        begun(health, key=key)
        taken.append(key)
    assert taken == [0, 1, 2, 0]


def shares(health: Health, *, now: float = T0, times: int = 60) -> list[float]:
    """How much of what is asked goes with each of two keys."""
    taken = [0, 0]
    for _ in range(times):
        key = health.credential(ASKED, now)
        assert key is not None
        taken[key] += 1
        health.dropped(begun(health, key=key, now=now))
    return [count / times for count in taken]


def test_a_key_that_fails_more_than_the_next_has_to_stand_back_for_a_while() -> None:
    health = health_of(OFFERS, keys={"Capi": 2})
    for second in range(8):
        failed(health, "reset", MATE, key=0, now=T0 + second)
        answered(health, key=1, now=T0 + second)
    assert shares(health, now=T0 + 8) == [0.0, 1.0]
    assert shares(health, now=T0 + 900) == [0.5, 0.5]


def test_a_key_that_is_slower_than_the_next_has_to_stand_back_for_a_while() -> None:
    health = health_of(OFFERS, keys={"Capi": 2})
    for second in range(8):
        for key, took in ((0, 4.0), (1, 1.0)):
            ticket = begun(health, key=key, now=T0 + second)
            health.spoke(ticket, T0 + second + took)
            health.succeeded(ticket, T0 + second + took)
    assert shares(health, now=T0 + 12) == [0.0, 1.0]
    assert shares(health, now=T0 + 900) == [0.5, 0.5]


def test_keys_of_a_provider_that_fails_with_all_of_them_take_turns() -> None:
    health = health_of(OFFERS, keys={"Capi": 2})
    for second in range(8):
        for key in (0, 1):
            failed(health, "reset", MATE, key=key, now=T0 + second)
    assert shares(health, now=T0 + 9) == [0.5, 0.5]


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
