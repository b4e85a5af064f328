"""What operators see of the catalog over HTTP."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from manyways.catalog.catalog import Catalog
from manyways.catalog.settings import Settings as CatalogSettings
from manyways.catalog.verified import Check, Live, Quality
from manyways.edge.admin_catalog import CatalogAdminPages
from manyways.edge.clerk import Clerk
from manyways.edge.exchange import Exchange
from manyways.edge.openapi import document
from manyways.errors import AttemptFailed, Refusal
from manyways.store import verifications
from manyways.store.database import Database, open_database
from manyways.types import Caller, ModelEntry, Provider
from tests.edge.pages import Page, ask, authenticate, edge
from tests.support.databases import migrated
from tests.support.verifications import (
    NOON,
    change,
    found,
    incident,
    save,
    save_checks,
)

CATALOG = "/admin/v1/catalog"
REFRESH, CHANGES = f"{CATALOG}/refresh", f"{CATALOG}/changes"
INCIDENTS, VERIFICATIONS = f"{CATALOG}/incidents", f"{CATALOG}/verifications"

PROVIDERS = (
    Provider(
        name="Capi",
        protocol="openai",
        models=(ModelEntry(id="gpt-4o"), ModelEntry(id="org/llama")),
    ),
    Provider(name="Space", protocol="openai", models=(ModelEntry(id="gpt-4o"),)),
)
GPT = {"provider": "Capi", "model": "gpt-4o"}


class Office:
    """Who has the key `admin` may do everything here. `nudges` counts how often this process was
    told to look for work."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.nudges = 0
        self.live: dict[tuple[str, str], Live] = {}
        self.clerk = Clerk(database, admit=_admit, changed=_nothing, limit=2.0)
        pages = CatalogAdminPages(
            self.clerk,
            Catalog(CatalogSettings(), PROVIDERS, _refused, clock=lambda: NOON),
            nudge=self._nudge,
            live=lambda provider, model: self.live.get((provider, model)),
            clock=lambda: NOON,
        )
        self.edge = edge(
            {
                REFRESH: {"GET": pages.runs, "POST": pages.refresh},
                CHANGES: pages.changes,
                INCIDENTS: pages.incidents,
                VERIFICATIONS: pages.verifications,
            },
            {f"{REFRESH}/{{id}}": {"GET": pages.status}},
        )

    def _nudge(self) -> None:
        self.nudges += 1

    async def ask(
        self, path: str, body: object = None, *, method: str = "GET", key: str | None = "admin"
    ) -> Page:
        return await ask(self.edge, path, key=key, method=method, body=body)

    async def told(self, path: str) -> Any:
        page = await self.ask(path)
        assert page.status == 200, page.body
        assert page.headers["cache-control"] == "no-store"
        return page.json()

    async def refused(
        self, path: str, body: object = None, *, method: str = "GET"
    ) -> tuple[int, str, str | None]:
        """Status, code and field of the error."""
        page = await self.ask(path, body, method=method)
        return page.status, page.code, page.json()["error"]["param"]

    async def refresh(self, body: object = None) -> str:
        """The id of a verification that was asked for."""
        page = await self.ask(REFRESH, body, method="POST")
        assert page.status == 202, page.body
        assert page.json()["status"] == "running"
        return str(page.json()["id"])


async def _admit(exchange: Exchange) -> Caller:
    caller = await authenticate(exchange)
    if caller.key_type != "admin":
        raise Refusal("admin_required", "No.")
    return caller


async def _nothing() -> None:
    pass


async def _refused(provider: Provider) -> bytes:
    raise AttemptFailed("connect", "nobody listens there")


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    database = open_database(migrated(tmp_path / "test.db"))
    office = Office(database)
    yield office
    office.clerk.close()
    database.close()


@pytest.mark.parametrize(("key", "status"), [(None, 401), ("full", 403)])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", REFRESH),
        ("GET", REFRESH),
        ("GET", f"{REFRESH}/one"),
        ("GET", CHANGES),
        ("GET", INCIDENTS),
        ("GET", VERIFICATIONS),
    ],
)
async def test_only_a_key_that_may_administer_opens_them(
    office: Office, method: str, path: str, key: str | None, status: int
) -> None:
    assert (await office.ask(path, method=method, key=key)).status == status
    assert office.nudges == 0


# Verifications that are asked for


