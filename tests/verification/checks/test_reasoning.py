"""Reasoning: thoughts are seen, or at least counted."""

import json
from typing import Any

import pytest

from manyways.errors import Refusal
from manyways.verification.checks.reasoning import reasoning
from tests.support.asked import Asked, chat, interview, model
from tests.verification.checks.asking import always, asked, told


def counted(tokens: Any) -> bytes:
    """An answer whose thoughts are kept back, and counted."""
    answer = json.loads(chat("2"))
    answer["usage"] = {
        "prompt_tokens": 30,
        "completion_tokens": 90,
        "total_tokens": 120,
        "completion_tokens_details": {"reasoning_tokens": tokens},
    }
    return json.dumps(answer).encode()


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
async def test_thoughts_may_stand_in_either_field(field: str) -> None:
    assert (await told(reasoning, "2", **{field: "Anna is a sister."})).verdict == "passed"


async def test_thoughts_may_stand_before_the_answer() -> None:
    assert (await told(reasoning, "<think>Anna is one.</think>2")).verdict == "passed"


async def test_thoughts_may_be_told_of_by_their_tokens_alone() -> None:
    finding = await asked(reasoning, always(counted(64)))

    assert finding.verdict == "passed"


@pytest.mark.parametrize("tokens", [0, None, -1, "many", [64]])
async def test_no_tokens_are_no_thoughts(tokens: Any) -> None:
    finding = await asked(reasoning, always(counted(tokens)))

    assert finding.verdict == "failed"


@pytest.mark.parametrize("thought", ["", "  \n", None, ["a"], {"text": "a"}, 5])
async def test_what_is_no_text_is_no_thought(thought: Any) -> None:
    finding = await told(reasoning, "<think>\n</think>2", reasoning_content=thought)

    assert finding.verdict == "failed"
    assert finding.reason == "no thoughts came with its answer: “2”"


async def test_a_model_that_thinks_when_it_is_told_to_passes() -> None:
    asker = Asked(
        lambda _, fields: (
            chat("2", reasoning="Anna is one.") if "reasoning_effort" in fields else chat("2")
        )
    )

    finding = await reasoning(interview(model(), asker))

    assert finding.verdict == "passed"
    assert ["reasoning_effort" in one for one in asker.requests] == [False, True]


async def test_a_model_that_will_not_be_told_to_think_fails_by_its_first_answer() -> None:
    def script(path: str, fields: dict[str, Any]) -> bytes | Refusal:
        if "reasoning_effort" in fields:
            return Refusal("invalid_request", "reasoning_effort: no such field", status=400)
        return chat("Two sisters.")

    finding = await asked(reasoning, script)

    assert finding.verdict == "failed"
    assert finding.reason == "no thoughts came with its answer: “Two sisters.”"
