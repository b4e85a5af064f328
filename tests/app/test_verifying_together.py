"""Runs share what they have in common: the providers that they ask, and what they may cost."""

import asyncio
import itertools
import json
from functools import partial

import msgspec
from structlog.testing import capture_logs

from manyways.operations.catalog import Scope, refresh
from manyways.store import verifications as store
from manyways.types import ModelEntry, Provider
from tests.app.life import DAY, World, listed


def runs(world: World) -> list[store.RunRow]:
    database = world.database()
    found = database.run(lambda connection: store.runs(connection, 1000))
    database.close()
    return found[::-1]


def test_models_that_nobody_asked_are_not_down_and_are_asked_soon(world: World) -> None:
    names = [f"m{number}" for number in range(12)]
    world.providers = (listed("Capi", *names),)
    world.silent = set(names)

    async def story() -> None:
        async with world.node() as node:
            await asyncio.sleep(130)
            rows = node.catalog.snapshot.models
            down = {row.id for row in rows if row.status == "down"}
            asked = {model for _, _, model in world.requests}
            assert down == asked
            assert 0 < len(asked) <= 4
            assert all(row.last_verified is None for row in rows if row.id not in asked)
            assert not any(row.asked_last for row in rows if row.id not in asked)
            world.silent = set()
            await asyncio.sleep(120)
            rows = node.catalog.snapshot.models
            assert {row.status for row in rows if row.id not in asked} == {"active"}
            assert all(row.last_verified for row in rows)
            await asyncio.sleep(120)
            rows = node.catalog.snapshot.models
            assert {row.status for row in rows} == {"active"}
            before = len(world.requests)
            await asyncio.sleep(DAY / 4)
            assert len(world.requests) == before, "and no more often than others"

    with capture_logs() as log:
        world.run(story())
    told = [line for line in log if line["event"] == "a verification leaves a provider alone"]
    assert [line["provider"] for line in told] == ["Capi"]


def test_models_that_cannot_be_asked_are_tried_less_and_less_often(world: World) -> None:
    names = [f"m{number}" for number in range(40)]
    world.providers = (listed("Capi", *names),)
    world.silent = set(names)

    async def story() -> None:
        async with world.node():
            await asyncio.sleep(3 * 3600)

    with capture_logs():
        world.run(story())
    first, last = (
        sum(begin <= at < begin + 3600 for at in times)
        for begin in (0, 2 * 3600)
        for times in [[at for name in names for at in world.asked_for(name)]]
    )
    assert 0 < last < first / 2


def test_with_probe_off_a_verification_that_broke_off_is_over(world: World) -> None:
    world.providers = (listed("Capi", *(f"m{number}" for number in range(12))),)
    world.took = 60.0

    async def story() -> None:
        async with world.node():
            await asyncio.sleep(70)
        asked = len(world.requests)
        assert 0 < asked < 12
        world.settings = msgspec.structs.replace(world.settings, probe=False)
        async with world.node() as node:
            await asyncio.sleep(1000)
            assert len(world.requests) == asked
            refresh(node.database, Scope(model="m1"), now=world.now())
            node.verifier.nudge()
            await asyncio.sleep(100)
            assert [model for _, _, model in world.requests[asked:]] == ["m1"]

    world.run(story())
    assert [row.status for row in runs(world)] == [store.DONE] * 2


def test_two_runs_at_a_time_keep_one_pace(world: World) -> None:
    world.providers = (listed("Capi", *(f"m{number}" for number in range(60))),)
    world.settings = msgspec.structs.replace(world.settings, probe_pause=0.5)
    world.took = 4.0

    async def story() -> None:
        async with world.node() as node:
            await asyncio.sleep(10)
            refresh(node.database, Scope(provider="Capi"), now=world.now())
            node.verifier.nudge()
            await asyncio.sleep(300)

    world.run(story())
    began = [at for at, _, _ in world.requests]
    assert len(began) == 120
    assert min(later - at for at, later in itertools.pairwise(began)) >= 0.499
    assert all(
        later - at >= world.took - 0.001 for at, later in zip(began, began[4:], strict=False)
    )


def test_none_gets_more_than_half_of_the_budget_over_restarts(world: World) -> None:
    def priced(name: str, *models: str) -> Provider:
        entries = tuple(
            ModelEntry(id=model, category="embedding", pricing={"request": 0.01})
            for model in models
        )
        return Provider(name=name, protocol="openai", base_url="http://up/v1", models=entries)

    world.providers = (priced("A", *(f"a{number}" for number in range(200))), priced("B", "b"))
    world.settings = msgspec.structs.replace(world.settings, probe_budget=1.0)

    async def story() -> None:
        for seconds in (8, 8, 100):
            async with world.node():
                await asyncio.sleep(seconds)

    with capture_logs():
        world.run(story())
    assert len(world.asked_for("b")) == 1
    database = world.database()
    costs: dict[str, float] = {"A": 0.0, "B": 0.0}
    (row,) = runs(world)
    for one in database.run(partial(store.verifications, run_id=row.id)):
        costs[one.provider] += json.loads(one.document).get("cost", 0.0)
    database.close()
    assert 0.4 < costs["A"] <= 0.5 + 1e-9
