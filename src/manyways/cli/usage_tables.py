"""Reports and records on a terminal."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console

from manyways.cli.figures import (
    NOTHING,
    Column,
    bar,
    count,
    duration,
    money,
    share,
    show,
    sparkline,
)
from manyways.operations.reports import Report, Row, percentile
from manyways.store.records import Record
from manyways.store.reports import DAY, Group

_SPARKS: Final = 24
_BAR: Final = 16
_WORDS: Final = {"user": "Account"}
_NOBODY: Final = {"model": "nobody asked", "provider": "nobody asked", "user": "no account"}


def show_report(report: Report, pictures: Mapping[Group, Sequence[int]], *, rows: int) -> None:
    """As a table; more than so many `rows` are only counted."""
    console = Console(highlight=False)
    console.print(_title(report), style="bold")
    console.print()
    timed = report.question.by[0] in ("day", "hour")
    shown = report.rows[-rows:] if timed else report.rows[:rows]
    show(console, _columns(report, shown, pictures, unicode=_unicode(console)), total=True)
    console.print("\np50: half of the answers took no longer; p95: 95 of 100 did not.", style="dim")
    more = len(report.rows) - len(shown)
    if more:
        console.print(
            f"\n{more:,} {'earlier' if timed else 'more'} rows: --csv and --json have all of them.",
            style="dim",
        )


def show_records(records: Sequence[Record], last4: Mapping[str, str]) -> None:
    """As a table."""
    console = Console(highlight=False)
    moments = [one["created_at"][5:19].replace("T", " ") for one in records]
    who = [
        f"{one['provider']}/{one['model']}" if one["provider"] else one["model"] or NOTHING
        for one in records
    ]
    columns = [
        Column("Time (UTC)", moments, 0, left=True),
        Column("Key", [f"…{last4.get(one['api_key_id'], '?')}" for one in records], 3, left=True),
        Column("Asked last", who, 0, left=True, elastic=True),
        Column("Status", [str(one["status_code"]) for one in records], 0),
        Column("Tries", [count(one["attempts"]) for one in records], 6),
        Column("In", [count(one["prompt_tokens"]) for one in records], 4),
        Column("Out", [count(one["completion_tokens"]) for one in records], 4),
        Column("Took", [duration(one["response_time_ms"]) for one in records], 1),
        Column("Cost", money([one["cost"] for one in records]), 5),
        Column("Error", [one["error_code"] or "" for one in records], 2, left=True, elastic=True),
        Column("First token", [duration(one["first_token_ms"]) for one in records], 8),
        Column("Id", [one["id"] for one in records], 7, left=True),
    ]
    show(console, [one for one in columns if any(one.cells)], total=False)


def _columns(
    report: Report, shown: Sequence[Row], pictures: Mapping[Group, Sequence[int]], *, unicode: bool
) -> list[Column]:
    rows = [*shown, report.totals]
    found = [row.sums for row in rows]
    columns = _labels(report, shown)

    def add(name: str, cells: Sequence[str], rank: int) -> None:
        if any(cell not in (NOTHING, "") for cell in cells):
            columns.append(Column(name, cells, rank))

    add("Requests", [count(one.requests) for one in found], 0)
    if unicode and report.question.by in (("day",), ("hour",)):
        most = max((row.sums.requests for row in shown), default=0)
        bars = [bar(row.sums.requests, most, _BAR) for row in shown]
        columns.append(Column("", [*bars, ""], 4, left=True))
    add("Errors", [share(one.errors, one.requests) for one in found], 3)
    add("Refused", [count(one.refused) for one in found], 7)
    add("Prompt", [count(one.prompt_tokens) for one in found], 9)
    add("Cached", [count(one.cached_tokens) for one in found], 12)
    add("Completion", [count(one.completion_tokens) for one in found], 9)
    add("Tokens", [count(one.prompt_tokens + one.completion_tokens) for one in found], 1)
    add("Cost", money([one.cost for one in found]), 2)
    for name, part, rank in (("p50", 0.5, 5), ("p95", 0.95, 6), ("p99", 0.99, 11)):
        took = [percentile(one.responses, part, total=one.response_ms) for one in found]
        add(name, [duration(one) for one in took], rank)
    firsts = [percentile(one.firsts, 0.5, total=one.first_token_ms) for one in found]
    add("1st token", [duration(one) for one in firsts], 8)
    if unicode and pictures:
        lines = [sparkline(pictures.get(row.group, ()), _SPARKS) for row in shown]
        everything = [sum(steps) for steps in zip(*pictures.values(), strict=True)]
        cells = [*lines, sparkline(everything, _SPARKS)]
        columns.append(Column("Over time", cells, 4, left=True))
    return columns


def _labels(report: Report, shown: Sequence[Row]) -> list[Column]:
    by = report.question.by
    columns = []
    for number, one in enumerate(by):
        cells = [_label(one, row.labels) for row in shown]
        end = "Total" if number == 0 else ""
        elastic = one not in ("day", "hour", "status")
        name = _WORDS.get(one, one.capitalize())
        columns.append(Column(name, [*cells, end], 0, left=True, elastic=elastic))
    return columns


def _label(dimension: str, labels: Mapping[str, Any]) -> str:
    value = labels[dimension]
    if dimension == "day":
        return f"{datetime.fromisoformat(value):%Y-%m-%d %a}"
    if dimension == "hour":
        return f"{datetime.fromisoformat(value):%m-%d %H:%M}"
    if dimension == "key":
        return _key(labels)
    if dimension == "user":
        value = labels["account"] or value
    return _NOBODY[dimension] if value is None else str(value)


def _key(labels: Mapping[str, Any]) -> str:
    if labels["last4"] is None:
        return str(labels["key"])
    words = [f"…{labels['last4']}", labels["note"], labels["account"] and f"({labels['account']})"]
    return " ".join(word for word in words if word)


def _title(report: Report) -> str:
    question = report.question
    start, end = (datetime.fromtimestamp(one, UTC) for one in (question.start, question.end))
    if question.start % DAY == 0 and (question.end % DAY == 0 or question.end > question.now):
        last = datetime.fromtimestamp(question.end - 1, UTC)
        span = (
            f"{start:%Y-%m-%d}"
            if start.date() == last.date()
            else (f"{start:%Y-%m-%d} to {last:%Y-%m-%d}")
        )
    else:
        span = f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}"
    by = " and ".join(_WORDS.get(one, one).lower() for one in question.by)
    return f"Usage by {by}, {span} (UTC)"


def _unicode(console: Console) -> bool:
    return (console.encoding or "").lower().startswith("utf")
