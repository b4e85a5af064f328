"""`GET /openapi.json`: the API described for machines (OpenAPI 3.1), made from what serves it.

The request's schema comes from the very structs that check requests, the error codes from the
error table.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from manyways import __version__
from manyways.catalog.shapes import ModelRow, ProviderRow
from manyways.dialects import json_text
from manyways.dialects.openai_chat.request import ChatBody
from manyways.edge import openapi_admin
from manyways.edge.described import (
    COUNT,
    JSON,
    MAYBE_TEXT,
    TEXT,
    list_of,
    object_of,
    operation,
    reference,
)
from manyways.edge.problems import TABLE
from manyways.edge.wellbeing import STATES

_PLAIN = "text/plain"


def document(mounts: Iterable[str]) -> bytes:
    """The description of every route, below each of `mounts`."""
    _, components = msgspec.json.schema_components(
        (ChatBody, ModelRow, ProviderRow), ref_template="#/components/schemas/{name}"
    )
    paths: dict[str, Any] = {}
    for mount in mounts:
        for path, methods in {**_mounted(), **openapi_admin.mounted()}.items():
            paths[mount + path] = methods
    paths |= _rooted()
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
                    **openapi_admin.schemas(),
                },
            },
        }
    )


def _rooted() -> dict[str, Any]:
    return {
        "/openapi.json": {"get": operation("This description", "health", "OpenAPI")},
        "/healthz": {"get": operation("Whether the gateway is alive", "health", "Alive")},
        "/readyz": {"get": operation("Whether it can answer", "health", "Ready")},
        "/metrics": {
            "get": operation(
                "Counters for Prometheus",
                "health",
                "The text format, version 0.0.4",
                kinds=(_PLAIN,),
            )
        },
        "/admin/v1/providers": {
            "get": operation(
                "How the providers do: what rests, why, since when and until when",
                "admin",
                "A list",
                query={"name": "Only this one."},
                schema=reference("ProviderHealth"),
                key=True,
            )
        },
        **openapi_admin.rooted(),
    }


def _mounted() -> dict[str, Any]:
    return {
        "/chat/completions": {
            "post": operation(
                "Ask a model, whole or streamed",
                "chat",
                "The answer",
                headers={
                    "Idempotency-Key": "The same request with the same key, sent again within a"
                    " day, gets the same answer.",
                    "X-Request-Timeout": "How long you are willing to wait: `30`, `2.5`, `2m`.",
                },
                body=reference("ChatBody"),
                kinds=(JSON, "text/event-stream"),
                key=True,
            )
        },
        "/models": {
            "get": operation(
                "The models there are",
                "catalog",
                "A list of models",
                query={
                    "provider": "Only this provider's.",
                    "category": "`text`, `image`, `audio`, `video` or `embedding`.",
                    "capability": "Only those that can do this.",
                    "status": "`all` shows those that are down, too; else `active_only`.",
                },
                schema=_listing("ModelRow", "total_models"),
            )
        },
        "/models/{id}": {
            "get": operation(
                "One model",
                "catalog",
                "The model, as the provider has it who would be asked first",
                query={"provider": "At this provider."},
                path={"id": "The model's id; it may contain slashes."},
                schema=reference("ModelRow"),
            )
        },
        "/models/list": {
            "get": operation(
                "The models as a text for people",
                "catalog",
                "`{text}`",
                query={
                    "provider": "Only this provider's.",
                    "type": "Only this category.",
                    "lang": "Language of the text: `ru` or `en`; else `Accept-Language`, else"
                    " Russian.",
                },
                schema=object_of({"text": TEXT}),
            )
        },
        "/providers": {
            "get": operation(
                "The providers there are",
                "catalog",
                "A list",
                query={"name": "Only this one."},
                schema=_listing("ProviderRow", "total_providers"),
            )
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
    rate = {"type": ["number", "null"]}
    known = {"label": {"type": "string"}, **state, "failures": count}
    credential = object_of(known)
    model = object_of(
        {
            "id": {"type": "string"},
            "status": {"type": "string"},
            **state,
            "failures": {**count, "description": "In a row."},
            "failure_rate": rate,
            "running": count,
            "served": count,
            "outcomes": {"type": "object", "additionalProperties": count},
            "latency": object_of(
                dict.fromkeys(("first_token_ms", "first_token_p95_ms", "whole_ms"), figure)
            ),
            "limited": {"type": "array", "items": credential},
        }
    )
    failed = object_of(
        {
            "code": {"type": "string", "description": "The outcome class."},
            "words": {"type": "string", "description": "What was said, addresses included."},
            "at": {"type": "string", "format": "date-time"},
            "proxy": {**text, "description": "Host and port of the proxy on the way, if any."},
        }
    )
    totals = ("models", "resting", "degraded", "running", "served", "failed")
    provider = object_of(
        {
            "name": {"type": "string"},
            "object": {"const": "provider"},
            "protocol": {"type": "string"},
            "base_url": text,
            **state,
            "totals": object_of(dict.fromkeys(totals, count)),
            "credentials": {"type": "array", "items": object_of({**known, "failure_rate": rate})},
            "models": {"type": "array", "items": model},
            "last_failure": {**failed, "type": ["object", "null"]},
        }
    )
    return object_of({"object": {"const": "list"}, "data": {"type": "array", "items": provider}})


def _listing(row: str, total: str) -> dict[str, Any]:
    meta = {
        total: COUNT,
        "provider_filter": MAYBE_TEXT,
        "generated_at": TEXT,
        "data_window": {"enum": ["active_only", "all"]},
    }
    rows = list_of(reference(row))
    return object_of({"object": {"const": "list"}, "data": rows, "meta": object_of(meta)})


def _plain(components: dict[str, Any]) -> dict[str, Any]:
    """Schemas under public names: structs of one module are private to it."""
    text = json_text.encode(components).replace(b"/schemas/_", b"/schemas/")
    found: dict[str, Any] = msgspec.json.decode(text)
    return {name.lstrip("_"): schema for name, schema in found.items()}
