"""What a request came to: believed where a provider tells it, else estimated."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from manyways import tokens
from manyways.dialects import json_text
from manyways.dialects.openai_chat import answer_tokens, measured, prompt_tokens, told
from manyways.dialects.openai_chat.request import decode_request
from manyways.types import Usage

RECORDINGS = Path(__file__).parents[2].parent / "shared" / "recordings"

TEXT = "Neither rain nor snow stays these couriers from their appointed rounds."
SIZE = tokens.count(TEXT)


def upstream(
    prompt: int, completion: int, cached: int = 0, reasoning: int = 0, source: Any = "upstream"
) -> Usage:
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        reasoning_tokens=reasoning,
        source=source,
    )


def figures(**fields: Any) -> dict[str, Any]:
    return {"prompt_tokens": 9, "completion_tokens": 5, **fields}


# Told


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (figures(total_tokens=14), upstream(9, 5)),
        (figures(), upstream(9, 5)),
        (
            figures(
                prompt_tokens_details={"cached_tokens": 4, "audio_tokens": 0},
                completion_tokens_details={"reasoning_tokens": 3},
            ),
            upstream(9, 5, 4, 3),
        ),
        (figures(prompt_tokens_details=None, completion_tokens_details=None), upstream(9, 5)),
        (figures(prompt_cache_hit_tokens=8, prompt_cache_miss_tokens=1), upstream(9, 5, 8)),
        (figures(cached_tokens=2), upstream(9, 5, 2)),
        (
            {
                "input_tokens": 9,
                "input_tokens_details": {"cached_tokens": 4},
                "output_tokens": 5,
                "output_tokens_details": {"reasoning_tokens": 1},
                "total_tokens": 14,
            },
            upstream(9, 5, 4, 1),
        ),
        ({"prompt_tokens": 12, "total_tokens": 12}, upstream(12, 0)),
        ({"completion_tokens": 5}, upstream(0, 5)),
        (figures(prompt_tokens=0, input_tokens=7), upstream(7, 5)),
    ],
)
def test_figures_are_found_under_every_name(fields: dict[str, Any], expected: Usage) -> None:
    assert told(json_text.raw(fields)) == expected


def test_what_anthropic_reads_from_a_cache_is_part_of_the_prompt() -> None:
    fields = {
        "input_tokens": 3,
        "cache_read_input_tokens": 40,
        "cache_creation_input_tokens": 500,
        "output_tokens": 5,
    }
    assert told(json_text.raw(fields)) == upstream(543, 5, 40)
    assert told(json_text.raw(fields | {"prompt_tokens": 543})) == upstream(543, 5, 40)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # beside the completion, and in the total
        (figures(total_tokens=34, completion_tokens_details={"reasoning_tokens": 20}), (25, 20)),
        (figures(total_tokens=34), (25, 20)),
        # beside the completion, and in no total
        (figures(total_tokens=14, completion_tokens_details={"reasoning_tokens": 20}), (25, 20)),
        (figures(completion_tokens_details={"reasoning_tokens": 20}), (25, 20)),
        # inside the completion
        (figures(total_tokens=14, completion_tokens_details={"reasoning_tokens": 5}), (5, 5)),
        (figures(reasoning_tokens=2), (5, 2)),
        # a total of too little is no total
        (figures(total_tokens=1), (5, 0)),
        ({"prompt_tokens": 9, "total_tokens": 14}, (5, 0)),
        ({"completion_tokens": 5, "total_tokens": 14}, (5, 0)),
    ],
)
def test_reasoning_is_counted_once(fields: dict[str, Any], expected: tuple[int, int]) -> None:
    usage = told(json_text.raw(fields))
    assert usage is not None
    assert (usage.completion_tokens, usage.reasoning_tokens) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt_tokens": "9", "completion_tokens": "5"},
        {"prompt_tokens": 9.0, "completion_tokens": 5.2},
        {"prompt_tokens": "9.0", "completion_tokens": 5, "total_tokens": None},
        {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": -1},
        {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": "many"},
        {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": [1]},
        {"prompt_tokens": 9, "completion_tokens": 5, "cached_tokens": -1},
        {"prompt_tokens": 9, "completion_tokens": 5, "cached_tokens": True},
        figures(completion_tokens_details={"reasoning_tokens": 10**10}),
    ],
)
def test_figures_may_be_written_oddly(fields: dict[str, Any]) -> None:
    assert told(json_text.raw(fields)) == upstream(9, 5)


def test_no_more_is_cached_than_was_asked() -> None:
    assert told(json_text.raw(figures(cached_tokens=50))) == upstream(9, 5, 9)


@pytest.mark.parametrize(
    "usage",
    [
        b"null", b"{}", b"[]", b'""', b"14", b"false", b'{"prompt_tokens": 9', b"",
        b'{"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}',
        b'{"prompt_tokens": null, "completion_tokens": null}',
        b'{"total_tokens": 14}',
        b'{"prompt_tokens": -1, "completion_tokens": 5}',
        b'{"prompt_tokens": 9, "completion_tokens": -5}',
        b'{"prompt_tokens": 9, "completion_tokens": 1000000001}',
        b'{"prompt_tokens": 9e999, "completion_tokens": 5}',
        b'{"prompt_tokens": "9e999", "completion_tokens": 5}',
        b'{"prompt_tokens": "nan", "completion_tokens": 5}',
        b'{"prompt_tokens": "many", "completion_tokens": 5}',
        b'{"prompt_tokens": true, "completion_tokens": {}}',
        b'{"type": "duration", "seconds": 37}',
        b'{"prompt_tokens": "\xff", "completion_tokens": 5}',
    ],
)  # fmt: skip
def test_what_cannot_be_believed_is_not_told(usage: bytes) -> None:
    assert told(Raw(usage)) is None
    assert told(None) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)
names = st.sampled_from(
    ["prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens",
     "prompt_tokens_details", "completion_tokens_details", "cached_tokens", "reasoning_tokens"]
)  # fmt: skip


@given(st.dictionaries(names, json_values | st.dictionaries(names, json_values)))
def test_whatever_is_told_makes_sense_or_nothing(fields: dict[str, Any]) -> None:
    usage = told(json_text.raw(fields))
    if usage is not None:
        assert usage.total_tokens > 0
        assert 0 <= usage.cached_tokens <= usage.prompt_tokens <= 10**9
        assert 0 <= usage.reasoning_tokens <= usage.completion_tokens <= 3 * 10**9


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("deepseek/deepseek-json.json", upstream(495, 144, 320, 118)),
        ("groq/groq-reasoning.json", upstream(17, 649, 0, 570)),
        ("xai/xai-text.json", upstream(12, 229, 2, 228)),
        ("mistral/mistral-text.json", upstream(13, 434)),
        ("openai/openai-text.json", upstream(16, 363)),
        ("openai/openai-phase.1.json", upstream(7243, 423, 3072, 58)),
        ("openai/openai-transcription.json", None),
    ],
)
def test_recorded_figures_are_understood(name: str, expected: Usage | None) -> None:
    assert told(json_text.raw(recorded(name)["usage"])) == expected


def recorded(name: str) -> Any:
    path = RECORDINGS / name
    if not path.exists():
        pytest.skip("the recordings are not beside this checkout")
    return json.loads(path.read_text(encoding="utf-8"))


# Measured


@pytest.mark.parametrize("complete", [True, False])
def test_without_any_figures_prompt_and_text_are_estimated(complete: bool) -> None:
    found = measured(None, prompt=11, produced=TEXT, complete=complete)
    assert found == upstream(11, SIZE, source="estimated")


def test_the_figures_of_a_complete_answer_count() -> None:
    usage = upstream(9, 1, 4, 1)
    assert measured(usage, prompt=11, produced=TEXT, complete=True) is usage


def test_no_completion_to_a_text_is_a_figure_nobody_told() -> None:
    found = measured(upstream(9, 0, 4), prompt=11, produced=TEXT, complete=True)
    assert found == upstream(9, SIZE, 4, source="estimated")
    silent = upstream(9, 0)
    assert measured(silent, prompt=11, produced="", complete=True) is silent


@pytest.mark.parametrize("completion", [0, 1, SIZE // 2 - 1])
def test_a_figure_from_the_beginning_of_a_cut_answer_is_not_its_end(completion: int) -> None:
    found = measured(upstream(0, completion), prompt=11, produced=TEXT, complete=False)
    assert found == upstream(11, SIZE, source="estimated")


def test_a_cut_answers_running_figure_counts() -> None:
    usage = upstream(9, SIZE - 2)
    assert measured(usage, prompt=11, produced=TEXT, complete=False) is usage


# Estimated


def prompt(messages: list[dict[str, Any]], **fields: Any) -> int:
    body = {"model": "m", "messages": messages, **fields}
    return prompt_tokens(decode_request(json.dumps(body).encode()).fields)


def user(content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **fields}


def part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def test_a_prompt_is_its_texts_and_what_holds_them_together() -> None:
    """OpenAI counts 8 tokens for a greeting."""
    assert prompt([user("Hello")]) == 8
    assert prompt([user(TEXT)]) == SIZE + 7
    assert prompt([user([part(TEXT)])]) == SIZE + 7
    assert prompt([user("")]) == 7
    assert 2 * SIZE + 11 <= prompt([user([part(TEXT)]), user(TEXT)]) <= 2 * SIZE + 12


def test_a_prompt_is_counted_as_its_model_does() -> None:
    body = json.dumps({"model": "m", "messages": [user("Быстрая лиса и ленивая собака")]})
    fields = decode_request(body.encode()).fields
    assert prompt_tokens(fields, "gpt-4") > prompt_tokens(fields, "gpt-4o")


CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": TEXT}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"description": TEXT}}}
FUNCTION = {"name": "f", "description": TEXT, "parameters": {}}


@pytest.mark.parametrize(
    "more",
    [
        {"messages": [user("Hi"), user(TEXT)]},
        {"messages": [user("Hi", name=TEXT)]},
        {"messages": [user("Hi"), {"role": "assistant", "content": None, "refusal": TEXT}]},
        {"messages": [user("Hi"), {"role": "assistant", "content": None, "tool_calls": [CALL]}]},
        {"messages": [user("Hi"), {"role": "assistant", "function_call": CALL["function"]}]},
        {"messages": [user("Hi"), {"role": "assistant", "content": "", "reasoning": TEXT}]},
        {"messages": [user("Hi"), {"role": "tool", "tool_call_id": "call_1", "content": TEXT}]},
        {"tools": [{"type": "function", "function": FUNCTION}]},
        {"functions": [FUNCTION]},
        {"response_format": SCHEMA},
    ],
)
def test_all_that_is_read_is_counted(more: dict[str, Any]) -> None:
    without = prompt([user("Hi")])
    found = prompt(**{"messages": [user("Hi")], **more})
    assert without + SIZE - 1 <= found <= without + SIZE + 30


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "text"}},
        {"response_format": {"type": "json_object"}},
        {"tools": None},
        {"tools": []},
        {"user": TEXT, "metadata": {"a": TEXT}},
    ],
)
def test_what_nobody_reads_is_not_counted(fields: dict[str, Any]) -> None:
    assert prompt([user("Hi")], **fields) == prompt([user("Hi")])


@pytest.mark.parametrize(
    ("content", "flat"),
    [
        ({"type": "image_url", "image_url": {"url": "data:," + "A" * 9000}}, 765),
        ({"type": "image_url", "image_url": {"url": "https://x/a.png", "detail": "high"}}, 765),
        ({"type": "image_url", "image_url": {"url": "https://x/a.png", "detail": "low"}}, 85),
        ({"type": "image_url", "image_url": "https://x/a.png"}, 765),
        ({"type": "input_audio", "input_audio": {"data": "A" * 9000, "format": "wav"}}, 1500),
        ({"type": "file", "file": {"file_data": "A" * 9000}}, 1500),
        ({"type": "x_vendor", "data": "A" * 9000}, 0),
    ],
)
def test_pictures_and_files_have_a_price_of_their_own(content: Any, flat: int) -> None:
    assert prompt([user([part("Hello"), content])]) == 8 + flat


def answer(*messages: dict[str, Any]) -> bytes:
    choices = [{"index": i, "message": message} for i, message in enumerate(messages)]
    return json.dumps({"id": "a" * 99, "choices": choices}).encode()


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": TEXT},
        {"content": [part(TEXT)]},
        {"content": [{"type": "thinking", "thinking": [part(TEXT)]}]},
        {"content": "", "reasoning_content": TEXT, "reasoning": TEXT},
        {"content": None, "reasoning": TEXT},
        {"refusal": TEXT},
        {"tool_calls": [{"id": "i" * 99, "function": {"name": "", "arguments": TEXT}}]},
        {"tool_calls": [{"type": "custom", "custom": {"input": TEXT}}]},
        {"function_call": {"arguments": TEXT}},
    ],
)
def test_all_that_an_answer_says_is_counted(message: dict[str, Any]) -> None:
    assert answer_tokens(answer(message)) in (SIZE, SIZE + 1)


def test_all_choices_are_counted() -> None:
    assert answer_tokens(answer({"content": TEXT}, {"content": TEXT})) >= 2 * SIZE


def test_arguments_that_are_no_text_are_counted_as_they_are_written() -> None:
    call = {"function": {"name": "f", "arguments": {"text": TEXT}}}
    assert answer_tokens(answer({"tool_calls": [call]})) > SIZE


def test_half_a_character_is_no_reason_not_to_count() -> None:
    assert answer_tokens(b'{"choices": [{"message": {"content": "Hello \\ud83d"}}]}') >= 2


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>", b"[]", b"{}", b'{"choices": null}', b'{"choices": [1]}',
        b'{"choices": [{"message": null}]}', b'{"choices": [{"message": {"content": 7}}]}',
        b'{"choices": [{"message": {"content": ' + b"[" * 50 + b'"a"' + b"]" * 50 + b"}}]}",
        b"\xff",
    ],
)  # fmt: skip
def test_an_answer_that_says_nothing_readable_comes_to_nothing(body: bytes) -> None:
    assert answer_tokens(body) == 0


@pytest.mark.parametrize(
    "name",
    ["openai/openai-text.json", "groq/groq-text.json", "deepseek/deepseek-text.json",
     "mistral/mistral-text.json", "groq/groq-reasoning.json", "deepseek/deepseek-reasoning.json"],
)  # fmt: skip
def test_recorded_answers_are_estimated_to_a_twentieth(name: str) -> None:
    body = recorded(name)
    usage = told(json_text.raw(body["usage"]))
    assert usage is not None
    found = answer_tokens(json.dumps(body).encode(), body["model"])
    assert found == pytest.approx(usage.completion_tokens, rel=0.05)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 5000])
def test_a_prompt_with_numbers_beyond_all_numbers_is_estimated_all_the_same(number: str) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"hello","x":%s}]}' % number.encode()

    assert prompt_tokens(decode_request(body).fields) > 3


@pytest.mark.parametrize(
    "beside", ['"image_url":{"url":"x","detail":"low"}', '"type":"file"', '"type":"input_audio"']
)
def test_no_text_hides_behind_a_picture_or_a_file(beside: str) -> None:
    long = "word " * 5000
    for message in (
        f'{{"role":"user","content":"{long}",{beside}}}',
        f'{{"role":"user","content":[{{"type":"text","text":"{long}",{beside}}}]}}',
    ):
        fields = {"messages": Raw(f"[{message}]".encode())}

        assert prompt_tokens(fields) > 5000


def test_a_long_prompt_is_counted_without_what_its_pictures_hold() -> None:
    picture = "data:image/png;base64," + "iVBORw0KGgo" * 60_000
    part = {"type": "image_url", "image_url": {"url": picture}}
    text = {"type": "text", "text": "word " * 1000}
    fields = {"messages": json_text.raw([{"role": "user", "content": [text, part]}])}

    assert 1700 < prompt_tokens(fields) < 2200


def test_a_long_text_is_not_sampled_where_its_writer_can_know() -> None:
    blanks, words = " " * 10_000, "word " * 19_000
    stride = 105_000
    text = "".join(blanks + words[: stride - 10_000] for _ in range(20))

    assert tokens.count(text) > 0.7 * 20 * 19_000
