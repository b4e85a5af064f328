"""The account of usage: records become rows and sums, each exactly once; what a limit has to
know of the past."""

import math
import re
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain
from operator import add
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    and_,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.exc import DataError, IntegrityError

from manyways.errors import StoreError
from manyways.store import keys
from manyways.store.bulk import Row, Statement, at_once
from manyways.store.condensed import forget
from manyways.store.tables import (
    HISTOGRAM,
    api_keys,
    usage_attempts,
    usage_daily,
    usage_hourly,
    usage_refusals,
    usage_stats,
)

if TYPE_CHECKING:  # values of a layer above: known here by their fields only
    from manyways.types import Usage
    from manyways.usage.record import RefusalRecord, UsageRecord

NAME: Final = 256
"""Letters kept of a name that somebody else chose."""
MESSAGE: Final = 500
"""Letters kept of an error's message."""

BOUNDS: Final = tuple(5.0 * 2 ** (i / 2) for i in range(HISTOGRAM - 1))
"""Milliseconds below which column `i` of a histogram counts; the last column has no bound."""

_OURS: Final = frozenset(
    {"all_models_failed", "model_error", "timeout", "shutting_down", "server_error"}
)
"""As in `usage.record`: such a request does not count."""
_HOUR: Final = 3600
_DAY: Final = 86400
_FIGURES: Final = 13
"""Columns of sums before the histograms."""
_COST: Final = 9
"""Which of them is no whole number."""


class RowRefused(StoreError):
    """The database does not take a row as it is, and never will."""


class Totals(NamedTuple):
    """What was used: requests that count, tokens, USD."""

    requests: int = 0
    tokens: int = 0
    cost: float = 0.0


def insert(
    connection: Connection,
    requests: Sequence["UsageRecord"],
    refusals: Sequence["RefusalRecord"] = (),
    pause: Callable[[], None] = at_once,
    kept_since: float = 0.0,
) -> int:
    """How many of them are new; those go into the sums, and their keys were used. What corrects
    a record changes its figures and the sums, or is new where that record is yet to come; of
    records from before `kept_since` (Unix seconds), where it may have left already, nothing is.

    What the database has already changes nothing, whoever wrote it, and whoever writes at the
    same time. Belongs into a transaction that writes; `pause` is called now and then, so that
    others get their turn. Raises `RowRefused` where one of them cannot be written: then the
    transaction must be given up.
    """
    corrections = [each for each in requests if each.corrects]
    if corrections:
        requests = [each for each in requests if not each.corrects]
    with _refusing():
        fresh = _add_requests(connection, requests, pause)
        if corrections:
            early = [each for each in corrections if each.created_at >= kept_since]
            fresh = [*fresh, *_add_requests(connection, early, pause)]
        if fresh:
            rows = list(chain.from_iterable(map(_attempt_rows, fresh)))
            _attempts.run(connection, rows, pause)
        hours = _correct(connection, corrections)
        if fresh or hours:
            _add_sums(connection, fresh, hours, pause)
        _note_keys(connection, fresh, refusals)
        return len(fresh) + _refusals.run(connection, [_refusal_row(each) for each in refusals])


def totals(connection: Connection, scope_id: str, since: int | None) -> Totals:
    """What a scope (`key:<line>`, `account:<id>`) has used since a day began (Unix seconds,
    UTC); `None`: ever."""
    sums = usage_daily.c
    conditions = [_of_scope(usage_daily, scope_id)]
    if since is not None:
        conditions.append(sums.bucket >= since)
    requests, tokens, cost = connection.execute(
        select(
            func.coalesce(func.sum(sums.counted), 0),
            func.coalesce(func.sum(sums.prompt_tokens + sums.completion_tokens), 0),
            func.coalesce(func.sum(sums.cost), 0.0),
        ).where(*conditions)
    ).one()
    return Totals(int(requests), int(tokens), float(cost))


