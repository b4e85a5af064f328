"""Sums over the roll-ups of usage, grouped: what reports are made of.

`usage_daily` answers for whole days, `usage_hourly` for hours and for days that are not asked
for whole; where that is enough, what was `condensed` of them does. Spans are Unix seconds, their
ends not included.
"""

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

from msgspec import Struct
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Label,
    Table,
    case,
    cast,
    extract,
    func,
    select,
)
from sqlalchemy.exc import DBAPIError

from manyways.errors import StoreError
from manyways.store import keys
from manyways.store.condensed import (
    SMALLER,
    condensed_days,
    condensed_months,
    next_month,
)
from manyways.store.tables import (
    HISTOGRAM,
    accounts,
    api_keys,
    usage_daily,
    usage_hourly,
    usage_monthly,
    usage_refusals,
)

HOUR: Final = 3600
DAY: Final = 86_400
HOURS_KEPT: Final = 90 * DAY
"""Seconds that sums by the hour stay; those by the day stay for good."""

Dimension = Literal["day", "hour", "model", "provider", "key", "user", "status"]
Group = tuple[Any, ...]
"""Values of the dimensions asked for: `day` and `hour` as Unix seconds, `status` as a number,
the others as text, which is empty where there was none."""

_COLUMNS: Final = {
    "model": "model",
    "provider": "provider",
    "key": "api_key_id",
    "user": "user_id",
    "status": "status_code",
}
_SUMMED: Final = (
    "requests", "attempts", "streams", "estimated", "prompt_tokens", "completion_tokens",
    "cached_tokens", "reasoning_tokens", "cost", "response_ms", "first_token_ms", "first_tokens",
)  # fmt: skip
_STEPS: Final = 100_000
"""Steps of SQLite's machine, some milliseconds, between two looks at the clock."""
_CANCELED: Final = "57014"  # PostgreSQL's query_canceled


class GivenUp(StoreError):
    """A report that takes too long, or comes too late, is not made. Callers may read why."""


class Span(NamedTuple):
    """A part of the time asked for, and the roll-up that answers for it."""

    table: Literal["usage_hourly", "usage_daily"]
    start: int
    end: int


class Filters(Struct, frozen=True, kw_only=True):
    """Only what has this; `None` is anything. `line` is the first of the keys that replaced each
    other: what any of them has used."""

    line: str | None = None
    key: str | None = None
    user: str | None = None
    model: str | None = None
    provider: str | None = None
    status: int | None = None


EVERYTHING: Final = Filters()


class Sums(Struct, kw_only=True):
    """What requests came to. Times are milliseconds, `cost` is USD; `first_tokens` counts the
    requests that `first_token_ms` sums up. `responses` and `firsts` are histograms, as
    `tables.HISTOGRAM` says. `refused` is `None` where limits' refusals are not to be told apart.
    """

    requests: int = 0
    attempts: int = 0
    streams: int = 0
    estimated: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost: float = 0.0
    response_ms: int = 0
    first_token_ms: int = 0
    first_tokens: int = 0
    errors: int = 0
    responses: tuple[int, ...] = (0,) * HISTOGRAM
    firsts: tuple[int, ...] = (0,) * HISTOGRAM
    refused: int | None = None

    @classmethod
    def of(cls, some: Iterable["Sums"]) -> "Sums":
        """What all of these counted."""
        found = list(some)
        if len(found) == 1:
            return found[0]
        total = cls()
        for name in (*_SUMMED, "errors"):
            setattr(total, name, sum(getattr(one, name) for one in found))
        if found:
            total.responses = tuple(map(sum, zip(*(one.responses for one in found), strict=True)))
            total.firsts = tuple(map(sum, zip(*(one.firsts for one in found), strict=True)))
            refused = [one.refused for one in found if one.refused is not None]
            total.refused = sum(refused) if refused else None
        return total


