"""What callers send to `/chat/completions`: bad input is named, good input keeps its bytes."""

import contextlib
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.dialects.openai_chat import ChatRequest, ProviderChoice, decode_request
from manyways.errors import Refusal

HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
PARTS: list[dict[str, Any]] = [
    {"type": "text", "text": "What is it?"},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    {"type": "file", "file": {"file_id": "f"}},
    {"type": "of_tomorrow", "anything": [1, {"b": None}]},
]


def decode(defaults: dict[str, float] | None = None, /, **fields: Any) -> ChatRequest:
    return decode_request(json.dumps({**HELLO, **fields}).encode(), defaults or {})


def refusal(body: bytes | dict[str, Any]) -> Refusal:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Refusal) as raised:
        decode_request(data)
    return raised.value


# What passes


def test_everything_that_is_not_ours_keeps_its_very_bytes() -> None:
    messages = b'[ {"role":"user", "content": "\\u0048i \xd0\xbf", "x" : 1.500} ]'
    rest = b',"temperature": 0.70,"seed":  5, "x_vendor": {"a":[1e-7, 12345678901234567890] }'
    body = b'{"model": "m", "messages": ' + messages + rest + b',"stream":true}'
    assert decode_request(body).encode_for("theirs") == (
        b'{"model":"theirs","messages":' + messages + b',"temperature":0.70,"seed":5,'
        b'"x_vendor":{"a":[1e-7, 12345678901234567890] },"stream":true}'
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0},
        {"temperature": 2},
        {"top_p": 1},
        {"top_p": 0.0},
        {"frequency_penalty": -2},
        {"presence_penalty": 2.0},
        {"max_tokens": 1},
        {"max_completion_tokens": 100_000},
        {"n": 128},
        {"stop": "END"},
        {"stop": ["a", "b"]},
        {"stop": None},
        {"seed": -5},
        {"seed": 2**63 - 1},
        {"logprobs": True, "top_logprobs": 20},
        {"logit_bias": {"50256": -100}},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"tools": [{"type": "custom", "custom": {"name": "c"}}]},
        {"tools": [{"type": "web_search_preview"}]},
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"parallel_tool_calls": False},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}},
        {"response_format": None},
        {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
        {"user": "u", "metadata": {"k": "v"}, "store": True, "service_tier": "auto"},
        {"reasoning_effort": "low", "verbosity": "high", "prediction": {"type": "content"}},
        {"modalities": ["text"]},
        {"functions": [{"name": "f"}], "function_call": "auto"},
        {"top_k": 40, "min_p": 0.1, "reasoning": {"effort": "low"}, "chat_template_kwargs": {}},
        {"temperature": None, "tools": None, "max_tokens": None, "stream_options": None},
        {"messages": [{"role": "user", "content": PARTS}]},
        {"messages": [{"role": "system", "content": [PARTS[0]]}, *HELLO["messages"]]},
        {"messages": [{"role": "developer", "content": ""}]},
        {"messages": [{"role": "user", "content": "x", "name": "Ann", "cache_control": {}}]},
        {
            "messages": [
                {
                    "role": "assistant",
                    "content": None,
                    "refusal": None,
                    "reasoning_content": "r",
                    "tool_calls": [
                        {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
                    ],
                },
                {"role": "tool", "tool_call_id": "c", "content": "done"},
                {"role": "assistant", "audio": {"id": "a"}},
                {"role": "function", "name": "f", "content": None},
            ]
        },
    ],
    ids=",".join,
)
def test_a_good_parameter_is_sent_on_as_it_is(fields: dict[str, Any]) -> None:
    sent = json.loads(decode(**fields).encode_for("m"))
    assert sent == {**HELLO, **fields}


def test_a_picture_of_ten_megabytes_passes() -> None:
    url = "data:image/png;base64," + "A" * 10_000_000
    part = {"type": "image_url", "image_url": {"url": url}}
    sent = decode(messages=[{"role": "user", "content": [part]}]).encode_for("m")
    assert json.loads(sent)["messages"][0]["content"] == [part]


