"""Every answer has every field of RVFreeLLM's API reference: names, order and types.

The fields are written down here, so that this always runs; where the reference lies beside the
checkout, its own samples are compared with what is written here.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support import chat_provider
from tests.support.chat_provider import ChatProvider
from tests.support.gateway import Answer, Gateway

pytestmark = pytest.mark.process

REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference" / "rvfreellm-api.md"
REASON = "the API reference is not beside this checkout (../shared/reference)"

Shape = Any
"""A type, a tuple of types, a `re.Pattern` of a whole text, a dict of fields in their order, or
a list with the shape of each of its elements."""

UNMEASURED = type(None)
"""Values that are measured are null until they have been."""
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
VERIFIED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")

CHAT: Shape = {
    "id": re.compile(r"chatcmpl-.+"),
    "object": re.compile("chat.completion"),
    "created": int,
    "model": str,
    "provider": str,
    "choices": [
        {"index": int, "message": {"role": str, "content": str}, "finish_reason": str},
    ],
    "usage": {"prompt_tokens": int, "completion_tokens": int, "total_tokens": int},
}
MODELS: Shape = {
    "object": re.compile("list"),
    "data": [
        {
            "id": str,
            "object": re.compile("model"),
            "created": int,
            "owned_by": str,
            "permission": [
                {
                    "id": re.compile(r"modelperm-.+-0"),
                    "object": re.compile("model_permission"),
                    "created": int,
                    "allow_create_engine": bool,
                    "allow_sampling": bool,
                    "allow_logprobs": bool,
                    "allow_search_indices": bool,
                    "allow_view": bool,
                    "allow_fine_tuning": bool,
                    "organization": re.compile(r"\*"),
                    "group": UNMEASURED,
                    "is_blocking": bool,
                }
            ],
            "provider": str,
            "category": re.compile("text|image|audio|video"),
            "latency_ms": (int, UNMEASURED),
            "quality_score": (float, UNMEASURED),
            "last_verified": (VERIFIED, UNMEASURED),
        }
    ],
    "meta": {
        "total_models": int,
        "provider_filter": (str, UNMEASURED),
        "generated_at": MOMENT,
        "data_window": re.compile("active_only"),
    },
}
PROVIDERS: Shape = {
    "object": re.compile("list"),
    "data": [
        {
            "id": str,
            "object": re.compile("provider"),
            "created": int,
            "name": str,
            "capabilities": {"text": bool, "image": bool, "audio": bool, "video": bool},
            "models": {"total": int, "text": int, "image": int, "audio": int, "video": int},
            "performance": {
                "avg_latency_ms": (int, UNMEASURED),
                "avg_quality_score": (float, UNMEASURED),
            },
            "last_verified": (VERIFIED, UNMEASURED),
        }
    ],
    "meta": {
        "total_providers": int,
        "provider_filter": (str, UNMEASURED),
        "generated_at": MOMENT,
        "data_window": re.compile("active_only"),
    },
}
LIST: Shape = {"text": str}
ERROR: Shape = {
    "error": {"message": str, "type": str, "code": str, "param": (str, UNMEASURED)},
}
EXHAUSTED: Shape = {
    "error": {
        "message": re.compile(
            r"Service temporarily unavailable\. All \d+ model\(s\) failed to respond\.\n\n"
            r"Tried models:\n(.+ \(.+\)\n?)+"
        ),
        "type": re.compile("service_unavailable_error"),
        "code": re.compile("all_models_failed"),
        "details": {"total_attempts": int, "tried_models": [str], "error_history": [dict]},
    },
}


def mismatches(value: Any, shape: Shape, at: str = "answer") -> list[str]:
    """What `value` lacks of `shape`, in words; more fields than the shape's are allowed, behind
    or between those."""
    match shape:
        case dict():
            if not isinstance(value, dict):
                return [f"{at} is no object: {value!r}"]
            found = [name for name in value if name in shape]
            if found != list(shape):
                return [f"{at} has {found}, not {list(shape)}"]
            return [
                m for name in shape for m in mismatches(value[name], shape[name], f"{at}.{name}")
            ]
        case list():
            if not isinstance(value, list) or not value:
                return [f"{at} is no list with elements: {value!r}"]
            return [m for i, v in enumerate(value) for m in mismatches(v, shape[0], f"{at}[{i}]")]
        case tuple():
            return [] if any(not mismatches(value, s) for s in shape) else [f"{at} is {value!r}"]
        case re.Pattern():
            fits = isinstance(value, str) and shape.fullmatch(value) is not None
            return [] if fits else [f"{at} is {value!r}, not {shape.pattern}"]
        case _:
            return [] if type(value) is shape else [f"{at} is {value!r}, no {shape.__name__}"]


MOUNTS = pytest.mark.parametrize("mount", ["/v1", "/webhook/v1"])


def chat(gateway: Gateway, mount: str, text: str = "Hello", **fields: Any) -> Answer:
    messages = [{"role": "user", "content": text}]
    body = {"model": "gpt-4o", "provider": "Capi", "messages": messages, **fields}
    return gateway.ask(f"{mount}/chat/completions", body)


@MOUNTS
def test_a_chat_answer(gateway: Gateway, mount: str) -> None:
    answer = chat(gateway, mount)
    assert answer.status == 200
    assert mismatches(answer.json(), CHAT) == []


def test_every_chunk_of_a_stream_names_model_and_provider(gateway: Gateway) -> None:
    *chunks, done = chat(gateway, "/webhook/v1", stream=True).events()
    assert done == "[DONE]"
    shape = {name: CHAT[name] for name in ("id", "created", "model", "provider")}
    assert [m for chunk in chunks for m in mismatches(chunk, shape)] == []


@MOUNTS
@pytest.mark.parametrize("query", ["", "?provider=Capi", "?category=text", "?capability=tools"])
def test_the_models(gateway: Gateway, mount: str, query: str) -> None:
    answer = gateway.ask(f"{mount}/models{query}", key=None)
    assert answer.status == 200
    found = answer.json()
    assert mismatches(found, MODELS) == []
    assert found["meta"]["total_models"] == len(found["data"])
    assert found["meta"]["provider_filter"] == ("Capi" if "provider" in query else None)
    assert answer.headers["cache-control"] == "public, max-age=600"


def test_one_model(gateway: Gateway) -> None:
    answer = gateway.ask("/v1/models/gpt-4o", key=None)
    assert mismatches(answer.json(), MODELS["data"][0]) == []


def test_nothing_is_invented_before_it_has_been_measured(gateway: Gateway) -> None:
    for model in gateway.ask("/v1/models", key=None).json()["data"]:
        assert [model[name] for name in ("latency_ms", "quality_score", "last_verified")] == [
            None,
            None,
            None,
        ]


@MOUNTS
@pytest.mark.parametrize("query", ["", "?name=Capi"])
def test_the_providers(gateway: Gateway, mount: str, query: str) -> None:
    answer = gateway.ask(f"{mount}/providers{query}", key=None)
    assert answer.status == 200
    found = answer.json()
    assert mismatches(found, PROVIDERS) == []
    assert found["meta"]["total_providers"] == len(found["data"])
    assert found["data"][0]["models"] == {
        "total": 2, "text": 2, "image": 0, "audio": 0, "video": 0,
    }  # fmt: skip


@MOUNTS
def test_the_list_for_people(gateway: Gateway, mount: str) -> None:
    answer = gateway.ask(f"{mount}/models/list", key=None)
    assert mismatches(answer.json(), LIST) == []
    assert answer.json()["text"].rstrip("\n") == "\n".join(
        [
            "🤖 Доступные модели Shown To Clients:",
            "━" * 29,
            "",
            "💬 ТЕКСТОВЫЕ МОДЕЛИ (3)",
            "━" * 45,
            "",
            "1. 🏢 Capi (2 модели)",
            "   • gpt-4o",
            "   • o3-scripted",
            "",
            "2. 🏢 HuggingSpace (1 модель)",
            "   • command-r-plus-08-2024",
            "",
            "🎨 МОДЕЛИ ИЗОБРАЖЕНИЙ (1)",
            "━" * 45,
            "",
            "1. 🏢 HuggingSpace (1 модель)",
            "   • flux",
        ]
    )


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (
            ("/chat/completions", {}, None),
            (401, "authentication_error", "invalid_api_key", None),
        ),
        (
            ("/chat/completions", {}, "rvf_x"),
            (401, "authentication_error", "invalid_api_key", None),
        ),
        (
            ("/chat/completions", {"model": "m"}, ""),
            (400, "invalid_request_error", "invalid_request", "messages"),
        ),
        (
            ("/models?provider=Nobody", None, None),
            (404, "invalid_request_error", "provider_not_found", "provider"),
        ),
        (
            ("/models/nothing", None, None),
            (404, "invalid_request_error", "model_not_found", "model"),
        ),
        (("/nowhere", None, ""), (404, "invalid_request_error", "not_found", None)),
        (
            ("/chat/completions", None, ""),
            (405, "invalid_request_error", "method_not_allowed", None),
        ),
    ],
    ids=lambda value: str(value[0]),
)
@MOUNTS
def test_an_error(
    gateway: Gateway, mount: str, asked: tuple[str, Any, str | None], expected: tuple[Any, ...]
) -> None:
    path, body, key = asked
    answer = gateway.ask(mount + path, body, key=key)
    assert mismatches(answer.json(), ERROR) == []
    error = answer.json()["error"]
    assert (answer.status, error["type"], error["code"], error["param"]) == expected


def test_the_error_when_everything_has_failed(gateway: Gateway, provider: ChatProvider) -> None:
    provider.answers["overloaded"] = chat_provider.failure(503, "Too much.")
    answer = chat(gateway, "/webhook/v1", "overloaded")
    assert answer.status == 503
    assert mismatches(answer.json(), EXHAUSTED) == []
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat/completions", {"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}]}),
        ("/chat/completions", {}),
        ("/models", None),
        ("/models/list", None),
        ("/providers", None),
    ],
)
def test_the_headers_of_every_answer(gateway: Gateway, path: str, body: Any) -> None:
    headers = gateway.ask(f"/webhook/v1{path}", body).headers
    assert headers["content-type"] == "application/json; charset=utf-8"
    assert headers["access-control-allow-origin"] == "*"
    assert headers["x-api-version"] == "1.0"


@pytest.mark.skipif(not REFERENCE.exists(), reason=REASON)
@pytest.mark.parametrize(
    ("shape", "marks"),
    [
        (CHAT, '"chat.completion"'),
        (MODELS, '"model_permission"'),
        (PROVIDERS, '"total_providers"'),
        (LIST, '"text": "🤖'),
        (ERROR, '"Invalid API key"'),
    ],
    ids=["chat", "models", "providers", "list", "error"],
)
def test_the_fields_written_here_are_the_references_own(shape: Shape, marks: str) -> None:
    blocks = re.findall(r"^```json\n(.*?)^```", REFERENCE.read_text(), re.MULTILINE | re.DOTALL)
    (sample,) = [json.loads(block) for block in blocks if marks in block]
    assert mismatches(sample, shape) == []
    assert _names(sample) == _names_of_shape(shape)


def _names(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _names(inner) for name, inner in value.items()}
    return [_names(value[0])] if isinstance(value, list) else None


def _names_of_shape(shape: Shape) -> Any:
    if isinstance(shape, dict):
        return {name: _names_of_shape(inner) for name, inner in shape.items()}
    return [_names_of_shape(shape[0])] if isinstance(shape, list) else None