@pytest.mark.parametrize(
    ("body", "scope"),
    [
        (None, {"provider": None, "model": None}),
        ({}, {"provider": None, "model": None}),
        ({"provider": "Capi", "model": None}, {"provider": "Capi", "model": None}),
        ({"model": "gpt-4o"}, {"provider": None, "model": "gpt-4o"}),
        ({"model": "Capi/gpt-4o"}, GPT),
        ({"provider": "Capi", "model": "Capi/gpt-4o"}, GPT),
        ({"model": "org/llama"}, {"provider": None, "model": "org/llama"}),
        ({"model": "Capi/org/llama"}, {"provider": "Capi", "model": "org/llama"}),
    ],
)
async def test_a_verification_is_begun_at_once_and_can_be_followed(
    office: Office, body: object, scope: dict[str, Any]
) -> None:
    page = await office.ask(REFRESH, body, method="POST")
    run = page.json()

    assert (page.status, run) == (202, {"id": run["id"], "status": "running"})
    assert office.nudges == 1
    status = await office.told(page.headers["location"])
    assert (status["id"], status["scope"]) == (run["id"], scope)


async def test_the_same_asked_for_twice_is_one_verification(office: Office) -> None:
    assert await office.refresh(GPT) == await office.refresh({"model": "Capi/gpt-4o"})
    assert len((await office.told(REFRESH))["data"]) == 1


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({"provider": "Kapi"}, (404, "provider_not_found", "provider")),
        ({"model": "gpt-5"}, (404, "model_not_found", "model")),
        ({"provider": "Space", "model": "org/llama"}, (404, "model_not_found", "model")),
        ({"provider": "Space", "model": "Capi/gpt-4o"}, (404, "model_not_found", "model")),
        ({"model": 5}, (400, "invalid_request", "model")),
        ({"model": "a\u0000b"}, (400, "invalid_request", "model")),
        ({"models": ["gpt-4o"]}, (400, "invalid_request", "models")),
        (b"all", (400, "invalid_request", None)),
    ],
)
async def test_what_there_is_not_is_not_verified(
    office: Office, body: object, refusal: tuple[int, str, str | None]
) -> None:
    assert await office.refused(REFRESH, body, method="POST") == refusal
    assert office.nudges == 0
    assert (await office.told(REFRESH))["data"] == []


async def test_a_provider_and_a_name_that_contradict_each_other_are_named(office: Office) -> None:
    asked = {"provider": "Space", "model": "Capi/gpt-4o"}
    page = await office.ask(REFRESH, asked, method="POST")
    assert page.json()["error"]["message"] == (
        "The model's name says that it is Capi's, and 'provider' says Space: leave one of them out."
    )


async def test_a_verification_tells_what_it_has_found(office: Office) -> None:
    run_id = await office.refresh()
    save(office.database, run_id, found("gpt-4o", withdrawn={"vision": "blind"}))
    status = await office.told(f"{REFRESH}/{run_id}")

    assert status["counts"]["passed"] == 1
    assert [row["withdrawn"] for row in status["results"]] == [{"vision": "blind"}]


@pytest.mark.parametrize(
    "run_id", ["01a207e2-42a9-703b-91ca-bd1a6377f0d8", "one", "caf%C3%A9", "a%00b"]
)
async def test_a_verification_that_is_not_there_is_told_so(office: Office, run_id: str) -> None:
    assert await office.refused(f"{REFRESH}/{run_id}") == (404, "not_found", None)


async def test_the_latest_verifications_are_listed(office: Office) -> None:
    for name in ("gpt-4o", "org/llama"):
        await office.refresh({"model": name})
    rows = (await office.told(f"{REFRESH}?limit=1"))["data"]

    assert len(rows) == 1
    assert "results" not in rows[0]
    for limit in ("0", "101", "many"):
        assert await office.refused(f"{REFRESH}?limit={limit}") == (400, "invalid_request", "limit")


# What was found out last


async def test_the_latest_word_on_each_model_is_listed_by_name(office: Office) -> None:
    first, second = await office.refresh(), await office.refresh(GPT)
    space = found("gpt-4o", provider="Space")
    save(office.database, first, space, found("org/llama"), found("gpt-4o", verdict="failed"))
    save(office.database, second, found("gpt-4o", latency_ms=5))
    rows = (await office.told(VERIFICATIONS))["data"]

    assert [(row["provider"], row["model"], row["verdict"]) for row in rows] == [
        ("Capi", "gpt-4o", "passed"),
        ("Capi", "org/llama", "passed"),
        ("Space", "gpt-4o", "passed"),
    ]
    assert "checks" not in rows[0]
    assert len((await office.told(f"{VERIFICATIONS}?provider=Capi"))["data"]) == 2
    assert len((await office.told(f"{VERIFICATIONS}?model=gpt-4o"))["data"]) == 2


