"""Usage over HTTP: one's own, and everybody's for operators."""

import asyncio
import contextlib
import csv
import io
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from manyways.access.keys import Settings as KeySettings
from manyways.edge.exchange import Exchange
from manyways.edge.http import Edge
from manyways.edge.usage import OWN, UsagePages
from manyways.errors import Refusal
from manyways.operations import create_account, create_key, rotate_key
from manyways.operations.desk import WAITING, Desk
from manyways.store.database import Database, open_database
from manyways.store.records import COLUMNS
from manyways.types import Allowance, Caller, Quota, Scope
from tests.edge.pages import Page, ask, authenticate, edge
from tests.support.databases import migrated
from tests.support.usage import NOON, fill, refusal, request, some

OWN_PATH, REPORT, RECORDS = "/v1/usage", "/admin/v1/usage", "/admin/v1/usage/records"


async def admit(exchange: Exchange) -> Caller:
    caller = await authenticate(exchange)
    if caller.key_type != "admin":
        raise Refusal("admin_required", "This needs another key.")
    return caller


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(migrated(tmp_path / "usage.db"))
    yield database
    database.close()


@pytest.fixture
def desk(database: Database) -> Iterator[Desk]:
    desk = Desk(database)
    yield desk
    desk.close()


@pytest.fixture
def callers(database: Database) -> Iterator[Desk]:
    desk = Desk(database, at_once=1, waiting=3, each=2)
    yield desk
    desk.close()


@pytest.fixture
def gateway(desk: Desk, callers: Desk) -> Edge:
    pages = UsagePages(
        desk, callers=callers, authenticate=authenticate, admit=admit, clock=lambda: NOON
    )
    return edge({OWN_PATH: pages.own, REPORT: pages.report, RECORDS: pages.records})


async def told(gateway: Edge, target: str, key: str = "admin") -> Any:
    page = await ask(gateway, target, key=key)
    assert page.status == 200, page.body
    assert page.headers["cache-control"] == "no-store"
    return page.json()


async def sheet(gateway: Edge, target: str) -> tuple[Page, list[dict[str, str]]]:
    page = await ask(gateway, target, key="admin", headers={"accept": "text/csv"})
    assert page.headers["content-type"] == "text/csv; charset=utf-8"
    return page, list(csv.DictReader(io.StringIO(page.body.decode())))


async def test_a_caller_sees_its_own_key_and_nothing_else(
    gateway: Edge, database: Database
) -> None:
    fill(
        database,
        [request(api_key_id="full"), request(api_key_id="other")],
        [refusal(api_key_id="full", count=3), refusal(api_key_id="other")],
    )
    page = await told(gateway, OWN_PATH, key="full")

    assert page["key"] == {"id": "full", "last4": "full", "type": "full", "line": "full"}
    assert page["limits"] == {}
    assert page["totals"]["requests"] == 1
    assert page["totals"]["refused"] == 3
    assert [row["day"] for row in page["data"]] == ["2025-11-25"]


async def test_a_caller_sees_what_all_keys_of_its_line_used_and_what_is_left(
    desk: Desk, database: Database
) -> None:
    old = create_key(database, KeySettings(), "full", now=NOON - 60)
    new = rotate_key(database, KeySettings(), old.id, now=NOON - 30)
    assert new is not None
    keys = [new.id, old.id, old.id, "other"]
    fill(database, [request(api_key_id=key, cost=0.1) for key in keys])
    line = Scope(id=f"key:{old.id}", allowance=Allowance(quota=(Quota(cost=1.0, per="day"),)))

    async def replaced(exchange: Exchange) -> Caller:
        return Caller(key_id=new.id, key_type="full", last4=new.last4, line=old.id, scopes=(line,))

    pages = UsagePages(desk, callers=desk, authenticate=replaced, admit=admit, clock=lambda: NOON)
    page = await told(edge({OWN_PATH: pages.own}), OWN_PATH)

    assert (page["key"]["id"], page["key"]["line"]) == (new.id, old.id)
    assert (page["totals"]["requests"], page["totals"]["cost"]) == (3, 0.3)
    assert page["limits"]["key"]["quotas"] == [
        {
            "unit": "cost", "per": "day", "limit": 1.0, "used": 0.3, "left": 0.7,
            "renews_at": "2025-11-26T00:00:00Z",
        }
    ]  # fmt: skip


