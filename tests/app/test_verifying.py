"""Which models are verified when, by whom, and how often: in virtual time, on real databases."""

import asyncio
import itertools
import random
from collections import Counter
from functools import partial

import msgspec
import pytest
from structlog.testing import capture_logs

from manyways.app.verifying import AWAY, NEW, PATIENCE, RECHECK
from manyways.operations.catalog import Scope, refresh
from manyways.store import verifications as store
from tests.app.life import DAY, START, World, asked, listed


def runs(world: World) -> list[store.RunRow]:
    database = world.database()
    found = database.run(lambda connection: store.runs(connection, 1000))
    database.close()
    return found[::-1]


def verified_rows(world: World) -> Counter[tuple[str, str]]:
    """How often each run has done with each model."""
    database = world.database()
    found: Counter[tuple[str, str]] = Counter()
    for row in runs(world):
        rows = database.run(partial(store.verifications, run_id=row.id))
        found.update((row.id, one.model) for one in rows)
    database.close()
    return found


def test_at_first_start_all_are_verified_once_and_a_restart_asks_nobody(world: World) -> None:
    world.providers = (listed("Capi", "a", "b"), asked("Space"))
    world.lists = {"Space": ["c", "d"]}
    world.broken = {"d"}

    async def story() -> None:
        for _ in range(3):
            async with world.node():
                await asyncio.sleep(200)

    world.run(story())
    assert {model: len(world.asked_for(model)) for model in "abc"} == {"a": 1, "b": 1, "c": 1}
    assert len(world.asked_for("d")) <= 2 * 4, "one that failed is left alone for longer each time"
    assert {row.reason for row in runs(world)} <= {"first start", RECHECK}


def test_what_is_planned_twice_at_a_start_is_asked_once(world: World) -> None:
    world.providers = (listed("Capi", "a", "b"),)

    async def story() -> None:
        async with world.node(leads=False) as node:
            await node.verifier.newcomers()
            await asyncio.sleep(2)
        async with world.node():
            await asyncio.sleep(100)

    world.run(story())
    assert [row.due is None for row in runs(world)] == [True, False]
    assert [len(world.asked_for(model)) for model in "ab"] == [1, 1]


def test_a_new_model_is_verified_within_two_minutes(world: World) -> None:
    world.providers = (asked("Space"),)
    world.lists = {"Space": ["c"]}

    async def story() -> None:
        async with world.node() as node:
            await asyncio.sleep(3000)
            world.lists["Space"] = ["c", "fresh"]
            await node.catalog.refresh("Space")
            await asyncio.sleep(120)

    world.run(story())
    assert [3000 <= at <= 3120 for at in world.asked_for("fresh")] == [True]
    assert len(world.asked_for("c")) == 1
    assert runs(world)[-1].reason == NEW


def test_models_that_failed_are_asked_again_later_and_later_until_they_answer(
    world: World,
) -> None:
    world.providers = (listed("Capi", "well", "broken"),)
    world.broken = {"broken"}

    async def story() -> None:
        async with world.node() as node:
            await asyncio.sleep(3 * 3600)
            (shown,) = node.catalog.snapshot.by_id("broken")
            assert (shown.status, shown.asked_last) == ("down", True)
            world.broken = set()
            await asyncio.sleep(10 * 3600)
            (shown,) = node.catalog.snapshot.by_id("broken")
            assert (shown.status, shown.asked_last) == ("active", False)

    world.run(story())
    waits = [
        later - at
        for at, later in itertools.pairwise(sorted(world.asked_for("broken")))
        if later - at > 10
    ]
    assert len(waits) == len(PATIENCE), "then it answered"
    assert all(
        patience <= wait <= patience + 130 for wait, patience in zip(waits, PATIENCE, strict=True)
    )
    assert len(world.asked_for("well")) == 1
    assert [row.reason for row in runs(world)] == ["first start", *[RECHECK] * 5]


