"""What was used: a question in words, and the report that answers it.

Times are UTC. Reports know whole hours: a span begins at a full hour and ends at one.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, get_args

from msgspec import Struct, structs
from sqlalchemy import Connection

from manyways.errors import ManywaysError
from manyways.operations.accounts import near_accounts
from manyways.store import keys
from manyways.store.records import Wanted
from manyways.store.reports import (
    DAY,
    EVERYTHING,
    HOUR,
    HOURS_KEPT,
    Dimension,
    Filters,
    Group,
    Names,
    Span,
    Sums,
    account_names,
    accounts_called,
    dollars,
    key_names,
    refusals,
    series,
    spans,
    sums,
)

DIMENSIONS: Final[tuple[Dimension, ...]] = get_args(Dimension)
TOGETHER: Final = 2
"""Dimensions that one report may be grouped by."""
AT_MOST: Final = 20_000
"""Rows of one report."""

_BY_DAY: Final = 30  # days, where nobody says how long
_BY_HOUR: Final = 24
_SHARES: Final = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
_TOLD: Final = {"key": ("key", "last4", "note", "account"), "user": ("user", "account")}
"""Labels of dimensions that have more than one."""
_UNITS: Final = {"h": HOUR, "d": DAY, "w": 7 * DAY}
_LAST: Final = re.compile(r"([1-9]\d{0,3})([hdw])")
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")


class BadQuestion(ManywaysError):
    """A report cannot be made as asked; `field` is the field at fault: `from`, `group_by`..."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Question(Struct, frozen=True, kw_only=True):
    """What is to be reported: Unix seconds from `start` to before `end`, full hours both."""

    start: int
    end: int
    by: tuple[Dimension, ...] = ("day",)
    filters: Filters = EVERYTHING
    now: float

    @property
    def parts(self) -> list[Span]:
        """The roll-ups that have the answer."""
        return spans(self.start, self.end, now=self.now, hourly="hour" in self.by)


class Row(Struct, frozen=True, kw_only=True):
    """A row of a report. `labels` say what it is of, by name: `day`, `model`, `key`, `last4`..."""

    group: Group
    labels: Mapping[str, str | int | None]
    sums: Sums

    def document(self) -> dict[str, Any]:
        """As JSON has it. Times are milliseconds, and null where nothing was measured."""
        found = self.sums
        return {
            **self.labels,
            "requests": found.requests,
            "errors": found.errors,
            "refused": found.refused,
            "attempts": found.attempts,
            "streams": found.streams,
            "estimated": found.estimated,
            "prompt_tokens": found.prompt_tokens,
            "completion_tokens": found.completion_tokens,
            "total_tokens": found.prompt_tokens + found.completion_tokens,
            "cached_tokens": found.cached_tokens,
            "reasoning_tokens": found.reasoning_tokens,
            "cost": dollars(found.cost),
            "response_ms": _times(found.response_ms, found.requests, found.responses),
            "first_token_ms": _times(found.first_token_ms, found.first_tokens, found.firsts),
        }

    def cells(self) -> dict[str, str | int | float | None]:
        """The same without anything inside anything: `response_ms_p50`."""
        flat: dict[str, str | int | float | None] = {}
        for name, value in self.document().items():
            if isinstance(value, dict):
                flat.update({f"{name}_{inner}": one for inner, one in value.items()})
            else:
                flat[name] = value
        return flat


