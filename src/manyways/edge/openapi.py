"""`GET /openapi.json`: the API described for machines (OpenAPI 3.1), made from what serves it.

The request's schema comes from the very structs that check requests, the error codes from the
error table.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from manyways import __version__
from manyways.dialects import json_text
from manyways.dialects.openai_chat.request import ChatBody
from manyways.edge.problems import TABLE
from manyways.edge.wellbeing import STATES

_JSON = "application/json"
_TEXT = "text/plain"
_NAMES = {"lang": "Language of the text: `ru` or `en`; else `Accept-Language`, else Russian."}


def document(mounts: Iterable[str]) -> bytes:
    """The description of every route, below each of `mounts`."""
    _, components = msgspec.json.schema_components(
        (ChatBody,), ref_template="#/components/schemas/{name}"
    )
    paths: dict[str, Any] = {}
    for mount in mounts:
        for path, operation in _mounted().items():
            paths[mount + path] = operation
    paths["/openapi.json"] = {"get": _operation("This description", "health", {}, "OpenAPI")}
    paths["/healthz"] = {"get": _operation("Whether the gateway is alive", "health", {}, "Alive")}
    paths["/readyz"] = {"get": _operation("Whether it can answer", "health", {}, "Ready")}
    paths["/metrics"] = {
        "get": _operation(
            "Counters for Prometheus", "health", {}, "The text format, version 0.0.4", kind=_TEXT
        )
    }
    paths["/admin/v1/providers"] = {
        "get": {
            **_operation(
                "How the providers do: what rests, why, since when and until when",
                "admin",
                {"name": "Only this one."},
                "A list",
                schema={"$ref": "#/components/schemas/ProviderHealth"},
            ),
            "security": [{"key": []}],
        }
    }
    return json_text.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Manyways",
                "version": __version__,
                "description": "One API key, many ways to an answer.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "paths": paths,
            "components": {
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
                "schemas": {
                    **_plain(components),
                    "Error": _error(),
                    "ProviderHealth": _provider_health(),
                },
            },
        }
    )


def _mounted() -> dict[str, Any]:
    return {
        "/chat/completions": {
            "post": {
                **_operation("Ask a model, whole or streamed", "chat", {}, "The answer"),
                "security": [{"key": []}],
                "requestBody": {
                    "required": True,
                    "content": {_JSON: {"schema": {"$ref": "#/components/schemas/ChatBody"}}},
                },
            }
        },
        "/models": {
            "get": _operation(
                "The models there are",
                "catalog",
                {
                    "provider": "Only this provider's.",
                    "category": "`text`, `image`, `audio`, `video` or `embedding`.",
                    "capability": "Only those that can do this.",
                    "status": "`all` shows those that are down, too.",
                },
                "A list of models",
            )
        },
        "/models/{id}": {
            "get": _operation(
                "One model",
                "catalog",
                {"provider": "At this provider."},
                "The model",
                path={"id": "The model's id; it may contain slashes."},
            )
        },
        "/models/list": {
            "get": _operation(
                "The models as a text for people",
                "catalog",
                {"provider": "Only this provider's.", "type": "Only this category.", **_NAMES},
                "`{text}`",
            )
        },
        "/providers": {
            "get": _operation(
                "The providers there are", "catalog", {"name": "Only this one."}, "A list"
            )
        },
    }


def _operation(
    summary: str,
    tag: str,
    query: dict[str, str],
    answer: str,
    *,
    path: dict[str, str] | None = None,
    kind: str = _JSON,
    schema: dict[str, Any] | None = None,
) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": place, "required": place == "path", "description": text,
         "schema": {"type": "string"}}
        for place, names in (("path", path or {}), ("query", query))
        for name, text in names.items()
    ]  # fmt: skip
    usual = {"type": "object" if kind == _JSON else "string"}
    content: dict[str, Any] = {kind: {"schema": schema or usual}}
    if tag == "chat":
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return {
        "summary": summary,
        "tags": [tag],
        "parameters": parameters,
        "responses": {
            "200": {"description": answer, "content": content},
            "default": {
                "description": "An error",
                "content": {_JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    }


def _error() -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "code", "param"],
                "properties": {
                    "message": text,
                    "type": {"enum": sorted({row.type for row in TABLE.values()})},
                    "code": {**text, "examples": sorted(TABLE)},
                    "param": {"type": ["string", "null"]},
                    "details": {"type": "object"},
                },
            }
        },
    }


def _provider_health() -> dict[str, Any]:
    text: dict[str, Any] = {"type": ["string", "null"]}
    moment = {**text, "format": "date-time"}
    count = {"type": "integer"}
    figure = {"type": ["integer", "null"]}
    state = {
        "state": {"enum": list(STATES)},
        "why": {**text, "description": "In words."},
        "code": {**text, "description": "The outcome class."},
        "resting_since": moment,
        "back_at": {**moment, "description": "From then on, a request may try it again."},
        "due": {"type": "boolean", "description": "Its rest is over, and nothing tried it yet."},
    }
    credential = _object({"label": {"type": "string"}, **state, "failures": count})
    model = _object(
        {
            "id": {"type": "string"},
            "status": {"type": "string"},
            **state,
            "failures": {**count, "description": "In a row."},
            "failure_rate": {"type": ["number", "null"]},
            "running": count,
            "served": count,
            "outcomes": {"type": "object", "additionalProperties": count},
            "latency": _object(
                dict.fromkeys(("first_token_ms", "first_token_p95_ms", "whole_ms"), figure)
            ),
            "limited": {"type": "array", "items": credential},
        }
    )
    totals = ("models", "resting", "degraded", "running", "served", "failed")
    provider = _object(
        {
            "name": {"type": "string"},
            "object": {"const": "provider"},
            "protocol": {"type": "string"},
            "base_url": text,
            **state,
            "totals": _object(dict.fromkeys(totals, count)),
            "credentials": {"type": "array", "items": credential},
            "models": {"type": "array", "items": model},
        }
    )
    return _object({"object": {"const": "list"}, "data": {"type": "array", "items": provider}})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _plain(components: dict[str, Any]) -> dict[str, Any]:
    """Schemas under public names: structs of one module are private to it."""
    text = json_text.encode(components).replace(b"/schemas/_", b"/schemas/")
    found: dict[str, Any] = msgspec.json.decode(text)
    return {name.lstrip("_"): schema for name, schema in found.items()}
