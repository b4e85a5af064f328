"""What is asked of chat models: honest ones pass, and nothing that a stranger sends does harm."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.errors import AttemptFailed, Refusal
from manyways.types import Capability
from manyways.verification.check import Step
from manyways.verification.checks.text import ANSWERS, CAPABILITIES
from manyways.verification.interview import BadAnswer
from tests.support.asked import Asked, chat, chunks, interview, model
from tests.support.honest import honest_chat
from tests.verification.checks.asking import always, asked, honest, told

PAGE = (Path(__file__).parents[3] / "docs" / "verification.md").read_text(encoding="utf-8")
STEPS = [ANSWERS, *CAPABILITIES.values()]
every_step = pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)


def test_each_capability_of_the_catalog_has_a_check_of_its_name() -> None:
    assert set(CAPABILITIES) == set(get_args(Capability))
    assert all(step.name == name for name, step in CAPABILITIES.items())


def test_each_check_has_its_row_on_the_page() -> None:
    section = PAGE.partition("## What is asked of a text model\n")[2].partition("\n## ")[0]
    table = section.partition("| check | what is asked |")[2].partition("\n\n")[0]

    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [step.name for step in STEPS]


@every_step
async def test_an_honest_model_passes_whatever_chance_asks(step: Step) -> None:
    for seed in range(50):
        finding = await asked(step.ask, honest, seed=seed)
        assert finding.verdict == "passed", (seed, finding)
        assert finding.prompt
        assert finding.answer
        assert not finding.reason


@pytest.mark.parametrize("name", sorted(set(CAPABILITIES) - {"streaming"}))
async def test_a_model_that_only_talks_has_no_capability_but_to_stream(name: str) -> None:
    finding = await told(CAPABILITIES[name].ask, "What a nice question! I would be glad to help.")

    assert finding.verdict == "failed"
    assert "What a nice question" in finding.reason


@every_step
async def test_a_check_costs_two_requests_and_few_tokens_at_most(step: Step) -> None:
    for answers in (honest, _silent):
        asker = Asked(answers)
        await step.ask(interview(model(), asker))
        assert len(asker.requests) <= 2
        assert all(one["max_tokens"] <= 256 for one in asker.requests)
        assert all(len(body) < 12_000 for body in asker.bodies)


@every_step
async def test_what_is_asked_is_another_thing_each_time_where_it_could_be_known(
    step: Step,
) -> None:
    prompts = {(await asked(step.ask, honest, seed=seed)).prompt for seed in range(10)}

    assert len(prompts) > 3 or step.name in {"answers", "web_search"}


async def test_a_model_that_says_nothing_does_not_answer() -> None:
    for text in (None, "", " \n\t"):
        finding = await told(ANSWERS.ask, text)
        assert (finding.verdict, finding.reason) == ("failed", "its answer is empty")


async def test_a_model_that_only_thinks_does_not_answer() -> None:
    finding = await told(ANSWERS.ask, None, reasoning_content="The user greets me.")

    assert finding.reason == "it thinks, and then says nothing"


async def test_a_model_that_calls_a_function_of_its_own_does_not_answer() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "hello", "arguments": "{}"}}

    finding = await told(ANSWERS.ask, None, tool_calls=[call])

    assert finding.verdict == "failed"
    assert "never given" in finding.reason


async def test_a_whole_answer_in_one_event_is_no_stream() -> None:
    finding = await told(CAPABILITIES["streaming"].ask, "1, 2, 3, 4, 5, 6")

    assert finding.verdict == "failed"
    assert finding.reason == "its whole answer comes as one piece"


async def test_a_stream_without_words_is_none() -> None:
    finding = await asked(CAPABILITIES["streaming"].ask, always(chunks(" ", "\n")))

    assert finding.reason == "its stream ends without a word"


@pytest.mark.parametrize(
    "answer",
    [
        [chat("1, 2, 3")],
        [b"<html>busy</html>"],
        [b""],
        chunks("1, ", "2", finish=None, done=False),
        [b'data: {"error": {"message": "out of memory"}}\n\n'],
        [b"data: 1, 2, 3\n\n"],
    ],
    ids=["json", "html", "nothing", "cut", "error", "text"],
)
async def test_what_is_no_stream_of_events_with_an_end_is_a_bad_answer(
    answer: list[bytes],
) -> None:
    with pytest.raises(BadAnswer):
        await asked(CAPABILITIES["streaming"].ask, always(answer))


@pytest.mark.parametrize("name", ["tools", "json_schema", "vision", "web_search"])
async def test_a_provider_that_says_it_cannot_fails_whatever_the_status(name: str) -> None:
    words = "image input is not supported - you may need to provide the mmproj"
    failure = AttemptFailed("provider_error", "it answered 500", status=500, words=words)

    finding = await asked(CAPABILITIES[name].ask, always(failure))

    assert finding.verdict == "failed"
    assert finding.reason == f"its provider says “{words}”"


@every_step
async def test_a_provider_that_is_busy_says_nothing_about_its_models(step: Step) -> None:
    failure = AttemptFailed("provider_error", "it answered 503", status=503)

    with pytest.raises(AttemptFailed):
        await asked(step.ask, always(failure))


@every_step
async def test_a_refusal_is_told_to_who_examines(step: Step) -> None:
    refusal = Refusal("invalid_request", "tools are not allowed here", status=400)

    with pytest.raises(Refusal):
        await asked(step.ask, always(refusal))


# What a stranger may send: any JSON at all, and often at the places that are looked at.

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["```json\n{}```", "{}", "[1]", "\u202e\x1b[31m\x00", "https://[", "<think>"])
)
NAMES = st.sampled_from(
    [
        "function", "name", "arguments", "index", "url", "url_citation", "type", "message",
        "content", "text", "completion_tokens", "reasoning_tokens", "completion_tokens_details",
    ]
)  # fmt: skip
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
MESSAGE = st.fixed_dictionaries(
    {"content": st.text(max_size=5) | ANYTHING},
    optional={
        "tool_calls": st.lists(ANYTHING, max_size=2) | ANYTHING,
        "annotations": ANYTHING,
        "reasoning": ANYTHING,
        "reasoning_content": ANYTHING,
    },
)
CHOICE = MESSAGE.map(lambda message: {"message": message, "delta": message})
ANSWER = st.fixed_dictionaries(
    {"choices": st.lists(CHOICE, min_size=1, max_size=2)},
    optional=dict.fromkeys(("usage", "model", "citations", "search_results"), ANYTHING),
)
FIELDS = ANSWER | st.dictionaries(st.sampled_from(["choices", "error", "usage"]), ANYTHING)


def events(fields: list[Any]) -> list[bytes]:
    return [f"data: {json.dumps(one)}\n\n".encode() for one in fields] + [b"data: [DONE]\n\n"]


@every_step
@given(fields=st.lists(FIELDS, min_size=1, max_size=3))
async def test_no_json_whatsoever_breaks_a_check(step: Step, fields: list[Any]) -> None:
    def script(path: str, request: dict[str, Any]) -> bytes | list[bytes]:
        if request.get("stream"):
            return events(fields)
        return json.dumps(fields[0]).encode()

    try:
        finding = await asked(step.ask, script)
    except BadAnswer as bad:
        reason = str(bad)
    else:
        reason = finding.reason
        assert bool(reason) == (finding.verdict == "failed")
        assert reason.isprintable()
    assert len(reason) < 300


@every_step
@given(text=st.text() | st.text(alphabet='`{}[]":,0123456789<think>/ htp.x\x00\x1b\u202e'))
async def test_no_text_whatsoever_breaks_a_check(step: Step, text: str) -> None:
    finding = await told(step.ask, text)

    assert finding.reason.isprintable()
    assert len(finding.reason) < 250
    # A text that happens to be the half word is the right way to go on.
    if step.name not in {"answers", "reasoning", "prefill"}:
        assert finding.verdict == "failed"


@every_step
@given(data=st.binary(max_size=60))
async def test_no_bytes_whatsoever_break_a_check(step: Step, data: bytes) -> None:
    body = b'{"choices":[{"message":{"content":"' + data
    for sent in (data, body, body + b'"}}]}'):
        whole, stream = always(sent), always([b"data: ", sent, b"\n\n"])
        for script in (whole, stream):
            with contextlib.suppress(BadAnswer):
                assert (await asked(step.ask, script)).reason.isprintable()


@every_step
@pytest.mark.parametrize(
    "text",
    ["[" * 2_000_000, "https://" * 300_000, "7" * 3_000_000, "```{" * 500_000, "<think>" * 300_000],
    ids=["deep", "addresses", "digits", "fences", "thoughts"],
)
async def test_megabytes_are_quoted_by_a_line(step: Step, text: str) -> None:
    finding = await told(step.ask, text)

    assert len(finding.reason) < 250


def _silent(path: str, fields: dict[str, Any]) -> bytes | list[bytes]:
    return chunks("") if fields.get("stream") else chat("")


def test_the_honest_model_takes_no_notice_of_who_asks_it() -> None:
    plain = {"messages": [{"role": "user", "content": "Good morning!"}]}

    assert honest_chat(plain) == {"role": "assistant", "content": "Hello."}
