"""`manyways keys`: make, list, show and revoke the keys that callers use."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manyways.cli import output
from manyways.cli.options import AsJson, ConfigFile
from manyways.errors import ManywaysError

if TYPE_CHECKING:
    from manyways.config import Settings
    from manyways.operations import CreatedKey
    from manyways.store.database import Database
    from manyways.store.keys import KeyRow

app = typer.Typer(
    no_args_is_help=True,
    help="Make, list, show and revoke the keys that callers use. A running server follows within"
    " a second.",
)

Which = Annotated[
    str,
    typer.Argument(metavar="KEY", help="The key's id, its last four characters, or the whole key."),
]

STYLES = {"active": "green", "expired": "yellow", "revoked": "red"}


@app.command()
def create(
    *,
    key_type: Annotated[
        str,
        typer.Option("--type", metavar="TYPE", help="test, full, admin, or one of the config's."),
    ] = "full",
    note: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Whose key it is, or what for.")
    ] = None,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Make a key and show it, this once.

    The key alone goes to standard output, what there is to say about it to
    standard error: KEY=$(manyways keys create) holds the key and nothing else.

    Only a fingerprint is kept. A lost key cannot be shown again: revoke it and
    make another.
    """
    from manyways.operations import create_key

    with _database(config) as (database, settings):
        types = settings.keys.types
        if key_type not in types:
            raise typer.BadParameter(
                f"there is no type {key_type!r}; there are: {', '.join(types)}.",
                param_hint="--type",
            )
        # Shown before it is kept: one that could not be shown would be nobody's.
        create_key(
            database,
            settings.keys,
            key_type,
            note=note,
            now=time.time(),
            show=_show_as_json if json else _show_in_words,
        )


def _show_as_json(made: CreatedKey) -> None:
    content = {
        "id": made.id,
        "key": made.key,
        "type": made.type,
        "last4": made.last4,
        "note": made.note,
        "created_at": _iso(made.created_at),
        "expires_at": _iso(made.expires_at),
    }
    output.write(output.json(content))


def _show_in_words(made: CreatedKey) -> None:
    until = "never expires" if made.expires_at is None else f"expires {_utc(made.expires_at)} UTC"
    typer.echo(f"A key of type {made.type}, which {until}. It is shown this once:\n", err=True)
    output.write(f"{made.key}\n")
    typer.echo(f"\nIts id is {made.id}", err=True)


@app.command(name="list")
def list_(
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Also the keys that have expired or were revoked.")
    ] = False,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """List the keys that work, oldest first.

    On a terminal as a table, elsewhere as lines with tabs between the columns.
    Of a key itself only the last four characters are kept.
    """
    from manyways.operations import list_keys

    now = time.time()
    with _database(config) as (database, _):
        keys = list_keys(database, alive_at=None if everything else now)
        ended = 0 if keys or everything else len(list_keys(database))
    if json:
        output.document([_document(key, now) for key in keys])
    elif keys:
        _print_table(keys, now)
    elif ended:
        some = "1 has" if ended == 1 else f"{ended} have"
        typer.echo(
            f"No key works now; {some} expired or been revoked: manyways keys list --all", err=True
        )
    else:
        typer.echo(
            f"There are no keys in {database.path} yet. Make one: manyways keys create --type full",
            err=True,
        )


@app.command()
def show(key: Which, *, config: ConfigFile = None, json: AsJson = False) -> None:
    """Show everything that is kept about one key."""
    now = time.time()
    with _database(config) as (database, _):
        found = _one(database, key)
    _print_key(found, now, json=json)


@app.command()
def revoke(
    key: Which,
    *,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Why; kept with the key.")
    ] = None,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """End a key for good.

    Whoever uses it gets 403 from then on, within a second also from a running
    server. A key that was revoked before keeps its first moment and reason.
    """
    from manyways.operations import revoke_key

    now = time.time()
    with _database(config) as (database, _):
        before = _one(database, key)
        after = revoke_key(database, before.id, reason=reason, now=now) or before
    if not json:
        again = before.revoked_at is not None
        typer.echo("It was revoked before; nothing changed.\n" if again else "Revoked.\n", err=True)
    _print_key(after, now, json=json)


@contextmanager
def _database(config: Path | None) -> Iterator[tuple[Database, Settings]]:
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


def _one(database: Database, wanted: str) -> KeyRow:
    from manyways.operations import find_keys

    found = find_keys(database, wanted)
    if len(found) == 1:
        return found[0]
    if found:
        ids = "\n".join(f"  {key.id}  {key.type}  {key.note or ''}".rstrip() for key in found)
        typer.echo(f"Several keys end in {wanted}. Name one by its id:\n{ids}", err=True)
    else:
        # The argument may be a whole secret, so it is not repeated.
        typer.echo(
            f"There is no such key in {database.path}. These are: manyways keys list --all",
            err=True,
        )
    raise typer.Exit(1)


def _document(key: KeyRow, now: float) -> dict[str, str | None]:
    return {
        "id": key.id,
        "last4": key.last4,
        "type": key.type,
        "status": key.standing(now),
        "note": key.note,
        "created_at": _iso(key.created_at),
        "expires_at": _iso(key.expires_at),
        "revoked_at": _iso(key.revoked_at),
        "revoked_reason": key.revoked_reason,
    }


def _print_key(key: KeyRow, now: float, *, json: bool) -> None:
    document = _document(key, now)
    if json:
        output.document(document)
        return
    for name, value in document.items():
        if value is not None:
            typer.echo(f"{name.replace('_', ' '):<15} {value}")


def _print_table(keys: Sequence[KeyRow], now: float) -> None:
    rows = [
        (key.id, f"…{key.last4}", key.type, key.standing(now), _utc(key.expires_at), key.note or "")
        for key in keys
    ]
    if not sys.stdout.isatty():
        typer.echo("id\tkey\ttype\tstatus\texpires\tnote")
        for row in rows:
            typer.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("Id", "Key", "Type", "Status"):
        table.add_column(name, no_wrap=True)  # these are copied: the others give way
    table.add_column("Expires (UTC)", min_width=10)
    table.add_column("Note", min_width=6, overflow="fold")
    for *names, status, expires, note in rows:
        # Text, as a note in square brackets is no markup.
        table.add_row(*map(Text, names), Text(status, STYLES[status]), expires, Text(note))
    Console().print(table)


def _iso(moment: int | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%FT%TZ")


def _utc(moment: int | None) -> str:
    return "never" if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%F %R")
