"""Carries out operations for the pages of operators: off the event loop, and within a time."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore
from typing import Any, Final, TypeVar

import structlog

from manyways.dialects import json_text
from manyways.edge.exchange import JSON, Exchange, Headers
from manyways.edge.query import only_fields
from manyways.errors import Refusal
from manyways.operations import Mistake
from manyways.store.database import Database
from manyways.types import Caller

T = TypeVar("T")

LIMIT: Final = 5.0
"""Seconds in which an operation is done, or is not waited for any longer."""
AT_ONCE: Final = 2
AT_MOST: Final = 32
"""Operations that wait or run; more are turned away."""

_AS_IT_IS_NOW: Final = (b"cache-control", b"no-store")

log = structlog.get_logger("manyways.edge")


class Clerk:
    """`admit` says who administers, or raises `Refusal`. `changed` is awaited behind whatever
    changes keys or accounts, so that it bites at once in this process."""

    def __init__(
        self,
        database: Database,
        *,
        admit: Callable[[Exchange], Awaitable[Caller]],
        changed: Callable[[], Awaitable[object]],
        limit: float = LIMIT,
    ) -> None:
        self._database = database
        self._admit = admit
        self._changed = changed
        self._limit = limit
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="operations")
        self._places = Semaphore(AT_MOST)

    async def admit(self, exchange: Exchange, *fields: str) -> dict[str, str | None]:
        """The query's fields, which may be these. Raises `Refusal` for everybody but those who
        administer, and for other fields."""
        await self._admit(exchange)
        return only_fields(exchange, *fields)

    async def look(self, work: Callable[[Database], T]) -> T:
        """What `work` finds. Raises `Refusal`, `StoreError`."""
        if not self._places.acquire(blocking=False):
            raise Refusal(
                "server_error",
                f"{AT_MOST} requests of operators wait for the database already.",
                status=503,
                retry_after=5,
            )
        running = self._threads.submit(work, self._database)
        running.add_done_callback(lambda _: self._places.release())
        try:
            async with asyncio.timeout(self._limit):
                return await asyncio.wrap_future(running)
        except TimeoutError:
            raise Refusal(
                "server_error",
                f"The database did not answer within {self._limit:g} s. What was asked for may"
                " have been done, or be done yet: look before you ask again.",
                status=503,
                retry_after=5,
            ) from None
        except Mistake as mistake:
            raise Refusal("invalid_request", str(mistake), param=mistake.field) from None

    async def change(self, exchange: Exchange, what: str, work: Callable[[Database], T]) -> T:
        """The same, for what changes something: it holds at once, and is told in the log.
        Where `work` gives `None`, nothing was changed."""
        made = await self.look(work)
        if made is not None:
            await self._changed()
            by = exchange.caller.last4 if exchange.caller else None
            log.info(what, id=exchange.id, path=exchange.path, by=by)
        return made

    def close(self) -> None:
        """What has begun is finished first."""
        self._threads.shutdown(wait=True, cancel_futures=True)


async def answer(exchange: Exchange, content: dict[str, Any], status: int = 200) -> None:
    """A page that nobody keeps a copy of."""
    headers: Headers = [JSON, _AS_IT_IS_NOW]
    await exchange.answer(json_text.encode(content), status, headers)