@pytest.mark.parametrize("path", [OWN_PATH, REPORT, RECORDS])
async def test_a_parameter_that_is_none_is_refused_and_named(gateway: Edge, path: str) -> None:
    page = await ask(gateway, f"{path}?form=2025-11-01", key="admin")

    assert (page.status, page.json()["error"]["param"]) == (400, "form")
    assert "did you mean from?" in page.json()["error"]["message"]


async def test_the_latest_records_can_be_had(gateway: Edge, database: Database) -> None:
    fill(database, [request(NOON - 10), request(NOON - 4000)])

    assert len((await told(gateway, f"{RECORDS}?last=1h"))["data"]) == 1


async def test_a_cost_has_no_noise_of_sums(gateway: Edge, database: Database) -> None:
    fill(database, [request(cost=0.1 + 0.2 - 0.2)])

    assert (await told(gateway, RECORDS))["data"][0]["cost"] == 0.1


@pytest.mark.parametrize("by", OWN)
async def test_a_caller_may_group_its_usage(gateway: Edge, database: Database, by: str) -> None:
    fill(database, [request(api_key_id="full")])
    page = await told(gateway, f"{OWN_PATH}?group_by={by}&last=3d", key="full")

    assert page["group_by"] == [by]
    assert page["data"][0]["total_tokens"] == 120


@pytest.mark.parametrize("by", ["key", "user", "provider", "day,model"])
async def test_a_caller_may_not_group_by_more(gateway: Edge, by: str) -> None:
    page = await ask(gateway, f"{OWN_PATH}?group_by={by}", key="full")

    assert (page.status, page.json()["error"]["param"]) == (400, "group_by")


@pytest.mark.parametrize("path", [REPORT, RECORDS])
async def test_operators_alone_see_everything(gateway: Edge, path: str) -> None:
    assert (await ask(gateway, path)).status == 401
    assert (await ask(gateway, path, key="full")).code == "admin_required"
    assert (await ask(gateway, path, key="admin")).status == 200


async def test_a_report_is_filtered_and_grouped(gateway: Edge, database: Database) -> None:
    account = create_account(database, name="Ada", now=NOON)
    key = create_key(database, KeySettings(), "full", account="Ada", now=NOON)
    mine = [request(api_key_id=key.id, user_id=account.id, model=model) for model in ("a", "b")]
    fill(database, [*mine, *some(50)])
    page = await told(gateway, f"{REPORT}?user=Ada&key={key.last4}&group_by=model,day&model=a")

    assert page["object"] == "usage_report"
    assert (page["from"], page["to"]) == ("2025-10-27T00:00:00Z", "2025-11-25T13:00:00Z")
    assert page["group_by"] == ["day", "model"]
    (row,) = page["data"]
    assert (row["day"], row["model"], row["requests"]) == ("2025-11-25", "a", 1)
    assert row["response_ms"] == {"mean": 1000.0, "p50": 1000.0, "p95": 1000.0, "p99": 1000.0}


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("group_by=colour", "group_by"),
        ("from=yesterday", "from"),
        ("to=never", "to"),
        ("last=soon", "last"),
        ("key=nobody", "key"),
        ("user=nobody", "user"),
        ("status=ok", "status"),
        ("model=%00", "model"),
    ],
)
async def test_a_report_that_cannot_be_made_names_the_field(
    gateway: Edge, query: str, param: str
) -> None:
    page = await ask(gateway, f"{REPORT}?{query}", key="admin")

    assert (page.status, page.code) == (400, "invalid_request")
    assert page.json()["error"]["param"] == param


async def test_records_come_page_by_page(gateway: Edge, database: Database) -> None:
    made = some(25)
    fill(database, made)
    found: list[str] = []
    cursor = ""
    while True:
        page = await told(gateway, f"{RECORDS}?limit=10{cursor}")
        assert page["object"] == "list"
        found += [row["id"] for row in page["data"]]
        if not page["has_more"]:
            break
        cursor = f"&cursor={page['next_cursor']}"

    assert page["next_cursor"] is None
    assert found == sorted((one.id for one in made), reverse=True)


