"""What is left of limits: what holds for a key and its account, with what was used of each quota.

It is counted from the records in the database. Those of the last second or two may still be on
their way there, and what requests under way have reserved is not in it.
"""

import time
from calendar import timegm
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection

from manyways.access.keys import KeyType
from manyways.access.past import beginning
from manyways.store import accounts, usage
from manyways.store.database import Database
from manyways.store.keys import KeyRow
from manyways.store.reports import dollars
from manyways.types import Allowance, Period, Quota, Scope

UNITS: Final = ("requests", "tokens", "cost")
"""What a quota can be of; `cost` is in USD."""

_NO_LIMITS: Final = Allowance()


class Remainder(Struct, frozen=True, kw_only=True):
    """One amount of one quota: `used` in its period so far, and what is `left` of `limit`.

    `renews_at` is in Unix seconds; `None` for a quota that does not renew.
    """

    unit: str
    per: Period
    limit: float
    used: float
    left: float
    renews_at: int | None


def key_scope(key: KeyRow, types: Mapping[str, KeyType]) -> Scope:
    """What holds for a key: its own limits, else its type's, else none."""
    allowance = types.get(key.type, _NO_LIMITS) if key.limits is None else key.limits
    return Scope(id=f"key:{key.line or key.id}", allowance=allowance)


def account_scope(account_id: str, own: Allowance | None, usual: Allowance) -> Scope:
    """What holds for an account: its own limits, else the `usual` ones."""
    return Scope(id=f"account:{account_id}", allowance=usual if own is None else own)


def remainders(connection: Connection, scope: Scope, now: float) -> list[Remainder]:
    """What is left of each quota of a scope at a moment, Unix seconds, in the order they stand."""
    quotas = scope.allowance.quota
    totals = {
        per: usage.totals(connection, scope.id, beginning(per, now))
        for per in {quota.per for quota in quotas}
    }
    return [
        _remainder(quota, unit, getattr(totals[quota.per], unit), now)
        for quota in quotas
        for unit in UNITS
        if getattr(quota, unit) is not None
    ]


def limits_document(
    connection: Connection, scopes: Iterable[Scope], now: float
) -> dict[str, dict[str, Any]]:
    """As JSON has them: `key` and `account`, those that limit anything."""
    return {
        scope.id.partition(":")[0]: _document(connection, scope, now)
        for scope in scopes
        if scope.allowance.limits
    }


def limits_in_effect(
    database: Database,
    key: KeyRow,
    *,
    types: Mapping[str, KeyType],
    usual: Allowance,
    now: float,
) -> dict[str, dict[str, Any]]:
    """The same for a key and its account, whose limits are the `usual` ones unless it has its
    own. Raises `StoreError`."""
    return database.run(
        lambda connection: limits_document(connection, _scopes(connection, key, types, usual), now)
    )


def limits_left(
    database: Database,
    key: KeyRow,
    *,
    types: Mapping[str, KeyType],
    usual: Allowance,
    now: float,
) -> dict[str, list[Remainder]]:
    """What is left of the quotas of a key (`key`) and of its account (`account`), as in
    `limits_in_effect`. Raises `StoreError`."""
    return database.run(
        lambda connection: {
            scope.id.partition(":")[0]: remainders(connection, scope, now)
            for scope in _scopes(connection, key, types, usual)
        }
    )


def renewal(per: Period, now: float) -> int | None:
    """When the period after that of a moment begins, Unix seconds; `None` for one without end."""
    if per == "ever":
        return None
    year, month, day, *_ = time.gmtime(now)
    if per == "month":
        year, month, day = year + month // 12, month % 12 + 1, 0
    return timegm((year, month, day + 1, 0, 0, 0))  # which knows what the 32nd of a month is


def _scopes(
    connection: Connection, key: KeyRow, types: Mapping[str, KeyType], usual: Allowance
) -> list[Scope]:
    scopes = [key_scope(key, types)]
    account = None if key.account_id is None else accounts.by_id(connection, key.account_id)
    if account is not None:
        scopes.append(account_scope(account.id, account.limits, usual))
    return scopes


def _remainder(quota: Quota, unit: str, used: float, now: float) -> Remainder:
    limit = getattr(quota, unit)
    return Remainder(
        unit=unit,
        per=quota.per,
        limit=limit,
        used=_plain(unit, used),
        left=_plain(unit, max(limit - used, 0)),
        renews_at=renewal(quota.per, now),
    )


def _plain(unit: str, amount: float) -> float:
    return dollars(amount) if unit == "cost" else int(amount)


def _document(connection: Connection, scope: Scope, now: float) -> dict[str, Any]:
    allowance = scope.allowance
    windows = (
        ("requests", allowance.requests, allowance.window),
        ("tokens", allowance.tokens, allowance.tokens_window),
    )
    return {
        "windows": [
            {"unit": unit, "limit": limit, "window": window}
            for unit, limit, window in windows
            if limit is not None
        ],
        "concurrent": allowance.concurrent,
        "quotas": [
            {
                "unit": one.unit,
                "per": one.per,
                "limit": one.limit,
                "used": one.used,
                "left": one.left,
                "renews_at": None
                if one.renews_at is None
                else datetime.fromtimestamp(one.renews_at, UTC).strftime("%FT%TZ"),
            }
            for one in remainders(connection, scope, now)
        ],
    }
