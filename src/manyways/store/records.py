"""The records of requests, a page at a time: their ids sort by time, and are the cursor.

What a filter on the key leaves is found by an index. For the other filters the roll-ups say in
which hours there is anything to find, and only there the records are looked through.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, Table, func, select

from manyways.store.reports import DAY, HOUR, dollars
from manyways.store.tables import usage_attempts, usage_daily, usage_hourly, usage_stats

AT_MOST: Final = 10_000
"""Records of one page."""

_DAYS: Final = 40
_STRETCHES: Final = 100
"""So many stretches of time are looked through for one page; the next one goes on from there."""
_SLACK: Final = 60
"""Seconds that a record's moment and the one in its id may lie apart."""
_FAILED: Final = 400
_LAST: Final = "ffffffff-ffff-ffff-ffff-ffffffffffff"

COLUMNS: Final = tuple(column.name for column in usage_stats.c)
Record = dict[str, Any]
"""A row of `usage_stats` by its columns' names; with `attempt_records`, where asked for, a list
of rows of `usage_attempts`. Moments are texts, `stream` is a bool."""


class Wanted(Struct, frozen=True, kw_only=True):
    """Which records: only what has this, `None` is anything. Moments are Unix seconds, `end` not
    included. `failed` means a status of 400 or more."""

    start: float | None = None
    end: float | None = None
    key: str | None = None
    user: str | None = None
    model: str | None = None
    provider: str | None = None
    status: int | None = None
    failed: bool = False

    @property
    def rare(self) -> bool:
        """Whether no index finds them."""
        others = (self.user, self.model, self.provider, self.status)
        return self.failed or any(one is not None for one in others)


class Page(NamedTuple):
    """Some records, in order. Where there may be more, `cursor` asks for them: a page can be
    short, even empty, and not the last."""

    records: list[Record]
    cursor: str | None


def page(
    connection: Connection,
    wanted: Wanted,
    *,
    cursor: str | None = None,
    limit: int = 100,
    oldest_first: bool = False,
    attempts: bool = False,
) -> Page:
    """The next `limit` records behind `cursor`, newest first unless said otherwise."""
    low = id_before(wanted.start) if wanted.start is not None else ""
    high = id_before(wanted.end) if wanted.end is not None else _LAST
    if cursor is not None:
        low, high = (max(low, cursor), high) if oldest_first else (low, min(high, cursor))
    stretches = (
        _promising(connection, wanted, low, high, oldest_first=oldest_first)
        if wanted.rare
        else iter([(low, high)])
    )
    rows: list[Any] = []
    reached: str | None = None
    for looked, (first, last) in enumerate(stretches, 1):
        rows += _between(
            connection, wanted, first, last, limit + 1 - len(rows), oldest_first=oldest_first
        )
        if len(rows) > limit:
            reached = rows[limit - 1].id
            break
        if looked == _STRETCHES:
            reached = last if oldest_first else first
            break
    records = [_record(row) for row in rows[:limit]]
    if attempts:
        _attach_attempts(connection, records)
    return Page(records, reached)


def id_before(moment: float) -> str:
    """A text that sorts behind all ids of before a moment (Unix seconds), and before all others."""
    digits = f"{max(0, int(moment * 1000)):012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-0000-000000000000"


def moment_of(identifier: str) -> float:
    """The moment in an id, Unix seconds."""
    return int(identifier[:8] + identifier[9:13], 16) / 1000


def _between(
    connection: Connection,
    wanted: Wanted,
    low: str,
    high: str,
    limit: int,
    *,
    oldest_first: bool,
) -> Sequence[Any]:
    identifier = usage_stats.c.id
    query = (
        select(usage_stats)
        .where(identifier > low, identifier < high, *_conditions(usage_stats, wanted))
        .order_by(identifier if oldest_first else identifier.desc())
        .limit(limit)
    )
    return connection.execute(query).all()


def _promising(
    connection: Connection, wanted: Wanted, low: str, high: str, *, oldest_first: bool
) -> Iterator[tuple[str, str]]:
    """Stretches of ids in which the roll-ups say that there is something, in order."""
    # One after the other: of both at once, SQLite looks through everything.
    within = (usage_stats.c.id > low, usage_stats.c.id < high)
    ends = [
        connection.scalar(select(extreme(usage_stats.c.id)).where(*within))
        for extreme in (func.min, func.max)
    ]
    if ends[0] is None or ends[1] is None:
        return
    begin = int(moment_of(ends[0]) - _SLACK) // DAY * DAY
    end = moment_of(ends[1]) + _SLACK
    bound = low if oldest_first else high
    while days := _buckets(
        connection, usage_daily, wanted, begin, end, oldest_first=oldest_first, limit=_DAYS
    ):
        for day in days:
            hours = _buckets(
                connection, usage_hourly, wanted, day, day + DAY, oldest_first=oldest_first
            )
            # Of long ago there are days, and no hours any more.
            for start, length in [(hour, HOUR) for hour in hours] or [(day, DAY)]:
                first = max(low, id_before(start - _SLACK))
                last = min(high, id_before(start + length + _SLACK))
                first, last = (
                    (max(first, bound), last) if oldest_first else (first, min(last, bound))
                )
                if first < last:
                    yield first, last
                    bound = last if oldest_first else first
        if oldest_first:
            begin = days[-1] + DAY
        else:
            end = days[-1]


def _buckets(
    connection: Connection,
    table: Table,
    wanted: Wanted,
    begin: float,
    end: float,
    *,
    oldest_first: bool,
    limit: int = 24,
) -> list[int]:
    bucket = table.c.bucket
    query = (
        select(bucket)
        .where(bucket >= begin, bucket < end, *_conditions(table, wanted))
        .distinct()
        .order_by(bucket if oldest_first else bucket.desc())
        .limit(limit)
    )
    return [int(one) for one in connection.scalars(query)]


def _conditions(table: Table, wanted: Wanted) -> list[ColumnElement[bool]]:
    pairs = (
        ("api_key_id", wanted.key),
        ("user_id", wanted.user),
        ("model", wanted.model),
        ("provider", wanted.provider),
        ("status_code", wanted.status),
    )
    found = [table.c[name] == value for name, value in pairs if value is not None]
    return [*found, table.c.status_code >= _FAILED] if wanted.failed else found


def _attach_attempts(connection: Connection, records: Sequence[Record]) -> None:
    by_id: dict[str, list[Record]] = {one["id"]: [] for one in records}
    ids = list(by_id)
    query = select(usage_attempts).order_by(usage_attempts.c.request_id, usage_attempts.c.number)
    for start in range(0, len(ids), 500):
        some = ids[start : start + 500]
        for row in connection.execute(query.where(usage_attempts.c.request_id.in_(some))):
            attempt = _plain(row)
            by_id[attempt.pop("request_id")].append(attempt)
    for one in records:
        one["attempt_records"] = by_id[one["id"]]


def _record(row: Any) -> Record:
    found = _plain(row)
    found["stream"] = bool(found["stream"])
    return found


def _plain(row: Any) -> Record:
    return {
        name: _told(value)
        for name, value in row._mapping.items()  # noqa: SLF001 - SQLAlchemy's public name
    }


def _told(value: Any) -> Any:
    if isinstance(value, datetime):
        return _iso(value)
    return dollars(value) if isinstance(value, float) else value  # costs alone are no integers


def _iso(moment: datetime) -> str:
    return moment.replace(tzinfo=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
