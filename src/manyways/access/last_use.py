"""When keys were used for what leaves no record: operators' pages, and their own usage.

Whoever asks a model is recorded, and the record tells when its key was used last.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from manyways.errors import StoreError
from manyways.types import Caller

if TYPE_CHECKING:
    from manyways.store.database import Database

INTERVAL: Final = 2.0
"""Seconds between two times that it is written down: what a killed process loses."""
AT_MOST: Final = 100_000
"""Keys that are remembered in between; of those beyond them, the use goes untold."""


class LastUse:
    """Remembers uses until `follow` has written them to the database."""

    def __init__(self, database: "Database", clock: Callable[[], float] = time.time) -> None:
        from manyways.store.keys import note_use  # reading settings takes no SQLAlchemy

        self._note = note_use
        self._database = database
        self._clock = clock
        self._uses: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<LastUse of {len(self._uses)} keys>"

    def saw(self, caller: Caller) -> None:
        """The caller's key is used now."""
        if caller.key_id in self._uses or len(self._uses) < AT_MOST:
            self._uses[caller.key_id] = int(self._clock())

    async def flush(self) -> None:
        """Write down what was seen; what the database does not take now is for the next time."""
        uses, self._uses = self._uses, {}
        if not uses:
            return
        try:
            await self._database.call(
                lambda connection: self._note(connection, uses),
                limit=INTERVAL,
                write=True,
                isolated=False,
            )
        except (StoreError, asyncio.CancelledError) as error:
            self._uses = uses | self._uses  # twice the same does no harm
            if isinstance(error, asyncio.CancelledError):
                raise

    async def follow(self) -> None:
        """Write it down every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            await self.flush()
