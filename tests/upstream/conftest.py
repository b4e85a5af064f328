"""The transport's promises hold for each implementation, on asyncio's loop and on uvloop's."""

import asyncio
import gc
import ssl
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from manyways.upstream.aiohttp_transport import AiohttpTransport
from manyways.upstream.native import NativeTransport
from manyways.upstream.transport import Transport
from tests.support.wall import Wall
from tests.upstream.exchange import AUTHORITY, Make

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
IMPLEMENTATIONS: list[Make] = [AiohttpTransport, NativeTransport]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, LoopFactory]:
    factories: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    if item.path.name.startswith("test_transport"):
        factories["uvloop"] = uvloop.new_event_loop
    return factories


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The gateway runs on uvloop's loop, short commands on asyncio's. There, the two modules with
    the heart of it are enough for aiohttp, and plain connections for the rest of our own."""
    spared = {item for item in items if _is_spared(item)}
    if spared:
        config.hook.pytest_deselected(items=list(spared))
        items[:] = [item for item in items if item not in spared]


def _is_spared(item: pytest.Item) -> bool:
    name = item.path.name
    if not name.startswith("test_transport_") or name == "test_transport_connections.py":
        return False
    parts = set(item.name.partition("[")[2].rstrip("]").split("-"))
    return "asyncio" in parts and not parts.isdisjoint({"AiohttpTransport", "tls"})


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest) -> Make:
    made: Make = request.param
    return made


@pytest.fixture
async def make(implementation: Make) -> AsyncIterator[Make]:
    """Makes transports that are closed in the end, and give the loop nothing to complain of."""
    made: list[Transport] = []
    complaints: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))

    def build(**keywords: object) -> Transport:
        made.append(implementation(**keywords))
        return made[-1]

    yield build
    for transport in made:
        await transport.aclose()
    gc.collect(1)  # an unclosed connection warns here, in its own test
    await asyncio.sleep(0)
    assert complaints == []


@pytest.fixture
async def transport(make: Make) -> Transport:
    return make(ssl_context=AUTHORITY.client)


@pytest.fixture(params=["plain", "tls"])
def server_tls(request: pytest.FixtureRequest) -> ssl.SSLContext | None:
    return AUTHORITY.server if request.param == "tls" else None


@pytest.fixture
async def wall(server_tls: ssl.SSLContext | None) -> AsyncIterator[Wall]:
    async with Wall(tls=server_tls) as wall:
        yield wall
