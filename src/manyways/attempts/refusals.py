"""Requests that limits refused, counted by key and minute, so that a flood fills no disk."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Final

from manyways.store.ids import new_id
from manyways.types import Caller
from manyways.usage.record import RefusalRecord

INTERVAL: Final = 5.0
"""Seconds between two times that counts are written down: what a killed process loses."""
AT_MOST: Final = 100_000
"""Counts that are held. Of keys beyond them, refusals within the interval go uncounted."""

A_MINUTE: Final = 600
"""Requests of one key that nobody was asked about and that get a record of their own: those
beyond are counted like refusals by limits."""

_Row = tuple[str, str | None, str, int]  # key, account, code, minute


class RefusalCounts:
    """Counts until `flush`. `by_code` are all since the start."""

    __slots__ = ("_counts", "_minute", "_recorded", "by_code")

    def __init__(self) -> None:
        self._counts: Counter[_Row] = Counter()
        self._minute = 0
        self._recorded: Counter[str] = Counter()  # of this minute, by key
        self.by_code: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<RefusalCounts {len(self._counts)} rows>"

    def add(self, caller: Caller, code: str, now: float) -> None:
        """One more, at a moment in Unix seconds."""
        self.by_code[code] += 1
        row = (caller.key_id, caller.account_id, code, int(now) // 60 * 60)
        if row in self._counts or len(self._counts) < AT_MOST:
            self._counts[row] += 1

    def has_room(self, caller: Caller, now: float) -> bool:
        """Whether one more wrong request of a key may have a record of its own."""
        minute = int(now) // 60
        if minute != self._minute:
            self._minute = minute
            self._recorded.clear()
        self._recorded[caller.key_id] += 1
        return self._recorded[caller.key_id] <= A_MINUTE

    def flush(self, write: Callable[[RefusalRecord], None]) -> None:
        """Write what was counted since the last time."""
        counts, self._counts = self._counts, Counter()
        for (key, account, code, minute), count in counts.items():
            write(
                RefusalRecord(
                    id=new_id(), minute=minute, api_key_id=key, user_id=account, code=code,
                    count=count,
                )
            )  # fmt: skip

    async def follow(self, write: Callable[[RefusalRecord], None]) -> None:
        """Flush every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            self.flush(write)
