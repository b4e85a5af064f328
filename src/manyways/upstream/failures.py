"""Foreign failures become ours here, and nowhere else.

| what came back                                       | becomes                            |
|------------------------------------------------------|------------------------------------|
| 400, 404, 413, 422 that the caller caused            | `Refusal`, the provider's words    |
| prompt too long; refused by a filter                 | `Refusal`, our code                |
| 401, 402, 403, or a 400 that names credentials       | `AttemptFailed("credentials")`     |
| 404, 410 or 400 that names the model                 | `AttemptFailed("model_gone")`      |
| 429                                                  | `AttemptFailed("rate_limited")`    |
| 408, 409, 425, 5xx and whatever else                 | `AttemptFailed("provider_error")`  |
| refused, DNS, TLS, reset, cut, not HTTP              | `"connect"`, `"reset"`, `"cut"`, … |
| a phase took too long                                | `AttemptFailed("timeout")`         |
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from manyways.errors import (
    AttemptFailed,
    ConnectFailed,
    Cut,
    Garbled,
    Refusal,
    Reset,
    TimedOut,
    TlsFailed,
    TooLarge,
    TransportError,
)

_CALLERS_FAULT = frozenset({400, 404, 413, 422})
_CREDENTIALS = frozenset({401, 402, 403})
_MODEL = re.compile(
    r"model[\w\s`'\".:/@-]{0,120}(not found|does not exist|doesn't exist|not exist|unknown"
    r"|decommissioned|deprecated|no longer|not supported|not available)"
    r"|(unknown|invalid|no such|unsupported) model|model_not_found",
    re.IGNORECASE,
)
_OUR_CREDENTIALS = re.compile(
    r"(invalid|incorrect|missing|wrong|expired)\W+(\w+\W+)?api.?key|api.?key\W+(\w+\W+)?"
    r"(invalid|incorrect|missing|expired|not valid)|insufficient.(credit|balance|quota|funds)"
    r"|exceeded your current quota|invalid_api_key",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(
    r"context_length_exceeded|maximum context length|context (length|window|size)"
    r"|prompt is too long|too many (input )?tokens|exceeds? the (available )?context",
    re.IGNORECASE,
)
_FILTER = re.compile(
    r"content_filter|content_policy|content management policy|responsibleai|content_moderation",
    re.IGNORECASE,
)


class _Error(msgspec.Struct):
    message: str = ""
    code: str = ""
    type: str = ""
    param: str | None = None

    @property
    def text(self) -> str:
        return f"{self.code} {self.type} {self.message}"


def from_status(
    status: int, headers: Mapping[str, str], body: bytes, now: float
) -> Refusal | AttemptFailed:
    """What an answer other than 2xx means. `now` is Unix seconds, for `Retry-After` dates."""
    error = _read(body)
    message = error.message or f"answered HTTP {status}"
    if status in _CREDENTIALS or (status == 400 and _OUR_CREDENTIALS.search(error.text)):
        # Their words may quote our key; an operator finds them in the log, callers do not.
        return AttemptFailed(
            "credentials", "does not accept the gateway's credentials or credit", status=status
        )
    if status == 410 or (status in (400, 404) and _MODEL.search(error.text)):
        return AttemptFailed("model_gone", message, status=status)
    if status in _CALLERS_FAULT:
        if _TOO_LONG.search(error.text):
            return Refusal("context_length_exceeded", message, param=error.param)
        if _FILTER.search(error.text):
            return Refusal("content_filter", message, param=error.param)
        return Refusal(
            "provider_refused",
            message,
            param=error.param,
            status=status,
            provider_code=error.code or None,
        )
    return AttemptFailed(
        "rate_limited" if status == 429 else "provider_error",
        message,
        status=status,
        retry_after=retry_after(headers.get("Retry-After"), now),
    )


_TRANSPORT_CODES: dict[type[TransportError], str] = {
    ConnectFailed: "connect",
    TlsFailed: "tls",
    TimedOut: "timeout",
    Reset: "reset",
    Cut: "cut",
    Garbled: "garbled",
    TooLarge: "too_large",
}


def from_transport(error: TransportError) -> AttemptFailed:
    """What a failure to exchange bytes means. Addresses are for the log, not for callers."""
    code = _TRANSPORT_CODES.get(type(error), "connect")
    return AttemptFailed(code, _FOR_CALLERS.get(code, str(error)))


_FOR_CALLERS = {
    "connect": "cannot be reached",
    "tls": "its certificate is not accepted",
    "reset": "closed the connection before it answered",
}


def retry_after(value: str | None, now: float) -> float | None:
    """`Retry-After` in seconds from `now`: a number, or an HTTP date. `None` if unreadable."""
    if not value:
        return None
    try:
        seconds = float(value)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, moment.timestamp() - now)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _read(body: bytes) -> _Error:
    """The error object of a provider's body: OpenAI's shape, or one of those in use beside it
    (`{"error": "text"}`, `{"message", "code"}`, `{"detail": ...}`, a list around the object)."""
    try:
        value: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Error()
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        return _Error()
    inner = value.get("error", value)
    if isinstance(inner, str):
        return _Error(message=inner[:2000])
    if not isinstance(inner, dict):
        return _Error()
    message = inner.get("message") or inner.get("detail") or ""
    param = inner.get("param")
    return _Error(
        message=_text(message)[:2000],
        code=_text(inner.get("code") or ""),
        type=_text(inner.get("type") or inner.get("status") or ""),
        param=param if isinstance(param, str) else None,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(msgspec.json.encode(value), "utf-8")
