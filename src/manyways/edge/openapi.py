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

_JSON = "application/json"
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
                "schemas": {**_plain(components), "Error": _error()},
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
) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": place, "required": place == "path", "description": text,
         "schema": {"type": "string"}}
        for place, names in (("path", path or {}), ("query", query))
        for name, text in names.items()
    ]  # fmt: skip
    content: dict[str, Any] = {_JSON: {"schema": {"type": "object"}}}
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


def _plain(components: dict[str, Any]) -> dict[str, Any]:
    """Schemas under public names: structs of one module are private to it."""
    text = json_text.encode(components).replace(b"/schemas/_", b"/schemas/")
    found: dict[str, Any] = msgspec.json.decode(text)
    return {name.lstrip("_"): schema for name, schema in found.items()}
