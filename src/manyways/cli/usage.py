"""`manyways usage`: what was used, by whom, and how it went."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from manyways.cli import called, output
from manyways.cli.options import AsJson, CommandGroup, Commands, ConfigFile, one_at_most
from manyways.cli.records import on_terminal, opened

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from manyways.operations.reports import Report
    from manyways.store.database import Database
    from manyways.store.records import Record, Wanted
    from manyways.store.reports import Group

LIMIT: Final = 120.0
"""Seconds that a report may take."""
ROWS: Final = 100
"""Rows of a report on a terminal; files get all of them."""
SHOWN: Final = 30
"""Records where nobody says how many."""
_PAGE: Final = 1000


class _ReportByDefault(CommandGroup):
    """`manyways usage --by model` is `manyways usage report --by model`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args.insert(0, "report")
        return super().parse_args(ctx, args)


app = Commands(
    cls=_ReportByDefault,
    help="What was used, by whom, and how it went. Without a command's name it is a report:"
    " manyways usage --by model",
)

From = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="WHEN", help="A date or a moment, UTC: 2026-11-01, 2026-11-01T14:00."
    ),
]
To = Annotated[
    str | None, typer.Option("--to", metavar="WHEN", help="Its end; of a date, the day's end.")
]
Last = Annotated[
    str | None, typer.Option("--last", metavar="SPAN", help="Instead of both: 24h, 7d, 4w.")
]
Key = Annotated[
    str | None, typer.Option("--key", metavar="KEY", help="Only this key: id or last four letters.")
]
Account = Annotated[
    str | None, typer.Option("--account", metavar="NAME", help="Only this account: name or id.")
]
Model = Annotated[str | None, typer.Option("--model", metavar="ID", help="Only this model.")]
OfProvider = Annotated[
    str | None, typer.Option("--provider", metavar="NAME", help="Only this provider.")
]
OfStatus = Annotated[
    str | None, typer.Option("--status", metavar="CODE", help="Only this status: 200, 503.")
]
AsCsv = Annotated[bool, typer.Option("--csv", help="A CSV file on standard output.")]

_OPTIONS: Final = {"group_by": "--by", "user": "--account"}


@app.command()
def report(
    *,
    by: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="day, hour, model, provider, key, user, status; or two of them: day,model.",
        ),
    ] = "day",
    since: From = None,
    until: To = None,
    last: Last = None,
    key: Key = None,
    account: Account = None,
    model: Model = None,
    provider: OfProvider = None,
    status: OfStatus = None,
    as_csv: AsCsv = False,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Add up what was used: requests, tokens, cost, and how long it took.

    Without a span: the last 30 days, by the hour the last 24 hours. On a
    terminal as a table, elsewhere as lines with tabs between the columns.
    """
    from manyways.operations import reports
    from manyways.store.reports import hurried

    one_at_most({"--csv": as_csv, "--json": json})

    def work(connection: Connection) -> tuple[Report, dict[Group, list[int]]]:
        with hurried(connection, LIMIT):
            question = reports.ask(
                connection,
                now=time.time(),
                since=since,
                until=until,
                last=last,
                by=by,
                key=key,
                account=account,
                model=model,
                provider=provider,
                status=status,
            )
            made = reports.answer(connection, question)
            pictured = on_terminal() and not as_csv and not json
            timed = question.by[0] in ("day", "hour")
            return made, reports.over_time(connection, question) if pictured and not timed else {}

    with _asked(config) as database:
        made, pictures = database.run(work, limit=LIMIT)
    if json:
        output.document(made.document())
    elif as_csv:
        _write_csv(made.columns, (row.cells().values() for row in made.rows))
    elif not made.rows:
        narrowed = any((key, account, model, provider, status))
        hint = _what_there_is(model, provider)
        typer.echo(f"{_nothing(made, narrowed=narrowed)}{hint}", err=True)
    elif on_terminal():
        from manyways.cli.usage_tables import show_report

        show_report(made, pictures, rows=ROWS)
    else:
        _write_lines(made.columns, (row.cells().values() for row in made.rows))


@app.command()
def records(
    *,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", help=f"How many; else {SHOWN}, with --csv and --jsonl all."),
    ] = None,
    since: From = None,
    until: To = None,
    last: Last = None,
    key: Key = None,
    account: Account = None,
    model: Model = None,
    provider: OfProvider = None,
    status: OfStatus = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that failed.")] = False,
    attempts: Annotated[
        bool, typer.Option("--attempts", help="With every attempt; only with --json or --jsonl.")
    ] = False,
    oldest: Annotated[bool, typer.Option("--oldest", help="The oldest first.")] = False,
    as_csv: AsCsv = False,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="A JSON document a line, as they are read.")
    ] = False,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Show single requests, the newest first.

    With --csv and --jsonl everything that is wanted is written as it is read,
    however much it is. On a terminal as a table, elsewhere as lines with tabs.
    """
    from manyways.operations import reports
    from manyways.store.records import COLUMNS

    one_at_most({"--csv": as_csv, "--jsonl": jsonl, "--json": json})
    if attempts and not (json or jsonl):
        raise typer.BadParameter(
            "only --json and --jsonl have a place for them; add one of these.",
            param_hint="--attempts",
        )
    if limit is not None and limit < 1:
        raise typer.BadParameter("must be 1 or more.", param_hint="--limit")

    with _asked(config) as database:
        wanted = database.run(
            lambda connection: reports.wanted(
                connection,
                now=time.time(),
                since=since,
                until=until,
                last=last,
                key=key,
                account=account,
                model=model,
                provider=provider,
                status=status,
                failed=failed,
            )
        )
        most = limit if limit is not None or as_csv or jsonl else SHOWN
        found = _all(database, wanted, most, oldest=oldest, attempts=attempts)
        if as_csv:
            _write_csv(COLUMNS, ([one[name] for name in COLUMNS] for one in found))
        elif jsonl:
            for one in found:
                output.write(msgspec.json.encode(one).decode() + "\n")
        elif json:
            output.document(list(found))
        elif shown := list(found):
            if on_terminal():
                from manyways.cli.usage_tables import show_records

                show_records(shown, database.run(lambda one: _names(one, shown)))
            else:
                _write_lines(COLUMNS, ([one[name] for name in COLUMNS] for one in shown))
        else:
            narrowed = failed or any((since, until, last, key, account, model, provider, status))
            words = f"No request matches.{_what_there_is(model, provider)}"
            typer.echo(words if narrowed else _no_requests(), err=True)


