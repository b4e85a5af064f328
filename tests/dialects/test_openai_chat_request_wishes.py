"""What a request asks of whoever serves it: models, abilities, form, time; and its other bodies."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from manyways.dialects.openai_chat.request import ChatRequest, decode_request, request_timeout
from manyways.errors import Refusal
from manyways.types import NO_NEEDS, Needs

HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
FUNCTION = {"type": "function", "function": {"name": "f"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 40_000}}


def decode(**fields: Any) -> ChatRequest:
    given = {name: value for name, value in {**HELLO, **fields}.items() if value is not ...}
    return decode_request(json.dumps(given).encode())


def user(content: object) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


# Which models


@pytest.mark.parametrize(
    ("fields", "model", "models"),
    [
        ({}, "m", ()),
        ({"models": []}, "m", ()),
        ({"models": None}, "m", ()),
        ({"models": ["a", "b/c"]}, "m", ("m", "a", "b/c")),
        ({"models": ["a", "m", "a"]}, "m", ("m", "a")),
        ({"model": ..., "models": ["a", "b"]}, "a", ("a", "b")),
        ({"model": None, "models": ["a"]}, "a", ("a",)),
        ({"model": "", "models": ["a"]}, "a", ("a",)),
        ({"models": [f"m{i}" for i in range(100)]}, "m", ("m", *(f"m{i}" for i in range(100)))),
    ],
)
def test_the_callers_own_list_holds_the_model_first_and_each_name_once(
    fields: dict[str, Any], model: str, models: tuple[str, ...]
) -> None:
    request = decode(**fields)

    assert (request.model, request.models) == (model, models)


def test_the_callers_own_list_is_not_sent_on() -> None:
    sent = json.loads(decode(model=..., models=["a", "b"]).encode_for("theirs"))

    assert sent == {**HELLO, "model": "theirs"}


@pytest.mark.parametrize("models", [..., None, []])
def test_a_request_without_any_model_is_refused(models: object) -> None:
    with pytest.raises(Refusal) as refused:
        decode(model=..., models=models)

    assert (refused.value.code, refused.value.param) == ("invalid_request", "model")


@pytest.mark.parametrize(
    ("provider", "allowed"),
    [
        (..., True),
        ("Capi", True),
        ({}, True),
        ({"allow_fallbacks": None}, True),
        ({"allow_fallbacks": True}, True),
        ({"allow_fallbacks": False}, False),
    ],
)
def test_others_may_answer_unless_the_caller_forbids_it(provider: object, allowed: bool) -> None:
    assert decode(provider=provider).allow_fallbacks is allowed


# What a model must be able to do


@pytest.mark.parametrize(
    ("fields", "capabilities"),
    [
        ({"tools": [FUNCTION]}, ("tools",)),
        ({"tools": [FUNCTION], "tool_choice": "auto"}, ("tools",)),
        ({"tools": [FUNCTION], "tool_choice": FUNCTION}, ("tools",)),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, ("tools",)),
        ({"functions": [{"name": "f"}]}, ("tools",)),
        ({"functions": [{"name": "f"}], "function_call": {"name": "f"}}, ("tools",)),
        ({"messages": user([IMAGE])}, ("vision",)),
        ({"messages": [*user("x"), *user([{"type": "text", "text": "?"}, IMAGE])]}, ("vision",)),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
            ("json_schema",),
        ),
        (
            {
                "response_format": {"type": "json_schema"},
                "tools": [FUNCTION],
                "messages": user([IMAGE, IMAGE]),
            },
            ("tools", "vision", "json_schema"),
        ),
    ],
)
def test_what_is_asked_for_is_needed(fields: dict[str, Any], capabilities: tuple[str, ...]) -> None:
    assert decode(**fields).needs.capabilities == capabilities


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tools": []},
        {"tools": None, "functions": None},
        {"tools": [FUNCTION], "tool_choice": "none"},
        {"functions": [], "function_call": "auto"},
        {"functions": [{"name": "f"}], "function_call": "none"},
        {"tool_choice": "auto", "parallel_tool_calls": True},
        {"response_format": {"type": "text"}},
        {"response_format": {"type": "json_object"}},
        {"messages": user([{"type": "text", "text": "image_url"}])},
        {"messages": user('{"type": "image_url"}')},
        {"messages": user("word " * 700)},
    ],
)
def test_an_ordinary_request_needs_nothing(fields: dict[str, Any]) -> None:
    assert decode(**fields).needs is NO_NEEDS


def test_a_long_prompt_is_counted_by_its_text_alone() -> None:
    text = [{"type": "text", "text": "ü" * 4000}, IMAGE, {"type": "text", "text": "b" * 4000}]
    tools = {"tools": [{**FUNCTION, "description": "d" * 9000}], "tool_choice": "none"}

    request = decode(messages=[{"role": "system", "content": "c" * 8000}, *user(text)], **tools)

    assert request.needs == Needs(capabilities=("vision",), prompt_tokens=2000)


def test_indentation_makes_no_long_prompt() -> None:
    text = ("\n" + " " * 40 + "1,") * 200 + "\t" * 4000

    assert decode(messages=user(text)).needs.prompt_tokens == 3 * 200 // 8


def test_a_picture_makes_no_long_prompt() -> None:
    assert decode(messages=user([IMAGE])).needs == Needs(capabilities=("vision",))


@pytest.mark.parametrize(
    ("fields", "structured"),
    [
        ({}, False),
        ({"response_format": None}, False),
        ({"response_format": {"type": "text"}}, False),
        ({"response_format": {"type": "json_object"}}, True),
        ({"response_format": {"type": "json_schema"}}, True),
        ({"response_format": {"type": "grammar", "grammar": "g"}}, True),
    ],
)
def test_an_answer_of_a_given_form_is_told_apart(fields: dict[str, Any], structured: bool) -> None:
    assert decode(**fields).structured is structured


def test_log_probabilities_that_are_asked_for_are_told() -> None:
    assert decode(logprobs=True, top_logprobs=2).logprobs
    assert not decode(logprobs=False).logprobs
    assert not decode(logprobs=None).logprobs


# Its other bodies


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, {"include_usage": True}),
        ({"stream": False, "stream_options": None}, {"include_usage": True}),
        (
            {"stream_options": {"include_usage": False, "x": [1.50]}},
            {"include_usage": True, "x": [1.5]},
        ),
    ],
)
def test_a_stream_in_place_of_a_whole_answer_tells_its_usage(
    fields: dict[str, Any], options: dict[str, Any]
) -> None:
    request = decode(temperature=0.5, **fields)

    sent = json.loads(request.encode_for("theirs", stream=True))

    assert sent == {
        **HELLO,
        "model": "theirs",
        "temperature": 0.5,
        "stream": True,
        "stream_options": options,
    }
    assert json.loads(request.encode_for("theirs")) == {
        **HELLO, "model": "theirs", "temperature": 0.5, **fields
    }  # fmt: skip


def test_usage_can_be_asked_of_a_stream_whose_caller_did_not() -> None:
    request = decode(stream=True, stream_options={"include_obfuscation": False})

    sent = json.loads(request.encode_for("m", include_usage=True))

    assert sent["stream"] is True
    assert sent["stream_options"] == {"include_obfuscation": False, "include_usage": True}


def test_a_whole_answer_is_not_asked_for_its_usage() -> None:
    assert decode().encode_for("m", include_usage=True) == decode().encode_for("m")


@pytest.mark.parametrize("stream", [None, True])
def test_a_provider_that_knows_no_stream_options_gets_none(stream: bool | None) -> None:
    request = decode(stream=True, stream_options={"include_usage": True, "x": 1})

    sent = json.loads(request.encode_for("m", stream=stream, include_usage=False))

    assert sent == {**HELLO, "stream": True}
    assert json.loads(decode().encode_for("m", stream=True, include_usage=False)) == sent


@pytest.mark.parametrize(
    ("fields", "wants"),
    [
        ({}, True),
        ({"stream": False}, True),
        ({"stream": True}, False),
        ({"stream": True, "stream_options": None}, False),
        ({"stream": True, "stream_options": {}}, False),
        ({"stream": True, "stream_options": {"include_usage": False}}, False),
        ({"stream": True, "stream_options": {"include_usage": True}}, True),
    ],
)
def test_who_wants_to_be_told_the_usage_is_known(fields: dict[str, Any], wants: bool) -> None:
    """A whole answer's caller always does."""
    assert decode(**fields).wants_usage is wants


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({}, None),
        ({"max_tokens": None}, None),
        ({"n": 3}, None),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 7}, 7),
        ({"max_tokens": 5, "max_completion_tokens": 7}, 7),
        ({"max_tokens": 5, "n": 3}, 15),
    ],
)
def test_the_most_that_an_answer_may_come_to_is_known(
    fields: dict[str, Any], most: int | None
) -> None:
    request = decode(**fields)
    assert (request.max_output, request.sets_output) == (most, most is not None)


