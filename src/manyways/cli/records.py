"""What the database keeps of keys and accounts: opened, found, and shown."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from manyways.cli import called
from manyways.errors import ManywaysError

if TYPE_CHECKING:
    from manyways.config import Settings
    from manyways.store.accounts import AccountRow
    from manyways.store.database import Database

STYLES: Final = {"active": "green", "expired": "yellow", "suspended": "yellow", "revoked": "red"}


@contextmanager
def opened(config: Path | None) -> Iterator[tuple[Database, Settings]]:
    """The database that the configuration names; what fails inside is told, with status 1."""
    from manyways.config import load
    from manyways.store.database import open_database

    try:
        settings = load(config)
        database = open_database(settings.database)
        try:
            yield database, settings
        finally:
            database.close()
    except ManywaysError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def account(database: Database, wanted: str, *, new: bool = False) -> AccountRow:
    """The account of this id or name. Ends with status 1 where there is none, and says which was
    perhaps meant; where a `new` one would do, how to make it."""
    from manyways.operations import get_account
    from manyways.operations.accounts import near_accounts

    found = get_account(database, wanted)
    if found is None:
        near = database.run(lambda connection: near_accounts(connection, wanted))
        words = f"There is no account {wanted!r} here. {near}".rstrip()
        if new:
            words += f"\nMake it: {called.line(f'accounts create {shlex.quote(wanted)}')}"
        typer.echo(f"{words}\nThese there are: {called.line('accounts list')}", err=True)
        raise typer.Exit(1)
    return found


def facts(document: Mapping[str, Any]) -> None:
    """A line each, one for each thing in a list; what is not so is left out."""
    known = {name.replace("_", " "): value for name, value in document.items() if value is not None}
    width = max(14, *map(len, known)) + 2
    for name, value in known.items():
        for number, line in enumerate(value if isinstance(value, list) else [value]):
            typer.echo(f"{'' if number else name:<{width}}{line}")


def lines(names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns with tabs between them."""
    typer.echo("\t".join(names))
    for row in rows:
        typer.echo("\t".join(row))


def table(
    narrow: Sequence[str], wide: Mapping[str, int], rows: Iterable[Sequence[str]], *, status: int
) -> None:
    """A table on the terminal. The `narrow` columns are copied, and stay whole; the `wide` ones,
    with their least widths, give way. Column `status` is coloured."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in narrow:
        shown.add_column(name, no_wrap=True)
    for name, width in wide.items():
        shown.add_column(name, min_width=width, overflow="fold")
    for row in rows:
        # Text, as a note in square brackets is no markup.
        shown.add_row(
            *(Text(cell, STYLES[cell] if at == status else "") for at, cell in enumerate(row))
        )
    Console().print(shown)


def width() -> int:
    """Columns of the terminal."""
    from rich.console import Console

    return Console().width


def on_terminal() -> bool:
    """Whether somebody looks at standard output."""
    return sys.stdout is not None and sys.stdout.isatty()


def iso(moment: int | None) -> str | None:
    """`2026-01-31T09:30:00Z`."""
    return None if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%FT%TZ")


def utc(moment: int | None) -> str:
    """`2026-01-31 09:30`, or `never`."""
    return "never" if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%F %R")
