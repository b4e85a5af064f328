"""A restart is no news."""

import asyncio

from manyways.store import catalog as store
from manyways.types import ModelEntry, Provider
from tests.app.life import Node, World, listed

CAPI = Provider(
    name="Capi",
    protocol="openai",
    base_url="http://up/v1",
    models=(ModelEntry(id="sage"), ModelEntry(id="plain")),
)
"""What kind of models they are, only their provider knows."""


def history(world: World) -> list[str]:
    database = world.database()
    rows = database.run(lambda connection: store.changes(connection, limit=100))
    return [f"{row.kind} {row.model} {row.field}" for row in reversed(rows)]


def kinds(node: Node) -> set[str]:
    return {row.category for row in node.catalog.snapshot.models}


def test_models_of_the_configuration_are_what_they_were_whoever_answers_at_a_restart(
    world: World,
) -> None:
    world.providers = (CAPI,)

    async def story() -> None:
        for told in (["sage", "plain"], None, ["sage", "plain"]):
            world.lists = {"Capi": told}
            async with world.node() as node:
                if told is None:
                    assert kinds(node) == {"embedding"}
                await asyncio.sleep(100)
                assert kinds(node) == {"embedding"}

    world.run(story())
    assert sorted(history(world)) == ["added plain None", "added sage None"]


def test_models_of_a_provider_that_tells_no_list_are_remembered_too(world: World) -> None:
    world.providers = (listed("Capi", "sage", "plain"),)

    async def story() -> None:
        async with world.node():
            await asyncio.sleep(100)

    world.run(story())
    assert sorted(history(world)) == ["added plain None", "added sage None"]


def test_nobody_is_verified_before_it_is_known_what_they_are(world: World) -> None:
    """As which kind a model is asked is told by its provider, which takes its time for it."""
    world.providers = (CAPI,)
    world.lists = {"Capi": ["sage", "plain"]}
    world.took_lists = 30.0

    async def story() -> None:
        async with world.node() as node:
            await asyncio.sleep(100)
            verified = node.catalog.verified.values()
            assert [one.verdict for one in verified] == ["passed", "passed"]

    world.run(story())
    assert min(min(world.asked_for(name)) for name in ("sage", "plain")) >= 30
