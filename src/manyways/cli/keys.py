"""`manyways keys`: make, list, show, replace, limit and revoke the keys that callers use."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from manyways.cli import allowance, called, output, records
from manyways.cli.options import AsJson, Commands, ConfigFile
from manyways.cli.records import iso, opened, utc

if TYPE_CHECKING:
    from manyways.config import Settings
    from manyways.operations import CreatedKey
    from manyways.store.database import Database
    from manyways.store.keys import KeyRow

app = Commands(
    no_args_is_help=True,
    help="Make, list, show, replace, limit and revoke the keys that callers use. A running server"
    " follows within a second.",
)

WIDE: Final = 100
"""Columns that a terminal must have for the ids, which are long, to be in the list."""
PAGE: Final = 1000
"""Keys that are read at once."""

Which = Annotated[
    str,
    typer.Argument(metavar="KEY", help="The key's id, its last four characters, or the whole key."),
]


@app.command()
def create(
    *,
    key_type: Annotated[
        str,
        typer.Option("--type", metavar="TYPE", help="test, full, admin, or one of the config's."),
    ] = "full",
    account: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The account it belongs to, by its name or id."),
    ] = None,
    note: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Whose key it is, or what for.")
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="How long it works: 12h, 30d, never. Else as long as its type's."
        ),
    ] = None,
    requests: allowance.Requests = None,
    window: allowance.Window = None,
    tokens: allowance.Tokens = None,
    tokens_window: allowance.TokensWindow = None,
    concurrent: allowance.Concurrent = None,
    quota: allowance.Quotas = None,
    unlimited: allowance.Unlimited = False,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Make a key and show it, this once.

    The key alone goes to standard output, what there is to say about it to
    standard error: KEY=$(manyways keys create) holds the key and nothing else.

    Only a fingerprint is kept. A lost key cannot be shown again: revoke it and
    make another.

    Limits of its own take the place of its type's, all of them: what is not
    named is then not limited. Its account's limits hold all the same.
    """
    from manyways.operations import create_key

    limits = allowance.given(
        requests=requests,
        window=window,
        tokens=tokens,
        tokens_window=tokens_window,
        concurrent=concurrent,
        quota=quota,
        unlimited=unlimited,
    )
    lifetime = None if expires is None else _lifetime(expires)
    with opened(config) as (database, settings):
        types = settings.keys.types
        if key_type not in types:
            raise typer.BadParameter(
                f"there is no type {key_type!r}; there are: {', '.join(types)}.",
                param_hint="--type",
            )
        create_key(
            database,
            settings.keys,
            key_type,
            note=note,
            account=None if account is None else records.account(database, account, new=True).id,
            limits=limits,
            lifetime=lifetime,
            now=time.time(),
            show=_show_as_json if json else _show_in_words,
        )
        allowance.warn_of_unpriced(limits, settings)


@app.command(name="list")
def list_(
    *,
    account: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this account's keys, by name or id.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also the keys that have expired or were revoked.")
    ] = False,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """List the keys that work, oldest first; those of suspended accounts, too.

    On a terminal as a table, elsewhere as lines with tabs between the columns.
    Of a key itself only the last four characters are kept.
    """
    now = time.time()
    with opened(config) as (database, _):
        account_id = None if account is None else records.account(database, account).id
        keys = _each(database, account_id, None if everything else now)
        if json:
            output.document([_document(key, now) for key in keys])
            return
        first = next(keys, None)
        if first is None:
            _say_there_are_none(database, account_id)
        else:
            _print_list(chain((first,), keys), now)


@app.command()
def show(key: Which, *, config: ConfigFile = None, json: AsJson = False) -> None:
    """Show everything that is kept about one key, and what is left of its quotas
    and its account's.

    What was used is counted from the records: those of the last second or two
    may still be on their way.
    """
    with opened(config) as (database, settings):
        _print_key(database, _one(database, key), settings, json=json)


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

    with opened(config) as (database, settings):
        before = _one(database, key)
        after = revoke_key(database, before.id, reason=reason, now=time.time()) or before
        if not json:
            again = before.revoked_at is not None
            typer.echo(
                "It was revoked before; nothing changed.\n" if again else "Revoked.\n", err=True
            )
        _print_key(database, after, settings, json=json)


