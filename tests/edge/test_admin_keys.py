"""What operators can do with keys over HTTP."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from manyways.edge.clerk import AT_MOST
from manyways.store.database import open_database
from tests.edge.office import ACCOUNTS, KEYS, Office
from tests.support.databases import migrated
from tests.support.usage import fill, request

SOMEBODY = "0198a000-0000-7000-8000-000000000000"
ROUTES = [
    ("GET", KEYS),
    ("POST", KEYS),
    ("GET", f"{KEYS}/{SOMEBODY}"),
    ("PATCH", f"{KEYS}/{SOMEBODY}"),
    ("POST", f"{KEYS}/{SOMEBODY}/revoke"),
    ("POST", f"{KEYS}/{SOMEBODY}/rotate"),
    ("GET", ACCOUNTS),
    ("POST", ACCOUNTS),
    ("GET", f"{ACCOUNTS}/{SOMEBODY}"),
    ("PATCH", f"{ACCOUNTS}/{SOMEBODY}"),
    ("POST", f"{ACCOUNTS}/{SOMEBODY}/suspend"),
    ("POST", f"{ACCOUNTS}/{SOMEBODY}/resume"),
]


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    database = open_database(migrated(tmp_path / "test.db"), busy_timeout=0.05)
    office = Office(database)
    yield office
    office.close()
    database.close()


async def ids(office: Office, query: str = "") -> list[str]:
    page = await office.done("GET", KEYS + query)
    return [row["id"] for row in page["data"]]


async def made(office: Office, **fields: object) -> Any:
    office.now += 1
    return await office.done("POST", KEYS, {"type": "full", **fields})


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_only_a_key_that_may_administer_opens_it(
    office: Office, method: str, path: str
) -> None:
    body = {"type": "admin", "name": "x"}
    stranger = await office.ask(method, path, body, key=None)
    customer = await office.ask(method, path, body, key="full")

    assert (stranger.status, stranger.code) == (401, "invalid_api_key")
    assert (customer.status, customer.code) == (403, "admin_required")
    assert await ids(office) == []


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if SOMEBODY in route[1]])
async def test_what_is_not_there_is_told(office: Office, method: str, path: str) -> None:
    assert await office.refused(method, path) == (404, "not_found", None)


# Making one


async def test_a_key_is_made_and_its_secret_shown_once(office: Office) -> None:
    page = await office.ask("POST", KEYS, {"type": "full", "note": "for  Ann"})
    key = page.json()

    assert page.status == 201
    secret = key.pop("key")
    assert await office.opens(secret) == "open"
    assert key == {
        "id": key["id"],
        "object": "key",
        "last4": secret[-4:],
        "type": "full",
        "status": "active",
        "account_id": None,
        "account": None,
        "note": "for  Ann",
        "limits": None,
        "created_at": "2027-01-15T08:00:00Z",
        "expires_at": "2027-01-16T08:00:00Z",
        "last_used_at": None,
        "revoked_at": None,
        "revoked_reason": None,
        "line": None,
        "replaced_by": None,
    }
    own = {"windows": [{"unit": "requests", "limit": 30, "window": 60.0}], "concurrent": None}
    assert await office.done("GET", f"{KEYS}/{key['id']}") == {
        **key,
        "in_effect": {"key": {**own, "quotas": []}},
    }
    assert secret.encode() not in (await office.ask("GET", KEYS)).body


async def test_a_key_can_belong_to_an_account_by_name_or_id(office: Office) -> None:
    account = await office.done("POST", ACCOUNTS, {"name": "Ann"})

    for name in ("Ann", account["id"]):
        key = await made(office, account=name)
        assert (key["account_id"], key["account"]) == (account["id"], "Ann")


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [("90s", 90), ("2d", 172800), (60, 60), ("never", None), (None, 86400)],
)
async def test_a_key_lives_as_long_as_is_said(
    office: Office, expires_in: object, seconds: int | None
) -> None:
    key = await made(office, expires_in=expires_in)
    office.now += (seconds or 10**9) - 1
    assert await office.opens(key["key"]) == "open"
    office.now += 1
    assert await office.opens(key["key"]) == ("expired_api_key" if seconds else "open")
    assert (await office.done("GET", f"{KEYS}/{key['id']}"))["status"] == (
        "expired" if seconds else "active"
    )


async def test_limits_of_its_own_take_durations_as_people_write_them(office: Office) -> None:
    limits = {
        "requests": 10,
        "window": "1m",
        "tokens": 5000,
        "tokens_window": 3600,
        "concurrent": 2,
        "quota": [{"cost": 5, "per": "month"}],
    }
    key = await made(office, limits=limits)

    assert key["limits"] == {
        "requests": 10,
        "window": 60.0,
        "tokens": 5000,
        "tokens_window": 3600.0,
        "concurrent": 2,
        "quota": [{"cost": 5.0, "per": "month"}],
    }
    again = await made(office, limits=key["limits"])
    assert again["limits"] == key["limits"]
    caller = await office.ring.authenticate(key["key"], office.now)
    assert caller.scopes[0].allowance.requests == 10


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "type"),
        ({"type": None}, "type"),
        ({"type": 5}, "type"),
        ({"type": "other"}, "type"),
        ({"type": "full", "account": "Nobody"}, "account"),
        ({"type": "full", "account": 5}, "account"),
        ({"type": "full", "note": ["x"]}, "note"),
        ({"type": "full", "note": "x" * 2000}, "note"),
        ({"type": "full", "expires_in": "soon"}, "expires_in"),
        ({"type": "full", "expires_in": 0}, "expires_in"),
        ({"type": "full", "expires_in": "9" * 400 + "d"}, "expires_in"),
        ({"type": "full", "expires_in": 10**30}, "expires_in"),
        ({"type": "full", "expires_in": True}, "expires_in"),
        ({"type": "full", "limits": "none"}, "limits"),
        ({"type": "full", "limits": {"reqests": 1}}, "limits.reqests"),
        ({"type": "full", "limits": {"requests": 1}}, "limits.window"),
        ({"type": "full", "limits": {"requests": 1, "window": "often"}}, "limits.window"),
        ({"type": "full", "limits": {"requests": 0, "window": 1}}, "limits.requests"),
        ({"type": "full", "limits": {"quota": [{"per": "day"}]}}, "limits.quota[0]"),
        ({"type": "full", "lifetime": "1d"}, "lifetime"),
        (b"[]", None),
        (b"{", None),
        (b'{"type": "full", "note": "\xff"}', None),
        (b'{"type": "full", "note": "\\ud800"}', None),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_made(
    office: Office, body: object, param: str | None
) -> None:
    assert await office.refused("POST", KEYS, body) == (400, "invalid_request", param)
    assert await ids(office) == []


async def test_an_unknown_field_is_told_what_there_is(office: Office) -> None:
    page = await office.ask("POST", KEYS, {"type": "full", "acount": "Ann"})

    assert "did you mean account?" in page.json()["error"]["message"]


async def test_a_body_that_is_far_too_large_is_refused(office: Office) -> None:
    body = {"type": "full", "note": "x" * 100_000}
    assert (await office.refused("POST", KEYS, body))[0] == 413


# Changing one


async def test_changed_limits_hold_at_once(office: Office) -> None:
    key = await made(office)
    path = f"{KEYS}/{key['id']}"
    assert await office.opens(key["key"]) == "open"

    changed = await office.done("PATCH", path, {"limits": {"requests": 7, "window": "1h"}})
    assert changed["limits"] == {"requests": 7, "window": 3600.0}
    caller = await office.ring.authenticate(key["key"], office.now)
    assert caller.scopes[0].allowance.requests == 7

    assert (await office.done("PATCH", path, {"limits": None}))["limits"] is None
    caller = await office.ring.authenticate(key["key"], office.now)
    assert caller.scopes[0].allowance.requests == 30


async def test_what_is_not_named_stays(office: Office) -> None:
    key = await made(office, note="one", limits={"concurrent": 1})
    path = f"{KEYS}/{key['id']}"

    changed = await office.done("PATCH", path, {"note": "two"})
    assert (changed["note"], changed["limits"]) == ("two", {"concurrent": 1})
    changed = await office.done("PATCH", path, {"limits": {}})
    assert (changed["note"], changed["limits"]) == ("two", {})
    assert (await office.done("PATCH", path, {"note": None}))["note"] is None
    assert (await office.done("PATCH", path))["limits"] == {}


async def test_a_change_with_a_mistake_in_it_changes_nothing(office: Office) -> None:
    key = await made(office, note="one")
    path = f"{KEYS}/{key['id']}"
    bad = {"limits": {"concurrent": 1}, "note": "x" * 2000}

    assert await office.refused("PATCH", path, bad) == (400, "invalid_request", "note")
    assert (await office.refused("PATCH", path, {"type": "admin"}))[2] == "type"
    assert (await office.done("GET", path))["limits"] is None


async def test_a_revocation_bites_at_once(office: Office) -> None:
    key = await made(office)
    assert await office.opens(key["key"]) == "open"

    revoked = await office.done("POST", f"{KEYS}/{key['id']}/revoke", {"reason": "refund"})
    assert await office.opens(key["key"]) == "revoked_api_key"
    assert (revoked["status"], revoked["revoked_reason"]) == ("revoked", "refund")
    assert revoked["revoked_at"] == "2027-01-15T08:00:01Z"
    again = await office.done("POST", f"{KEYS}/{key['id']}/revoke")
    assert again == revoked


async def test_a_key_is_replaced_by_another_while_both_work(office: Office) -> None:
    old = await made(office, note="Ann", limits={"concurrent": 3})
    page = await office.ask("POST", f"{KEYS}/{old['id']}/rotate", {"overlap": "1h"})
    new = page.json()

    assert page.status == 201
    assert (new["note"], new["limits"], new["line"]) == ("Ann", {"concurrent": 3}, old["id"])
    assert new["replaces"] == {"id": old["id"], "expires_at": "2027-01-15T09:00:01Z"}
    assert (await office.done("GET", f"{KEYS}/{old['id']}"))["replaced_by"] == new["id"]
    assert [await office.opens(one["key"]) for one in (old, new)] == ["open", "open"]
    office.now += 3600
    assert [await office.opens(one["key"]) for one in (old, new)] == ["expired_api_key", "open"]


async def test_without_overlap_the_old_key_ends_at_once(office: Office) -> None:
    old = await made(office)
    assert await office.opens(old["key"]) == "open"
    await office.done("POST", f"{KEYS}/{old['id']}/rotate", {"overlap": 0})

    assert await office.opens(old["key"]) == "expired_api_key"


async def test_a_key_that_has_ended_is_not_replaced(office: Office) -> None:
    key = await made(office)
    path = f"{KEYS}/{key['id']}"
    assert (await office.refused("POST", f"{path}/rotate", {"overlap": -1}))[2] == "overlap"
    await office.done("POST", f"{path}/revoke")

    assert await office.refused("POST", f"{path}/rotate") == (400, "invalid_request", None)


# Listing them


async def test_keys_are_listed_page_by_page_oldest_first(office: Office) -> None:
    wanted = [(await made(office))["id"] for _ in range(5)]
    found: list[str] = []
    cursor = ""
    while True:
        page = await office.done("GET", f"{KEYS}?limit=2{cursor}")
        found += [row["id"] for row in page["data"]]
        if not page["has_more"]:
            break
        cursor = f"&cursor={page['next_cursor']}"

    assert found == wanted
    assert page["next_cursor"] is None


async def test_keys_are_listed_by_account_and_by_how_they_stand(office: Office) -> None:
    await office.done("POST", ACCOUNTS, {"name": "Ann"})
    expired = (await made(office, expires_in="1s"))["id"]
    hers = (await made(office, account="Ann"))["id"]
    revoked = (await made(office, account="Ann"))["id"]
    active = (await made(office))["id"]
    await office.done("POST", f"{KEYS}/{revoked}/revoke")

    assert await ids(office, "?account=Ann") == [hers, revoked]
    assert await ids(office, "?status=active") == [hers, active]
    assert await ids(office, "?status=expired") == [expired]
    assert await ids(office, "?status=revoked") == [revoked]
    assert await ids(office, "?status=all") == await ids(office) == [expired, hers, revoked, active]
    assert await ids(office, "?status=active&account=Ann&limit=1") == [hers]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("status=dead", "status"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("cursor=%00", "cursor"),
        ("account=Nobody", "account"),
        ("account=%00", "account"),
    ],
)
async def test_a_listing_that_cannot_be_is_refused(office: Office, query: str, param: str) -> None:
    assert await office.refused("GET", f"{KEYS}?{query}") == (400, "invalid_request", param)


# When the database is away


async def test_a_database_that_is_locked_says_so_and_nothing_is_made(office: Office) -> None:
    with closing(sqlite3.connect(office.database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        page = await office.ask("POST", KEYS, {"type": "full"})
        other.execute("ROLLBACK")

    assert page.status >= 500
    assert await ids(office) == []


async def test_who_waits_too_long_is_told_to_look_before_asking_again(tmp_path: Path) -> None:
    database = open_database(migrated(tmp_path / "slow.db"), busy_timeout=3.0)
    office = Office(database, limit=0.05)
    with closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        page = await office.ask("POST", KEYS, {"type": "full"})
        other.execute("ROLLBACK")
    office.close()
    database.close()

    assert (page.status, page.code) == (503, "server_error")
    assert "look before you ask again" in page.json()["error"]["message"]
    assert int(page.headers["retry-after"]) > 0


async def test_operators_do_not_queue_without_end(tmp_path: Path) -> None:
    database = open_database(migrated(tmp_path / "slow.db"), busy_timeout=3.0)
    office = Office(database, limit=0.05)
    with closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        asking = [office.ask("POST", KEYS, {"type": "full"}) for _ in range(AT_MOST + 5)]
        pages = await asyncio.gather(*asking)
        other.execute("ROLLBACK")
    office.close()
    database.close()

    turned_away = [page for page in pages if b"wait for the database already" in page.body]
    assert len(turned_away) == 5
    assert {page.status for page in pages} == {503}


async def test_one_key_is_told_with_what_is_left_of_its_limits_and_its_accounts(
    office: Office,
) -> None:
    limits = {"quota": [{"cost": 1, "per": "month"}]}
    account = await office.done("POST", ACCOUNTS, {"name": "Ann", "limits": limits})
    key = await made(office, account="Ann", limits={"quota": {"tokens": 500}})
    mine = {"api_key_id": key["id"], "user_id": account["id"]}
    fill(office.database, [request(office.now, **mine, cost=0.1) for _ in range(3)])

    found = (await office.done("GET", f"{KEYS}/{key['id']}"))["in_effect"]
    assert found["key"]["quotas"] == [
        {
            "unit": "tokens", "per": "ever", "limit": 500, "used": 360, "left": 140,
            "renews_at": None,
        }
    ]  # fmt: skip
    assert found["account"]["quotas"] == [
        {
            "unit": "cost", "per": "month", "limit": 1.0, "used": 0.3, "left": 0.7,
            "renews_at": "2027-02-01T00:00:00Z",
        }
    ]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_a_parameter_that_is_none_is_refused_and_named(
    office: Office, method: str, path: str
) -> None:
    page = await office.ask(method, f"{path}?stauts=", {"type": "full", "name": "x"})

    assert (page.status, page.json()["error"]["param"]) == (400, "stauts")
    if (method, path) == ("GET", KEYS):
        assert "did you mean status?" in page.json()["error"]["message"]
    assert await ids(office) == []


@pytest.mark.parametrize("status", ["active", "suspended"])
async def test_no_key_in_a_state_is_left_out_of_its_pages(office: Office, status: str) -> None:
    await office.done("POST", ACCOUNTS, {"name": "Ann"})
    accounts = [None, None, "Ann", "Ann", None, "Ann"]
    made_ones = [(await made(office, account=account), account) for account in accounts]
    await office.done("POST", f"{ACCOUNTS}/Ann/suspend")
    expected = [key["id"] for key, account in made_ones if (status == "active") != bool(account)]

    first = await office.done("GET", f"{KEYS}?status={status}&limit=2")
    assert first["has_more"]
    rest = await ids(office, f"?status={status}&limit=2&cursor={first['next_cursor']}")
    assert [row["id"] for row in first["data"]] + rest == expected
