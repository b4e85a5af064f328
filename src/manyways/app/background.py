"""Work that goes on beside requests."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog

RESTART_PAUSE = 1.0
"""Seconds before work that failed is begun again."""

log = structlog.get_logger("manyways")


@contextlib.asynccontextmanager
async def background(*works: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Begun with the block and cancelled behind it. What dies is told of, and begun again."""
    tasks = [asyncio.create_task(_going_on(work)) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=5.0)


async def _going_on(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            return await work()
        except Exception:  # whatever it was, it is told of and the work goes on
            log.exception("background work failed, and is begun again", work=repr(work))
            await asyncio.sleep(RESTART_PAUSE)
