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
LIMIT: Final = 30.0
"""Seconds for one, its turn in the queue included."""


class TooMany(GivenUp):
    """Whoever asks has asked before, and waits for that."""


class Desk:
    """Answers questions in the order they come, `at_once` at a time. `waiting` may wait or be
    worked on, and no more than `each` of one who asks."""

    def __init__(
        self,
        database: Database,
        *,
        at_once: int = AT_ONCE,
        waiting: int = WAITING,
        each: int | None = None,
    ) -> None:
        self._database = database
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="report")
        self._most = waiting
        self._each = each
        self._asked: Counter[str] = Counter()  # by whom; who waits for nothing is not in it
        self._closed = False

    def __repr__(self) -> str:
        return f"<Desk {'closed' if self._closed else 'open'}, {self._asked.total()} waiting>"

    async def ask(
        self, work: Callable[[Connection], T], *, who: str = "", limit: float = LIMIT
    ) -> T:
        """What `work` finds in a transaction that only reads, for `who` asks.

        Raises `StoreError`; `TooMany` where `who` has asked for enough already; `GivenUp` where too
        many wait, or it takes longer than `limit` seconds. What was given up is ended.
        """
        if self._closed:
            raise GivenUp("The gateway is being stopped: no report is made any more.")
        if self._each is not None and self._asked[who] >= self._each:
            raise TooMany(f"{self._each} reports for you are being made already. Wait for them.")
        if self._asked.total() >= self._most:
            raise GivenUp(f"{self._most} reports wait already. Ask again in a minute.")
        given_up = threading.Event()

        def found(connection: Connection) -> T:
            with hurried(connection, limit, given_up.is_set):
                return work(connection)

        self._asked[who] += 1
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
            self._asked[who] -= 1
            if not self._asked[who]:
                del self._asked[who]

    def close(self) -> None:
        """Nothing is begun any more; what has begun is waited for. May be called again."""
        self._closed = True
        self._threads.shutdown(wait=True, cancel_futures=True)
