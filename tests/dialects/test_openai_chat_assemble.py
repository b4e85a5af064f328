"""A whole answer assembled from a stream says all that the stream said, and nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.dialects.openai_chat.assemble import Assembly
from tests.dialects.streams import SAMPLES, Sample, carry
from tests.support.chat_cuts import cut

RECORDINGS = Path(__file__).parents[2].parent / "shared" / "recordings"
Json = dict[str, Any]


def framed(*payloads: str) -> bytes:
    return b"".join(b"data: %b\n\n" % payload.encode() for payload in [*payloads, "[DONE]"])


def assembled(*chunks: Json, ascii_only: bool = True) -> Json:
    whole = Assembly()
    whole.feed(framed(*(json.dumps(chunk, ensure_ascii=ascii_only) for chunk in chunks)))
    found: Json = json.loads(whole.answer())
    return found


def message(*deltas: Json) -> Json:
    """The message that these deltas make."""
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    (choice,) = assembled(*chunks)["choices"]
    found: Json = choice["message"]
    return found


def call(index: int | None = None, /, arguments: str = "", **fields: Any) -> Json:
    """A delta with a piece of a tool call."""
    name = fields.pop("name", None)
    function = {"arguments": arguments} | ({"name": name} if name is not None else {})
    numbered = {} if index is None else {"index": index}
    return {"tool_calls": [{**numbered, **fields, "function": function}]}


def calls(*deltas: Json) -> list[tuple[str, str, str]]:
    """Id, name and arguments of the calls that these deltas make."""
    return [
        (one["id"], one["function"]["name"], one["function"]["arguments"])
        for one in message(*deltas)["tool_calls"]
    ]


# Any answer, cut anywhere

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
said = texts.filter(bool)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
functions = st.fixed_dictionaries({"name": said, "arguments": texts})
tool_calls = st.lists(
    st.fixed_dictionaries(
        {"id": said, "type": st.just("function"), "function": functions},
        optional={"extra_content": st.fixed_dictionaries({"google": json_values})},
    )
    | st.fixed_dictionaries(
        {
            "id": said,
            "type": st.just("custom"),
            "custom": st.fixed_dictionaries({"name": said, "input": texts}),
        }
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda one: str(one["id"]),
)
reasoning_parts = st.lists(
    st.fixed_dictionaries(
        {"type": st.just("reasoning.text"), "text": said},
        optional={"signature": said, "format": said, "id": st.none() | said},
    )
    | st.fixed_dictionaries({"type": st.just("reasoning.summary"), "summary": said})
    | st.fixed_dictionaries({"type": st.just("reasoning.encrypted"), "data": said}),
    max_size=3,
).map(lambda parts: [{**part, "index": i} for i, part in enumerate(parts)])
annotations = st.lists(
    st.fixed_dictionaries(
        {"type": st.just("url_citation"), "url_citation": st.fixed_dictionaries({"url": said})}
    ),
    max_size=3,
)
images = st.lists(
    st.fixed_dictionaries(
        {"type": st.just("image_url"), "image_url": st.fixed_dictionaries({"url": said})}
    ),
    max_size=2,
)
audio = st.fixed_dictionaries(
    {"id": said, "expires_at": st.integers(), "data": texts, "transcript": texts}
)


def honest(one: Json) -> Json:
    """As OpenAI writes it: no text is null where something else was said."""
    other = ("tool_calls", "function_call", "refusal", "audio")
    empty = not one["content"] and any(one.get(name) for name in other)
    return {**one, "content": None} if empty else one


messages = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | texts},
    optional={
        "refusal": st.none() | said,
        "reasoning_content": said,
        "reasoning": said,
        "x_told": texts,
        "x_number": st.integers(),
        "x_object": st.fixed_dictionaries({"x": said}),
        "tool_calls": tool_calls,
        "function_call": functions,
        "audio": audio,
        "annotations": annotations,
        "citations": st.lists(said, max_size=3),
        "images": images,
        "reasoning_details": reasoning_parts,
    },
).map(honest)
tokens = st.fixed_dictionaries(
    {
        "token": texts,
        "logprob": st.integers(),
        "bytes": st.none() | st.lists(st.integers(0, 255), max_size=2),
        "top_logprobs": st.lists(st.fixed_dictionaries({"token": texts}), max_size=2),
    }
)
logprobs = st.none() | st.fixed_dictionaries(
    {"content": st.lists(tokens, min_size=1, max_size=4), "refusal": st.none()}
)
choices = st.lists(
    st.fixed_dictionaries(
        {
            "message": messages,
            "logprobs": logprobs,
            "finish_reason": st.sampled_from(["stop", "length", "tool_calls"]),
        },
        optional={"x_beside": json_values, "stop_reason": st.none() | st.integers()},
    ),
    min_size=1,
    max_size=3,
).map(lambda found: [{"index": i, **choice} for i, choice in enumerate(found)])
answers = st.fixed_dictionaries(
    {
        "id": said,
        "object": st.just("chat.completion"),
        "created": st.integers(1),
        "model": said,
        "provider": said,
        "choices": choices,
    },
    optional={
        "usage": st.fixed_dictionaries({"total_tokens": st.integers()}),
        "system_fingerprint": st.none() | said,
        "service_tier": said,
        "x_groq": st.fixed_dictionaries({"id": said, "seed": st.integers(), "usage": json_values}),
        "citations": st.lists(said),
        "_metadata": st.fixed_dictionaries({"fallback_attempts": st.integers()}),
    },
)


@given(answers, st.randoms(use_true_random=False), st.booleans())
def test_any_answer_cut_anywhere_is_assembled_the_same(
    answer: Json, chance: Random, ascii_only: bool
) -> None:
    assert assembled(*cut(answer, chance), ascii_only=ascii_only) == answer


@given(json_values, json_values, json_values)
def test_whatever_a_delta_holds_an_answer_comes_of_it(one: Any, two: Any, three: Any) -> None:
    for name in ("content", "tool_calls", "reasoning_details", "audio", "role", "x"):
        found = message(*({name: value} for value in (one, two, three)))
        assert {"role", "content", name} == set(found)


@given(st.lists(json_values, min_size=1, max_size=3))
def test_whatever_stands_beside_a_delta_an_answer_comes_of_it(values: list[Any]) -> None:
    chunks = [
        {"choices": [{"index": 0, "x": value, "logprobs": value}], "x": value} for value in values
    ]
    found = assembled(*chunks)

    assert "x" in found
    assert {"x", "logprobs"} < set(found["choices"][0])


# How it is written


def test_strings_and_numbers_keep_their_bytes() -> None:
    whole = Assembly()
    whole.feed(
        framed(
            '{"id":"i","choices":[{"index":0,"delta":{"content":"caf\\u00e9 \\/ "}}],"x":1.500}',
            '{"id":"i","choices":[{"index":0,"delta":{"content":"\\ud83d\\ude00é","n":1e-7}}],'
            '"x":12345678901234567890,"usage":{"cost" : 0.10}}',
        )
    )

    answer = whole.answer().decode()

    assert '"content":"caf\\u00e9 \\/ \\ud83d\\ude00é"' in answer
    assert '"n":1e-7' in answer
    assert '"x":12345678901234567890' in answer
    assert '"usage":{"cost" : 0.10}' in answer


def test_fields_stand_in_the_order_that_people_know() -> None:
    chunk = {
        "usage": {},
        "choices": [
            {
                "x": 1,
                "finish_reason": "stop",
                "logprobs": None,
                "delta": {"content": "a"},
                "index": 0,
            }
        ],
        "provider": "P",
        "model": "m",
        "created": 1,
        "object": "chat.completion.chunk",
        "id": "i",
    }
    delta = {"x": 1, "refusal": None, "content": "b", "role": "assistant"}

    answer = assembled(chunk, {"choices": [{"index": 0, "delta": delta}]})

    assert list(answer) == ["id", "object", "created", "model", "provider", "choices", "usage"]
    (choice,) = answer["choices"]
    assert list(choice) == ["index", "message", "logprobs", "finish_reason", "x"]
    assert list(choice["message"])[:2] == ["role", "content"]
    assert answer["object"] == "chat.completion"


def test_choices_stand_in_the_order_of_their_index() -> None:
    chunks: list[Json] = [
        {"choices": [{"index": i, "delta": {"content": str(i)}}]} for i in (2, 0, 1)
    ]

    found = assembled(*chunks)["choices"]

    assert [(one["index"], one["message"]["content"]) for one in found] == [
        (0, "0"), (1, "1"), (2, "2")
    ]  # fmt: skip


def test_what_only_streams_have_is_left_out() -> None:
    chunk = {
        "choices": [{"index": 0, "delta": {"index": 0, "content": "a"}}],
        "obfuscation": "XXXX",
    }
    whole = Assembly()
    whole.feed(b": keep-alive\n\n" + framed(json.dumps(chunk)))

    assert json.loads(whole.answer()) == {
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "a"},
                "finish_reason": None,
            }
        ],
    }


def test_events_may_be_fed_one_by_one_and_their_size_is_known() -> None:
    whole, parts = Assembly(), Assembly()
    for sample in SAMPLES[:1]:
        data, _ = carry([sample.data])
        whole.feed(data)
        for event in data.split(b"\n\n")[:-1]:
            parts.feed(event + b"\n\n")
        assert parts.size == whole.size == len(data)

    assert parts.answer() == whole.answer()
    assert repr(whole) == f"<Assembly of 1 choices, {whole.size} bytes>"


def test_a_character_cut_in_two_is_whole_again() -> None:
    whole = Assembly()
    delta = '{"choices":[{"index":0,"delta":{"content":"%s"}}]}'
    whole.feed(framed(*(delta % text for text in ("a\\ud83d", "\\ude00b\\\\ud83d", "\\udfff"))))

    answer = whole.answer()

    assert b'"content":"a\\ud83d\\ude00b\\\\ud83d\\udfff"' in answer
    assert json.loads(answer)["choices"][0]["message"]["content"] == "a😀b\\ud83d\udfff"


# Text and no text


@pytest.mark.parametrize(
    ("deltas", "content"),
    [
        ([{}], None),
        ([{"content": None}], None),
        ([{"content": ""}], ""),
        ([{"content": ""}, {"content": None}], ""),
        ([{"content": None}, {"content": ""}], ""),
        ([{"content": ""}, {"reasoning_content": "r"}], ""),
        ([{"content": ""}, {"tool_calls": None}], ""),
        ([{"content": ""}, call(0, id="c", name="f")], None),
        ([{"content": ""}, {"refusal": "No."}], None),
        ([{"content": ""}, {"audio": {"id": "a"}}], None),
        ([{"content": "a"}, call(0, id="c", name="f"), {"content": ""}], "a"),
        ([{"content": "a"}, {"content": None}, {"content": "b"}], "ab"),
    ],
)
def test_no_text_is_null_only_where_none_was_sent_or_something_else_was(
    deltas: list[Json], content: str | None
) -> None:
    assert message(*deltas)["content"] == content


def test_a_role_is_a_name_and_assistant_if_nobody_says() -> None:
    twice = {"role": "assistant", "content": "a"}

    assert message(twice, twice) == {"role": "assistant", "content": "aa"}
    assert message({"role": None, "content": "a"}) == {"role": "assistant", "content": "a"}


def test_states_are_not_put_behind_each_other() -> None:
    found = message(
        {"channel": "analysis", "reasoning": "a"}, {"channel": "final"}, {"channel": ""}
    )

    assert found["channel"] == "final"


def test_content_in_parts_grows_in_parts() -> None:
    thought = [{"type": "thinking", "thinking": [{"type": "text", "text": "a"}]}]
    parts = [{"type": "text", "text": "x"}]

    found = message(
        {"content": ""}, {"content": thought}, {"content": thought}, {"content": parts},
        {"content": "y"}, {"content": ""},
    )  # fmt: skip

    assert found["content"] == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "aa"}]},
        {"type": "text", "text": "xy"},
    ]
    assert message({"content": "x"}, {"content": parts})["content"] == [
        {"type": "text", "text": "xx"}
    ]


# Tool calls


def test_arguments_go_to_the_call_with_their_index() -> None:
    assert calls(
        call(1, id="b", name="g"), call(0, id="a", name="f"), call(1, "{"), call(0, "["),
        call(1, "}", id="b"), call(0, "]", name=""),
    ) == [("b", "g", "{}"), ("a", "f", "[]")]  # fmt: skip


def test_an_id_and_a_name_that_are_told_again_are_told_once() -> None:
    again = {"id": "a", "name": "f", "type": "function"}

    assert calls(call(0, "{", **again), call(0, "}", **again)) == [("a", "f", "{}")]


def test_calls_without_an_index_go_by_their_id_else_they_go_on() -> None:
    assert calls(
        call(id="a", name="f"), call(None, "{"), call(id="b", name="g"), call(None, "[", id="b"),
        call(None, "}", id="a"), call(None, "]"),
    ) == [("a", "f", "{}"), ("b", "g", "[]")]  # fmt: skip


@pytest.mark.parametrize(
    "names",
    [
        ["get_", "weather"],
        ["get_", "", "weather"],
        ["get_weather", "get_weather"],
        ["get_", "weather", "get_weather"],
    ],
)
def test_a_name_comes_in_pieces_or_is_told_again(names: list[str]) -> None:
    """As those who add up the stream themselves put it together."""
    told = [call(0, "x", id="a", name=name) for name in names]
    assert calls(*told) == [("a", "get_weather", "x" * len(names))]
    custom = [{"tool_calls": [{"index": 0, "custom": {"name": name}}]} for name in names]
    assert message(*custom)["tool_calls"] == [{"custom": {"name": "get_weather"}}]
    older = [{"function_call": {"name": name}} for name in names]
    assert message(*older)["function_call"] == {"name": "get_weather"}


def test_a_new_id_with_a_name_is_a_new_call_even_under_the_same_index() -> None:
    assert calls(
        call(0, "{}", id="a", name="f"), call(0, "[", id="b", name="f"), call(0, "]")
    ) == [("a", "f", "{}"), ("b", "f", "[]")]  # fmt: skip


def test_a_new_id_without_a_name_is_the_same_call() -> None:
    assert calls(call(0, "{", id="a", name="f"), call(0, "}", id="z")) == [("a", "f", "{}")]


# Lists


def test_parts_of_one_index_are_joined_while_they_follow_each_other() -> None:
    def part(index: int, **fields: Any) -> Json:
        return {"reasoning_details": [{"type": "reasoning.text", "index": index, **fields}]}

    found = message(
        part(0, text="a", signature=None), part(0, text="b"), part(0, signature="s"),
        part(1, text="c"), part(0, text="d"),
    )  # fmt: skip

    assert found["reasoning_details"] == [
        {"type": "reasoning.text", "index": 0, "text": "ab", "signature": "s"},
        {"type": "reasoning.text", "index": 1, "text": "c"},
        {"type": "reasoning.text", "index": 0, "text": "d"},
    ]


def test_parts_that_differ_in_more_than_text_stay_apart() -> None:
    def image(url: str) -> Json:
        return {"type": "image_url", "index": 0, "image_url": {"url": url}}

    found = message({"images": [image("a")]}, {"images": [image("b")]})

    assert found["images"] == [image("a"), image("b")]


def test_items_without_an_index_stay_apart() -> None:
    quotes = [{"type": "quote", "text": text, "index": None} for text in "ab"]
    links = [{"type": "url_citation", "url": "a"}, {"type": "url_citation", "title": "b"}]

    found = message(*({"annotations": [one]} for one in (*quotes, *links)))

    assert found["annotations"] == [*quotes, *links]


def test_log_probabilities_are_all_there() -> None:
    def told(*tokens: str, refusal: Any = None) -> Json:
        content = [{"token": token, "logprob": -0.5} for token in tokens]
        return {"choices": [{"index": 0, "logprobs": {"content": content, "refusal": refusal}}]}

    empty: Json = {"choices": [{"index": 0, "logprobs": None}]}
    (choice,) = assembled(empty, told("a", "b"), empty, told("c", refusal=[1]))["choices"]

    assert [one["token"] for one in choice["logprobs"]["content"]] == ["a", "b", "c"]
    assert choice["logprobs"]["refusal"] == [1]


# Beside the message


def test_beside_the_message_the_last_word_that_says_something_stays() -> None:
    def chunk(**fields: Any) -> Json:
        return {"choices": [{"index": 0, "delta": {}, **fields}], **fields}

    answer = assembled(
        chunk(x="a", finish_reason=None, usage={"total_tokens": 1, "old": 1}, flag=True),
        chunk(x="b", finish_reason="stop", usage={"total_tokens": 2}, flag=False),
        chunk(x="", finish_reason=None, usage=None, flag=None),
    )

    for found in (answer, answer["choices"][0]):
        assert found["x"] == "b"
        assert found["finish_reason"] == "stop"
        assert found["usage"] == {"total_tokens": 2}
        assert found["flag"] is False


def test_an_object_beside_the_message_keeps_what_it_said_before() -> None:
    first: Json = {"choices": [], "x_groq": {"id": "r", "seed": 5, "deep": {"a": 1}}}

    answer = assembled(first, {"choices": [], "x_groq": {"id": "r", "deep": {"b": 2}}})

    assert answer["x_groq"] == {"id": "r", "seed": 5, "deep": {"a": 1, "b": 2}}


def test_a_message_that_is_repeated_beside_its_deltas_is_not_said_twice() -> None:
    def choice(told: str, *, delta: Json) -> Json:
        message = {"role": "assistant", "content": told}
        return {"choices": [{"index": 0, "delta": delta, "message": message}]}

    both = assembled(choice("a", delta={"content": "a"}), choice("ab", delta={"content": "b"}))
    alone = assembled(choice("a", delta={}), choice("ab", delta={}))

    assert both == alone
    assert both["choices"][0]["message"] == {"role": "assistant", "content": "ab"}


def test_very_deep_values_are_kept_as_they_are() -> None:
    deep = json.loads('{"x":' * 700 + "1" + "}" * 700)

    assert message({"x": deep}, {"x": deep})["x"] == deep
    assert assembled({"choices": [], "x": deep}, {"choices": [], "x": deep})["x"] == deep


# What providers really send


def recorded() -> Iterator[Any]:
    for path in sorted(RECORDINGS.glob("*/*.chunks.txt")):
        if '"chat.completion.chunk"' in path.read_text(encoding="utf-8"):
            yield pytest.param(path, id=f"{path.parent.name}/{path.name}")


NO_RECORDINGS = pytest.param(
    Path(), marks=pytest.mark.skip(reason="the recordings are not beside this checkout")
)


@pytest.mark.parametrize("path", [*recorded()] or [NO_RECORDINGS])
def test_an_assembled_recording_says_all_that_was_streamed(path: Path) -> None:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line]
    data, stream = carry([framed(*lines)])
    assert stream.complete

    check(data)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_an_assembled_sample_says_all_that_was_streamed(sample: Sample) -> None:
    data, _ = carry([sample.data], sample.choices)

    check(data)


def check(data: bytes) -> None:
    """Every field is there, and every text is the sum of its pieces."""
    whole = Assembly()
    whole.feed(data)
    answer = json.loads(whole.answer())
    by_index = {choice["index"]: choice for choice in answer["choices"]}
    texts: dict[tuple[int, str], str] = {}
    for event in data.split(b"\n\n")[:-1]:
        chunk = json.loads(event.removeprefix(b"data: "))
        assert chunk.keys() - {"obfuscation"} <= answer.keys()
        for choice in chunk["choices"]:
            found = by_index[choice.get("index") or 0]
            assert choice.keys() - {"delta"} <= found.keys()
            delta = choice.get("delta") or {}
            assert delta.keys() - {"index"} <= found["message"].keys()
            for name, value in delta.items():
                if isinstance(value, str) and name != "role":
                    at = (found["index"], name)
                    texts[at] = texts.get(at, "") + value
    for (index, name), text in texts.items():
        told = by_index[index]["message"][name]
        assert told == text or (text == "" and (told is None or isinstance(told, list)))


@pytest.mark.parametrize(
    "name",
    ["groq/groq-tool-call", "deepseek/deepseek-tool-call", "xai/xai-tool-call",
     "mistral/mistral-reasoning", "mistral/mistral-tool-call"],
)  # fmt: skip
def test_an_assembled_answer_has_the_shape_of_the_whole_one(name: str) -> None:
    folder = RECORDINGS / name
    whole, streamed = folder.with_suffix(".json"), folder.with_suffix(".chunks.txt")
    if not (whole.exists() and streamed.exists()):
        pytest.skip("the recordings are not beside this checkout")
    lines = [line for line in streamed.read_text(encoding="utf-8").splitlines() if line]
    answer = assembled(*map(json.loads, lines))
    told = json.loads(whole.read_text(encoding="utf-8"))["choices"][0]["message"]

    found = answer["choices"][0]["message"]

    assert {key: type(value) for key, value in told.items() if value} == {
        key: type(value) for key, value in found.items() if value
    }
