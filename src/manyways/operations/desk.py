"""Where long questions to the database are answered: in threads of their own, a few at once."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from sqlalchemy import Connection

from manyways.store.database import Database
from manyways.store.reports import GivenUp, hurried

T = TypeVar("T")

AT_ONCE: Final = 2
WAITING: Final = 50
"""Questions that may wait or be worked on; more are turned away at once."""
FOR_CALLERS: Final = 20
"""Of these places, so many are for callers who ask of themselves: operators find some free."""
EACH: Final = 2
"""Questions that one caller may have there."""
LIMIT: Final = 30.0
"""Seconds for one, its turn in the queue included."""


class Desk:
    """Answers questions in the order they come, `AT_ONCE` at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="report")
        self._waiting = 0
        self._callers: Counter[str] = Counter()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Desk {'closed' if self._closed else 'open'}, {self._waiting} waiting>"

    async def ask_for(self, caller: str, work: Callable[[Connection], T]) -> T:
        """The same as `ask`, for a caller who asks of itself, known by some name: `EACH` at a time,
        and not more than `FOR_CALLERS` for all of them. Raises as `ask` does."""
        mine = self._callers.get(caller, 0)
        if mine >= EACH or self._callers.total() >= FOR_CALLERS:
            whose = "of yours" if mine >= EACH else "of others"
            raise GivenUp(f"Reports {whose} are being made already. Ask again in some seconds.")
        self._callers[caller] += 1
        try:
            return await self.ask(work)
        finally:
            self._callers[caller] -= 1
            if not self._callers[caller]:
                del self._callers[caller]

    async def ask(self, work: Callable[[Connection], T], *, limit: float = LIMIT) -> T:
        """What `work` finds in a transaction that only reads. Raises `StoreError`; `GivenUp` where
        too many wait, or it takes longer than `limit` seconds. What was given up is ended."""
        if self._closed:
            raise GivenUp("The gateway is being stopped: no report is made any more.")
        if self._waiting >= WAITING:
            raise GivenUp(f"{WAITING} reports wait already. Ask again in a minute.")
        given_up = threading.Event()

        def found(connection: Connection) -> T:
            with hurried(connection, limit, given_up.is_set):
                return work(connection)

        self._waiting += 1
        future = self._threads.submit(self._database.run, found, limit=limit)
        try:
            # Not asyncio.wait_for: up to Python 3.11 it loses a cancellation that comes together
            # with the answer.
            async with asyncio.timeout(limit):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise GivenUp(
                f"The report was not ready within {limit:g} s. Ask for a shorter span, or for"
                " fewer groups; or again later, where others wait for theirs."
            ) from None
        finally:
            given_up.set()
            self._waiting -= 1

    def close(self) -> None:
        """Nothing is begun any more; what has begun is waited for. May be called again."""
        self._closed = True
        self._threads.shutdown(wait=True, cancel_futures=True)
