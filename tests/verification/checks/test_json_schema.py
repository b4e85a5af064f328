"""JSON to a schema: one document, as the schema has it, and nothing beside it."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from manyways.verification.check import Finding
from manyways.verification.checks.json_schema import json_schema
from tests.support.asked import Asked, interview, model
from tests.verification.checks.asking import asked, distorted, honest


async def said(change: Callable[[dict[str, Any]], Any]) -> Finding:
    """Of a model that says the right document changed: a text, or another document."""

    def changed(message: dict[str, Any]) -> dict[str, Any]:
        found = change(json.loads(message["content"]))
        return {**message, "content": found if isinstance(found, str) else json.dumps(found)}

    return await asked(json_schema, distorted(changed))


def keys(document: dict[str, Any]) -> tuple[str, str, str]:
    """Those of the text, the number and the truth value."""
    text, number, truth = document
    return text, number, truth


async def test_the_schema_is_strict_and_its_keys_stand_nowhere_else() -> None:
    asker = Asked(honest)
    await json_schema(interview(model(), asker))

    (request,) = asker.requests
    form = request["response_format"]
    schema = form["json_schema"]["schema"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["strict"] is True
    assert schema["additionalProperties"] is False
    assert schema["required"] == list(schema["properties"])
    assert all(key not in str(request["messages"]) for key in schema["properties"])


async def test_keys_cannot_be_known_from_another_time() -> None:
    found = set()
    for seed in range(20):
        asker = Asked(honest)
        await json_schema(interview(model(), asker, seed=seed))
        schema = asker.requests[0]["response_format"]["json_schema"]["schema"]
        found.update(schema["properties"])

    assert len(found) == 60


async def test_white_space_and_order_do_not_matter() -> None:
    finding = await said(
        lambda document: "\n" + json.dumps(dict(reversed(document.items())), indent=4) + "\n\n"
    )

    assert finding.verdict == "passed"


async def test_a_whole_number_may_have_a_point() -> None:
    assert (await said(lambda found: {**found, keys(found)[1]: 7.0})).verdict == "passed"


async def test_json_in_a_fence_fails_because_of_the_fence() -> None:
    finding = await said(lambda found: f"```json\n{json.dumps(found)}\n```")

    assert finding.verdict == "failed"
    assert finding.reason.startswith("its JSON stands in a fence of backticks: “```json {")


async def test_words_before_the_json_fail() -> None:
    finding = await said(lambda found: f"Here you are: {json.dumps(found)}")

    assert finding.reason.startswith("its answer is no JSON: “Here you are: {")


@pytest.mark.parametrize("more", ["{}", " I hope that helps!", "\n\n{", "```"])
async def test_anything_behind_the_json_fails(more: str) -> None:
    finding = await said(lambda found: json.dumps(found) + more)

    assert finding.verdict == "failed"
    assert finding.reason.startswith("there is more behind its JSON: “")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "its answer is no JSON: nothing"),
        ('{"buyer": "A', "its answer is no JSON"),
        ("{'buyer': 'A'}", "its answer is no JSON"),
        ('{"lamps": NaN}', "its answer is no JSON"),
        ('{"a":' * 100_000, "its answer is no JSON"),
        ("9" * 10_000, "its answer is no JSON"),
        ("[]", "it does not keep to the schema: there is no object"),
        ("null", "it does not keep to the schema: there is no object"),
        ('{"buyer": "A", "lamps": 3, "paid": true}', "it does not keep to the schema: buyer_"),
    ],
)
async def test_what_is_no_such_document_fails(text: str, reason: str) -> None:
    finding = await said(lambda _: text)

    assert finding.verdict == "failed"
    assert finding.reason.startswith(reason)
    assert len(finding.reason) < 200


@pytest.mark.parametrize(
    ("at", "value", "kind"),
    [
        (0, 7, "string"),
        (0, None, "string"),
        (0, ["A"], "string"),
        (1, "7", "integer"),
        (1, 7.5, "integer"),
        (1, True, "integer"),
        (1, None, "integer"),
        (2, "true", "boolean"),
        (2, 1, "boolean"),
    ],
)
async def test_a_value_of_another_type_fails(at: int, value: Any, kind: str) -> None:
    finding = await said(lambda found: {**found, keys(found)[at]: value})

    assert finding.verdict == "failed"
    assert f" is not of type {kind} in “{{" in finding.reason


async def test_a_number_beyond_all_numbers_is_no_integer() -> None:
    finding = await said(
        lambda found: json.dumps({**found, keys(found)[1]: 0}).replace(": 0", ": 1e999")
    )

    assert " is not of type integer" in finding.reason


async def test_a_missing_key_fails() -> None:
    finding = await said(lambda found: {key: found[key] for key in keys(found)[:2]})

    assert finding.reason.startswith("it does not keep to the schema: paid_")
    assert " is missing in " in finding.reason


async def test_a_key_that_the_schema_does_not_allow_fails() -> None:
    finding = await said(lambda found: {**found, "note": "thanks"})

    assert finding.reason.startswith("it does not keep to the schema: there is a key too many")