def recent(
    connection: Connection, scope_id: str, since: float, slice_: float
) -> list[tuple[float, int, int]]:
    """The requests of a scope that count, of those that were let in at `since` or later: in slices
    of time that are no longer than `slice_` seconds, how many came, their tokens, and before that
    the latest moment (Unix seconds) at which one of them can have been let in; oldest first.

    Records tell when a request's head came. Its body may have come, and it have been let in, at
    any time up to its end.
    """
    rows = usage_stats.c
    digits = max(0, 12 - int(math.log(max(1.0, slice_ * 1000), 16)))
    slices = func.substr(rows.id, 1, digits + (digits > _BEFORE_THE_DASH))
    found = connection.execute(
        select(
            func.max(rows.created_at),
            func.max(rows.response_time_ms),
            func.count(),
            func.sum(rows.total_tokens),
        )
        .where(
            _of_scope(usage_stats, scope_id),
            rows.id >= first_of(since - LET_IN_WITHIN),
            rows.attempts > 0,
            rows.status_code < 500,
            or_(rows.error_code.is_(None), rows.error_code.not_in(sorted(_OURS))),
        )
        .group_by(slices)
        .order_by(slices)
    )
    let_in = [
        (_end(at, milliseconds), int(count), int(tokens))
        for at, milliseconds, count, tokens in found
    ]
    return sorted(one for one in let_in if one[0] >= since)


def _end(came: datetime, milliseconds: int) -> float:
    """When a request was let in at the latest, in Unix seconds."""
    return came.replace(tzinfo=UTC).timestamp() + min(milliseconds / 1000, LET_IN_WITHIN)


LET_IN_WITHIN: Final = 300.0
"""Seconds behind its head within which a request is let in or refused: its body has to come, and
who asks again with an `Idempotency-Key` waits for the first answer."""

_BEFORE_THE_DASH: Final = 8
"""Digits of an id's moment, which is 12 in milliseconds, before its first dash."""


def first_of(moment: float) -> str:
    """The smallest id that can be made at a moment (Unix seconds) or later."""
    digits = f"{max(int(moment * 1000), 0):012x}"
    return f"{digits[:8]}-{digits[8:]}-7000-8000-000000000000"


def bound(milliseconds: float) -> int:
    """The column of a histogram that counts so long a time."""
    return bisect_right(BOUNDS, milliseconds)


def _of_scope(table: Table, scope_id: str) -> ColumnElement[bool]:
    """Raises `StoreError` for what is no scope."""
    kind, _, id = scope_id.partition(":")  # noqa: A001 - a column's name
    if kind == "key":
        return table.c.api_key_id.in_(keys.of_line(id))
    if kind != "account":
        raise StoreError(f"There is no scope {scope_id!r}.")
    if table is not usage_stats:
        return table.c.user_id == id
    members = select(api_keys.c.id).where(api_keys.c.account_id == id)  # they have an index
    return and_(table.c.user_id == id, table.c.api_key_id.in_(members))


@contextmanager
def _refusing() -> Iterator[None]:
    """Numbers that no column holds never reach the database; the rest it refuses itself."""
    try:
        yield
    except (DataError, IntegrityError) as error:
        raise RowRefused(f"The database refuses a row: {error.orig}") from error
    except (OSError, OverflowError, ValueError) as error:  # no such moment, number
        raise RowRefused(f"A row cannot be written: {error}") from error


# Rows ------------------------------------------------------------------------------------------


def _add_requests(
    connection: Connection, requests: Sequence["UsageRecord"], pause: Callable[[], None]
) -> Sequence["UsageRecord"]:
    """Those that are new. All of them, usually: only where some are and some are not, their
    rows are taken back, and the two halves tried by themselves."""
    if not requests:
        return requests
    connection.exec_driver_sql("SAVEPOINT usage")
    written = _requests.run(connection, list(map(_request_row, requests)), pause)
    mixed = 0 < written < len(requests)
    if mixed:
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT usage")
    connection.exec_driver_sql("RELEASE SAVEPOINT usage")
    if not mixed:
        return requests if written else ()
    half = len(requests) // 2
    older = _add_requests(connection, requests[:half], pause)
    return [*older, *_add_requests(connection, requests[half:], pause)]


