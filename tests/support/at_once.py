"""A database that answers at once, for tests in virtual time, which waits for no thread.

database = at_once("sqlite:///...")
database.away = True        # as if nobody answered there
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection

from manyways.errors import StoreError
from manyways.store.database import Database, Settings, open_database

T = TypeVar("T")


class DatabaseAtOnce(Database):
    """The real one, but that the event loop stands still while it works. `calls` counts them."""

    away: bool = False
    calls: int = 0

    async def call(
        self,
        work: Callable[[Connection], T],
        *,
        limit: float,
        write: bool = False,
        isolated: bool = True,
    ) -> T:
        await asyncio.sleep(0)
        self.calls += 1
        if self.away:
            raise StoreError("The database is away.")
        return self.run(work, limit=limit, write=write, isolated=isolated)


def at_once(url: str) -> DatabaseAtOnce:
    """To be closed."""
    found = DatabaseAtOnce.__new__(DatabaseAtOnce)
    vars(found).update(vars(open_database(Settings(url=url))))
    return found
