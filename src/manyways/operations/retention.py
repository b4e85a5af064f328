"""Old records leave the database, in small portions between which others have their turn.

What goes: records of requests, of their attempts and of refusals, once they are older than
`usage.retention`, and than what the windows of keys and accounts count; with `usage.archive`,
they are moved to Parquet files first, whole days at a time. Sums by the hour go after 90 days.
Sums by the day stay: reports know them for good. And days that are over are condensed, so that
long reports are quick.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from msgspec import Struct
from sqlalchemy import Connection, Table, delete, func, select

from manyways.store import limits
from manyways.store.archive import BATCH, Archive
from manyways.store.condensed import condense_day, condense_month, uncondensed
from manyways.store.database import Database
from manyways.store.records import id_before, moment_of
from manyways.store.reports import DAY, HOURS_KEPT
from manyways.store.tables import (
    usage_attempts,
    usage_hourly,
    usage_hourly_models,
    usage_refusals,
    usage_stats,
)
from manyways.usage.settings import MARGIN, Settings

PAUSE: Final = 0.05
"""Seconds between two portions: longer than a portion takes, so that others come in between."""


class Removed(Struct, frozen=True, kw_only=True):
    """What left the database: records of requests, and how many of those were archived; refusals;
    sums by the hour."""

    requests: int = 0
    archived: int = 0
    refusals: int = 0
    hours: int = 0


def run(
    database: Database,
    settings: Settings,
    now: float,
    *,
    pause: Callable[[float], object] = time.sleep,
    going_on: Callable[[], bool] = lambda: True,
) -> Removed:
    """Remove what is too old. To be called every hour or so, in a thread that may take its time.

    Ends early once `going_on` says no; what is left is for the next time. Raises `StoreError`,
    and `ConfigError` where records are to be archived and pyarrow is missing: nothing has been
    deleted then that should have been kept.
    """
    work = _Work(database, pause, going_on)
    requests = archived = refusals = 0
    if settings.retention is not None:
        own = database.run(limits.reach) + MARGIN
        oldest = now - max(settings.retention, own)
        if settings.archive:
            requests = archived = work.move(Path(settings.archive), oldest)
        else:
            requests = work.forget(usage_stats, oldest)
            refusals = work.forget(usage_refusals, oldest)
    hours = work.forget_hours(int(now - HOURS_KEPT) // DAY * DAY)
    work.condense(now)
    return Removed(requests=requests, archived=archived, refusals=refusals, hours=hours)


class _Work:
    def __init__(
        self, database: Database, pause: Callable[[float], object], going_on: Callable[[], bool]
    ) -> None:
        self._database = database
        self._pause = pause
        self._going_on = going_on

    def move(self, folder: Path, oldest: float) -> int:
        """Move the days that are over before `oldest` to the archive."""
        end = id_before(int(oldest) // DAY * DAY)
        if self._first(usage_stats, end) is None and self._first(usage_refusals, end) is None:
            return 0
        moved = 0
        archive = Archive(folder)
        with archive.alone() as alone:
            behind = ""
            while alone and self._going_on():
                firsts = (
                    self._first(usage_stats, end, behind),
                    self._first(usage_refusals, end, behind),
                )
                found = [one for one in firsts if one is not None]
                if not found:
                    break
                day = int(moment_of(min(found))) // DAY * DAY
                moved += archive.move(self._database, day, partial(self._pause, PAUSE))
                behind = id_before(day + DAY)
        return moved

    def forget(self, table: Table, oldest: float) -> int:
        """Delete the rows of before `oldest`."""
        end = id_before(oldest)
        removed = 0
        while self._going_on():
            here = self._database.run(
                partial(_delete_first, table, end), write=True, isolated=False
            )
            removed += here
            if here < BATCH:
                break
            self._pause(PAUSE)
        return removed

    def forget_hours(self, oldest: int) -> int:
        """Delete the sums of hours before `oldest`, an hour at a time."""
        removed = 0
        while self._going_on():
            here = self._database.run(partial(_delete_hour, oldest), write=True, isolated=False)
            if not here:
                break
            removed += here
            self._pause(PAUSE)
        return removed

    def condense(self, now: float) -> None:
        """Add up the days and months that are over for reports, those that are not yet."""
        days, months = self._database.run(lambda connection: uncondensed(connection, now))
        for condense, moments in ((condense_day, days), (condense_month, months)):
            for moment in moments:
                if not self._going_on():
                    return
                self._database.run(partial(_condense, condense, moment), write=True, isolated=False)
                self._pause(PAUSE)

    def _first(self, table: Table, end: str, behind: str = "") -> str | None:
        query = select(func.min(table.c.id)).where(table.c.id > behind, table.c.id < end)
        found: str | None = self._database.run(lambda connection: connection.scalar(query))
        return found


def _condense(
    condense: Callable[[Connection, int], None], moment: int, connection: Connection
) -> None:
    condense(connection, moment)


def _delete_first(table: Table, end: str, connection: Connection) -> int:
    """Delete the oldest rows of before `end`, `BATCH` at most."""
    identifier = table.c.id
    some = select(identifier).where(identifier < end).order_by(identifier).limit(BATCH).subquery()
    last = connection.scalar(select(func.max(some.c.id)))
    if last is None:
        return 0
    if table is usage_stats:
        connection.execute(delete(usage_attempts).where(usage_attempts.c.request_id <= last))
    return connection.execute(delete(table).where(identifier <= last)).rowcount


def _delete_hour(oldest: int, connection: Connection) -> int:
    bucket = usage_hourly.c.bucket
    first = connection.scalar(select(func.min(bucket)))
    if first is None or first >= oldest:
        return 0
    smaller = usage_hourly_models
    connection.execute(delete(smaller).where(smaller.c.bucket <= first))
    return connection.execute(delete(usage_hourly).where(bucket == first)).rowcount
