"""`manyways accounts`: who keys belong to; made, listed, limited, suspended and resumed."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from manyways.cli import allowance, called, output, records
from manyways.cli.options import AsJson, Commands, ConfigFile
from manyways.cli.records import iso, opened, utc

if TYPE_CHECKING:
    from manyways.config import Settings
    from manyways.store.accounts import AccountRow
    from manyways.store.database import Database

app = Commands(
    no_args_is_help=True,
    help="Accounts hold the keys of a person, a team or a customer. What all keys of one may use"
    " together can be limited, and all of them stopped at once. A running server follows within a"
    " second.",
)

PAGE: Final = 1000
"""Accounts that are read at once."""

Which = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account's name or id.")]


@app.command()
def create(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Nobody else's, 200 letters at most.")
    ],
    *,
    note: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Who that is, or what for.")
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
    """Make an account.

    Without limits of its own, those that the config has for accounts hold for all
    its keys together. The keys' own hold beside them.
    """
    from manyways.operations import create_account

    limits = allowance.given(
        requests=requests,
        window=window,
        tokens=tokens,
        tokens_window=tokens_window,
        concurrent=concurrent,
        quota=quota,
        unlimited=unlimited,
    )
    with opened(config) as (database, settings):
        made = create_account(database, name=name, note=note, limits=limits, now=time.time())
        allowance.warn_of_unpriced(limits, settings)
        _print_account(database, made, settings, json=json)
        if not json:
            typer.echo(
                "\nA key for it: "
                + called.line(f"keys create --type full --account {shlex.quote(made.name)}"),
                err=True,
            )


@app.command(name="list")
def list_(*, config: ConfigFile = None, json: AsJson = False) -> None:
    """List all accounts, oldest first.

    On a terminal as a table, elsewhere as lines with tabs between the columns.
    """
    with opened(config) as (database, _):
        accounts = _every(database)
        if json:
            output.document([_document(account) for account in accounts])
        elif accounts:
            _print_list(accounts)
        else:
            typer.echo(
                f"There are no accounts in {database.name} yet. Make one:"
                f" {called.line('accounts create NAME')}",
                err=True,
            )


@app.command()
def show(account: Which, *, config: ConfigFile = None, json: AsJson = False) -> None:
    """Show everything that is kept about one account, how many keys of it work, and
    what is left of its quotas.

    What was used is counted from the records: those of the last second or two
    may still be on their way.
    """
    with opened(config) as (database, settings):
        _print_account(database, records.account(database, account), settings, json=json)


@app.command()
def suspend(
    account: Which,
    *,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Why; kept with the account.")
    ] = None,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Stop all keys of an account until it is resumed.

    Whoever uses one gets 401 account_not_active, within a second also from a
    running server. One that was suspended before keeps its first moment and
    reason.
    """
    from manyways.operations import suspend_account

    with opened(config) as (database, settings):
        before = records.account(database, account)
        after = suspend_account(database, before.id, reason=reason, now=time.time()) or before
        if not json:
            again = not before.active
            typer.echo(
                "It was suspended before; nothing changed.\n" if again else "Suspended.\n", err=True
            )
        _print_account(database, after, settings, json=json)


@app.command()
def resume(account: Which, *, config: ConfigFile = None, json: AsJson = False) -> None:
    """Let the keys of a suspended account work again, but those that ended meanwhile."""
    from manyways.operations import resume_account

    with opened(config) as (database, settings):
        before = records.account(database, account)
        after = resume_account(database, before.id, now=time.time()) or before
        if not json:
            typer.echo(
                "It was not suspended; nothing changed.\n" if before.active else "Resumed.\n",
                err=True,
            )
        _print_account(database, after, settings, json=json)


@app.command()
def limits(
    account: Which,
    *,
    requests: allowance.Requests = None,
    window: allowance.Window = None,
    tokens: allowance.Tokens = None,
    tokens_window: allowance.TokensWindow = None,
    concurrent: allowance.Concurrent = None,
    quota: allowance.Quotas = None,
    unlimited: allowance.Unlimited = False,
    usual: Annotated[
        bool, typer.Option("--usual", help="None of its own: those of the config hold again.")
    ] = False,
    config: ConfigFile = None,
    json: AsJson = False,
) -> None:
    """Limit what all keys of an account may use together.

    These take the place of all that held before: what is not named is then
    not limited. The keys' own limits hold beside them. What was used counts on.
    """
    from manyways.operations import set_account_limits

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
        found = records.account(database, account)
        changed = set_account_limits(database, found.id, own, now=time.time()) or found
        allowance.warn_of_unpriced(own, settings)
        _print_account(database, changed, settings, json=json)


def _every(database: Database) -> list[AccountRow]:
    from manyways.operations import list_accounts

    accounts: list[AccountRow] = []
    while page := list_accounts(database, after=accounts[-1].id if accounts else None, limit=PAGE):
        accounts.extend(page)
    return accounts


def _document(account: AccountRow) -> dict[str, Any]:
    return {
        "id": account.id,
        "name": account.name,
        "status": _status(account),
        "note": account.note,
        "limits": allowance.plain(account.limits),
        "created_at": iso(account.created_at),
        "suspended_at": iso(account.suspended_at),
        "suspended_reason": account.suspended_reason,
    }


def _status(account: AccountRow) -> str:
    return "active" if account.active else "suspended"


def _print_account(
    database: Database, account: AccountRow, settings: Settings, *, json: bool
) -> None:
    from manyways.operations import count_keys
    from manyways.operations.remainders import account_scope, limits_document, remainders

    now = time.time()
    document = _document(account)
    document["keys"] = count_keys(database, account=account.id, alive_at=now)
    scope = account_scope(account.id, account.limits, settings.accounts)
    if json:
        document["in_effect"] = database.run(lambda one: limits_document(one, [scope], now))
        output.document(document)
        return
    left = database.run(lambda one: remainders(one, scope, now))
    document["used"] = allowance.what_is_left(left) or None
    if account.limits is not None:
        document["limits"] = f"{allowance.words(account.limits)} (its own)"
    else:
        document["limits"] = f"{allowance.words(settings.accounts)} (of the configuration)"
    records.facts(document)


def _print_list(accounts: list[AccountRow]) -> None:
    own = [
        "the configuration's" if one.limits is None else allowance.words(one.limits)
        for one in accounts
    ]
    if records.on_terminal():
        records.table(
            (),
            {"Name": 12, "Status": 9, "Created (UTC)": 10, "Limits": 12, "Note": 6},
            (
                (one.name, _status(one), utc(one.created_at), limited, one.note or "")
                for one, limited in zip(accounts, own, strict=True)
            ),
            status=1,
        )
        return
    records.lines(
        ("id", "name", "status", "created", "limits", "note"),
        (
            (one.id, one.name, _status(one), utc(one.created_at), limited, one.note or "")
            for one, limited in zip(accounts, own, strict=True)
        ),
    )