def test_a_thousand_messages_pass() -> None:
    messages = [{"role": "user", "content": str(i)} for i in range(1000)]
    assert json.loads(decode(messages=messages).encode_for("m"))["messages"] == messages


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ProviderChoice()),
        ({"provider": None}, ProviderChoice()),
        ({"provider": "Capi"}, ProviderChoice(order=["Capi"])),
        ({"provider": {}}, ProviderChoice()),
        (
            {"provider": {"order": ["A"], "only": ["A", "B"], "ignore": ["C"]}},
            ProviderChoice(order=["A"], only=["A", "B"], ignore=["C"]),
        ),
        ({"provider": {"allow_fallbacks": False}}, ProviderChoice(allow_fallbacks=False)),
    ],
)
def test_our_own_fields_are_read_and_taken_out(
    fields: dict[str, Any], expected: ProviderChoice
) -> None:
    request = decode(**fields)
    assert request.provider == expected
    assert json.loads(request.encode_for("m")) == HELLO


@pytest.mark.parametrize("nothing", [None, False, [], {}])
def test_our_own_fields_that_ask_for_nothing_are_no_request(nothing: object) -> None:
    fields = {"web_search": nothing if not isinstance(nothing, list) else False}
    if isinstance(nothing, list) or nothing is None:
        fields |= {"models": nothing, "transforms": nothing}
    assert json.loads(decode(**fields).encode_for("m")) == HELLO


def test_stream_and_the_number_of_choices_are_known() -> None:
    assert (decode().stream, decode().choices) == (False, 1)
    request = decode(stream=True, n=3)
    assert (request.stream, request.choices) == (True, 3)
    assert decode(stream=None, n=None).choices == 1


def test_defaults_fill_in_only_what_the_caller_left_open() -> None:
    defaults = {"temperature": 0.7, "max_tokens": 2000, "top_p": 1.0}
    sent = json.loads(decode(defaults, temperature=0, top_p=None).encode_for("m"))
    assert (sent["temperature"], sent["max_tokens"], sent["top_p"]) == (0, 2000, 1.0)
    assert "max_tokens" not in json.loads(decode(defaults, max_completion_tokens=5).encode_for("m"))


# What is refused


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": ["Hello"]}, "messages[0]"),
        ({"messages": [*HELLO["messages"], None]}, "messages[1]"),
        ({"messages": [{}]}, "messages[0].role"),
        ({"messages": [{"role": None, "content": ""}]}, "messages[0].role"),
        ({"messages": [{"role": 5, "content": ""}]}, "messages[0].role"),
        ({"messages": [{"role": "User", "content": ""}]}, "messages[0].role"),
        (
            {"messages": [*HELLO["messages"] * 2, {"role": "wizard", "content": ""}]},
            "messages[2].role",
        ),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "system", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "tool_call_id": "c"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": {}}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{}]}]}, "messages[0].content[0].type"),
        (
            {"messages": [{"role": "user", "content": [PARTS[0], {"type": "text", "text": 5}]}]},
            "messages[0].content[1].text",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0].image_url.url",
        ),
        ({"messages": [{"role": "user", "content": "", "name": 5}]}, "messages[0].name"),
        ({"messages": [{"role": "assistant", "tool_calls": {}}]}, "messages[0].tool_calls"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": 5}}]}]},
            "messages[0].tool_calls[0].function.name",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [{"function": {"name": "f", "arguments": {}}}],
                    }
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 5}, "model"),
        ({"model": ["m"]}, "model"),
        ({"provider": 5}, "provider"),
        ({"provider": ["Capi"]}, "provider"),
        ({"provider": {"order": "Capi"}}, "provider.order"),
        ({"provider": {"only": [5]}}, "provider.only[0]"),
        ({"provider": {"allow_fallbacks": "no"}}, "provider.allow_fallbacks"),
        ({"models": "m"}, "models"),
        ({"models": [5]}, "models[0]"),
        ({"models": ["m", ""]}, "models[1]"),
        ({"models": ["m" * 513]}, "models[0]"),
        ({"models": ["m"] * 101}, "models"),
        ({"models": {"a": 1}}, "models"),
        ({"web_search": "yes"}, "web_search"),
        ({"transforms": "middle-out"}, "transforms"),
        ({"stream": "true"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": True}, "stream_options"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "0.7"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_p": -1}, "top_p"),
        ({"frequency_penalty": 2.5}, "frequency_penalty"),
        ({"presence_penalty": -2.5}, "presence_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -5}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": "100"}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"stop": 5}, "stop"),
        ({"stop": [5]}, "stop[0]"),
        ({"seed": "5"}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"logprobs": 5}, "logprobs"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"logit_bias": []}, "logit_bias"),
        ({"tools": {}}, "tools"),
        ({"tools": [{}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
            "tools[0].function.parameters",
        ),
        ({"tool_choice": 5}, "tool_choice"),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {}}, "response_format.type"),
        ({"user": 5}, "user"),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value)[:48],
)
def test_a_bad_field_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    refused = refusal({**HELLO, **fields})
    assert (refused.code, refused.param) == ("invalid_request", param)
    assert refused.message.startswith(param + ":")
    assert re.search(r"`|\$|msgspec|Object|Expected", refused.message) is None


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_a_missing_field_is_refused_by_name(missing: str) -> None:
    refused = refusal({name: value for name, value in HELLO.items() if name != missing})
    assert (refused.code, refused.param) == ("invalid_request", missing)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"web_search": True}, "web_search"),
        ({"web_search": {"max_results": 3}}, "web_search"),
        ({"transforms": ["middle-out"]}, "transforms"),
        ({"modalities": ["text", "audio"], "audio": {"voice": "alloy"}}, "modalities"),
    ],
)
def test_what_is_not_served_yet_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    refused = refusal({**HELLO, **fields})
    assert (refused.code, refused.param) == ("not_supported", param)


