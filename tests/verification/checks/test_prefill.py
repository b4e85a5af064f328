"""Prefill: an answer that has been begun is gone on with from the very letter."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from manyways.verification.check import Finding
from manyways.verification.checks.prefill import prefill
from tests.support.asked import Asked, chunks, interview, model
from tests.support.honest import honest_chat
from tests.verification.checks.asking import asked, honest


class Line(NamedTuple):
    """What is to be copied: what of it has been said, and what has not."""

    begun: str
    rest: str


async def said(change: Callable[[Line], str]) -> Finding:
    """Of a model that says something made of the line."""

    def script(path: str, fields: dict[str, Any]) -> list[bytes]:
        rest = honest_chat(fields)["content"]
        begun = fields["messages"][-1]["content"]
        return chunks(change(Line(begun, rest)))

    return await asked(prefill, script)


async def test_the_answer_stops_in_the_middle_of_a_word_and_is_asked_for_as_a_stream() -> None:
    asker = Asked(honest)
    await prefill(interview(model(), asker))

    (request,) = asker.requests
    user, begun = request["messages"]
    assert begun["role"] == "assistant"
    assert begun["content"].endswith("-")
    assert user["content"].partition(": ")[2].startswith(begun["content"])
    assert request["stream"]


async def test_who_completes_the_word_and_then_gets_lost_has_gone_on() -> None:
    finding = await said(lambda line: line.rest.split(",")[0] + ".\n\nIs that right?")

    assert finding.verdict == "passed"


async def test_a_message_of_its_own_fails() -> None:
    finding = await said(lambda line: "Sure! Here is the line: " + line.begun + line.rest)

    assert finding.verdict == "failed"
    assert finding.reason.startswith("it does not go on in the middle of ")
    assert "“Sure! Here is the line: " in finding.reason


async def test_beginning_anew_fails() -> None:
    finding = await said(lambda line: line.begun + line.rest)

    assert finding.reason.startswith("it repeats what the answer began with: “")


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.begun.split(", ")[-1] + line.rest,
        lambda line: " " + line.rest,
        lambda line: "-" + line.rest,
        lambda line: line.rest[1:],
        lambda line: line.rest.split(", ", 1)[1],
        lambda line: line.rest.upper(),
        lambda line: line.rest.split(",")[0] + "s, and so on",
    ],
    ids=["word again", "space", "hyphen", "letter lost", "word lost", "capitals", "longer word"],
)
async def test_a_joint_that_is_not_exact_fails(change: Callable[[Line], str]) -> None:
    finding = await said(change)

    assert finding.verdict == "failed"
    assert finding.reason.startswith("it does not go on in the middle of ")


async def test_silence_fails() -> None:
    finding = await said(lambda _: "")

    assert finding.reason == "it adds nothing to an answer that was begun"
