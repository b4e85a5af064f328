"""A provider's whole answer: ours only in what is named, refused where it is none."""

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.dialects.openai_chat import edit_answer
from manyways.errors import AttemptFailed
from tests.dialects.streams import LABEL

CHOICE = b'{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}'


def edit(body: bytes) -> dict[str, Any]:
    out, _ = edit_answer(body, LABEL)
    found: dict[str, Any] = json.loads(out)
    return found


def test_the_answers_own_bytes_are_kept() -> None:
    usage = b'{"prompt_tokens": 1.50, "big": 12345678901234567890, "t": 1e-7, "s": "\\u0041"}'
    out, _ = edit_answer(
        b'{"id": "i", "object": "chat.completion", "created": 5, "model": "theirs",'
        b' "choices": [' + CHOICE + b'], "usage": ' + usage + b', "x": [ ]}',
        LABEL,
    )
    assert out == (
        b'{"id":"i","object":"chat.completion","created":5,"model":"catalog-name",'
        b'"provider":"Shop","choices":[' + CHOICE + b'],"usage":' + usage + b',"x":[ ]}'
    )


def test_what_is_missing_is_filled_in() -> None:
    answer = edit(b'{"choices": [' + CHOICE + b"]}")
    assert answer["id"] == LABEL.id
    assert answer["created"] == LABEL.created
    assert answer["object"] == "chat.completion"
    assert (answer["model"], answer["provider"]) == ("catalog-name", "Shop")


def test_an_answer_tells_how_it_came_about_where_that_is_worth_a_word() -> None:
    label = msgspec.structs.replace(LABEL, metadata=msgspec.Raw(b'{"fallback_attempts": 1}'))
    answer = json.loads(
        edit_answer(b'{"_metadata": "theirs", "choices": [' + CHOICE + b"]}", label)[0]
    )
    assert answer["_metadata"] == {"fallback_attempts": 1}


@pytest.mark.parametrize("empty", [b'""', b"null"])
def test_what_is_empty_is_filled_in(empty: bytes) -> None:
    answer = edit(b'{"id": %b, "object": %b, "choices": [%b]}' % (empty, empty, CHOICE))
    assert (answer["id"], answer["object"]) == (LABEL.id, "chat.completion")


def test_a_provider_field_of_the_providers_own_is_replaced() -> None:
    answer = edit(b'{"provider": "Reseller", "model": "m", "choices": [' + CHOICE + b"]}")
    assert answer["provider"] == "Shop"


def test_an_error_that_says_nothing_is_none() -> None:
    assert edit(b'{"error": null, "choices": [' + CHOICE + b"]}")["error"] is None


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b"", "no_answer", "empty body"),
        (b"<!DOCTYPE html><html>", "no_answer", "HTML page"),
        (b"  <html>", "no_answer", "HTML page"),
        (b"data: {}\n\n", "no_answer", "event stream"),
        (b"Bad gateway", "no_answer", "not an answer"),
        (b"[]", "no_answer", "not an answer"),
        (b"{", "no_answer", "not an answer"),
        (b"{}", "no_answer", "without any choice"),
        (b'{"choices": []}', "no_answer", "without any choice"),
        (b'{"choices": null}', "no_answer", "choices"),
        (b'{"choices": [{}]}', "no_answer", "malformed"),
        (b'{"choices": [{"message": null}]}', "no_answer", "malformed"),
        (b'{"choices": [{"message": {"content": "\xff"}}]}', "no_answer", "UTF-8"),
        (b'{"error": {"message": "Out of memory."}}', "error_inside", "Out of memory."),
        (b'{"error": "Out of memory."}', "error_inside", "Out of memory."),
        (b'{"error": {"code": 502}, "choices": [%b]}' % CHOICE, "error_inside", "502"),
        (
            b'{"choices": [{"message": {}, "finish_reason": "error"}]}',
            "error_inside",
            "failed while answering",
        ),
    ],
)
def test_what_is_no_answer_is_a_failed_attempt(body: bytes, code: str, words: str) -> None:
    with pytest.raises(AttemptFailed, match=words) as raised:
        edit_answer(body, LABEL)
    assert raised.value.code == code
    assert "<" not in raised.value.message


@given(st.binary())
def test_any_bytes_are_an_answer_or_a_failed_attempt(body: bytes) -> None:
    with pytest.raises(AttemptFailed):
        edit_answer(body, LABEL)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("choices", "error", "id", "created", "model", "object"), json_values
        ),
    )
)
def test_any_json_is_an_answer_or_a_failed_attempt(value: dict[str, Any]) -> None:
    with contextlib.suppress(AttemptFailed):
        answer = edit(json.dumps(value).encode())
        assert answer["model"] == "catalog-name"
        assert answer["choices"]