class Report(Struct, frozen=True, kw_only=True):
    """The answer: by time, then those with the most requests first; and the sums of all."""

    question: Question
    rows: tuple[Row, ...]
    totals: Row

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the cells of every row."""
        labels = dict.fromkeys(
            label for one in self.question.by for label in _TOLD.get(one, (one,))
        )
        return (*labels, *self.totals.cells())

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "object": "usage_report",
            "from": iso(self.question.start),
            "to": iso(self.question.end),
            "group_by": list(self.question.by),
            "data": [row.document() for row in self.rows],
            "totals": self.totals.document(),
        }


def ask(
    connection: Connection,
    *,
    now: float,
    since: str | None = None,
    until: str | None = None,
    last: str | None = None,
    by: str | None = None,
    key: str | None = None,
    account: str | None = None,
    model: str | None = None,
    provider: str | None = None,
    status: str | None = None,
) -> Question:
    """The question that these words mean. Raises `BadQuestion`.

    `since` and `until` are dates (`2026-11-23`, the last one included) or moments
    (`2026-11-23T14:00Z`), `last` a span like `7d`, `by` one dimension or two with a comma
    between, `key` an id or last four characters, `account` an id or a name.
    """
    names = {"model": model, "provider": provider, "key": key, "user": account}
    _check_names(names)
    dimensions = _dimensions(by)
    start, end = span(now=now, since=since, until=until, last=last, hourly="hour" in dimensions)
    question = Question(
        start=start,
        end=end,
        by=dimensions,
        filters=_filters(connection, names, status),
        now=now,
    )
    oldest = (int(now) - HOURS_KEPT) // DAY * DAY
    if any(part.table == "usage_hourly" and part.start < oldest for part in question.parts):
        raise BadQuestion(
            "from" if start < oldest else "to",
            f"Hours are kept for {HOURS_KEPT // DAY} days; what is older is known by the day. Name"
            f" whole days, and don't group by hour before {iso(oldest)[:10]}.",
        )
    return question


def wanted(
    connection: Connection,
    *,
    now: float,
    since: str | None = None,
    until: str | None = None,
    last: str | None = None,
    key: str | None = None,
    account: str | None = None,
    model: str | None = None,
    provider: str | None = None,
    status: str | None = None,
    failed: bool = False,
) -> Wanted:
    """The records that these words mean, as `ask` understands them, but for moments: they are
    taken as they are, `last` up to now, and without them all that is kept is meant. Raises
    `BadQuestion`."""
    names = {"model": model, "provider": provider, "key": key, "user": account}
    _check_names(names)
    start: float | None = None if since is None else _seconds(since, "from", day_included=False)
    end = None if until is None else _seconds(until, "to", day_included=True)
    if last is not None:
        _see_that_it_stands_alone(since, until)
        count, step = _last(last)
        start = now - count * step
    if start is not None and start >= (now if end is None else end):
        raise BadQuestion("from", "The span is empty: it ends before it begins.")
    filters = structs.asdict(_filters(connection, names, status))
    del filters["line"]  # it is never asked for in words
    return Wanted(start=start, end=end, failed=failed, **filters)


def answer(connection: Connection, question: Question, *, at_most: int = AT_MOST) -> Report:
    """The report. Raises `BadQuestion` where it would have more rows than `at_most`."""
    by, filters = question.by, question.filters
    found = sums(connection, question.parts, by, filters, at_most=at_most)
    refused = refusals(connection, question.start, question.end, by, filters)
    for group, count in (refused or {}).items():
        found.setdefault(group, Sums()).refused = count
    if len(found) > at_most:
        raise BadQuestion(
            "group_by",
            f"The report would have more than {at_most:,} rows. Group by less, name a shorter span,"
            " or ask of one key, account, model or provider.",
        )
    if refused is not None:
        for one in found.values():
            one.refused = one.refused or 0
    totals = Sums.of(found.values())
    if refused is not None:
        totals.refused = totals.refused or 0
    labels = _labels(connection, by, found)
    rows = [
        Row(group=group, labels=labels(group), sums=found[group])
        for group in sorted(found, key=lambda group: _order(by, group, found[group]))
    ]
    return Report(question=question, rows=tuple(rows), totals=Row(group=(), labels={}, sums=totals))


def over_time(connection: Connection, question: Question) -> dict[Group, list[int]]:
    """How many requests each group made in each day of the span, or each hour of a span of up
    to two days: figures for a small picture."""
    parts = question.parts
    hourly = question.end - question.start <= 2 * DAY
    step = HOUR if hourly else DAY
    if hourly:
        parts = spans(question.start, question.end, now=question.now, hourly=True)
    first = question.start // step * step
    last = min(question.end, int(question.now) // step * step + step)
    found = series(connection, parts, question.by, question.filters, step=step)
    return {
        group: [steps.get(at, 0) for at in range(first, last, step)]
        for group, steps in found.items()
    }


def percentile(histogram: Sequence[int], share: float, *, total: float = math.inf) -> float | None:
    """The time below which this share of all lies, milliseconds; `None` of nothing.

    The true one lies in the same column of the histogram: what is told is off by less than
    42 % of it, and by less than 5 ms below 5 ms. Above 232 s the last column's end is told.
    With the `total` of all it is never more than they can have been: of one, its very time.
    """
    count = sum(histogram)
    if not count:
        return None
    wanted = max(1, math.ceil(share * count))  # the rank of who stands there
    before = 0
    for number, here in enumerate(histogram):
        if before + here >= wanted:
            lower = 0.0 if number == 0 else _edge(number - 1)
            drawn = lower + (_edge(number) - lower) * (wanted - before - 0.5) / here
            # It, and those that took no less, came to no more than all.
            most = total / (count - wanted + 1)
            exact = count == 1 and most < math.inf
            return round(most if exact else min(drawn, most), 1)
        before += here
    return None


def span(
    *, now: float, since: str | None, until: str | None, last: str | None, hourly: bool
) -> tuple[int, int]:
    """The full hours from the first to before the last one. Raises `BadQuestion`."""
    if last is not None:
        _see_that_it_stands_alone(since, until)
    end = (
        int(now) // HOUR * HOUR + HOUR
        if until is None
        else -(-_seconds(until, "to", day_included=True) // HOUR) * HOUR
    )
    if last is not None:
        count, step = _last(last)
        start = (end - 1) // step * step - (count - 1) * step
    elif since is not None:
        start = _seconds(since, "from", day_included=False) // HOUR * HOUR
    elif hourly:
        start = end - _BY_HOUR * HOUR
    else:
        start = (end - 1) // DAY * DAY - (_BY_DAY - 1) * DAY
    if start >= end:
        field = "from" if since is not None else "to"
        raise BadQuestion(
            field, f"The span is empty: it would go from {iso(start)} to {iso(end)}, UTC."
        )
    return start, end


def key_called(connection: Connection, wanted: str) -> str:
    """The id of the key with this id, or these last four characters. Raises `BadQuestion`."""
    found = keys.matching(connection, id=wanted, last4=wanted)
    if len(found) == 1:
        return found[0].id
    if found:
        ids = ", ".join(key.id for key in found)
        raise BadQuestion("key", f"Several keys end in {wanted}: name one by its id: {ids}.")
    # It may be a whole secret, so it is not repeated.
    raise BadQuestion("key", "There is no such key. Give its id, or its last four characters.")


def account_called(connection: Connection, wanted: str) -> str:
    """The id of the account with this id or name. Raises `BadQuestion`."""
    found = accounts_called(connection, wanted)
    if not found:
        near = near_accounts(connection, wanted) or "Give its id or its name."
        raise BadQuestion("user", f"There is no account {wanted!r}. {near}")
    return found[0]


def iso(seconds: float) -> str:
    """A moment as JSON has it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _check_names(names: Mapping[str, str | None]) -> None:
    for field, text in names.items():
        if text is not None and not text.isprintable():
            raise BadQuestion(field, "A name has no control characters.")


