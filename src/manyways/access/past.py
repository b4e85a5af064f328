"""What a scope has used before this process counted it, from the records in the database."""

import time
from calendar import timegm
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection

from manyways.access.limits import Past
from manyways.access.windows import SLICES
from manyways.store import usage
from manyways.store.database import Database
from manyways.types import Period, Scope

LIMIT: Final = 5.0
"""Seconds a look may take."""


class Records:
    """Loads the past of a scope. Counts what is in the database: records that are still in a
    journal come later, so whoever starts with a journal to move moves it first."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Records in {self._database!r}>"

    async def past(self, scope: Scope) -> Past:
        """A `Load`. Raises `StoreError`."""
        now = self._clock()
        return await self._database.call(
            lambda connection: _past(connection, scope, now), limit=LIMIT
        )


def _past(connection: Connection, scope: Scope, now: float) -> Past:
    allowance = scope.allowance
    span = max(
        allowance.window or 0.0 if allowance.requests else 0.0,
        allowance.tokens_window or 0.0 if allowance.tokens else 0.0,
    )
    admitted = usage.recent(connection, scope.id, now - span, span / SLICES) if span else []
    return Past(
        requests=[(now - moment, count, tokens) for moment, count, tokens in admitted],
        totals={
            period: usage.totals(connection, scope.id, beginning(period, now))
            for period in {quota.per for quota in allowance.quota}
        },
    )


def beginning(period: Period, now: float) -> int | None:
    """When the period of a moment began, in Unix seconds; `None` for one without a beginning."""
    year, month, day, *_ = time.gmtime(now)
    if period == "ever":
        return None
    return timegm((year, month, 1 if period == "month" else day, 0, 0, 0))
