"""`manyways models diff` and `models incidents`: what has become of models."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from manyways.cli import output, records
from manyways.cli.models_wording import lasted, one_line
from manyways.cli.options import AsJson, ConfigFile

if TYPE_CHECKING:
    from sqlalchemy import Connection

SINCE: Final = "7d"
_SPAN: Final = re.compile(r"\d+[a-z]")
PAGE: Final = 1000
"""Rows that are read at once."""
AT_MOST: Final = 10_000
"""Rows that are shown; of more, the latest."""

Since = Annotated[
    str, typer.Option(metavar="WHEN", help="From then on: 24h, 7d, 4w, a date or a moment, UTC.")
]
OfProvider = Annotated[
    str | None, typer.Option("--provider", metavar="NAME", help="Only this provider.")
]
OfModel = Annotated[
    str | None,
    typer.Option("--model", metavar="ID", help="Only this model, by the catalog's id."),
]


def diff(
    *,
    since: Since = SINCE,
    provider: OfProvider = None,
    model: OfModel = None,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Tell what has changed: which models there are, what they can do and cost, how good they are.

    The newest is last.
    On a terminal in sentences, day by day; elsewhere as lines with tabs.
    """
    from manyways.operations.catalog_history import changes

    rows = _found(config, changes, since=since, provider=provider, model=model)[::-1]
    if json:
        output.document(rows)
    elif not rows:
        _say_nothing("Nothing has changed", since)
    elif records.on_terminal():
        _print_days(rows)
    else:
        _print_lines(rows, ("at", "provider", "model", "kind", "field", "text"))


def incidents(
    *,
    still_open: Annotated[
        bool, typer.Option("--open", help="Only those that are not over.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="Those that went on then or later: 24h, 7d, a date or a moment, UTC; else 7d, with"
            " --open all.",
        ),
    ] = None,
    provider: OfProvider = None,
    model: OfModel = None,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """List when models, or whole providers, were not to be had, and why. The newest is first.

    On a terminal as a table, elsewhere as lines with tabs between the columns.
    """
    from manyways.operations.catalog_history import listed_incidents

    def listed(connection: Connection, **wanted: Any) -> list[dict[str, Any]]:
        return listed_incidents(connection, open_only=still_open, **wanted)

    start = since or (None if still_open else SINCE)
    rows = _found(config, listed, since=start, provider=provider, model=model)
    if json:
        output.document(rows)
    elif not rows:
        _say_nothing("There is no incident that goes on" if still_open else "No incident", start)
    elif records.on_terminal():
        _print_incidents(rows, time.time())
    else:
        _print_lines(rows, ("began_at", "ended_at", "provider", "model", "key", "source", "why"))


def _found(
    config: Any,
    listed: Callable[..., list[dict[str, Any]]],
    *,
    since: str | None,
    provider: str | None,
    model: str | None,
) -> list[dict[str, Any]]:
    """The rows since then, newest first. What is no time is misuse."""
    from manyways.operations import Mistake
    from manyways.operations.catalog_history import since_when

    try:
        start = None if since is None else since_when(since, time.time())
    except Mistake as mistake:
        raise typer.BadParameter(str(mistake), param_hint="--since") from None
    rows: list[dict[str, Any]] = []
    with records.opened(config) as (database, _):
        while len(rows) < AT_MOST:
            page = database.run(
                partial(
                    listed,
                    provider=provider,
                    model=model,
                    since=start,
                    before=rows[-1]["id"] if rows else None,
                    limit=PAGE,
                )
            )
            rows += page
            if len(page) < PAGE:
                break
    return rows


def _say_nothing(what: str, since: str | None) -> None:
    if since is not None:
        looked = f"in the last {since}" if _SPAN.fullmatch(since) else f"since {since}"
        what = f"{what} {looked}. To look further back: --since 4w"
    else:
        what = f"{what}."
    typer.echo(what, err=True)


def _print_days(rows: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for number, (day, changes) in enumerate(groupby(rows, lambda row: str(row["at"])[:10])):
        if number:
            console.print()
        console.print(f"{datetime.fromisoformat(day):%Y-%m-%d %A}", style="bold")
        for row in changes:
            console.print(Text(f"  {row['at'][11:16]}  {one_line(row['text'])}"), soft_wrap=True)
    console.print("\nTimes are UTC.", style="dim")


def _print_incidents(rows: Sequence[dict[str, Any]], now: float) -> None:
    from rich.console import Console

    from manyways.cli.figures import Column, show

    def who(row: dict[str, Any]) -> str:
        name = f"{row['provider']}/{row['model']}" if row["model"] else str(row["provider"])
        return name if row["key"] is None else f"{name}, key {row['key']}"

    show(
        Console(highlight=False),
        [
            Column("Began (UTC)", [row["began_at"][:16].replace("T", " ") for row in rows], 0),
            Column("Lasted", [lasted(row["began_at"], row["ended_at"], now) for row in rows], 0),
            Column("Who", [who(row) for row in rows], 0, left=True, elastic=True),
            Column("Why", [one_line(row["why"]) for row in rows], 0, left=True, elastic=True),
            Column("Seen by", [row["source"] for row in rows], 1, left=True),
        ],
        total=False,
    )


def _print_lines(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    records.lines(
        names,
        (
            tuple("" if row[name] is None else one_line(str(row[name])) for name in names)
            for row in rows
        ),
    )
