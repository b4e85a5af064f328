"""The API's description for machines."""

import json

from manyways.edge.openapi import document


def described() -> dict[str, object]:
    found: dict[str, object] = json.loads(document(["/v1", "/webhook/v1"]))
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
    for mount in ("/v1", "/webhook/v1"):
        for path in ("/chat/completions", "/models", "/models/{id}", "/models/list", "/providers"):
            assert mount + path in paths
    assert {"/healthz", "/readyz", "/metrics", "/admin/v1/providers"} <= set(paths)


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
        "/admin/v1/providers",
    }


def test_the_ranges_in_it_are_those_that_are_checked() -> None:
    schemas = json.loads(json.dumps(described()))["components"]["schemas"]
    temperature = schemas["ChatBody"]["properties"]["temperature"]["anyOf"][0]
    assert (temperature["minimum"], temperature["maximum"]) == (0, 2)
    assert schemas["ChatBody"]["required"] == ["messages"]
