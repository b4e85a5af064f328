"""Who is next, where there are many; the order itself is told by the conversations of plans."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from manyways.routing.attempt import Attempt
from manyways.routing.health import Health
from manyways.routing.queue import DRAWN, Queue
from manyways.routing.resolve import Wish, resolve
from manyways.types import NO_NEEDS, Model
from tests.support.routing import SETTINGS, T0, health_of, shop

MANY = shop(*(f"P{i}/m" for i in range(60)))


def queue_of(health: Health, chance: Random, attempts: list[Attempt]) -> Queue:
    candidates = resolve(MANY, Wish(models=("m",)), NO_NEEDS, SETTINGS.order)
    return Queue(candidates, health, attempts, stream=True, chance=chance.random)


def rest(health: Health, row: Model) -> None:
    ticket = Attempt(health.candidate(row), 0, T0, stream=True, number=0, method=None)
    health.begin(ticket)
    health.failed(ticket, T0, "provider_error")


@given(seed=st.integers(0, 10_000), well=st.integers(0, 59))
def test_the_only_one_of_many_that_is_well_is_found(seed: int, well: int) -> None:
    health = health_of(MANY)
    for row in MANY.models:
        if row is not MANY.models[well]:
            rest(health, row)
    assert queue_of(health, Random(seed), []).next(T0) == (MANY.models[well], 0)


def test_of_many_nobody_is_asked_twice_and_nobody_is_left_out() -> None:
    health = health_of(MANY)
    attempts: list[Attempt] = []
    queue = queue_of(health, Random(1), attempts)
    while (chosen := queue.next(T0)) is not None:
        candidate = health.candidate(chosen[0])
        attempts.append(Attempt(candidate, 0, T0, stream=True, number=len(attempts), method=None))
    asked = [one.model for one in attempts]
    assert sorted(row.provider for row in asked) == sorted(row.provider for row in MANY.models)


def test_many_that_are_well_share_what_comes() -> None:
    health, luck = health_of(MANY), Random(1)
    asked: dict[str, int] = {}
    for _ in range(600):
        chosen = queue_of(health, luck, []).next(T0)
        assert chosen is not None
        model, _ = chosen
        health.begin(Attempt(health.candidate(model), 0, T0, stream=True, number=0, method=None))
        asked[model.provider] = asked.get(model.provider, 0) + 1
    assert len(asked) == len(MANY.models) > DRAWN
    assert max(asked.values()) <= 20, "ten each on the average"