@contextmanager
def _asked(config: Any) -> Iterator[Database]:
    """The database; what cannot be asked of it is misuse, and names the option."""
    from manyways.operations.reports import BadQuestion

    with opened(config) as (database, _):
        try:
            yield database
        except BadQuestion as bad:
            if bad.field in ("key", "user"):
                raise  # it is only not there
            hint = _OPTIONS.get(bad.field, f"--{bad.field}")
            raise typer.BadParameter(str(bad), param_hint=hint) from None


def _all(
    database: Database, wanted: Wanted, most: int | None, *, oldest: bool, attempts: bool
) -> Iterator[Record]:
    """Records, read page by page, so that no more than a page is in memory."""
    from manyways.store.records import page

    cursor: str | None = None
    left = most
    while left is None or left > 0:
        limit = _PAGE if left is None else min(left, _PAGE)
        found, cursor = database.run(
            partial(
                page,
                wanted=wanted,
                cursor=cursor,
                limit=limit,
                oldest_first=oldest,
                attempts=attempts,
            ),
            limit=LIMIT,
        )
        yield from found
        if cursor is None:
            return
        left = None if left is None else left - len(found)


def _names(connection: Connection, shown: Sequence[Record]) -> dict[str, str]:
    """The last four characters of keys, by their ids."""
    from manyways.store.reports import key_names

    ids = sorted({one["api_key_id"] for one in shown})
    return {key: names.last4 or "" for key, names in key_names(connection, ids).items()}


def _no_requests() -> str:
    return (
        f"No request has been recorded yet. Start the gateway ({called.line('serve')}), make a key"
        f" ({called.line('keys create')}), and ask a model: {called.line('chat')}"
    )


def _what_there_is(model: str | None, provider: str | None) -> str:
    """Where names can be found; names of models and providers that are gone are no mistakes."""
    what = "model" if model is not None else "provider" if provider is not None else None
    return "" if what is None else f"\nWhat was asked: {called.line(f'usage --by {what}')}"


def _nothing(made: Report, *, narrowed: bool) -> str:
    from manyways.operations.reports import iso

    start, end = (
        iso(one)[:16].replace("T", " ") for one in (made.question.start, made.question.end)
    )
    if narrowed:
        return f"No request matches between {start} and {end} UTC."
    return f"Nothing was asked between {start} and {end} UTC.\n{_no_requests()}"


def _write_csv(names: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    from manyways.operations.sheets import as_csv

    for line in as_csv(names, rows):
        output.write(line)


def _write_lines(names: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Columns with tabs between them; what is not known is empty, and true is 1."""
    output.write("\t".join(names) + "\n")
    for row in rows:
        cells = (
            "" if one is None else str(int(one) if isinstance(one, bool) else one) for one in row
        )
        output.write("\t".join(map(_plain, cells)) + "\n")


def _plain(text: str) -> str:
    """On one line, and nothing that a terminal obeys: callers choose names and messages."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())