@app.command()
def rotate(
    key: Which,
    *,
    overlap: Annotated[
        str, typer.Option(metavar="TIME", help="How long the old key goes on working; 0s: not.")
    ] = "24h",
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Make a new key in the place of an old one, and show it, this once.

    It has the old one's type, account, limits and note, and a whole lifetime
    of its type. Both work until the overlap is over, and what both use is
    counted together.

    The key alone goes to standard output, as with [bold]keys create[/bold].
    """
    from manyways.operations import rotate_key

    seconds = allowance.duration(overlap, "--overlap")
    with opened(config) as (database, settings):
        rotate_key(
            database,
            settings.keys,
            _one(database, key).id,
            overlap=seconds,
            now=time.time(),
            show=_show_as_json if json else _show_in_words,
        )


@app.command()
def limits(
    key: Which,
    *,
    requests: allowance.Requests = None,
    window: allowance.Window = None,
    tokens: allowance.Tokens = None,
    tokens_window: allowance.TokensWindow = None,
    concurrent: allowance.Concurrent = None,
    quota: allowance.Quotas = None,
    unlimited: allowance.Unlimited = False,
    usual: Annotated[
        bool, typer.Option("--usual", help="None of its own: those of its type hold again.")
    ] = False,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Give a key limits of its own, in place of its type's.

    They take the place of all that held before: what is not named is then not
    limited. Its account's limits hold all the same. What was used counts on.
    """
    from manyways.operations import set_key_limits

    own = allowance.given(
        requests=requests,
        window=window,
        tokens=tokens,
        tokens_window=tokens_window,
        concurrent=concurrent,
        quota=quota,
        unlimited=unlimited,
    )
    allowance.see_that_one_is_said(own, usual=usual)
    with opened(config) as (database, settings):
        found = _one(database, key)
        changed = set_key_limits(database, found.id, own, now=time.time()) or found
        allowance.warn_of_unpriced(own, settings)
        _print_key(database, changed, settings, json=json)


def _lifetime(text: str) -> float:
    return math.inf if text.strip().lower() == "never" else allowance.duration(text, "--expires")


def _show_as_json(made: CreatedKey) -> None:
    content = {
        "id": made.id,
        "key": made.key,
        "type": made.type,
        "last4": made.last4,
        "account": made.account,
        "note": made.note,
        "limits": allowance.plain(made.limits),
        "created_at": iso(made.created_at),
        "expires_at": iso(made.expires_at),
    }
    if made.replaces is not None:
        content["replaces"] = {"id": made.replaces, "expires_at": iso(made.replaced_until)}
    output.write(output.json(content))


def _show_in_words(made: CreatedKey) -> None:
    until = "never expires" if made.expires_at is None else f"expires {utc(made.expires_at)} UTC"
    whose = "" if made.account is None else f" for {made.account}"
    typer.echo(
        f"A key of type {made.type}{whose}, which {until}. It is shown this once:\n", err=True
    )
    output.write(f"{made.key}\n")
    typer.echo(f"\nIts id is {made.id}", err=True)
    if made.replaces is not None:
        typer.echo(
            f"The old one, {made.replaces}, works until {utc(made.replaced_until)} UTC", err=True
        )


def _each(database: Database, account_id: str | None, alive_at: float | None) -> Iterator[KeyRow]:
    """The keys, page by page: there may be very many."""
    from manyways.operations import list_keys

    after: str | None = None
    while page := list_keys(
        database, account=account_id, alive_at=alive_at, after=after, limit=PAGE
    ):
        yield from page
        after = page[-1].id


def _say_there_are_none(database: Database, account_id: str | None) -> None:
    from manyways.operations import count_keys

    ended = count_keys(database, account=account_id)
    only = "" if account_id is None else f" --account {account_id}"
    if ended:
        some = "1 has" if ended == 1 else f"{ended} have"
        typer.echo(
            f"No key works now; {some} expired or been revoked:"
            f" {called.line(f'keys list --all{only}')}",
            err=True,
        )
    elif account_id is not None:
        typer.echo(
            f"The account has no keys yet. Make one:"
            f" {called.line(f'keys create --type full{only}')}",
            err=True,
        )
    else:
        typer.echo(
            f"There are no keys in {database.name} yet. Make one:"
            f" {called.line('keys create --type full')}",
            err=True,
        )


def _one(database: Database, wanted: str) -> KeyRow:
    from manyways.operations import find_keys

    found = find_keys(database, wanted)
    if len(found) == 1:
        return found[0]
    if found:
        ids = "\n".join(f"  {key.id}  {key.type}  {_whose(key)}".rstrip() for key in found)
        typer.echo(f"Several keys end in {wanted}. Name one by its id:\n{ids}", err=True)
    else:
        # The argument may be a whole secret, so it is not repeated.
        typer.echo(
            f"There is no such key in {database.name}. These are: {called.line('keys list --all')}",
            err=True,
        )
    raise typer.Exit(1)


def _document(key: KeyRow, now: float) -> dict[str, Any]:
    return {
        "id": key.id,
        "last4": key.last4,
        "type": key.type,
        "status": key.standing(now),
        "account": key.account,
        "note": key.note,
        "limits": allowance.plain(key.limits),
        "created_at": iso(key.created_at),
        "expires_at": iso(key.expires_at),
        "last_used_at": iso(key.last_used_at),
        "revoked_at": iso(key.revoked_at),
        "revoked_reason": key.revoked_reason,
        "line": key.line,
        "replaced_by": key.replaced_by,
    }


def _print_key(database: Database, key: KeyRow, settings: Settings, *, json: bool) -> None:
    from manyways.operations.remainders import limits_in_effect, limits_left

    now, types = time.time(), settings.keys.types
    document = _document(key, now)
    if json:
        document["in_effect"] = limits_in_effect(
            database, key, types=types, usual=settings.accounts, now=now
        )
        output.document(document)
        return
    if key.limits is not None:
        document["limits"] = f"{allowance.words(key.limits)} (its own)"
    elif key.type in types:
        document["limits"] = f"{allowance.words(types[key.type])} (of type {key.type})"
    left = limits_left(database, key, types=types, usual=settings.accounts, now=now)
    document["used"] = allowance.what_is_left(left.get("key", ())) or None
    document["account_used"] = allowance.what_is_left(left.get("account", ())) or None
    records.facts(document)


def _print_list(keys: Iterator[KeyRow], now: float) -> None:
    if not records.on_terminal():
        records.lines(
            ("id", "key", "type", "status", "expires", "last used", "account", "note"),
            (
                (
                    key.id,
                    f"…{key.last4}",
                    key.type,
                    key.standing(now),
                    utc(key.expires_at),
                    utc(key.last_used_at),
                    key.account or "",
                    key.note or "",
                )
                for key in keys
            ),
        )
        return
    with_ids = records.width() >= WIDE
    records.table(
        ("Key", "Type", "Status", *(["Id"] if with_ids else [])),
        {"Expires (UTC)": 10, "Whose": 6},
        (
            (
                f"…{key.last4}",
                key.type,
                key.standing(now),
                *([key.id] if with_ids else []),
                utc(key.expires_at),
                _whose(key),
            )
            for key in keys
        ),
        status=2,
    )
    if not with_ids:
        typer.echo(
            f"\nNo room for ids: they stand in a terminal of {WIDE} columns, and in --json. The"
            " last four characters name a key as well.",
            err=True,
        )


def _whose(key: KeyRow) -> str:
    return ": ".join(text for text in (key.account, key.note) if text)