def _request_row(record: "UsageRecord") -> Row:
    usage = record.usage
    return (
        record.id,
        _moment(record.created_at),
        record.api_key_id,
        record.user_id,
        record.endpoint,
        record.requested_model and _name(record.requested_model),
        record.requested_provider and _name(record.requested_provider),
        record.model and _name(record.model),
        record.provider and _name(record.provider),
        len(record.attempts),
        int(record.stream),
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
        usage.cached_tokens,
        usage.reasoning_tokens,
        usage.source,
        record.response_time_ms,
        record.first_token_ms,
        record.status_code,
        record.error_code and _name(record.error_code),
        record.error_message and _text(record.error_message, MESSAGE),
        record.cost,
        record.client_request_id and _text(record.client_request_id, NAME),
    )


def _attempt_rows(record: "UsageRecord") -> Iterator[Row]:
    for number, attempt in enumerate(record.attempts):
        usage = attempt.usage
        yield (
            record.id,
            number,
            _moment(attempt.started_at),
            _name(attempt.model),
            _name(attempt.provider),
            _name(attempt.upstream_model),
            attempt.method,
            attempt.outcome,
            attempt.status_code,
            attempt.error_message and _text(attempt.error_message, MESSAGE),
            attempt.latency_ms,
            attempt.first_token_ms,
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.total_tokens,
            usage.cached_tokens,
            usage.reasoning_tokens,
            usage.source,
            attempt.cost,
        )


def _refusal_row(record: "RefusalRecord") -> Row:
    return (
        record.id,
        _moment(record.minute),
        record.api_key_id,
        record.user_id,
        record.code,
        record.count,
    )


def _moment(seconds: float) -> str:
    """A timestamp with milliseconds, as SQLAlchemy itself writes it into SQLite: texts that
    compare as moments do."""
    whole = int(seconds)
    return f"{_second(whole)}.{int((seconds - whole) * 1000):03d}000"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


def _text(text: str, most: int) -> str:
    """What every database takes: no NUL, and whole characters only."""
    if not text.isascii():
        text = _HALF.sub("\N{REPLACEMENT CHARACTER}", text)
    return text[:most].replace("\0", "\N{REPLACEMENT CHARACTER}")


_HALF: Final = re.compile("[\ud800-\udfff]")


@lru_cache(maxsize=4096)
def _name(text: str) -> str:
    return _text(text, NAME)


def _inserted(table: Table) -> Statement:
    columns = tuple(table.c)
    names = ", ".join(each.name for each in columns)
    return Statement(f"INSERT INTO {table.name} ({names})", columns, "ON CONFLICT DO NOTHING")


_requests: Final = _inserted(usage_stats)
_attempts: Final = _inserted(usage_attempts)
_refusals: Final = _inserted(usage_refusals)


# Corrections -----------------------------------------------------------------------------------

_CORRECTED: Final = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "usage_source",
    "cost",
)


def _correct(connection: Connection, corrections: Sequence["UsageRecord"]) -> "_Sums":
    """Write their figures over those of their rows. Returns what that adds to the sums of hours:
    nothing where it was done before."""
    hours: _Sums = {}
    if not corrections:
        return hours
    told = {each.id: each for each in corrections}
    rows = usage_stats.c
    query = select(rows.id, *(rows[name] for name in _CORRECTED)).where(rows.id.in_(list(told)))
    for row in connection.execute(query.order_by(rows.id).with_for_update()).all():
        record = told[row.id]
        for number, attempt in enumerate(record.attempts):
            parts = usage_attempts.c
            of = parts.request_id == row.id, parts.number == number
            part = _figures(attempt.usage, attempt.cost)
            connection.execute(update(usage_attempts).where(*of).values(part))
        values = _figures(record.usage, record.cost)
        if all(getattr(row, name) == value for name, value in values.items()):
            continue
        connection.execute(update(usage_stats).where(rows.id == row.id).values(values))
        usage, sums = record.usage, _of_group(hours, record)
        sums[4] += (usage.source == "estimated") - (row.usage_source == "estimated")
        sums[5] += usage.prompt_tokens - row.prompt_tokens
        sums[6] += usage.completion_tokens - row.completion_tokens
        sums[7] += usage.cached_tokens - row.cached_tokens
        sums[8] += usage.reasoning_tokens - row.reasoning_tokens
        sums[_COST] += (record.cost or 0.0) - (row.cost or 0.0)
    return hours


