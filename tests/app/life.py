"""A gateway's upkeep of its catalog, alive in virtual time, on a real database.

world.providers = (listed("Capi", "a", "b"),)
world.run(story())
assert world.asked_for("a") == [...]

Models are embedding models: verifying one is one request.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any

import msgspec

from manyways.app.upkeep import Upkeep
from manyways.app.verifying import Verifier
from manyways.catalog.catalog import Catalog
from manyways.catalog.remembering import remembered
from manyways.catalog.settings import Settings as CatalogSettings
from manyways.config import Settings
from manyways.errors import AttemptFailed
from manyways.routing.health import Health
from manyways.schedule import Leader, Schedule
from manyways.types import Model, ModelEntry, Provider
from manyways.verification.asking import JSON, Answer
from tests.support.at_once import DatabaseAtOnce, at_once

START = 1_795_423_320.0
"""2026-11-23 08:42:00 UTC, a Monday."""
DAY = 86_400.0
BEGIN = 1000.0
"""What the virtual clock begins with."""
VECTORS = msgspec.json.encode(
    {"data": [{"index": i, "embedding": v} for i, v in enumerate(([1, 0], [1, 0.1], [0, 1]))]}
)


def listed(name: str, *models: str, **fields: Any) -> Provider:
    """A provider whose models the configuration lists."""
    entries = tuple(ModelEntry(id=model, category="embedding") for model in models)
    return Provider(name=name, protocol="openai", base_url="http://up/v1", models=entries, **fields)


def asked(name: str, **fields: Any) -> Provider:
    """A provider that tells its models: those in `World.lists`."""
    return Provider(name=name, protocol="openai", base_url="http://up/v1", **fields)


class World:
    """`requests` are those that verified models: when, by which node, and about which model.
    `lists` are what providers tell; `None` is an outage. `broken` models do not answer, `silent`
    ones leave everybody waiting, and what `odd` ones raise is nobody's plan. `cut` requests were
    under way at a node's death."""

    def __init__(self, url: str, run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self.url = url
        self.run = run
        self.providers: tuple[Provider, ...] = ()
        self.lists: dict[str, list[str] | None] = {}
        self.broken: set[str] = set()
        self.silent: set[str] = set()
        self.odd: set[str] = set()
        self.requests: list[tuple[float, str, str]] = []
        self.settings = CatalogSettings(probe_pause=0.0, timezone="UTC", refresh="02:00")
        self.took = 1.0
        self.took_lists = 0.0
        self.cut = 0
        self.chance = random.Random(1)
        self._databases: list[DatabaseAtOnce] = []

    def now(self) -> float:
        return START + asyncio.get_running_loop().time() - BEGIN

    def asked_for(self, model: str) -> list[float]:
        """When it was asked, in seconds since the beginning."""
        return [at - START for at, _, name in self.requests if name == model]

    def database(self) -> DatabaseAtOnce:
        found = at_once(self.url)
        self._databases.append(found)
        return found

    def close(self) -> None:
        for one in self._databases:
            one.close()

    @contextlib.asynccontextmanager
    async def node(self, name: str = "a", *, leads: bool = True) -> AsyncIterator["Node"]:
        """A gateway that is alive; cancelled at the end, as a process that is killed."""
        node = Node(self, name, self.database())
        await node.upkeep.begin()
        works = [node.catalog.run, *([node.schedule.run] if leads else [])]
        tasks = [asyncio.ensure_future(work()) for work in works]
        try:
            yield node
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            node.database.close()


class Node:
    """One process."""

    def __init__(self, world: World, name: str, database: DatabaseAtOnce) -> None:
        settings = Settings(providers=world.providers, catalog=world.settings)
        self.name = name
        self.database = database
        self.world = world
        self.catalog = Catalog(
            settings.catalog,
            settings.providers,
            self._tell,
            remembered=database.run(remembered),
            clock=world.now,
            jitter=lambda _, __: 1.0,
        )
        self.health = Health(
            settings.routing,
            {one.name: 1 for one in settings.providers},
            chance=world.chance.random,
        )
        self.upkeep = Upkeep(self.catalog, database, self.health, settings, name, clock=world.now)
        self.verifier = Verifier(
            database, settings, self.catalog, self, clock=world.now, look=3600.0
        )
        self.schedule = Schedule(Leader(None, name), clock=world.now)
        self.upkeep.plan(self.schedule, self.verifier)

    async def _tell(self, provider: Provider) -> bytes:
        await asyncio.sleep(self.world.took_lists)
        models = self.world.lists.get(provider.name)
        if models is None:
            raise AttemptFailed("connect", "nobody is there")
        entries = [{"id": model, "type": "embedding"} for model in models]
        return msgspec.json.encode({"data": entries})

    async def whole(
        self,
        model: Model,
        path: str,
        body: bytes,
        *,
        content_type: str = JSON,
        limit: float,
        largest: int,
    ) -> Answer:
        world = self.world
        world.requests.append((world.now(), self.name, model.id))
        try:
            await asyncio.sleep(limit if model.id in world.silent else world.took)
        except asyncio.CancelledError:
            world.cut += 1
            raise
        if model.id in world.silent:
            raise AttemptFailed("timeout", f"no whole answer within {limit:g} s")
        if model.id in world.odd:
            raise RuntimeError("a mistake of ours")
        if model.id in world.broken:
            raise AttemptFailed("provider_error", "HTTP 500", status=500)
        return Answer(body=VECTORS)

    def stream(
        self, model: Model, path: str, body: bytes, *, limit: float, largest: int
    ) -> AsyncGenerator[bytes, None]:
        raise NotImplementedError

    async def fetch(self, model: Model, url: str, *, limit: float) -> Answer:
        raise NotImplementedError