def test_a_default_limits_who_gives_no_limit() -> None:
    def most(**fields: Any) -> tuple[int | None, bool]:
        body = json.dumps({**HELLO, **fields}).encode()
        request = decode_request(body, {"max_tokens": 100, "temperature": 1.0})
        return request.max_output, request.sets_output

    assert most() == (100, False)
    assert most(n=2) == (200, False)
    assert most(max_completion_tokens=7) == (7, True)


def test_a_whole_answer_in_place_of_a_stream_has_no_stream_options() -> None:
    request = decode(stream=True, stream_options={"include_usage": True})

    assert json.loads(request.encode_for("m", stream=False)) == {**HELLO, "stream": False}


def test_what_the_caller_asked_for_anyway_changes_nothing() -> None:
    request = decode(stream=True)

    assert request.encode_for("m", stream=True) == request.encode_for("m")


json_text = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
).map(json.dumps)


@given(st.lists(json_text, min_size=1, max_size=3), st.sampled_from(["", " ", "\n\t "]))
def test_added_messages_stand_behind_the_callers_own_bytes(added: list[str], blank: str) -> None:
    own = f'[{blank}{{"role":  "user", "content":"\\u0048i [ü]", "x": 1.50}}{blank}'
    body = f'{{"model":"m","messages":{blank}{own}]{blank},"seed":5}}'.encode()

    sent = decode_request(body).encode_for(
        "theirs", add_messages=[Raw(message.encode()) for message in added]
    )

    rest = "".join(f",{message}" for message in added)
    assert sent == f'{{"model":"theirs","messages":{own}{rest}],"seed":5}}'.encode()