def _filters(
    connection: Connection, names: Mapping[str, str | None], status: str | None
) -> Filters:
    key, account = names["key"], names["user"]
    return Filters(
        key=None if key is None else key_called(connection, key),
        user=None if account is None else account_called(connection, account),
        model=names["model"],
        provider=names["provider"],
        status=None if status is None else _status(status),
    )


def _dimensions(by: str | None) -> tuple[Dimension, ...]:
    names = [name.strip() for name in ("day" if by is None else by).split(",")]
    found = tuple(one for one in DIMENSIONS if one in names)  # time first
    if not set(names) <= set(DIMENSIONS) or len(set(names)) < len(names):
        raise BadQuestion(
            "group_by",
            f"A report is grouped by {', '.join(DIMENSIONS)}, or by two of them with a comma"
            " between, like day,model.",
        )
    if len(found) > TOGETHER or {"day", "hour"} <= set(found):
        raise BadQuestion(
            "group_by", "A report is grouped by one or two of these, and not by day and hour both."
        )
    return found


def _see_that_it_stands_alone(since: str | None, until: str | None) -> None:
    if since is not None or until is not None:
        raise BadQuestion("last", "Say either how long the span is, or where it begins and ends.")


def _last(text: str) -> tuple[int, int]:
    found = _LAST.fullmatch(text.strip())
    if found is None or int(found[1]) * _UNITS[found[2]] > 3660 * DAY:
        raise BadQuestion("last", f"{text!r} is no span: write 24h, 7d or 4w, ten years at most.")
    count, unit = int(found[1]), found[2]
    # A week is seven days: it need not begin on a Monday.
    return (count, HOUR) if unit == "h" else (count * _UNITS[unit] // DAY, DAY)


def _seconds(text: str, field: str, *, day_included: bool) -> int:
    """Unix seconds, rounded up where the end is meant."""
    words = text.strip().replace(" ", "+") if "T" in text else text.strip()
    try:
        moment = datetime.fromisoformat(words)
    except ValueError:
        moment = None
    if moment is None or not 2000 <= moment.year <= 2200:
        raise BadQuestion(
            field, f"{text!r} is no date and no moment: write 2026-11-23, or 2026-11-23T14:00Z."
        )
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    seconds = moment.timestamp()
    if day_included and _DATE.fullmatch(words):
        seconds += DAY
    return -int(-seconds // 1) if day_included else int(seconds // 1)


def _status(text: str) -> int:
    if not re.fullmatch(r"[1-5]\d\d", text):
        raise BadQuestion("status", f"{text!r} is no status: write one like 200 or 503.")
    return int(text)


def _order(by: Sequence[Dimension], group: Group, found: Sums) -> tuple[Any, ...]:
    moment = group[0] if by and by[0] in ("day", "hour") else 0
    return moment, -found.requests, -(found.refused or 0), tuple(map(str, group))


def _labels(
    connection: Connection, by: Sequence[Dimension], groups: Mapping[Group, Sums]
) -> Callable[[Group], dict[str, str | int | None]]:
    """What says a group's labels."""
    named: dict[str, Names] = {}
    called: dict[str, str] = {}
    for number, one in enumerate(by):
        ids = sorted({group[number] for group in groups})
        if one == "key":
            named = key_names(connection, ids)
        elif one == "user":
            called = account_names(connection, ids)

    def labels(group: Group) -> dict[str, str | int | None]:
        told: dict[str, str | int | None] = {}
        for one, value in zip(by, group, strict=True):
            if one == "day":
                told["day"] = iso(value)[:10]
            elif one == "hour":
                told["hour"] = iso(value)
            elif one == "status":
                told["status"] = int(value)
            else:
                told[one] = value or None
            if one == "key":
                told |= named.get(value, Names())._asdict()
            elif one == "user":
                told["account"] = called.get(value)
        return told

    return labels


def _times(total: int, count: int, histogram: Sequence[int]) -> dict[str, float | None]:
    return {
        "mean": round(total / count, 1) if count else None,
        **{name: percentile(histogram, share, total=total) for name, share in _SHARES.items()},
    }


def _edge(number: int) -> float:
    """Where a column of the histogram ends, milliseconds."""
    return float(5.0 * 2 ** (number / 2))
