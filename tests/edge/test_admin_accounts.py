"""What operators can do with accounts over HTTP."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from manyways.store.database import open_database
from tests.edge.office import ACCOUNTS, KEYS, Office
from tests.support.databases import migrated
from tests.support.usage import fill, request


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    database = open_database(migrated(tmp_path / "test.db"))
    office = Office(database)
    yield office
    office.close()
    database.close()


async def test_an_account_is_made_and_found_by_id_and_by_name(office: Office) -> None:
    page = await office.ask("POST", ACCOUNTS, {"name": " Ann & Co ", "note": "a customer"})
    account = page.json()

    assert page.status == 201
    assert account == {
        "id": account["id"],
        "object": "account",
        "name": "Ann & Co",
        "status": "active",
        "note": "a customer",
        "limits": None,
        "created_at": "2027-01-15T08:00:00Z",
        "suspended_at": None,
        "suspended_reason": None,
    }
    for name in (account["id"], "Ann & Co"):
        found = await office.done("GET", f"{ACCOUNTS}/{name}")
        assert found == {**account, "in_effect": {}}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"name": 5}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\u0000b"}, "name"),
        ({"name": "Taken"}, "name"),
        ({"name": "x", "note": 5}, "note"),
        ({"name": "x", "limits": {"quota": [{"cost": -1}]}}, "limits.quota[0].cost"),
        ({"name": "x", "title": "y"}, "title"),
        (b"name=x", None),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_made(
    office: Office, body: object, param: str | None
) -> None:
    await office.done("POST", ACCOUNTS, {"name": "Taken"})

    assert await office.refused("POST", ACCOUNTS, body) == (400, "invalid_request", param)
    assert len((await office.done("GET", ACCOUNTS))["data"]) == 1


async def test_limits_and_note_can_be_changed_and_taken_away(office: Office) -> None:
    account = await office.done("POST", ACCOUNTS, {"name": "Ann", "limits": {"concurrent": 5}})
    key = await office.done("POST", KEYS, {"type": "full", "account": "Ann"})
    path = f"{ACCOUNTS}/{account['id']}"

    changed = await office.done("PATCH", path, {"limits": {"tokens": 9, "tokens_window": "1d"}})
    assert changed["limits"] == {"tokens": 9, "tokens_window": 86400.0}
    caller = await office.ring.authenticate(key["key"], office.now)
    assert [one.allowance.tokens for one in caller.scopes] == [None, 9]

    changed = await office.done("PATCH", path, {"limits": None, "note": "quiet"})
    assert (changed["limits"], changed["note"]) == (None, "quiet")
    assert (await office.refused("PATCH", path, {"name": "Bob"}))[2] == "name"


async def test_a_suspension_stops_all_keys_at_once_until_it_is_lifted(office: Office) -> None:
    await office.done("POST", ACCOUNTS, {"name": "Ann"})
    key = await office.done("POST", KEYS, {"type": "full", "account": "Ann"})
    assert await office.opens(key["key"]) == "open"

    account = await office.done("POST", f"{ACCOUNTS}/Ann/suspend", {"reason": "unpaid"})
    assert await office.opens(key["key"]) == "account_not_active"
    assert (account["status"], account["suspended_reason"]) == ("suspended", "unpaid")
    assert account["suspended_at"] == "2027-01-15T08:00:00Z"

    account = await office.done("POST", f"{ACCOUNTS}/Ann/resume")
    assert await office.opens(key["key"]) == "open"
    assert (account["status"], account["suspended_at"]) == ("active", None)


async def test_accounts_are_listed_page_by_page(office: Office) -> None:
    for name in ("Ann", "Bob", "Cid"):
        office.now += 1
        await office.done("POST", ACCOUNTS, {"name": name})

    first = await office.done("GET", f"{ACCOUNTS}?limit=2")
    rest = await office.done("GET", f"{ACCOUNTS}?limit=2&cursor={first['next_cursor']}")
    assert [row["name"] for row in first["data"] + rest["data"]] == ["Ann", "Bob", "Cid"]
    assert (first["has_more"], rest["has_more"]) == (True, False)


async def test_one_account_is_told_with_what_is_left_of_its_limits(office: Office) -> None:
    quota = {"quota": {"requests": 5, "per": "day"}}
    account = await office.done("POST", ACCOUNTS, {"name": "Ann", "limits": quota})
    fill(office.database, [request(office.now, user_id=account["id"]) for _ in range(2)])

    found = await office.done("GET", f"{ACCOUNTS}/Ann")
    assert found["in_effect"]["account"]["quotas"] == [
        {
            "unit": "requests", "per": "day", "limit": 5, "used": 2, "left": 3,
            "renews_at": "2027-01-16T00:00:00Z",
        }
    ]  # fmt: skip


async def test_a_name_that_is_spelled_alike_is_told(office: Office) -> None:
    await office.done("POST", ACCOUNTS, {"name": "Ada Ltd"})
    page = await office.ask("POST", f"{ACCOUNTS}/ada%20lt/suspend")

    assert page.status == 404
    assert "Did you mean 'Ada Ltd'?" in page.json()["error"]["message"]