def _figures(usage: "Usage", cost: float | None) -> dict[str, Any]:
    """As in `_CORRECTED`."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "cached_tokens": usage.cached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "usage_source": usage.source,
        "cost": cost,
    }


# Sums ------------------------------------------------------------------------------------------

_Group = tuple[int, str, str, str, str, int]
_Sums = dict[_Group, list[Any]]


def _add_sums(
    connection: Connection,
    records: Iterable["UsageRecord"],
    hours: _Sums,
    pause: Callable[[], None],
) -> None:
    """Add the records, and what `hours` has already."""
    for record in records:
        _count(hours, record)
    pause()
    days: _Sums = {}
    for (hour, *rest), figures in hours.items():
        day: Any = (hour // _DAY * _DAY, *rest)
        known = days.get(day)
        days[day] = figures if known is None else list(map(add, known, figures))
    for statement, sums in ((_hourly, hours), (_daily, days)):
        # In one order, everywhere: else two nodes could wait for each other.
        statement.run(connection, [(*group, *sums[group]) for group in sorted(sums)], pause)
    forget(connection, {group[0] for group in days})


def _of_group(hours: _Sums, record: "UsageRecord") -> list[Any]:
    """The sums that a record belongs to."""
    group = (
        int(record.created_at) // _HOUR * _HOUR,
        record.api_key_id,
        record.user_id or "",
        _name(record.model or ""),
        _name(record.provider or ""),
        record.status_code,
    )
    figures = hours.get(group)
    if figures is None:
        figures = hours[group] = [0] * (_FIGURES + 2 * HISTOGRAM)
        figures[_COST] = 0.0
    return figures


def _count(hours: _Sums, record: "UsageRecord") -> None:
    figures = _of_group(hours, record)
    usage = record.usage
    figures[0] += 1
    figures[1] += record.counted
    figures[2] += len(record.attempts)
    figures[3] += record.stream
    figures[4] += usage.source == "estimated"
    figures[5] += usage.prompt_tokens
    figures[6] += usage.completion_tokens
    figures[7] += usage.cached_tokens
    figures[8] += usage.reasoning_tokens
    figures[_COST] += record.cost or 0.0
    figures[10] += record.response_time_ms
    figures[_FIGURES + bound(record.response_time_ms)] += 1
    if record.first_token_ms is not None:
        figures[11] += record.first_token_ms
        figures[12] += 1
        figures[_FIGURES + HISTOGRAM + bound(record.first_token_ms)] += 1


def _summed(table: Table) -> Statement:
    columns = tuple(table.c)
    names = [each.name for each in columns]
    group = [each.name for each in table.primary_key]
    added = (
        f"{name} = {table.name}.{name} + excluded.{name}" for name in names if name not in group
    )
    return Statement(
        f"INSERT INTO {table.name} ({', '.join(names)})",
        columns,
        f"ON CONFLICT ({', '.join(group)}) DO UPDATE SET {', '.join(added)}",
    )


_hourly: Final = _summed(usage_hourly)
_daily: Final = _summed(usage_daily)


# Keys ------------------------------------------------------------------------------------------


def _note_keys(
    connection: Connection,
    requests: Iterable["UsageRecord"],
    refusals: Iterable["RefusalRecord"],
) -> None:
    """When each key was used last; in one go, for the order in which rows are locked."""
    used: dict[str, int] = {each.api_key_id: each.minute for each in refusals}
    for record in requests:
        moment = int(record.created_at)
        if used.get(record.api_key_id, 0) < moment:
            used[record.api_key_id] = moment
    keys.note_use(connection, used)
