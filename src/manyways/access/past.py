"""What a scope has used before this process counted it, from the records in the database."""

import time
from calendar import timegm
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection

from manyways.access.limits import Past
from manyways.access.windows import SLICES
from manyways.errors import StoreError
from manyways.store import usage
from manyways.store.database import Database
from manyways.types import Period, Scope

LIMIT: Final = 5.0
"""Seconds a look may take."""


class Records:
    """Loads the past of a scope, from what is in the database. While `left_over` says that records
    of processes that had ended before this one began are still on their way there, the past is
    not known: whoever went by less would hand out anew what they have used."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float] = time.time,
        *,
        left_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._database = database
        self._clock = clock
        self._left_over = left_over

    def __repr__(self) -> str:
        return f"<Records in {self._database!r}>"

    async def past(self, scope: Scope) -> Past:
        """A `Load`. Raises `StoreError`."""
        if self._left_over():
            raise StoreError(
                "Records of before the start are in the journal, and not in the database yet:"
                " nobody can say what was used."
            )
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
