"""Who serves callers goes first: an embedded model has one processor for both."""

import asyncio
from typing import Final

from manyways.app.asking import Yielding
from manyways.config import Settings
from manyways.routing.health import Health

LOOK: Final = 0.2
PATIENCE: Final = 60.0
"""Seconds that verification waits for an embedded model to have nothing to do."""


def yielding_to(health: Health, settings: Settings) -> Yielding:
    """Waits until nobody is being answered by an embedded model, within `PATIENCE`."""
    embedded = {one.name for one in settings.providers if one.protocol == "local"}

    def is_busy(provider: str) -> bool:
        return any(one.running for one in health.candidates() if one.model.provider == provider)

    async def wait(provider: str) -> None:
        left = PATIENCE
        while provider in embedded and left > 0 and is_busy(provider):
            await asyncio.sleep(LOOK)
            left -= LOOK

    return wait
