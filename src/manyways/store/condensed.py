"""Sums of days and months that are over, added up further: long reports read a tenth as much.

A day or month is here whole or not at all. What comes late, to one that is here, takes it out in
the same transaction (`forget`); from then on reports add it up from the larger tables again, until
it is put back. So a report is right at any moment, and costs little nearly always.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, Connection, Table, delete, func, insert, literal, select, text

from manyways.store.tables import (
    usage_daily,
    usage_daily_models,
    usage_hourly,
    usage_hourly_models,
    usage_monthly,
)

DAY: Final = 86_400

SMALLER: Final = {usage_hourly: usage_hourly_models, usage_daily: usage_daily_models}
"""The same steps of time, and no keys."""


def condense_day(connection: Connection, day: int) -> None:
    """Add up a day that begins at this moment (Unix seconds). Belongs into a transaction that
    writes, as does `condense_month`."""
    _alone(connection)
    forget(connection, [day])
    for whole, part in SMALLER.items():
        _add_up(connection, whole, part, whole.c.bucket, (day, day + DAY))


def condense_month(connection: Connection, month: int) -> None:
    """The same with a month."""
    _alone(connection)
    connection.execute(delete(usage_monthly).where(usage_monthly.c.bucket == month))
    bucket: ColumnElement[int] = literal(month).label("month")
    _add_up(connection, usage_daily, usage_monthly, bucket, (month, next_month(month)))


def forget(connection: Connection, days: Iterable[int]) -> None:
    """Take days out, and their months: somebody adds to them."""
    among = sorted(set(days))
    for part in SMALLER.values():
        for day in among:
            within = part.c.bucket >= day, part.c.bucket < day + DAY
            connection.execute(delete(part).where(*within))
    for month in sorted(set(map(month_of, among))):
        connection.execute(delete(usage_monthly).where(usage_monthly.c.bucket == month))


def uncondensed(connection: Connection, now: float) -> tuple[list[int], list[int]]:
    """The days and the months that are over, have sums, and are not here; oldest first."""
    today = int(now) // DAY * DAY
    every = _buckets(connection, usage_daily, 0, today)
    days = every - _buckets(connection, usage_daily_models, 0, today)
    months = {month_of(day) for day in every} - {month_of(today)}
    return sorted(days), sorted(months - _buckets(connection, usage_monthly, 0, today))


def condensed_days(connection: Connection, start: int, end: int) -> list[int]:
    """The days of a span that are here, in order; also that in which it begins."""
    return sorted(_buckets(connection, usage_daily_models, start // DAY * DAY, end))


def condensed_months(connection: Connection, start: int, end: int) -> list[int]:
    """The months that are here and lie in a span whole, in order."""
    return sorted(_buckets(connection, usage_monthly, start, month_of(end)))


def month_of(moment: int) -> int:
    """When its month begins, UTC."""
    first = datetime.fromtimestamp(moment, UTC).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )
    return int(first.timestamp())


def next_month(month: int) -> int:
    """When the month behind this one begins."""
    inside = datetime.fromtimestamp(month, UTC) + timedelta(days=31)
    return month_of(int(inside.timestamp()))


def _alone(connection: Connection) -> None:
    """Who adds to a day waits, or is waited for: else it could be missed. In SQLite whoever
    writes is alone already."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("LOCK TABLE usage_daily IN SHARE ROW EXCLUSIVE MODE"))


def _add_up(
    connection: Connection,
    whole: Table,
    part: Table,
    bucket: ColumnElement[int],
    span: tuple[int, int],
) -> None:
    names = [whole.c[column.name] for column in part.primary_key if column.name != "bucket"]
    figures = [func.sum(whole.c[column.name]) for column in part.c if not column.primary_key]
    groups = names if bucket.name == "month" else [bucket, *names]
    rows = (
        select(bucket, *names, *figures)
        .where(whole.c.bucket >= span[0], whole.c.bucket < span[1])
        .group_by(*groups)
    )
    connection.execute(insert(part).from_select(part.c.keys(), rows))


def _buckets(connection: Connection, table: Table, start: int, end: int) -> set[int]:
    bucket = table.c.bucket
    found = connection.scalars(select(bucket).where(bucket >= start, bucket < end).distinct())
    return {int(one) for one in found}
