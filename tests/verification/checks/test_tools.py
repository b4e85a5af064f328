"""Tools: what counts as a call that could be carried out."""

import json
from typing import Any

import pytest

from manyways.verification.checks.tools import tools
from tests.support.asked import Asked, chat, interview, model
from tests.support.honest import honest_chat
from tests.verification.checks.asking import (
    always,
    arguments,
    asked,
    called,
    distorted,
    honest,
    told,
)

NAME = "order_boxes"


async def test_the_model_is_free_to_call_or_not() -> None:
    asker = Asked(honest)
    await tools(interview(model(), asker))

    (request,) = asker.requests
    assert request["tool_choice"] == "auto"
    assert [tool["function"]["name"] for tool in request["tools"]] == [NAME]


async def test_the_prompt_holds_what_the_call_must_hold() -> None:
    asker = Asked(honest)
    finding = await tools(interview(model(), asker))

    for value in arguments(honest_chat(asker.requests[0])).values():
        assert str(value) in finding.prompt
        assert str(value) in finding.answer


async def test_prose_is_no_call() -> None:
    finding = await told(tools, 'Sure! {"name": "order_boxes", "arguments": {}}')

    assert finding.verdict == "failed"
    assert finding.reason.startswith("it answered in prose: “Sure!")


async def test_prose_beside_a_right_call_does_no_harm() -> None:
    finding = await asked(tools, distorted(lambda message: {**message, "content": "Ordering:"}))

    assert finding.verdict == "passed"


@pytest.mark.parametrize(
    "change",
    [
        lambda found: {**found, "count": float(found["count"])},
        lambda found: {**found, "place": f" {found['place'].upper()} "},
        lambda found: dict(reversed(found.items())),
    ],
    ids=["integer with a point", "capitals", "order"],
)
async def test_right_values_may_be_written_in_other_ways(change: Any) -> None:
    def script(message: dict[str, Any]) -> dict[str, Any]:
        return called({"name": NAME, "arguments": json.dumps(change(arguments(message)))})

    assert (await asked(tools, distorted(script))).verdict == "passed"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda found: {**found, "count": found["count"] + 1}, "its call has not "),
        (lambda found: {**found, "count": str(found["count"])}, "its call has not "),
        (lambda found: {**found, "count": True}, "its call has not "),
        (lambda found: {**found, "count": None}, "its call has not "),
        (lambda found: {**found, "place": "Berlin"}, "its call has not "),
        (lambda found: {**found, "place": [found["place"]]}, "its call has not "),
        (lambda found: {"count": found["count"]}, "its call lacks the argument place"),
        (lambda _: {}, "its call lacks the argument place"),
        (lambda found: {**found, "colour": "red"}, "its call has an argument that"),
        (lambda found: [found], "its call has no arguments by name"),
        (lambda _: None, "its call has no arguments by name"),
    ],
)
async def test_wrong_arguments_fail_and_it_is_said_how(change: Any, reason: str) -> None:
    def script(message: dict[str, Any]) -> dict[str, Any]:
        return called({"name": NAME, "arguments": json.dumps(change(arguments(message)))})

    finding = await asked(tools, distorted(script))

    assert finding.verdict == "failed"
    assert finding.reason.startswith(reason)
    assert "“" in finding.reason


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ({"name": "send_boxes", "arguments": "{}"}, "it calls a function that there is not"),
        ({"name": None, "arguments": "{}"}, "it calls a function that there is not: nothing"),
        ({"name": "x" * 10_000, "arguments": "{}"}, "it calls a function that there is not: “x"),
        (None, "it calls a function that there is not: nothing"),
        ("order_boxes", "it calls a function that there is not: nothing"),
        ({"name": NAME, "arguments": "{place: x}"}, "the arguments of its call are no JSON"),
        ({"name": NAME, "arguments": ""}, "the arguments of its call are no JSON: nothing"),
        ({"name": NAME, "arguments": "[" * 100_000}, "the arguments of its call are no JSON"),
        ({"name": NAME, "arguments": {"count": 3}}, "its call has no arguments as text"),
        ({"name": NAME}, "its call has no arguments as text"),
    ],
)
async def test_a_call_that_no_client_could_carry_out_fails(function: Any, reason: str) -> None:
    finding = await asked(tools, distorted(lambda _: called(function)))

    assert finding.verdict == "failed"
    assert finding.reason.startswith(reason)
    assert len(finding.reason) < 200


async def test_one_wrong_call_among_right_ones_fails() -> None:
    def twice(message: dict[str, Any]) -> dict[str, Any]:
        wrong = called({"name": "wait", "arguments": "{}"})
        return {**message, "tool_calls": message["tool_calls"] + wrong["tool_calls"]}

    finding = await asked(tools, distorted(twice))

    assert finding.reason == "it calls a function that there is not: “wait”"


async def test_a_call_of_the_time_before_tools_is_none() -> None:
    finding = await asked(
        tools, always(chat(None, function_call={"name": NAME, "arguments": "{}"}))
    )

    assert finding.reason == "it answered in prose: nothing"
