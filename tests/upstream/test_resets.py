"""When to ask again, in every form that a vendor has for it."""

import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from manyways.upstream.resets import LONGEST, retry_after

NOW = 1_800_000_000.0


def told(headers: dict[str, str] | None = None, body: object = b"") -> float | None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = retry_after(headers or {}, data, NOW)
    return None if found is None else round(found, 6)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("9999-99-99", None),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("Fri, 15 Jan 2027 08:00:10 GMT", 10.0),
        ("Fri, 15 Jan 2027 07:59:00 GMT", 0.0),
        ("30s", 30.0),
        ("1800000012", 12.0),
        ("99999999999999999999", LONGEST),
        ("100000", LONGEST),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert told({"Retry-After": value}) == seconds


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("1s", 1.0),
        ("12ms", 0.012),
        ("6m0s", 360.0),
        ("1h2m3s", 3723.0),
        ("7.66s", 7.66),
        ("2m59.56s", 179.56),
        ("1d2h", LONGEST),
        ("33011.382867", 33011.382867),
        ("6m0x", None),
        ("s", None),
    ],
)
def test_a_counters_reset_is_a_duration(reset: str, seconds: float | None) -> None:
    headers = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": reset}
    assert told(headers) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (
            {
                "anthropic-ratelimit-requests-remaining": "49",
                "anthropic-ratelimit-requests-reset": "2027-01-15T08:00:02Z",
                "anthropic-ratelimit-tokens-remaining": "0",
                "anthropic-ratelimit-tokens-reset": "2027-01-15T08:00:41Z",
            },
            41.0,
        ),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1800000009000"}, 9.0),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1800000060"}, 60.0),
        ({"x-ratelimit-reset": "5"}, 5.0),
        ({"x-rate-limit-remaining": "0", "x-rate-limit-reset": "15"}, 15.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "30"}, 30.0),
        ({"RateLimit": '"default";r=0;t=30'}, 30.0),
        ({"RateLimit": '"burst";r=3;t=2, "daily";r=0;t=3000'}, 3000.0),
        ({"RateLimit": "limit=100, remaining=0, reset=50"}, 50.0),
        ({"RateLimit": "nothing"}, None),
        ({"x-ratelimit-remaining-tokens": "0"}, None),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1799999000"}, 0.0),
    ],
)
def test_every_vendors_counters_are_read(headers: dict[str, str], seconds: float) -> None:
    assert told(headers) == seconds


OPENAI = {
    "x-ratelimit-reset-requests": "8.64s",
    "x-ratelimit-reset-tokens": "6m0s",
}


@pytest.mark.parametrize(
    ("requests", "tokens", "seconds"),
    [("0", "120", 8.64), ("12", "0", 360.0), ("0", "0", 360.0), ("12", "120", 8.64)],
)
def test_the_longest_of_the_spent_limits_counts_or_the_shortest_if_none_is(
    requests: str, tokens: str, seconds: float
) -> None:
    remaining = {
        "x-ratelimit-remaining-requests": requests,
        "x-ratelimit-remaining-tokens": tokens,
    }
    assert told(OPENAI | remaining) == seconds


def test_a_limit_that_is_full_again_is_not_what_refuses() -> None:
    assert told(OPENAI | {"x-ratelimit-reset-requests": "0s"}) == 360.0
    assert told({"x-ratelimit-reset-requests": "0s"}) is None


GOOGLE = {
    "error": {
        "code": 429,
        "status": "RESOURCE_EXHAUSTED",
        "message": "You exceeded your current quota.",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure"},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"},
        ],
    }
}


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        (GOOGLE, 34.4),
        ([GOOGLE], 34.4),
        ({"error": {"message": json.dumps(GOOGLE)}}, 34.4),  # as some SDKs' proxies wrap it
        ({"error": {"message": "Limit 3, Used 3. Please try again in 20s."}}, 20.0),
        ({"error": {"message": "Please try again in 1.2s. Visit https://x"}}, 1.2),
        ({"error": {"message": "Please try again in 6m0s."}}, 360.0),
        ({"error": {"message": "Please try again in 864ms."}}, 0.864),
        ({"error": {"message": "Please retry after 6 seconds. To increase"}}, 6.0),
        ({"error": {"message": "Please retry in 12.074824224s."}}, 12.074824),
        ({"error": {"message": "Please wait 1 minute 30 seconds before retrying."}}, 90.0),
        ({"error": {"message": "try again in 86401 seconds"}}, LONGEST),
        ({"error": "Model m is currently loading", "estimated_time": 20.5}, 20.5),
        ({"message": "limited", "retry_after": 3}, 3.0),
        ({"error": {"metadata": {"headers": {"X-RateLimit-Reset": "1800000007000"}}}}, 7.0),
        ({"error": {"message": "Please try again in 5 mice"}}, None),
        ({"error": {"message": "Please try again in a moment"}}, None),
        ({"retry_after": None}, None),
        (b"<html>", None),
        (b"", None),
    ],
)
def test_what_a_body_says_is_heard(body: object, seconds: float | None) -> None:
    assert told(body=body) == seconds


def test_what_is_said_outright_goes_before_what_is_counted() -> None:
    counted = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "50"}
    message = {"error": {"message": "Please try again in 20s."}}
    assert told(counted) == 50.0
    assert told(counted, message) == 20.0
    assert told(counted | {"retry-after": "7"}, message) == 7.0
    assert told(counted | {"retry-after": "7", "retry-after-ms": "6500"}, message) == 6.5
    assert told(counted | {"retry-after": "soon", "retry-after-ms": "x"}) == 50.0


def test_counters_do_not_tell_when_a_limit_is_not_the_reason() -> None:
    counted = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "50"}
    assert retry_after(counted, b"", NOW, limited=False) is None
    assert retry_after(counted | {"retry-after": "7"}, b"", NOW, limited=False) == 7.0


TIMES = (
    st.text(max_size=60)
    | st.from_regex(r"[0-9]{1,25}(\.[0-9]{1,25})?(ms|s|m|h|d)?", fullmatch=True)
    | st.datetimes().map(str)
    | st.floats().map(str)
)
NAMES = st.sampled_from(
    [
        "retry-after",
        "retry-after-ms",
        "ratelimit",
        "ratelimit-reset",
        "x-ratelimit-reset",
        "x-ratelimit-remaining",
        "x-ratelimit-reset-tokens",
        "anthropic-ratelimit-tokens-reset",
    ]
)


@given(headers=st.dictionaries(NAMES, TIMES), said=TIMES, now=st.floats(0, 4e9))
@example(headers={"retry-after": "0001-01-01T00:00:00+23:59"}, said="", now=0)
@example(headers={"retry-after": "Thu, 01 Jan 0001 00:00:00 +2359"}, said="", now=0)
def test_whatever_is_said_the_time_is_finite_and_not_in_the_past(
    headers: dict[str, str], said: str, now: float
) -> None:
    body = json.dumps({"retryDelay": said, "message": f"try again in {said}"}).encode()
    found = retry_after(headers, body, now)
    assert found is None or (math.isfinite(found) and 0 <= found <= LONGEST)


@given(
    headers=st.dictionaries(st.text(max_size=20), st.text(max_size=200)),
    body=st.binary(max_size=200),
)
def test_any_headers_and_body_at_all_can_be_read(headers: dict[str, str], body: bytes) -> None:
    found = retry_after(headers, body, NOW)
    assert found is None or 0 <= found <= LONGEST
