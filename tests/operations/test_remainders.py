"""What is left of limits is told as it stands in the records."""

from calendar import timegm
from typing import Any

import pytest

from manyways.access.keys import KeyType, Settings
from manyways.operations import create_key, get_key, rotate_key
from manyways.operations.remainders import (
    account_scope,
    key_scope,
    limits_document,
    remainders,
    renewal,
)
from manyways.store.database import Database
from manyways.types import Allowance, Period, Quota, Scope, Usage
from tests.support.usage import NOON, fill, request

DAY = 86_400
QUOTAS = (
    Quota(requests=10, tokens=1000, per="day"),
    Quota(cost=0.3, per="month"),
    Quota(tokens=100),
)


def left(database: Database, scope: Scope) -> list[tuple[Any, ...]]:
    found = database.run(lambda connection: remainders(connection, scope, NOON))
    return [(one.unit, one.per, one.limit, one.used, one.left) for one in found]


def test_each_quota_is_told_with_what_its_period_has_used(database: Database) -> None:
    used = Usage(prompt_tokens=30, completion_tokens=10, source="upstream")
    moments = (NOON, NOON - 3600, NOON - DAY, NOON - 40 * DAY)
    fill(
        database,
        [request(at, api_key_id="k", usage=used, cost=0.1) for at in moments]
        + [request(api_key_id="other", usage=used, cost=5.0)],
    )

    scope = Scope(id="key:k", allowance=Allowance(quota=QUOTAS))
    assert left(database, scope) == [
        ("requests", "day", 10, 2, 8),
        ("tokens", "day", 1000, 80, 920),
        ("cost", "month", 0.3, 0.3, 0.0),
        ("tokens", "ever", 100, 160, 0),
    ]


def test_an_account_is_told_what_all_its_keys_have_used(database: Database) -> None:
    fill(database, [request(api_key_id=key, user_id="ada") for key in ("a", "b")])

    scope = account_scope("ada", None, Allowance(quota=(Quota(requests=3),)))
    assert left(database, scope) == [("requests", "ever", 3, 2, 1)]
    own = account_scope("ada", Allowance(quota=(Quota(requests=9),)), Allowance())
    assert left(database, own) == [("requests", "ever", 9, 2, 7)]


def test_keys_that_replaced_each_other_are_told_together(database: Database) -> None:
    settings = Settings(types={"full": KeyType(quota=(Quota(requests=5),))})
    first = create_key(database, settings, "full", now=NOON)
    second = rotate_key(database, settings, first.id, now=NOON)
    assert second is not None
    fill(database, [request(api_key_id=one.id) for one in (first, second)])

    for one in (first, second):
        row = get_key(database, one.id)
        assert row is not None
        assert left(database, key_scope(row, settings.types)) == [("requests", "ever", 5, 2, 3)]


def test_the_document_has_every_limit_with_its_numbers(database: Database) -> None:
    limits = Allowance(
        requests=5, window=60.0, tokens=9, tokens_window=3600.0, concurrent=2, quota=QUOTAS[1:]
    )
    scopes = (
        Scope(id="key:k", allowance=limits),
        Scope(id="account:a", allowance=Allowance()),
    )

    assert database.run(lambda connection: limits_document(connection, scopes, NOON)) == {
        "key": {
            "windows": [
                {"unit": "requests", "limit": 5, "window": 60.0},
                {"unit": "tokens", "limit": 9, "window": 3600.0},
            ],
            "concurrent": 2,
            "quotas": [
                {
                    "unit": "cost", "per": "month", "limit": 0.3, "used": 0.0, "left": 0.3,
                    "renews_at": "2025-12-01T00:00:00Z",
                },
                {
                    "unit": "tokens", "per": "ever", "limit": 100, "used": 0, "left": 100,
                    "renews_at": None,
                },
            ],
        }
    }  # fmt: skip


@pytest.mark.parametrize(
    ("per", "now", "begins"),
    [
        ("day", (2026, 12, 31, 23, 59, 59), (2027, 1, 1)),
        ("month", (2026, 12, 31, 23, 59, 59), (2027, 1, 1)),
        ("month", (2026, 11, 1, 0, 0, 0), (2026, 12, 1)),
        ("day", (2028, 2, 28, 12, 0, 0), (2028, 2, 29)),
        ("day", (2028, 2, 29, 12, 0, 0), (2028, 3, 1)),
    ],
)
def test_a_quota_renews_when_the_calendar_says(
    per: Period, now: tuple[int, ...], begins: tuple[int, ...]
) -> None:
    assert renewal(per, timegm(now)) == timegm((*begins, 0, 0, 0))


def test_what_is_for_ever_does_not_renew() -> None:
    assert renewal("ever", NOON) is None