GOOD = json.dumps(HELLO)[:-1].encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"Hello",
        b"null",
        b"[]",
        b'"text"',
        b"5",
        b"{",
        GOOD,
        GOOD + b",}",
        GOOD + b"}}",
        GOOD + b"} {}",
        GOOD + b', "temperature": NaN}',
        GOOD + b', "temperature": Infinity}',
        GOOD + b', "x": -Infinity}',
        GOOD + b', "x": "\\ud800"}',
        GOOD + b', "x": "\\udc00\\ud800"}',
        GOOD + b', "x": "\xff"}',
        GOOD + b', "x": "\xed\xa0\x80"}',
        GOOD + b', "x": "\x00"}',
        GOOD + b', "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        GOOD + b', "x": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        GOOD + b', "x": ' + b"[" * 100_000,
        b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"\x1f\x8b\x08\x00",
        json.dumps(HELLO).encode("utf-16"),
    ],
    ids=lambda body: repr(body[-16:]),
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    refused = refusal(body)
    assert refused.code == "invalid_request"
    assert "JSON" in refused.message


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        (b', "model": "other"}', "model"),
        (b', "stream": true, "stream": false}', "stream"),
        (b', "x": 1, "x": 1}', "x"),
        (b', "mo\\u0064el": "other"}', "model"),
    ],
)
def test_a_field_that_stands_twice_is_refused(extra: bytes, param: str) -> None:
    refused = refusal(GOOD + extra)
    assert (refused.code, refused.param) == ("invalid_request", param)


def test_a_number_beyond_all_bounds_is_refused_where_a_bound_is() -> None:
    for number in (b"1e999", b"-1e999", b"9" * 400):
        refused = refusal(GOOD + b', "temperature": ' + number + b"}")
        assert (refused.code, refused.param) == ("invalid_request", "temperature")


def test_a_long_number_elsewhere_passes_as_it_is() -> None:
    sent = decode_request(GOOD + b', "x": ' + b"9" * 10_000 + b"}").encode_for("m")
    assert b"9" * 10_000 in sent


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool"]) | json_values},
        optional=dict.fromkeys(("content", "name", "tool_calls", "refusal", "x"), json_values),
    ),
    max_size=3,
)
NAMES = (
    "model", "provider", "models", "web_search", "transforms", "stream", "stream_options",
    "temperature", "top_p", "n", "stop", "seed", "logprobs", "logit_bias", "tools",
    "tool_choice", "response_format", "user", "modalities", "max_tokens", "x",
)  # fmt: skip
bodies = st.fixed_dictionaries(
    {"messages": messages | json_values}, optional=dict.fromkeys(NAMES, json_values)
)


@given(bodies, st.booleans())
def test_any_json_is_a_request_or_a_refusal(body: dict[str, Any], ascii_only: bool) -> None:
    with contextlib.suppress(Refusal):
        data = json.dumps({"model": "m", **body}, ensure_ascii=ascii_only).encode()
        request = decode_request(data, {"temperature": 0.7})
        sent = json.loads(request.encode_for("theirs"))
        assert sent["model"] == "theirs"
        assert sent["messages"] == body["messages"]


@given(st.binary())
def test_any_bytes_are_refused(body: bytes) -> None:
    refused = refusal(body)
    assert refused.code == "invalid_request"


@given(json_values)
def test_any_json_that_is_no_request_is_refused(value: Any) -> None:
    data = json.dumps(value).encode()
    assert refusal(data).code == "invalid_request"
