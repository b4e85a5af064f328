"""The error table, in both formats."""

import json
import re
from pathlib import Path

import pytest

from manyways.edge.problems import TABLE, render
from manyways.errors import Refusal

DOCS = Path(__file__).parents[2] / "docs" / "errors.md"
SOURCES = Path(__file__).parents[2] / "src" / "manyways"

# What callers rely on: object status and type, string status and code.
PROMISED = {
    "invalid_request": (400, "invalid_request_error", 400, "invalid_request"),
    "model_not_found": (404, "invalid_request_error", 400, "invalid_model"),
    "provider_not_found": (404, "invalid_request_error", 400, "invalid_model"),
    "context_length_exceeded": (400, "invalid_request_error", 400, "context_length_exceeded"),
    "content_filter": (400, "invalid_request_error", 400, "content_filter"),
    "not_supported": (400, "invalid_request_error", 400, "invalid_request"),
    "invalid_api_key": (401, "authentication_error", 401, "invalid_api_key"),
    "expired_api_key": (401, "authentication_error", 401, "expired_api_key"),
    "account_not_active": (401, "authentication_error", 401, "account_not_active"),
    "revoked_api_key": (403, "authentication_error", 403, "revoked_api_key"),
    "admin_required": (403, "authentication_error", 403, "admin_required"),
    "rate_limit_exceeded": (429, "rate_limit_error", 429, "rate_limit_exceeded"),
    "quota_exceeded": (429, "rate_limit_error", 429, "quota_exceeded"),
    "concurrent_requests": (429, "rate_limit_error", 429, "concurrent_requests"),
    "idempotency_conflict": (409, "invalid_request_error", 409, "idempotency_conflict"),
    "request_too_large": (413, "invalid_request_error", 413, "request_too_large"),
    "not_found": (404, "invalid_request_error", 404, "not_found"),
    "method_not_allowed": (405, "invalid_request_error", 405, "method_not_allowed"),
    "all_models_failed": (503, "service_unavailable_error", 500, "model_error"),
    "timeout": (504, "service_unavailable_error", 500, "timeout"),
    "server_error": (500, "api_error", 500, "server_error"),
}


@pytest.mark.parametrize(("code", "promised"), PROMISED.items())
def test_every_error_is_told_as_promised(code: str, promised: tuple[int, str, int, str]) -> None:
    status, kind, string_status, string_code = promised
    refusal = Refusal(code, "in plain words", param="model")
    problem = render(refusal, "object")
    assert problem.status == status
    assert json.loads(problem.body) == {
        "error": {"message": "in plain words", "type": kind, "code": code, "param": "model"}
    }
    problem = render(refusal, "string")
    assert (problem.status, json.loads(problem.body)) == (string_status, {"error": string_code})


def test_a_providers_own_refusal_keeps_its_status_and_code() -> None:
    refusal = Refusal("provider_refused", "no", status=422, provider_code="bad_tools")
    problem = render(refusal, "object")
    assert (problem.status, json.loads(problem.body)["error"]["code"]) == (422, "bad_tools")
    problem = render(refusal, "string")
    assert (problem.status, json.loads(problem.body)) == (422, {"error": "invalid_request"})


def test_details_are_for_the_object_format_only() -> None:
    refusal = Refusal("all_models_failed", "no", details={"total_attempts": 1})
    assert json.loads(render(refusal, "object").body)["error"]["details"] == {"total_attempts": 1}
    assert json.loads(render(refusal, "string").body) == {"error": "model_error"}


def test_every_code_raised_anywhere_stands_in_the_table() -> None:
    raised = set()
    for file in SOURCES.rglob("*.py"):
        raised.update(re.findall(r'\bRefusal\(\s*"(\w+)"', file.read_text()))
    assert raised
    assert raised <= set(TABLE)


@pytest.mark.parametrize("code", TABLE)
def test_every_code_is_documented(code: str) -> None:
    assert f"`{code}`" in DOCS.read_text()