async def test_of_one_model_every_check_is_told_and_how_it_does_now(office: Office) -> None:
    run_id = await office.refresh()
    gpt = found("gpt-4o")
    tools = Check(name="tools", verdict="failed", reason="prose", at=NOON + 2, answer="Sunny.")
    answers = Check(name="answers", verdict="passed", prompt="Say ready.", at=NOON + 1, ms=80)
    save(office.database, run_id, gpt)
    save_checks(office.database, run_id, gpt, tools, answers)
    office.live["Capi", "gpt-4o"] = Live(attempts=9, latency_ms=700, answered_at=NOON)
    (row,) = (await office.told(f"{VERIFICATIONS}?model=Capi/gpt-4o"))["data"]

    assert [one["name"] for one in row["checks"]] == ["answers", "tools"]
    assert row["checks"][1] == {
        "name": "tools",
        "verdict": "failed",
        "reason": "prose",
        "prompt": "",
        "answer": "Sunny.",
        "at": "2027-01-15T08:00:02Z",
        "ms": None,
        "first_token_ms": None,
        "tokens_per_second": None,
        "points": None,
        "reported_model": None,
        "requests": 0,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "cost_usd": 0.0,
    }
    assert (row["live"]["attempts"], row["live"]["latency_ms"]) == (9, 700)
    assert row["live"]["answered_at"] == "2027-01-15T08:00:00Z"


async def test_where_nobody_asked_it_there_are_no_live_figures(office: Office) -> None:
    save(office.database, await office.refresh(), found("gpt-4o"))
    (row,) = (await office.told(f"{VERIFICATIONS}?provider=Capi&model=gpt-4o"))["data"]

    assert (row["live"], row["checks"]) == (None, [])


# Changes and incidents


async def test_changes_are_told_newest_first_and_in_a_sentence(office: Office) -> None:
    change(office.database, "gpt-4o", at=NOON - 60, field="context_window", before=1, after=2)
    change(office.database, "org/llama", at=NOON - 30, field="capabilities", after=["tools"])
    newest, oldest = (await office.told(CHANGES))["data"]

    assert newest["model"] == "org/llama"
    text = oldest.pop("text")
    assert "gpt-4o" in text
    assert oldest == {
        "id": oldest["id"],
        "object": "catalog.change",
        "at": "2027-01-15T07:59:00Z",
        **GPT,
        "kind": "changed",
        "field": "context_window",
        "before": 1,
        "after": 2,
    }


async def test_incidents_are_told_with_what_is_known_of_their_end(office: Office) -> None:
    incident(office.database, "gpt-4o", began=NOON - 600, ended=NOON - 300, credential=1)
    incident(office.database, "", began=NOON - 60, why="connection refused")
    open_one, over = (await office.told(INCIDENTS))["data"]

    assert (open_one["model"], open_one["key"], open_one["ended_at"]) == (None, None, None)
    assert (over["model"], over["key"]) == ("gpt-4o", 2)
    assert (over["began_at"], over["ended_at"]) == (
        "2027-01-15T07:50:00Z", "2027-01-15T07:55:00Z",
    )  # fmt: skip
    assert (await office.told(f"{INCIDENTS}?open=true"))["data"] == [open_one]
    assert len((await office.told(f"{INCIDENTS}?open=false"))["data"]) == 2


@pytest.mark.parametrize("path", [CHANGES, INCIDENTS])
async def test_a_history_is_told_page_by_page(office: Office, path: str) -> None:
    for at in range(5):
        change(office.database, "gpt-4o", at=NOON - at)
        incident(office.database, "gpt-4o", began=NOON - at, ended=NOON)
    pages = [await office.told(f"{path}?limit=2")]
    while pages[-1]["has_more"]:
        cursor = pages[-1]["next_cursor"]
        pages.append(await office.told(f"{path}?limit=2&cursor={cursor}"))
    seen = [row["id"] for page in pages for row in page["data"]]

    assert [len(page["data"]) for page in pages] == [2, 2, 1]
    assert pages[-1]["next_cursor"] is None
    assert seen == sorted(set(seen), reverse=True)


@pytest.mark.parametrize("path", [CHANGES, INCIDENTS])
async def test_a_history_can_be_narrowed(office: Office, path: str) -> None:
    for provider, model, at in (
        ("Capi", "gpt-4o", NOON - 5),
        ("Space", "gpt-4o", NOON - 4),
        ("Capi", "org/llama", NOON - 7200),
        ("Gone", "gpt-3", NOON - 3),
    ):
        change(office.database, model, provider=provider, at=at)
        incident(office.database, model, provider=provider, began=at, ended=at)

    async def names(query: str) -> list[tuple[str, str]]:
        rows = (await office.told(f"{path}?{query}"))["data"]
        return [(row["provider"], row["model"]) for row in rows]

    assert await names("provider=Capi&since=1h") == [("Capi", "gpt-4o")]
    assert await names("model=gpt-4o") == [("Space", "gpt-4o"), ("Capi", "gpt-4o")]
    assert await names("model=Capi/org/llama") == [("Capi", "org/llama")]
    assert await names("since=2027-01-15T07:59:56Z") == [("Gone", "gpt-3"), ("Space", "gpt-4o")]
    assert await names("provider=Gone") == [("Gone", "gpt-3")], "it is not configured any more"


