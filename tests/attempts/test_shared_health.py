"""Health that gateways share, over a real server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from manyways.attempts.shared_health import SharedHealth
from manyways.routing.health import Health
from manyways.store.shared import Shared
from tests.support.routing import OFFERS, T0, answered, failed, health_of, is_back
from tests.support.valkey import eventually, running_valkey

pytestmark = pytest.mark.process


@contextlib.asynccontextmanager
async def gateway(url: str, name: str) -> AsyncIterator[Health]:
    shared = await Shared.open(url)
    health = health_of(OFFERS)
    work = asyncio.create_task(SharedHealth(shared, health, name, clock=lambda: T0).run())
    try:
        yield health
    finally:
        work.cancel()
        await asyncio.wait([work])
        await shared.aclose()


async def test_what_rests_at_one_gateway_rests_at_the_other_until_it_is_back(
    tmp_path: Path,
) -> None:
    with running_valkey(tmp_path) as valkey:
        async with gateway(valkey.url, "a") as one, gateway(valkey.url, "b") as other:
            failed(one, "connect")
            await eventually(lambda: not is_back(other, T0))
            answered(one, now=T0 + 5)
            await eventually(lambda: is_back(other, T0))
            assert valkey.ask("HLEN", "manyways:{health}:rests") == 0


async def test_who_begins_later_hears_of_it_too(tmp_path: Path) -> None:
    with running_valkey(tmp_path) as valkey:
        async with gateway(valkey.url, "a") as one:
            failed(one, "timeout", retry_after=50)
            await eventually(lambda: bool(valkey.ask("HLEN", "manyways:{health}:rests")))
            async with gateway(valkey.url, "b") as other:
                await eventually(lambda: not is_back(other, T0))
                assert not is_back(other, T0 + 45)
                assert is_back(other, T0 + 50)


async def test_without_redis_each_remembers_by_itself_and_they_find_each_other_again(
    tmp_path: Path,
) -> None:
    with running_valkey(tmp_path) as valkey:
        async with gateway(valkey.url, "a") as one, gateway(valkey.url, "b") as other:
            valkey.kill()
            failed(one, "connect")
            assert not is_back(one, T0)
            assert is_back(other, T0)
            valkey.restart()

            later = iter(range(1000, 1000000, 1000))

            def told() -> bool:
                failed(one, "credentials", now=T0 + next(later))
                return not is_back(other, T0)

            await eventually(told)


async def test_what_a_newer_gateway_says_is_no_harm(tmp_path: Path) -> None:
    with running_valkey(tmp_path) as valkey:
        async with gateway(valkey.url, "a") as one, gateway(valkey.url, "b") as other:
            valkey.ask("PUBLISH", "manyways:{health}:news", '{"node": 1}')
            failed(one, "connect")
            await eventually(lambda: not is_back(other, T0))
