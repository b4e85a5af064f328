"""What the operator's page tells of providers, and to whom."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from manyways.edge import openapi
from manyways.edge.admin import AdminPages
from manyways.edge.wording import Reason
from manyways.types import ModelEntry, Provider
from manyways.upstream.failed import Failed
from tests.edge.memory import NOON, Memory
from tests.edge.pages import ask, authenticate, edge

PATH = "/admin/v1/providers"
MODELS = (ModelEntry(id="a"), ModelEntry(id="b"))
CAPI = Provider(
    name="Capi",
    protocol="openai",
    base_url="https://me:password@capi.example/v1?key=secret",
    api_keys=("first-secret", "second-secret"),
    models=MODELS,
)
LOCAL = Provider(name="local", protocol="local", models=(ModelEntry(id="small"),))


class Operated(Memory):
    """A memory, and the page that tells it."""

    def __init__(self, *providers: Provider) -> None:
        super().__init__(*providers)
        self.failed: dict[str, Failed] = {}
        self.proxies: dict[str, str] = {}
        pages = AdminPages(
            authenticate=authenticate,
            admin_types={"admin"},
            catalog=self.catalog,
            providers=providers,
            standings=self.standings,
            label=lambda name, credential: f"{name}'s key {credential + 1}",
            failed=self.failed.get,
            proxied=lambda provider: self.proxies.get(provider.name),
            clock=self.wall,
        )
        self.edge = edge({PATH: pages.providers})

    async def rows(self, query: str = "") -> list[dict[str, Any]]:
        page = await ask(self.edge, PATH + query, key="admin")
        assert page.status == 200
        document = page.json()
        assert document["object"] == "list"
        rows: list[dict[str, Any]] = document["data"]
        return rows

    async def row(self) -> dict[str, Any]:
        return (await self.rows())[0]


@pytest.fixture
def gateway() -> Operated:
    return Operated(CAPI, LOCAL)


def states(rows: Iterable[dict[str, Any]], name: str) -> dict[str, str]:
    return {row[name]: row["state"] for row in rows}


# Who may look


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [(None, 401, "invalid_api_key"), ("full", 403, "admin_required")],
)
async def test_only_a_key_that_may_administer_opens_it(
    gateway: Operated, key: str | None, status: int, code: str
) -> None:
    page = await ask(gateway.edge, PATH, key=key)

    assert (page.status, page.code) == (status, code)
    assert b"Capi" not in page.body


async def test_nobody_keeps_a_copy_of_it(gateway: Operated) -> None:
    page = await ask(gateway.edge, PATH, key="admin")

    assert page.headers["cache-control"] == "no-store"
    assert page.headers["content-type"] == "application/json; charset=utf-8"


async def test_no_secret_is_in_it(gateway: Operated) -> None:
    page = await ask(gateway.edge, PATH, key="admin")

    assert b"secret" not in page.body
    assert b"password" not in page.body
    assert (page.json()["data"][0]["base_url"]) == "https://capi.example/v1"


# Which rows there are


async def test_what_was_never_asked_is_there_too(gateway: Operated) -> None:
    capi, local = await gateway.rows()

    assert (capi["name"], capi["protocol"], capi["state"]) == ("Capi", "openai", "not asked yet")
    assert (local["name"], local["base_url"]) == ("local", None)
    assert [one["label"] for one in capi["credentials"]] == ["Capi's key 1", "Capi's key 2"]
    assert capi["models"][1] == {
        "id": "b",
        "status": "active",
        "state": "not asked yet",
        "why": None,
        "code": None,
        "resting_since": None,
        "back_at": None,
        "due": False,
        "failures": 0,
        "failure_rate": None,
        "running": 0,
        "served": 0,
        "outcomes": {},
        "latency": {"first_token_ms": None, "first_token_p95_ms": None, "whole_ms": None},
        "limited": [],
    }


async def test_one_provider_can_be_asked_for(gateway: Operated) -> None:
    assert [row["name"] for row in await gateway.rows("?name=local")] == ["local"]


async def test_a_provider_that_is_not_there_is_told(gateway: Operated) -> None:
    page = await ask(gateway.edge, f"{PATH}?name=Nobody", key="admin")

    assert (page.status, page.code) == (404, "provider_not_found")
    assert "Capi, local" in page.json()["error"]["message"]


async def test_its_fields_are_those_that_are_described(gateway: Operated) -> None:
    gateway.fails("a", "rate_limited")
    gateway.failed["Capi"] = Failed("connect", "no", NOON)
    schemas = json.loads(openapi.document(["/v1"]))["components"]["schemas"]

    def compare(value: Any, schema: Any) -> None:
        if isinstance(value, list):
            for one in value:
                compare(one, schema["items"])
        elif value is None:
            assert "null" in schema["type"]
        elif "properties" in schema:
            assert list(value) == list(schema["properties"])
            for name, inner in schema["properties"].items():
                compare(value[name], inner)

    compare((await ask(gateway.edge, PATH, key="admin")).json(), schemas["ProviderHealth"])


# What is said of them


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("timeout", "took too long"),
        ("connect: cannot be reached", "cannot be reached"),
        ("provider_error: overloaded", "answered with an error: overloaded"),
        ("provider_error: 503 overloaded", "answered with an error: 503 overloaded"),
        ("provider_error: 502", "answered with an error (HTTP 502)"),
        (
            "credentials: 401 Incorrect API key provided",
            "does not accept the gateway's credentials or credit: 401 Incorrect API key provided",
        ),
        (
            "credentials: 401 does not accept the gateway's credentials or credit",
            "does not accept the gateway's credentials or credit (HTTP 401)",
        ),
        ("sulking: in a corner", "in a corner"),
        ("sulking", "sulking"),
    ],
)
def test_a_reason_says_its_meaning_and_the_providers_words_but_nothing_twice(
    why: str, words: str
) -> None:
    assert str(Reason.of(why)) == words


async def test_where_there_are_no_keys_none_is_spoken_of() -> None:
    models = (ModelEntry(id="a"), ModelEntry(id="b"))
    gateway = Operated(Provider(name="Open", protocol="openai", models=models))
    gateway.fails("a", "rate_limited", "slow down")
    one = await gateway.row()
    gateway.fails("b", "credentials")
    both = await gateway.row()

    assert (one["state"], one["why"]) == ("degraded", "1 of 2 models rests")
    assert one["models"][0]["why"] == "wants fewer requests: slow down"
    assert (both["state"], both["code"]) == ("resting", "credentials")
    assert both["why"] == "does not accept the gateway's credentials or credit"


# How they do


async def test_a_provider_that_has_never_told_its_models_is_not_called_well() -> None:
    gateway = Operated(Provider(name="Mute", protocol="openai"), CAPI)
    before = await gateway.row()
    await gateway.catalog.refresh()
    gateway.now += 60
    mute, capi = await gateway.rows()

    assert before["state"] == "not asked yet"
    assert (mute["state"], mute["code"]) == ("models unknown", None)
    assert mute["why"] == "does not tell its models: nobody listens there"
    assert mute["resting_since"] == "2027-01-15T08:00:00.000Z"
    assert (mute["back_at"], mute["due"]) == (None, False)
    assert capi["state"] == "not asked yet"  # the configuration lists its models


async def test_one_that_answers_is_well_and_has_figures(gateway: Operated) -> None:
    for _ in range(20):
        gateway.answers("a", took=0.5)
    capi, local = await gateway.rows()

    assert (capi["state"], local["state"]) == ("well", "not asked yet")
    assert states(capi["models"], "id") == {"a": "well", "b": "not asked yet"}
    model = capi["models"][0]
    assert (model["served"], model["failure_rate"]) == (20, 0.0)
    assert model["latency"] == {
        "first_token_ms": 500,
        "first_token_p95_ms": 500,
        "whole_ms": None,
    }
    assert capi["totals"] == {
        "models": 2, "resting": 0, "degraded": 0, "running": 0, "served": 20, "failed": 0,
    }  # fmt: skip


async def test_a_resting_model_says_why_since_when_and_until_when(gateway: Operated) -> None:
    gateway.answers("b")
    gateway.fails("a", "provider_error", "the engine is overloaded", took=1.5)
    gateway.now += 1
    capi = await gateway.row()
    model = capi["models"][0]

    assert (model["state"], model["code"]) == ("resting", "provider_error")
    assert model["why"] == "answered with an error: the engine is overloaded"
    assert model["resting_since"] == "2027-01-15T08:00:02.000Z"
    assert model["back_at"] == "2027-01-15T08:00:03.500Z"
    assert model["due"] is False
    assert (model["failures"], model["outcomes"]) == (1, {"provider_error": 1})
    assert (capi["state"], capi["why"]) == ("degraded", "1 of 2 models rests")
    assert (capi["totals"]["resting"], capi["totals"]["failed"]) == (1, 1)


async def test_behind_its_rest_it_is_due(gateway: Operated) -> None:
    gateway.fails("a", "timeout")
    gateway.now += 60
    model = (await gateway.row())["models"][0]

    assert (model["state"], model["due"]) == ("resting", True)
    assert model["back_at"] == "2027-01-15T08:01:02.000Z"


async def test_after_a_success_it_is_well_again(gateway: Operated) -> None:
    gateway.fails("a", "timeout")
    gateway.now += 600
    for _ in range(12):
        gateway.answers("a")
    row = await gateway.row()

    assert (row["state"], row["models"][0]["state"]) == ("well", "well")


async def test_one_that_fails_now_and_then_is_degraded(gateway: Operated) -> None:
    for _ in range(5):
        gateway.answers("a")
    gateway.fails("a", "provider_error")
    gateway.now += 3
    gateway.answers("a")
    row = await gateway.row()

    assert (row["state"], row["why"]) == ("degraded", "1 of 2 models is degraded")
    assert row["models"][0]["state"] == "degraded"
    assert row["models"][0]["why"].endswith("% of its latest attempts failed")


async def test_a_provider_that_cannot_be_reached_rests_with_all_its_models(
    gateway: Operated,
) -> None:
    gateway.fails("a", "connect", "cannot be reached")
    row = await gateway.row()

    assert (row["state"], row["why"]) == ("resting", "cannot be reached")
    assert states(row["models"], "id") == {"a": "resting", "b": "resting"}
    assert row["models"][1]["why"] == "the provider cannot be reached"


async def test_the_latest_failure_of_the_way_to_a_provider_is_told_in_words(
    gateway: Operated,
) -> None:
    gateway.failed["Capi"] = Failed("connect", "capi.example:443: connection refused", NOON + 1)
    gateway.failed["local"] = Failed("timeout", "connect took longer than 5 s", NOON + 2)
    gateway.proxies["Capi"] = "proxy.example:3128"
    capi, local = await gateway.rows()

    assert capi["last_failure"] == {
        "code": "connect",
        "words": "capi.example:443: connection refused",
        "at": "2027-01-15T08:00:01.000Z",
        "proxy": "proxy.example:3128",
    }
    assert local["last_failure"]["proxy"] is None
    del gateway.failed["Capi"]
    assert (await gateway.row())["last_failure"] is None


async def test_one_dead_key_of_two_degrades_and_both_rest(gateway: Operated) -> None:
    gateway.answers("a")
    gateway.fails("a", "credentials")
    one = await gateway.row()
    gateway.fails("a", "credentials", credential=1)
    both = await gateway.row()

    said = "does not accept the gateway's credentials or credit"
    assert (one["state"], one["why"]) == ("degraded", f"Capi's key 1 rests: {said}")
    assert states(one["credentials"], "label") == {
        "Capi's key 1": "resting",
        "Capi's key 2": "well",
    }
    assert one["credentials"][0]["back_at"] == "2027-01-15T08:00:17.500Z"
    assert one["models"][0]["state"] == "well"
    assert (both["state"], both["code"]) == ("resting", "credentials")
    assert both["why"] == f"Capi's key 1 rests: {said}"
    assert states(both["models"], "id") == {"a": "resting", "b": "resting"}


async def test_a_limited_rate_rests_that_key_at_that_model_alone(gateway: Operated) -> None:
    gateway.answers("a")
    gateway.answers("b")
    gateway.fails("a", "rate_limited", "slow down")
    one = await gateway.row()
    gateway.fails("a", "rate_limited", "slow down", credential=1)
    both = await gateway.row()

    assert one["models"][0]["state"] == "degraded"
    assert one["models"][0]["why"] == "Capi's key 1 rests: wants fewer requests: slow down"
    assert [row["label"] for row in one["models"][0]["limited"]] == ["Capi's key 1"]
    assert states(one["credentials"], "label")["Capi's key 1"] == "well"
    assert both["models"][0]["state"] == "resting"
    assert both["models"][1]["state"] == "well"


async def test_a_provider_all_of_whose_models_rest_rests(gateway: Operated) -> None:
    gateway.fails("a", "timeout", took=1.0)
    gateway.fails("b", "timeout", took=1.0)
    row = await gateway.row()

    assert (row["state"], row["why"]) == ("resting", "all of its 2 models rest")
    assert (row["resting_since"], row["back_at"]) == (
        "2027-01-15T08:00:02.000Z",
        "2027-01-15T08:00:02.000Z",
    )


async def test_what_callers_do_is_counted_and_not_held_against_it(gateway: Operated) -> None:
    for end in (gateway.health.refused, gateway.health.dropped):
        end(gateway.begins("a"))
    row = await gateway.row()

    assert (row["state"], row["totals"]["failed"]) == ("well", 0)
    assert row["models"][0]["outcomes"] == {"refused": 1, "cancelled": 1}
