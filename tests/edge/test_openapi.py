"""The API's description for machines."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from manyways.edge.openapi import document
from manyways.store.database import Settings, open_database
from tests.edge.office import ACCOUNTS, KEYS, Office

ADMIN = {
    "/admin/v1/providers",
    "/admin/v1/keys",
    "/admin/v1/keys/{id}",
    "/admin/v1/keys/{id}/revoke",
    "/admin/v1/keys/{id}/rotate",
    "/admin/v1/accounts",
    "/admin/v1/accounts/{id}",
    "/admin/v1/accounts/{id}/suspend",
    "/admin/v1/accounts/{id}/resume",
    "/admin/v1/usage",
    "/admin/v1/usage/records",
}
CATALOG = {
    "/admin/v1/catalog/refresh",
    "/admin/v1/catalog/refresh/{id}",
    "/admin/v1/catalog/changes",
    "/admin/v1/catalog/incidents",
    "/admin/v1/catalog/verifications",
}


def described() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(document(["/v1", "/webhook/v1"]))
    return found


def test_every_reference_in_it_leads_somewhere() -> None:
    found = described()
    text = json.dumps(found)
    schemas = json.loads(text)["components"]["schemas"]
    references = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert references
    assert references <= set(schemas)


def test_it_tells_of_each_route_under_each_mount() -> None:
    paths = json.loads(json.dumps(described()))["paths"]
    mounted = (
        "/chat/completions",
        "/models",
        "/models/{id}",
        "/models/list",
        "/providers",
        "/usage",
    )
    for mount in ("/v1", "/webhook/v1"):
        for path in mounted:
            assert mount + path in paths
    assert {"/healthz", "/readyz", "/metrics", "/openapi.json", *ADMIN, *CATALOG} <= set(paths)


def test_what_wants_a_key_says_so() -> None:
    paths = json.loads(json.dumps(described()))["paths"]
    wanting = {
        path
        for path, operations in paths.items()
        for operation in operations.values()
        if "security" in operation
    }
    assert wanting == {
        "/v1/chat/completions",
        "/webhook/v1/chat/completions",
        "/v1/usage",
        "/webhook/v1/usage",
        *ADMIN,
        *CATALOG,
    }


def test_the_ranges_in_it_are_those_that_are_checked() -> None:
    schemas = json.loads(json.dumps(described()))["components"]["schemas"]
    temperature = schemas["ChatBody"]["properties"]["temperature"]["anyOf"][0]
    assert (temperature["minimum"], temperature["maximum"]) == (0, 2)
    assert schemas["ChatBody"]["required"] == ["messages"]


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    database = open_database(Settings(url=f"sqlite:///{tmp_path}/test.db"))
    office = Office(database)
    yield office
    office.close()
    database.close()


async def test_keys_and_accounts_have_the_fields_that_are_described(office: Office) -> None:
    schemas = json.loads(json.dumps(described()))["components"]["schemas"]

    def fields(name: str) -> set[str]:
        found: dict[str, Any] = schemas[name]
        assert set(found["required"]) == set(found["properties"])
        return set(found["properties"])

    account = await office.done("POST", ACCOUNTS, {"name": "Ann", "limits": {"concurrent": 1}})
    key = await office.done("POST", KEYS, {"type": "full", "account": "Ann"})
    page = await office.done("GET", KEYS)

    assert set(account) == fields("Account")
    assert set(key) == fields("NewKey")
    assert set(page["data"][0]) == fields("Key")
    listing = described()["paths"][KEYS]["get"]["responses"]["200"]["content"]
    assert set(page) == set(listing["application/json"]["schema"]["required"])


async def test_what_may_be_wished_for_is_what_is_described(office: Office) -> None:
    paths = described()["paths"]
    key = await office.done("POST", KEYS, {"type": "full"})
    await office.done("POST", ACCOUNTS, {"name": "Ann"})
    tried = 0
    for path in ADMIN:
        for method, told in paths[path].items():
            if method not in {"post", "patch"}:
                continue
            named = path.replace("{id}", "Ann" if "accounts" in path else key["id"])
            body = told.get("requestBody", {}).get("content", {})
            wishes = body.get("application/json", {}).get("schema", {}).get("properties", {})
            page = await office.ask(method.upper(), named, {"zzz": 1})
            words = page.json()["error"]["message"]
            assert words.startswith("zzz: there is no such field")
            known = words.partition("these are: ")[2].removesuffix(".").split(", ")
            assert set(known) == (set(wishes) or {""}), path
            tried += 1
    assert tried == 8