def test_all_changes_can_be_made_at_once() -> None:
    more = Raw(b'{"role":"assistant","content":"Once"}')

    sent = json.loads(decode().encode_for("m", stream=True, add_messages=(more,)))

    assert sent["messages"] == [*HELLO["messages"], {"role": "assistant", "content": "Once"}]
    assert (sent["stream"], sent["stream_options"]) == (True, {"include_usage": True})


# The caller's time


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("30", 30.0),
        (b"30", 30.0),
        ("2.5", 2.5),
        ("0.001", 0.001),
        (b" 30s\t", 30.0),
        ("500ms", 0.5),
        ("1.5 m", 90.0),
        ("2h", 7200.0),
        ("1d", 86400.0),
    ],
)
def test_a_time_limit_is_read_as_seconds(value: bytes | str | None, seconds: float | None) -> None:
    assert request_timeout(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "", " ", "0", "0.0", "0ms", "-1", "+1", "1e3", "nan", "inf", "9" * 400, "5 apples", "5S",
        "5 min", "ms", ".5", "5.", "1,5", "30, 30", "٣", "30\n", b"\xff", "1 2",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused_with_the_cure(value: bytes | str) -> None:
    with pytest.raises(Refusal) as refused:
        request_timeout(value)

    assert (refused.value.code, refused.value.param) == ("invalid_request", "X-Request-Timeout")
    assert '"30"' in refused.value.message
    assert '"500ms"' in refused.value.message