async def test_records_are_filtered_ordered_and_told_with_their_attempts(
    gateway: Edge, database: Database
) -> None:
    made = some(60)
    fill(database, made)
    page = await told(
        gateway, f"{RECORDS}?order=oldest&failed=true&model=gpt-4o&attempts=true&from=2025-11-23"
    )
    expected = sorted(
        one.id
        for one in made
        if one.status_code >= 400 and one.model == "gpt-4o" and one.created_at > NOON - 2.5 * 86_400
    )

    assert [row["id"] for row in page["data"]] == expected
    assert [*page["data"][0]] == [*COLUMNS, "attempt_records"]
    assert page["data"][0]["attempt_records"][0]["outcome"] == "provider_error"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("cursor=%2F", "cursor"),
        ("limit=0", "limit"),
        ("limit=many", "limit"),
        ("order=random", "order"),
        ("failed=perhaps", "failed"),
        ("attempts=2", "attempts"),
        ("from=2025-11-25&to=2025-11-24", "from"),
        ("key=nobody", "key"),
    ],
)
async def test_records_that_cannot_be_had_name_the_field(
    gateway: Edge, query: str, param: str
) -> None:
    page = await ask(gateway, f"{RECORDS}?{query}", key="admin")

    assert (page.status, page.json()["error"]["param"]) == (400, param)


async def test_records_can_be_had_as_a_sheet(gateway: Edge, database: Database) -> None:
    fill(database, [request(NOON, error_message='=cmd|"x"'), request(NOON - 1)])
    page, rows = await sheet(gateway, f"{RECORDS}?limit=1")

    assert [*rows[0]] == [*COLUMNS]
    assert rows[0]["error_message"] == '\'=cmd|"x"', "a spreadsheet takes it for no formula"
    assert page.headers["x-next-cursor"] == rows[0]["id"]
    page, rows = await sheet(gateway, RECORDS)
    assert len(rows) == 2
    assert "x-next-cursor" not in page.headers


async def test_a_report_can_be_had_as_a_sheet(gateway: Edge, database: Database) -> None:
    fill(database, [request()])
    _, rows = await sheet(gateway, f"{REPORT}?group_by=key")
    assert rows[0]["key"] == "key-1"
    assert rows[0]["response_ms_p50"] == "1000.0"
    assert [*rows[0]][:5] == ["key", "last4", "note", "account", "requests"]

    page, rows = await sheet(gateway, f"{REPORT}?group_by=key&last=1h&model=none")
    assert rows == []
    assert page.body.startswith(b"key,last4,note,account,requests,")


@contextlib.asynccontextmanager
async def crowd(desk: Desk, *names: str) -> AsyncIterator[None]:
    """Questions that wait, or are worked on, for as long."""
    go_on = threading.Event()
    asked = [asyncio.ensure_future(desk.ask(lambda _: go_on.wait(10), who=one)) for one in names]
    await asyncio.sleep(0)
    try:
        yield
    finally:
        go_on.set()
        await asyncio.gather(*asked)


async def test_a_crowd_is_asked_to_come_back(gateway: Edge, desk: Desk) -> None:
    async with crowd(desk, *[""] * WAITING):
        page = await ask(gateway, REPORT, key="admin")

    assert (page.status, page.headers["retry-after"]) == (503, "5")
    assert "wait already" in page.json()["error"]["message"]


async def test_a_key_that_asks_more_at_once_than_it_may_is_told_so(
    gateway: Edge, callers: Desk
) -> None:
    async with crowd(callers, "full", "full"):
        page = await ask(gateway, OWN_PATH, key="full")
    after = await ask(gateway, OWN_PATH, key="full")

    assert (page.status, page.code, page.headers["retry-after"]) == (
        429,
        "rate_limit_exceeded",
        "1",
    )
    assert after.status == 200


async def test_operators_wait_for_no_callers(gateway: Edge, callers: Desk) -> None:
    async with crowd(callers, "a", "b", "c"):
        assert (await ask(gateway, OWN_PATH, key="full")).status == 503
        assert (await ask(gateway, REPORT, key="admin")).status == 200
        assert (await ask(gateway, RECORDS, key="admin")).status == 200