def spans(start: int, end: int, *, now: float, hourly: bool) -> list[Span]:
    """Which roll-ups answer for a span of whole hours. What has not come yet need not be told
    apart, so that a span that reaches up to `now` ends with a whole day."""
    if hourly:
        return [Span("usage_hourly", start, end)]
    first = -(-start // DAY) * DAY
    last = -(-end // DAY) * DAY if end >= now else end // DAY * DAY
    if first >= last:
        return [Span("usage_hourly", start, end)]
    found = [
        Span("usage_hourly", start, first),
        Span("usage_daily", first, last),
        Span("usage_hourly", last, end),
    ]
    return [span for span in found if span.start < span.end]


def sums(
    connection: Connection,
    parts: Sequence[Span],
    by: Sequence[Dimension],
    filters: Filters = EVERYTHING,
    *,
    at_most: int,
) -> dict[Group, Sums]:
    """The sums of each group. Where there are more than `at_most`, at least one more is told."""
    found: dict[Group, Sums] = {}
    for table, part in _sources(connection, parts, by, filters):
        groups = _groups(table, by, table.c.bucket)
        query = (
            select(*groups, *_figures(table))
            .where(*_conditions(table, filters), *_within(table, part))
            .group_by(*_names(groups))
            .limit(at_most + 1)
        )
        for row in connection.execute(query):
            if row[len(by)] is None:  # the sums of nothing, where nothing is grouped
                continue
            one, group = _read(row[len(by) :]), tuple(row[: len(by)])
            known = found.get(group)
            found[group] = one if known is None else Sums.of((known, one))
    return found


def series(
    connection: Connection,
    parts: Sequence[Span],
    by: Sequence[Dimension],
    filters: Filters = EVERYTHING,
    *,
    step: int,
) -> dict[Group, dict[int, int]]:
    """How many requests each group made in each step of time: hours or days."""
    found: dict[Group, dict[int, int]] = {}
    for table, part in _sources(connection, parts, by, filters):
        moment = (table.c.bucket - table.c.bucket % step).label("moment")
        groups = _groups(table, by, table.c.bucket)
        query = (
            select(moment, *groups, func.sum(table.c.requests))
            .where(*_conditions(table, filters), *_within(table, part))
            .group_by("moment", *_names(groups))
        )
        for at, *group, requests in connection.execute(query):
            line = found.setdefault(tuple(group), {})
            line[int(at)] = line.get(int(at), 0) + int(requests)
    return found


def refusals(
    connection: Connection,
    start: int,
    end: int,
    by: Sequence[Dimension],
    filters: Filters = EVERYTHING,
) -> dict[Group, int] | None:
    """How many requests of each group a limit refused; `None` where nobody knows: they were
    refused before a model was chosen."""
    if {"model", "provider", "status"} & set(by) or filters.model or filters.provider:
        return None
    if filters.status is not None:
        return None
    table = usage_refusals
    bucket = cast(extract("epoch", table.c.minute), BigInteger)
    groups = _groups(table, by, bucket)
    query = select(*groups, func.sum(table.c["count"])).group_by(*_names(groups))
    query = query.where(
        table.c.minute >= _moment(start),
        table.c.minute < _moment(end),
        *_conditions(table, filters),
    )
    return {tuple(row[:-1]): int(row[-1] or 0) for row in connection.execute(query)}


class Names(NamedTuple):
    """What people call a key and whose it is."""

    last4: str | None = None
    note: str | None = None
    account: str | None = None


def key_names(connection: Connection, ids: Sequence[str]) -> dict[str, Names]:
    """The names of keys, by their ids."""
    query = select(api_keys.c.id, api_keys.c.last4, api_keys.c.note, accounts.c.name).select_from(
        api_keys.outerjoin(accounts, accounts.c.id == api_keys.c.account_id)
    )
    return {
        row[0]: Names(*row[1:])
        for some in _portions(ids)
        for row in connection.execute(query.where(api_keys.c.id.in_(some)))
    }


def account_names(connection: Connection, ids: Sequence[str]) -> dict[str, str]:
    """The names of accounts, by their ids."""
    query = select(accounts.c.id, accounts.c.name)
    return {
        row[0]: row[1]
        for some in _portions(ids)
        for row in connection.execute(query.where(accounts.c.id.in_(some)))
    }


def dollars(amount: float) -> float:
    """USD as they are told: 12 digits, without what sums of fractions leave behind them."""
    return float(f"{amount:.12g}")


def accounts_called(connection: Connection, wanted: str) -> list[str]:
    """The ids of the accounts with this id or this name."""
    query = select(accounts.c.id).where((accounts.c.id == wanted) | (accounts.c.name == wanted))
    return [str(one) for one in connection.scalars(query)]


@contextmanager
def hurried(
    connection: Connection, seconds: float, stopped: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """What is asked inside ends after `seconds`, on SQLite also soon after `stopped` says so,
    with `GivenUp`."""
    until = time.monotonic() + seconds
    raw: Any = connection.connection.driver_connection
    sqlite = connection.dialect.name == "sqlite"
    if sqlite:
        raw.set_progress_handler(lambda: time.monotonic() > until or stopped(), _STEPS)
    else:
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {max(1, int(seconds * 1000))}")
        # Eighty sums in a query take longer to compile than to run.
        connection.exec_driver_sql("SET LOCAL jit = off")
    try:
        yield
    except DBAPIError as error:
        code = getattr(error.orig, "sqlite_errorcode" if sqlite else "sqlstate", None)
        if code != (sqlite3.SQLITE_INTERRUPT if sqlite else _CANCELED):
            raise
        raise GivenUp(
            f"The report took longer than {seconds:g} s and was given up. Ask for a shorter span, "
            "or for fewer groups."
        ) from error
    finally:
        if sqlite:
            raw.set_progress_handler(None, 0)


def _sources(
    connection: Connection, parts: Sequence[Span], by: Sequence[Dimension], filters: Filters
) -> Iterator[tuple[Table, Span]]:
    """The smallest tables that tell what is asked for, and of which part of the time."""
    of_keys = bool({"key", "user"} & set(by) or filters.line or filters.key or filters.user)
    for part in parts:
        rest = [part]
        if part.table == "usage_daily" and "day" not in by:
            months = condensed_months(connection, part.start, part.end)
            if months:
                yield usage_monthly, Span(part.table, months[0], months[-1] + 1)
            rest = _without(part, ((one, next_month(one)) for one in months))
        whole = usage_hourly if part.table == "usage_hourly" else usage_daily
        for span in rest:
            if of_keys:
                yield whole, span
                continue
            yield SMALLER[whole], span  # it has whole days only, and nothing of the others
            days = condensed_days(connection, span.start, span.end)
            yield from ((whole, one) for one in _without(span, ((day, day + DAY) for day in days)))


def _without(span: Span, known: Iterable[tuple[int, int]]) -> list[Span]:
    """What is left of a span without these, which come in order."""
    left = []
    begin = span.start
    for start, end in (*known, (span.end, span.end)):
        if begin < start:
            left.append(Span(span.table, begin, start))
        begin = max(begin, end)
    return left


def _groups(table: Table, by: Sequence[Dimension], bucket: ColumnElement[int]) -> list[Label[Any]]:
    made: list[Label[Any]] = []
    for number, one in enumerate(by):
        if one in ("day", "hour"):
            step = DAY if one == "day" else HOUR
            value: ColumnElement[Any] = bucket - bucket % step
        elif one == "status":
            value = table.c.status_code
        else:
            value = func.coalesce(table.c[_COLUMNS[one]], "")
        made.append(value.label(f"group_{number}"))
    return made


def _names(groups: Sequence[Label[Any]]) -> list[str]:
    """Groups by their names: an expression with parameters is not always known again."""
    return [one.name for one in groups]


def _conditions(table: Table, filters: Filters) -> list[ColumnElement[bool]]:
    wanted = ((_COLUMNS[name], getattr(filters, name)) for name in _COLUMNS)
    found = [table.c[name] == value for name, value in wanted if value is not None]
    if filters.line is not None:
        found.append(table.c.api_key_id.in_(keys.of_line(filters.line)))
    return found


def _within(table: Table, part: Span) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return table.c.bucket >= part.start, table.c.bucket < part.end


def _figures(table: Table) -> list[ColumnElement[Any]]:
    errors = case((table.c.status_code >= 400, table.c.requests), else_=0)
    histograms = (f"{kind}{number}" for kind in "rf" for number in range(HISTOGRAM))
    return [
        *(func.sum(table.c[name]) for name in _SUMMED),
        func.sum(errors),
        *(func.sum(table.c[name]) for name in histograms),
    ]


def _read(row: Sequence[Any]) -> Sums:
    names = (*_SUMMED, "errors")
    figures = {name: int(value) for name, value in zip(names, row, strict=False)}
    figures["cost"] = row[_SUMMED.index("cost")]
    rest = tuple(row[len(names) :])
    return Sums(responses=rest[:HISTOGRAM], firsts=rest[HISTOGRAM:], **figures)


def _moment(seconds: int) -> datetime:
    """As the tables of usage have it: UTC, and no zone."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def _portions(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Not more at once than a statement takes."""
    for start in range(0, len(ids), 500):
        yield ids[start : start + 500]
