"""When it makes sense to ask again, out of what a provider says while it refuses.

Each vendor has words of its own for it. What is said outright about this refusal goes first:

| where                                              | who says it                            |
|----------------------------------------------------|----------------------------------------|
| `retry-after-ms: 1200`                             | OpenAI, Azure                          |
| `Retry-After: 7`, or an HTTP date                  | RFC 9110, nearly everyone              |
| `"retryDelay": "34.4s"` in the body                | Google's `RetryInfo`                   |
| `"retry_after": 7`, `"estimated_time": 20.5`       | smaller ones; Hugging Face             |
| "try again in 6m0s", "retry after 6 seconds"       | OpenAI and Groq; Azure                 |

Then the counters that come with every answer, of use only where a limit is the reason:

| where                                              | who says it                            |
|----------------------------------------------------|----------------------------------------|
| `x-ratelimit-reset-tokens: 6m0s` (`-requests`, …)  | OpenAI, Groq; Cerebras in bare seconds |
| `anthropic-ratelimit-tokens-reset: 2026-01-27T…Z`  | Anthropic                              |
| `x-ratelimit-reset: 1741305600000`                 | OpenRouter (its body, too); GitHub in s |
| `ratelimit-reset: 30`, `RateLimit: "a";r=0;t=30`   | the IETF's drafts                      |

Each has a counter of what remains beside it. Those that stand at 0 are what refuses, and all
of them must be over: the longest counts. Where none stands at 0, the request was larger than
what remained somewhere, and nothing says where. Then the shortest counts: to have waited too
little costs one more refusal, but a day's limit that was not the reason would cost a day.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST = 86_400.0
"""Seconds. Whoever says more than a day is asked again after a day."""

_BODY = 64 * 1024  # bytes that are searched for words
_VALUE = 100  # letters of a header that can be a time
_EPOCH = 1e9  # so large a number is Unix seconds
_EPOCH_MS = 1e11  # and so large a one milliseconds

_NUMBER = re.compile(r"[+-]?\d{1,20}(?:\.\d{1,20})?", re.ASCII)
_PART = (
    r"\d{1,12}(?:\.\d{1,12})?\s?(?:ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?"
    r"|h|hrs?|hours?|d|days?)(?![a-z])"
)
_DURATION = re.compile(rf"(?:{_PART}[\s,]{{0,2}}){{1,5}}", re.ASCII | re.IGNORECASE)
_ONE_PART = re.compile(r"([\d.]+)\s?(ms|mil|[smhd])", re.ASCII | re.IGNORECASE)
_UNITS = {"ms": 0.001, "mil": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

_SAID = re.compile(
    r'(?:retry_?(?:delay|after)(?:_?seconds)?|estimated_?time)\\{0,8}"\s{0,8}:\s{0,8}\\{0,8}"?'
    r"([\w.:+-]{1,40})",
    re.ASCII | re.IGNORECASE,
)
_WORDS = re.compile(
    rf"(?:try(?:ing)? again|retry(?:ing)?|wait)\s(?:in\s|after\s|for\s)?((?:{_PART}\s?){{1,5}})",
    re.ASCII | re.IGNORECASE,
)
_QUOTED_RESET = re.compile(
    r'x-ratelimit-reset\\{0,8}"\s{0,8}:\s{0,8}\\{0,8}"?([\d.]{1,30})', re.ASCII | re.IGNORECASE
)
_RESET = re.compile(r"rate-?limit.*reset")
_FIELD = re.compile(r"\b(r|t|remaining|reset)\s?=\s?(\d{1,20})", re.ASCII | re.IGNORECASE)


def retry_after(
    headers: Mapping[str, str], body: bytes, now: float, *, limited: bool = True
) -> float | None:
    """Seconds from `now` (Unix seconds) until it makes sense to ask again, as far as the
    provider says so: 0 to `LONGEST`, or `None`.

    `limited`: whether a limit is the reason of the refusal; only then its counters tell.
    """
    told: dict[str, str] = {}
    for name, value in headers.items():
        told.setdefault(name.lower(), value)
    text = str(body[:_BODY], "utf-8", "replace")
    found = _outright(told, text, now)
    if found is None and limited:
        found = _counted(told, text, now)
    return None if found is None else min(found, LONGEST)


def _outright(told: Mapping[str, str], text: str, now: float) -> float | None:
    milliseconds = told.get("retry-after-ms", "").strip()
    if _NUMBER.fullmatch(milliseconds):
        return max(0.0, float(milliseconds) / 1000)
    found = _seconds(told.get("retry-after", ""), now)
    for words in (_SAID, _WORDS):
        if found is None and (match := words.search(text)):
            found = _seconds(match[1], now)
    return found


def _counted(told: Mapping[str, str], text: str, now: float) -> float | None:
    spent, open_ones = [], []
    for remaining, reset in _counters(told, text):
        seconds = _seconds(reset, now)
        if seconds is None:
            continue
        if _NUMBER.fullmatch(remaining) and float(remaining) <= 0:
            spent.append(seconds)
        elif seconds > 0:  # what is over already is not what refuses
            open_ones.append(seconds)
    if spent:
        return max(spent)
    return min(open_ones, default=None)


def _counters(told: Mapping[str, str], text: str) -> Iterator[tuple[str, str]]:
    """What remains of each limit, and when it starts anew; "" where that is not told."""
    for name, reset in told.items():
        if _RESET.search(name):
            yield told.get(name.replace("reset", "remaining"), "").strip(), reset
    both = told.get("ratelimit", "")
    # Drafts up to the sixth put one limit into a list; later ones a list of limits.
    for one in [both] if "reset" in both.lower() else both.split(","):
        fields = {name.lower(): value for name, value in _FIELD.findall(one)}
        yield (
            fields.get("r", fields.get("remaining", "")),
            fields.get("t", fields.get("reset", "")),
        )
    if quoted := _QUOTED_RESET.search(text):
        yield "", quoted[1]


def _seconds(value: str, now: float) -> float | None:
    """A time in any of the forms in use, as seconds from `now`, never less than 0."""
    value = value.strip()[:_VALUE]
    if _NUMBER.fullmatch(value):
        number = float(value)
        if number >= _EPOCH_MS:
            number = number / 1000 - now
        elif number >= _EPOCH:
            number -= now
        return max(0.0, number)
    if _DURATION.fullmatch(value):
        parts = _ONE_PART.findall(value)
        return sum(float(number) * _UNITS[unit.lower()] for number, unit in parts)
    if not value:
        return None
    try:
        if value[:4].isdecimal():
            moment = datetime.fromisoformat(value)
        else:
            moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, moment.timestamp() - now)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
