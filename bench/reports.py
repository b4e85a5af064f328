"""Reports and pages of records over ten million requests, on SQLite and PostgreSQL.

python -m bench reports [--rows 10000000] [--on sqlite,postgresql]

A year of requests of 200 keys in 50 accounts: three models of thirty each, which eight providers
have; one request in fifty was answered by a second provider, three in a hundred failed. What is
written is what the ledger would have written, sums by the hour of the last 90 days only.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection, event

from manyways.operations import retention
from manyways.operations.reports import answer, ask
from manyways.store.database import Database, Settings, open_database
from manyways.store.records import Wanted, page
from manyways.store.reports import DAY, HOURS_KEPT
from manyways.store.tables import HISTOGRAM
from manyways.store.usage import BOUNDS
from manyways.usage.settings import Settings as Usage

NOW: Final = 1_796_083_200  # 2026-12-01T00:00:00Z
DAYS: Final = 365
KEYS: Final = 200
LIMIT: Final = 1.0
"""Seconds that a report may take."""
ROUNDS: Final = 3

_BEGIN: Final = NOW - DAYS * DAY
_DIALECT: Final = {
    "sqlite": {
        "series": "(WITH RECURSIVE n (i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n"
        " WHERE i + 1 < {last}) SELECT i FROM n) AS n",
        "hex": "printf('%012x', ms)",
        "tail": "printf('%012x', i)",
        "moment": "strftime('%Y-%m-%d %H:%M:%S', ms / 1000, 'unixepoch')"
        " || printf('.%03d000', ms % 1000)",
        "name": "printf('{0}-%03d', {1})",
        "bytes": "randomblob(32)",
        "whole": "CAST({0} AS integer)",
    },
    "postgresql": {
        "series": "generate_series(CAST({first} AS bigint), {last} - 1) AS n (i)",
        "hex": "lpad(to_hex(ms), 12, '0')",
        "tail": "lpad(to_hex(i), 12, '0')",
        "moment": "to_timestamp(ms / 1000.0) AT TIME ZONE 'UTC'",
        "name": "'{0}-' || lpad(CAST({1} AS text), 3, '0')",
        "bytes": "sha256(CAST(CAST(i AS text) AS bytea))",
        "whole": "CAST(floor({0}) AS integer)",
    },
}
# Fractions from 0 to 1 that are spread evenly, and have nothing to do with each other.
_CHANCES: Final = {
    "a": 2654435761,
    "b": 2246822519,
    "c": 3266489917,
    "d": 668265263,
    "e": 374761393,
}


class Asked(NamedTuple):
    """A report or a page, and what it is called."""

    name: str
    work: Callable[[Connection], int]


class Measured(NamedTuple):
    """`seconds` is the median, `first` the first time, `cpu` what this process computed, which on
    SQLite is all of it; `plan` is that of the longest query."""

    database: str
    name: str
    rows: int
    first: float
    seconds: float
    cpu: float
    plan: list[str]


def main(console: Console, *, rows: int, only: tuple[str, ...]) -> int:
    """Build, measure, tell; 1 where something took longer than it may."""
    measured: list[Measured] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="manyways-reports-")))
        for name in only:
            with _database(name, folder) as database:
                began = time.perf_counter()
                _build(database, name, rows, console)
                console.print(f"{name}: built in {time.perf_counter() - began:.0f} s")
                measured += _measure(database, name)
    _show(measured, console)
    return int(any(one.seconds > LIMIT for one in measured))


@contextmanager
def _database(name: str, folder: Path) -> Iterator[Database]:
    with ExitStack() as stack:
        url = f"sqlite:///{folder}/reports.db"
        if name == "postgresql":
            from tests.support.postgres import PostgresProcess

            server = stack.enter_context(
                PostgresProcess(shared_buffers="512MB", max_wal_size="8GB", wal_level="minimal",
                                max_wal_senders=0)
            )  # fmt: skip
            url = server.url(server.create_database())
        database = open_database(Settings(url=url))
        stack.callback(database.close)
        yield database


def _build(database: Database, name: str, rows: int, console: Console) -> None:
    words = _DIALECT[name]
    _execute(database, *_people(words))
    step = (DAYS * DAY * 1000) // rows  # milliseconds between two requests
    for day in range(DAYS):
        first, last = day * rows // DAYS, (day + 1) * rows // DAYS
        start = _BEGIN + day * DAY
        statements = [_requests(words, first, last, step), _sums("usage_daily", name, start, DAY)]
        if start >= NOW - HOURS_KEPT:
            statements.append(_sums("usage_hourly", name, start, 3600))
        _execute(database, *statements)
        if day % 60 == 59:
            console.print(f"{name}: {last:,} requests")
    retention.run(database, Usage(), NOW - 1, pause=lambda _: None)  # condenses what is over
    if name == "postgresql":
        _vacuum(database)


def _people(words: dict[str, str]) -> Iterator[str]:
    series = words["series"].format(first=0, last=50)
    account = words["name"].format("account", "i")
    yield (
        "INSERT INTO accounts (id, name, created_at, change)"  # noqa: S608
        f" SELECT {account}, {account}, {_BEGIN}, 0 FROM {series}"
    )
    series = words["series"].format(first=0, last=KEYS)
    yield (
        "INSERT INTO api_keys (id, digest, last4, type, created_at, account_id, change)"  # noqa: S608
        f" SELECT {words['name'].format('key', 'i')}, {words['bytes']},"
        f" {words['name'].format('', 'i')}, 'full', {_BEGIN},"
        f" {words['name'].format('account', 'i / 4')}, 0 FROM {series}"
    )


def _requests(words: dict[str, str], first: int, last: int, step: int) -> str:
    chances = ", ".join(
        f"((i * {factor}) % 4294967296) / 4294967296.0 AS {name}"
        for name, factor in _CHANCES.items()
    )
    named = partial(_named, words)
    whole = words["whole"].format
    return f"""
        INSERT INTO usage_stats
        SELECT substr(h, 1, 8) || '-' || substr(h, 9) || '-7000-8000-' || {words["tail"]},
            {words["moment"]}, {named("key", "k")}, {named("account", "k / 4")},
            '/chat/completions', {named("model", "m")}, NULL,
            {named("model", "m")}, {named("provider", "p")}, 1, s, t, t / 5, t + t / 5, t / 3, 0,
            CASE WHEN e < 0.9 THEN 'upstream' ELSE 'estimated' END, r,
            CASE WHEN s = 1 THEN r / 5 END, status, NULL, NULL, t * 0.000001, NULL
        FROM (
            SELECT i, ms, {words["hex"]} AS h, k, m, status, e,
                (m + CASE WHEN c < 0.02 THEN 1 ELSE 0 END) % 8 AS p,
                CASE WHEN d < 0.6 THEN 1 ELSE 0 END AS s,
                {whole("100 + 3000 * c")} AS t,
                {whole("200 + 30000 * d * d * d * d")} AS r
            FROM (
                SELECT *, (k * 7 + {whole("3 * b * b")} * 11) % 30 AS m,
                    CASE WHEN e < 0.97 THEN 200 WHEN e < 0.985 THEN 400 ELSE 503 END AS status
                FROM (
                    SELECT *, {whole(f"{KEYS} * a * a * a")} AS k
                    FROM (
                        SELECT i, {_BEGIN} * CAST(1000 AS bigint) + i * {step} AS ms, {chances}
                        FROM {words["series"].format(first=first, last=last)}
                    ) AS chances
                ) AS keys
            ) AS models
        ) AS requests
    """  # noqa: S608


def _named(words: dict[str, str], what: str, number: str) -> str:
    return words["name"].format(what, number)


def _sums(table: str, name: str, start: int, step: int) -> str:
    seconds = (
        "CAST(strftime('%s', created_at) AS integer)"
        if name == "sqlite"
        else "CAST(floor(extract(epoch FROM created_at)) AS bigint)"
    )
    begin, end = (f"{int(moment * 1000):012x}" for moment in (start, start + DAY))
    return f"""
        INSERT INTO {table}
        SELECT {seconds} - {seconds} % {step}, api_key_id, user_id, model, provider, status_code,
            count(*), count(*), sum(attempts), sum(stream),
            sum(CASE WHEN usage_source = 'estimated' THEN 1 ELSE 0 END),
            sum(prompt_tokens), sum(completion_tokens), sum(cached_tokens), sum(reasoning_tokens),
            sum(cost), sum(response_time_ms), coalesce(sum(first_token_ms), 0),
            count(first_token_ms), {_histogram("response_time_ms")}, {_histogram("first_token_ms")}
        FROM usage_stats
        WHERE id >= '{begin[:8]}-{begin[8:]}' AND id < '{end[:8]}-{end[8:]}'
        GROUP BY 1, 2, 3, 4, 5, 6
    """  # noqa: S608


def _histogram(column: str) -> str:
    edges = [-1.0, *BOUNDS, 1e12]
    return ", ".join(
        f"sum(CASE WHEN {column} >= {edges[i]} AND {column} < {edges[i + 1]} THEN 1 ELSE 0 END)"
        for i in range(HISTOGRAM)
    )


def _execute(database: Database, *statements: str) -> None:
    def work(connection: Connection) -> None:
        for statement in statements:
            # A percent sign is a parameter's for psycopg, unless nobody gives it any.
            connection.connection.cursor().execute(statement)

    database.run(work, write=True, isolated=False, limit=600)


def _vacuum(database: Database) -> None:
    def work(connection: Connection) -> None:
        connection.connection.cursor().execute("ANALYZE")

    database.run(work, write=True, isolated=False, limit=600)


def _questions() -> Iterator[Asked]:
    whole = {"since": "2025-12-01", "until": "2026-11-30"}
    for by in ("day", "model", "provider", "key", "user", "status"):
        yield _report(f"a year by {by}", by=by, **whole)
    for by in ("day,model", "model,provider", "key,model", "user,status"):
        yield _report(f"a year by {by}", by=by, **whole)
    yield _report("60 days by day and key", by="day,key", last="60d")
    yield _report("30 days by day, as asked by default")
    yield _report("90 days by model, from an hour on", by="model", since="2026-09-03T10:00")
    yield _report("24 hours by hour", by="hour")
    yield _report("30 days by hour", by="hour", last="720h")
    yield _report("7 days by hour and model", by="hour,model", last="168h")
    yield _report("a year of a key by day", by="day", key="key-007", **whole)
    yield _report("a year of an account by model", by="model", account="account-007", **whole)
    yield _report("a year of a model by key", by="key", model="model-007", **whole)
    yield _report("a year of a status by provider", by="provider", status="503", **whole)
    yield _records("the newest records", Wanted())
    yield _records("the oldest records", Wanted(), oldest_first=True)
    yield _records("records of a key", Wanted(key="key-150"))
    yield _records("records of an account", Wanted(user="account-049"))
    yield _records("records of a model", Wanted(model="model-007"))
    yield _records("failed records of a key", Wanted(key="key-150", failed=True))
    yield _records("failed records", Wanted(failed=True))
    yield _records("records that are not there", Wanted(model="model-007", status=418))
    yield _records("records of a day, half a year ago", Wanted(end=NOW - 180 * DAY))


def _report(name: str, **words: str) -> Asked:
    def work(connection: Connection) -> int:
        return len(answer(connection, ask(connection, now=NOW - 1, **words)).rows)

    return Asked(name, work)


def _records(name: str, wanted: Wanted, *, oldest_first: bool = False) -> Asked:
    def work(connection: Connection) -> int:
        found = page(connection, wanted, limit=100, oldest_first=oldest_first, attempts=True)
        return len(found.records)

    return Asked(name, work)


def _measure(database: Database, name: str) -> Iterator[Measured]:
    for asked in _questions():
        times: list[float] = []
        computed: list[float] = []
        rows = 0
        for _ in range(1 + ROUNDS):
            began, busy = time.perf_counter(), time.process_time()
            rows = database.run(asked.work, limit=120)
            times.append(time.perf_counter() - began)
            computed.append(time.process_time() - busy)
        plan = database.run(partial(_plan, asked), limit=120)
        median = statistics.median(times[1:])
        cpu = statistics.median(computed[1:])
        yield Measured(name, asked.name, rows, times[0], median, cpu, plan)


def _plan(asked: Asked, connection: Connection) -> list[str]:
    """What the database says of the query that took longest."""
    asked_for: list[tuple[float, str, Any]] = []

    def before(*given: Any) -> None:
        asked_for.append((time.perf_counter(), given[2], given[3]))

    def after(*_: Any) -> None:
        began, statement, parameters = asked_for.pop()
        asked_for.append((began - time.perf_counter(), statement, parameters))

    event.listen(connection, "before_cursor_execute", before)
    event.listen(connection, "after_cursor_execute", after)
    asked.work(connection)
    event.remove(connection, "before_cursor_execute", before)
    event.remove(connection, "after_cursor_execute", after)
    _, statement, parameters = min(asked_for, key=lambda one: one[0])
    sqlite = connection.dialect.name == "sqlite"
    explain = "EXPLAIN QUERY PLAN" if sqlite else "EXPLAIN (ANALYZE, COSTS OFF, SUMMARY OFF)"
    found = connection.exec_driver_sql(f"{explain} {statement}", parameters)
    return [f"{row[-1]:.120}" for row in found]


def _show(measured: list[Measured], console: Console) -> None:
    table = Table("database", "report", box=None, pad_edge=False)
    for name in ("rows", "first", "median of 3", "of it CPU"):
        table.add_column(name, justify="right")
    for one in measured:
        style = "red" if one.seconds > LIMIT else ""
        table.add_row(
            one.database, one.name, f"{one.rows:,}", f"{one.first * 1000:,.0f} ms",
            f"{one.seconds * 1000:,.0f} ms", f"{one.cpu * 1000:,.0f} ms", style=style,
        )  # fmt: skip
    for one in measured:
        console.print(f"\n{one.database}: {one.name}", style="bold")
        for line in one.plan:
            console.print(f"  {line}", markup=False, highlight=False)
    console.print()
    console.print(table)