@pytest.mark.parametrize("path", [CHANGES, INCIDENTS, VERIFICATIONS])
async def test_who_was_never_heard_of_is_not_found(office: Office, path: str) -> None:
    assert await office.refused(f"{path}?provider=Kapi") == (404, "provider_not_found", "provider")
    assert await office.refused(f"{path}?model=gpt-5") == (404, "model_not_found", "model")
    assert (await office.told(f"{path}?provider=Capi&model=gpt-4o"))["data"] == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        (f"{CHANGES}?since=soon", "since"),
        (f"{INCIDENTS}?since=-7d", "since"),
        (f"{INCIDENTS}?open=maybe", "open"),
        (f"{CHANGES}?limit=0", "limit"),
        (f"{CHANGES}?cursor=%20", "cursor"),
        (f"{CHANGES}?cursor=foo", "cursor"),
        (f"{INCIDENTS}?cursor={'0' * 36}", "cursor"),
        (f"{CHANGES}?open=true", "open"),
        (f"{VERIFICATIONS}?model=a%00b", "model"),
    ],
)
async def test_what_is_wrong_is_named(office: Office, query: str, param: str) -> None:
    assert await office.refused(query) == (400, "invalid_request", param)


# Described for machines


async def test_what_is_told_has_the_fields_that_are_described(office: Office) -> None:
    described: dict[str, Any] = json.loads(document(["/v1"]))
    schemas = described["components"]["schemas"]

    def fields(name: str) -> set[str]:
        return set(schemas[name]["required"])

    run_id = await office.refresh(GPT)
    quality = Quality(score=7, low=6, high=8, version="1", at=NOON)
    gpt = found("gpt-4o", quality=quality)
    save(office.database, run_id, gpt)
    save_checks(office.database, run_id, gpt, Check(name="answers", verdict="passed"))
    office.live["Capi", "gpt-4o"] = Live()
    change(office.database, "gpt-4o")
    incident(office.database, "gpt-4o", began=NOON)
    run = await office.told(f"{REFRESH}/{run_id}")
    (row,) = (await office.told(f"{VERIFICATIONS}?provider=Capi&model=gpt-4o"))["data"]

    assert set(run) == fields("CatalogRefresh") | {"results"}
    counts = schemas["CatalogRefresh"]["properties"]["counts"]
    assert set(run["counts"]) == set(counts["required"])
    assert set(run["results"][0]) == fields("CatalogVerification")
    assert set(row) == set(schemas["CatalogVerification"]["properties"])
    assert set(row["checks"][0]) == fields("CatalogCheck")
    live = schemas["CatalogVerification"]["properties"]["live"]
    assert set(row["live"]) == set(live["required"])
    assert set((await office.told(CHANGES))["data"][0]) == fields("CatalogChange")
    assert set((await office.told(INCIDENTS))["data"][0]) == fields("CatalogIncident")


async def test_what_may_be_asked_for_is_what_is_described(office: Office) -> None:
    described: dict[str, Any] = json.loads(document(["/v1"]))
    tried = 0
    for path, operations in described["paths"].items():
        if not path.startswith(CATALOG):
            continue
        for method, told in operations.items():
            known = {one["name"] for one in told["parameters"] if one["in"] == "query"}
            page = await office.ask(f"{path.replace('{id}', 'x')}?zzz=1", method=method.upper())
            words = page.json()["error"]["message"]
            assert words.startswith("zzz: there is no such parameter"), path
            named = words.partition("these are: ")[2].removesuffix(".").split(", ")
            assert set(named) == (known or {""}), path
            tried += 1
    assert tried == 6
    wish = described["paths"][REFRESH]["post"]["requestBody"]["content"]["application/json"]
    page = await office.ask(REFRESH, {"zzz": 1}, method="POST")
    named = page.json()["error"]["message"].partition("these are: ")[2].removesuffix(".")
    assert set(named.split(", ")) == set(wish["schema"]["properties"])


async def test_a_run_that_failed_tells_its_problem(office: Office) -> None:
    run_id = await office.refresh()
    office.database.run(
        lambda one: verifications.end_run(one, run_id, problem="no budget", now=NOON)
    )
    status = await office.told(f"{REFRESH}/{run_id}")

    assert (status["status"], status["problem"]) == ("failed", "no budget")
