"""Every provider is asked over the transport that its settings call for."""

import pytest
from msgspec.structs import replace

from manyways.app.upstreams import upstreams
from manyways.config import Settings
from manyways.types import Provider
from manyways.upstream.settings import Settings as UpstreamSettings
from tests.support.proxy import Proxy
from tests.support.wall import Wall, whole

LIST = whole(b'{"data": [{"id": "m"}]}')


def settings(transport: str, *providers: Provider, proxy: str = "none") -> Settings:
    upstream = replace(UpstreamSettings(), transport=transport, proxy=proxy)
    return Settings(upstream=upstream, providers=providers)


def provider(name: str, url: str, proxy: str = "") -> Provider:
    return Provider(name=name, protocol="openai", base_url=url, proxy=proxy)


@pytest.fixture(params=["aiohttp", "native"])
def transport(request: pytest.FixtureRequest) -> str:
    named: str = request.param
    return named


async def test_each_provider_is_asked_by_its_own_way(transport: str) -> None:
    async with Wall(LIST) as wall, Proxy() as common, Proxy() as own:
        near = provider("Near", wall.url, "none")
        far = [provider("Far", wall.url), provider("Farther", wall.url)]
        other = provider("Other", wall.url, own.url)
        given = settings(transport, near, *far, other, proxy=common.url)
        async with upstreams(given) as reached:
            ways = {name: one.transport for name, one in reached.providers.items()}
            assert ways["Far"] is ways["Farther"]
            assert len({id(way) for way in (*ways.values(), reached.outside)}) == 4
            for one in given.providers:
                assert b'"m"' in await reached.ask(one)
        assert common.log == [f"GET {wall.url}/models HTTP/1.1"] * 2
        assert common.connections == 1  # it served both
        assert own.log == [f"GET {wall.url}/models HTTP/1.1"]
        assert len(wall.requests) == 4
