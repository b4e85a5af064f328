"""The error table: every refusal's status, type and code, in both formats, in one place.

`object` is OpenAI's shape, `{"error": {"message", "type", "code", "param"}}`, which SDKs turn
into typed exceptions. `string` is `{"error": "<code>"}`, with that API's own statuses.
"""

from typing import Any, NamedTuple

from manyways.dialects import json_text
from manyways.edge.settings import ErrorFormat
from manyways.errors import Refusal


class Row(NamedTuple):
    """One line of the table. `string_*` are for the string format, where they differ."""

    status: int
    type: str
    string_status: int
    string_code: str


def _row(status: int, kind: str, string_code: str, string_status: int | None = None) -> Row:
    return Row(status, kind, string_status or status, string_code)


_INVALID = "invalid_request_error"
_AUTHENTICATION = "authentication_error"
_RATE = "rate_limit_error"
_UNAVAILABLE = "service_unavailable_error"
_OURS = "api_error"

TABLE: dict[str, Row] = {
    "invalid_request": _row(400, _INVALID, "invalid_request"),
    "model_not_found": _row(404, _INVALID, "invalid_model", 400),
    "provider_not_found": _row(404, _INVALID, "invalid_model", 400),
    "context_length_exceeded": _row(400, _INVALID, "context_length_exceeded"),
    "content_filter": _row(400, _INVALID, "content_filter"),
    # A request the provider calls wrong: its own status and code, `Refusal.status` and
    # `.provider_code`, take the place of these.
    "provider_refused": _row(400, _INVALID, "invalid_request"),
    "not_supported": _row(400, _INVALID, "invalid_request"),
    "invalid_api_key": _row(401, _AUTHENTICATION, "invalid_api_key"),
    "expired_api_key": _row(401, _AUTHENTICATION, "expired_api_key"),
    "account_not_active": _row(401, _AUTHENTICATION, "account_not_active"),
    "revoked_api_key": _row(403, _AUTHENTICATION, "revoked_api_key"),
    "admin_required": _row(403, _AUTHENTICATION, "admin_required"),
    "rate_limit_exceeded": _row(429, _RATE, "rate_limit_exceeded"),
    "quota_exceeded": _row(429, _RATE, "quota_exceeded"),
    "concurrent_requests": _row(429, _RATE, "concurrent_requests"),
    "idempotency_conflict": _row(409, _INVALID, "idempotency_conflict"),
    "request_timeout": _row(408, _INVALID, "request_timeout"),
    "request_too_large": _row(413, _INVALID, "request_too_large"),
    "not_found": _row(404, _INVALID, "not_found"),
    "method_not_allowed": _row(405, _INVALID, "method_not_allowed"),
    "all_models_failed": _row(503, _UNAVAILABLE, "model_error", 500),
    "timeout": _row(504, _UNAVAILABLE, "timeout", 500),
    "shutting_down": _row(503, _UNAVAILABLE, "server_error", 503),
    "server_error": _row(500, _OURS, "server_error"),
}


class Problem(NamedTuple):
    """A refusal as it goes out."""

    status: int
    code: str
    body: bytes
    retry_after: int | None


def render(refusal: Refusal, error_format: ErrorFormat) -> Problem:
    """What the caller is told, in the format of the mount it came through."""
    row = TABLE[refusal.code]
    if error_format == "string":
        status = refusal.status or row.string_status
        code = row.string_code
        body: dict[str, Any] = {"error": code}
    else:
        status = refusal.status or row.status
        code = refusal.provider_code or (
            "invalid_request" if refusal.code == "provider_refused" else refusal.code
        )
        error: dict[str, Any] = {
            "message": refusal.message,
            "type": row.type,
            "code": code,
            "param": refusal.param,
        }
        if refusal.details is not None:
            error["details"] = refusal.details
        body = {"error": error}
    return Problem(status, code, json_text.encode(body), refusal.retry_after)
