"""Whoever serves callers goes first."""

import asyncio

from manyways.app.yielding import PATIENCE, yielding_to
from manyways.config import Settings
from manyways.routing.health import Health
from manyways.types import Model, Provider
from tests.support.virtual_time import virtual_time

SETTINGS = Settings(
    providers=(
        Provider(name="Embedded", protocol="local"),
        Provider(name="Far", protocol="openai", base_url="http://far/v1"),
    )
)


def waited(provider: str, busy: str, seconds: float) -> float:
    """How long verification waits for a provider, while one is busy for so many seconds."""

    async def story() -> float:
        loop = asyncio.get_running_loop()
        health = Health(SETTINGS.routing, {"Embedded": 1, "Far": 1}, chance=lambda: 0.5)
        candidate = health.candidate(Model(id="m", provider=busy, upstream_id="m", created=1))
        candidate.running = 1
        loop.call_later(seconds, setattr, candidate, "running", 0)
        began = loop.time()
        await yielding_to(health, SETTINGS)(provider)
        return loop.time() - began

    with virtual_time() as run:
        return float(run(story()))


def test_an_embedded_model_is_left_to_callers_until_they_are_answered() -> None:
    assert 5.0 <= waited("Embedded", "Embedded", 5.0) <= 5.5


def test_callers_that_never_end_are_not_waited_for_for_ever() -> None:
    assert PATIENCE <= waited("Embedded", "Embedded", 1e6) <= PATIENCE + 1


def test_others_than_an_embedded_model_are_not_waited_for() -> None:
    assert waited("Far", "Far", 5.0) == 0.0
    assert waited("Embedded", "Far", 5.0) == 0.0