def test_every_day_each_model_is_verified_once_whoever_lives_and_dies(world: World) -> None:
    """Two nodes lead in turn, for minutes or hours, and die wherever they are."""
    world.providers = (listed("Capi", *(f"m{number}" for number in range(12))),)
    world.took = 60.0  # so that runs take minutes, and many are broken off
    chance = random.Random(7)

    async def story() -> None:
        names = ["a", "b"] * 500
        while world.now() < START + 6 * DAY:
            async with world.node(names.pop()):
                await asyncio.sleep(chance.choice([90, 100, 150, 3600, 6 * 3600]))
            await asyncio.sleep(chance.choice([0, 1, 30]))

    world.run(story())
    daily = [row for row in runs(world) if row.due is not None]
    assert [row.due for row in daily] == [f"2026-11-{day}" for day in range(23, 30)]
    assert {row.status for row in daily[:-1]} == {store.DONE}
    assert set(verified_rows(world).values()) == {1}
    assert len(verified_rows(world)) >= 12 * 6
    per_day = Counter(
        (int((at - 17 * 3600 - 1080) // DAY), model) for at, _, model in world.requests
    )
    again = sum(count - 1 for count in per_day.values())
    assert 0 < again <= world.cut, "only what was under way is asked again"
    assert {name for _, name, _ in world.requests} == {"a", "b"}


def test_a_run_that_was_broken_off_days_ago_asks_nobody_twice_today(world: World) -> None:
    world.providers = (listed("Capi", *(f"m{number}" for number in range(8))),)
    world.took = 60.0

    async def story() -> None:
        async with world.node():
            await asyncio.sleep(70)
        await asyncio.sleep(3 * DAY)
        async with world.node():
            await asyncio.sleep(3600)

    world.run(story())
    late = Counter(model for at, _, model in world.requests if at > START + DAY)
    assert late == Counter(f"m{number}" for number in range(8))
    assert [row.status for row in runs(world)] == [store.DONE] * 2


def test_who_may_not_be_asked_unasked_is_asked_by_nobody_but_operators(world: World) -> None:
    world.providers = (listed("Shy", "a", probe=False), listed("Capi", "b"))

    async def story() -> None:
        async with world.node() as node:
            await asyncio.sleep(4000)
            assert world.asked_for("a") == []
            refresh(node.database, Scope(provider="Shy"), now=world.now())
            node.verifier.nudge()
            await asyncio.sleep(10)
            assert [4000 <= at < 4010 for at in world.asked_for("a")] == [True]

    world.run(story())
    assert len(world.asked_for("b")) == 1


def test_an_operator_is_not_told_what_another_run_has_just_found_out(world: World) -> None:
    world.providers = (listed("Capi", "a"),)

    async def story() -> None:
        async with world.node() as node:
            await asyncio.sleep(50)
            refresh(node.database, Scope(), now=world.now())
            node.verifier.nudge()
            await asyncio.sleep(50)

    world.run(story())
    assert len(world.asked_for("a")) == 2


def test_a_run_that_nobody_understands_fails_and_holds_up_no_other(world: World) -> None:
    world.providers = (listed("Capi", "a"),)

    async def story() -> None:
        database = world.database()
        row = store.RunRow("0", None, "asked", '{"provider": 7}', store.RUNNING, int(START))
        database.run(lambda connection: store.insert_run(connection, row), write=True)
        async with world.node():
            await asyncio.sleep(100)

    with capture_logs() as log:
        world.run(story())
    odd, *others = runs(world)
    assert (odd.status, "ValidationError" in str(odd.problem)) == (store.FAILED, True)
    assert [row.status for row in others] == [store.DONE]
    assert len(world.asked_for("a")) == 1
    assert [line["event"] for line in log if line["log_level"] == "error"] == [
        "verification failed"
    ]


def test_what_fails_by_our_mistake_is_not_tried_again_every_minute(world: World) -> None:
    world.providers = (listed("Capi", "odd"),)
    world.odd = {"odd"}

    async def story() -> None:
        async with world.node():
            await asyncio.sleep(3 * 3600)

    with capture_logs():
        world.run(story())
    assert 1 <= len(runs(world)) <= 7
    assert "RuntimeError: a mistake of ours" in str(runs(world)[0].problem)


@pytest.mark.parametrize("away", [20.0, 900.0], ids=["a moment", "a quarter of an hour"])
def test_a_run_goes_on_when_the_database_is_back_and_the_log_is_calm(
    world: World, away: float
) -> None:
    world.providers = (listed("Capi", *(f"m{number}" for number in range(12))),)
    world.took = 10.0

    async def story() -> None:
        async with world.node() as node:
            await asyncio.sleep(15)
            node.database.away = True
            await asyncio.sleep(away)
            calls = node.database.calls
            node.database.away = False
            await asyncio.sleep(120)
            assert calls < 60 + away, "it is not asked all the time"

    with capture_logs() as log:
        world.run(story())
    assert [row.status for row in runs(world)] == [store.DONE]
    assert set(verified_rows(world).values()) == {1}
    assert len(verified_rows(world)) == 12
    counts = Counter(model for _, _, model in world.requests)
    assert sum(counts.values()) <= 12 + 4 * (away > 100), "but for what was under way"
    told = [line for line in log if line["log_level"] == "warning"]
    waits = [line for line in told if line["event"] == "verification waits for the database"]
    assert len(waits) <= 2
    assert len(told) <= 1 + away / AWAY


def test_a_run_is_of_models_that_are_listed(world: World) -> None:
    world.providers = (asked("Space"),)
    world.lists = {"Space": ["there", "gone"]}

    async def story() -> None:
        async with world.node() as node:
            await asyncio.sleep(60)
            world.lists["Space"] = ["there"]
            await node.catalog.refresh("Space")
            await asyncio.sleep(DAY)

    world.run(story())
    assert (len(world.asked_for("there")), len(world.asked_for("gone"))) == (2, 1)


def test_a_run_over_a_provider_that_is_no_more_is_over_at_once(world: World) -> None:
    world.providers = (listed("Capi", "a"),)

    async def story() -> None:
        database = world.database()
        scope = msgspec.json.encode(Scope(provider="Former")).decode()
        row = store.RunRow("0", None, "asked", scope, store.RUNNING, int(START))
        database.run(lambda connection: store.insert_run(connection, row), write=True)
        async with world.node():
            await asyncio.sleep(30)

    world.run(story())
    assert [(row.status, row.models) for row in runs(world)] == [(store.DONE, 0), (store.DONE, 1)]
