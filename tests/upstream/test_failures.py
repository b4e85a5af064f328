"""Foreign failures become ours at one seam."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.errors import AttemptFailed, Refusal
from manyways.upstream.failures import from_status, retry_after

NOW = 1_800_000_000.0


def told(status: int, body: object) -> Refusal | AttemptFailed:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return from_status(status, {}, data, NOW)


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, {"error": {"message": "Invalid API Key", "code": "invalid_api_key"}}, "credentials"),
        (400, {"error": {"message": "API key not valid. Please pass one."}}, "credentials"),
        (400, {"error": "Insufficient credits"}, "credentials"),
        (401, b"", "credentials"),
        (402, {"error": {"message": "pay"}}, "credentials"),
        (403, {"detail": "forbidden"}, "credentials"),
        (404, {"error": {"message": "The model `x` does not exist"}}, "model_gone"),
        (404, {"error": {"code": "model_not_found", "message": "gone"}}, "model_gone"),
        (400, {"error": {"message": "The model `x` has been decommissioned"}}, "model_gone"),
        (410, b"", "model_gone"),
        (429, {"error": {"message": "slow down"}}, "rate_limited"),
        (408, b"", "provider_error"),
        (409, b"", "provider_error"),
        (500, b"<html>", "provider_error"),
        (502, b"", "provider_error"),
        (529, {"type": "error", "error": {"type": "overloaded_error"}}, "provider_error"),
        (302, b"", "provider_error"),
    ],
)
def test_what_is_not_the_callers_fault_is_a_failed_attempt(
    status: int, body: object, code: str
) -> None:
    found = told(status, body)
    assert isinstance(found, AttemptFailed)
    assert (found.code, found.status) == (code, status)


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, {"error": {"message": "tools[0] is wrong", "code": "bad"}}, "provider_refused"),
        (413, b"", "provider_refused"),
        (422, {"detail": [{"loc": ["body"], "msg": "no"}]}, "provider_refused"),
        (404, {"error": {"message": "no such route"}}, "provider_refused"),
        (
            400,
            {"error": {"message": "This model's maximum context length is 8192 tokens."}},
            "context_length_exceeded",
        ),
        (400, [{"error": {"message": "prompt is too long"}}], "context_length_exceeded"),
        (400, {"error": {"code": "content_filter", "message": "no"}}, "content_filter"),
    ],
)
def test_what_the_caller_caused_goes_to_the_caller(status: int, body: object, code: str) -> None:
    found = told(status, body)
    assert isinstance(found, Refusal)
    assert found.code == code


@given(status=st.integers(300, 599), body=st.binary(max_size=200))
def test_any_answer_at_all_means_something(status: int, body: bytes) -> None:
    assert isinstance(from_status(status, {}, body, NOW), Refusal | AttemptFailed)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["error", "message", "code", "detail", "param", "type"]), inner, max_size=4
    )
), max_leaves=8))  # fmt: skip
def test_any_json_at_all_means_something(body: object) -> None:
    assert isinstance(told(400, body), Refusal | AttemptFailed)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("Fri, 15 Jan 2027 08:00:10 GMT", 10.0),
        ("Fri, 15 Jan 2027 07:59:00 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == seconds
