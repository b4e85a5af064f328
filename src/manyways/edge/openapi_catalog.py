"""The part of the OpenAPI document about what operators see of the catalog."""

from typing import Any, Final, get_args

from msgspec import Struct, structs

from manyways.catalog.history import Kind
from manyways.catalog.verified import Live, Verdict
from manyways.edge.described import (
    COUNT,
    MAYBE_MOMENT,
    MAYBE_TEXT,
    MOMENT,
    TEXT,
    Schema,
    described,
    list_of,
    object_of,
    operation,
    page_of,
    reference,
    wish_of,
)

_FIGURE: Final[Schema] = {"type": ["number", "null"]}
_MAYBE_COUNT: Final[Schema] = {"type": ["integer", "null"]}
_USD: Final[Schema] = {"type": "number", "description": "USD, as far as prices are known."}
_VERDICT: Final[Schema] = {"enum": list(get_args(Verdict))}
_REASONS: Final[Schema] = {"type": "object", "additionalProperties": TEXT}
_ONE: Final = {"provider": "Only this provider's.", "model": "Only this one."}
_LISTING: Final = {
    **_ONE,
    "since": "A span (`24h`, `7d`), a date or a moment: only from then on.",
    "cursor": "The `next_cursor` of the page before.",
    "limit": "Rows at most: 1 to 1000, else 100.",
}


def rooted() -> dict[str, Any]:
    """Paths at the root."""
    wish = wish_of(
        {
            "provider": described(MAYBE_TEXT, "Only this provider's models."),
            "model": described(MAYBE_TEXT, "Only this model, at everybody who has it."),
        }
    )
    run = reference("CatalogRefresh")
    state = object_of({"id": TEXT, "status": {"enum": ["running", "done", "failed"]}})
    return {
        "/admin/v1/catalog/refresh": {
            "post": operation(
                "Verify models now", "catalog", "Its id; `Location` is where it can be followed",
                body=wish, body_needed=False, status=202, schema=state, key=True,
            ),
            "get": operation(
                "The latest verifications", "catalog", "A list, the newest first",
                query={"limit": "Rows at most: 1 to 100, else 20."},
                schema=object_of({"object": {"const": "list"}, "data": list_of(run)}), key=True,
            ),
        },
        "/admin/v1/catalog/refresh/{id}": {
            "get": operation(
                "How far a verification is, and what it has found", "catalog", "The verification",
                path={"id": "What asking for it gave."},
                schema={
                    "allOf": [
                        run, object_of({"results": list_of(reference("CatalogVerification"))}),
                    ]
                },
                key=True,
            )
        },
        "/admin/v1/catalog/changes": {
            "get": operation(
                "What has changed", "catalog", "A page, the newest first", query=_LISTING,
                schema=page_of(reference("CatalogChange")), key=True,
            )
        },
        "/admin/v1/catalog/incidents": {
            "get": operation(
                "When models and providers were not to be had", "catalog",
                "A page, the newest first",
                query={**_LISTING, "open": "`true`: only those that are not over."},
                schema=page_of(reference("CatalogIncident")), key=True,
            )
        },
        "/admin/v1/catalog/verifications": {
            "get": operation(
                "What was found out last about each model; about one, with the checks", "catalog",
                "A list", query=_ONE,
                schema=object_of(
                    {
                        "object": {"const": "list"},
                        "data": list_of(reference("CatalogVerification")),
                    }
                ),
                key=True,
            )
        },
    }  # fmt: skip


def schemas() -> dict[str, Schema]:
    """What those paths refer to."""
    return {
        "CatalogRefresh": _refresh(),
        "CatalogVerification": _verification(),
        "CatalogCheck": _check(),
        "CatalogChange": _change(),
        "CatalogIncident": _incident(),
    }


def _refresh() -> Schema:
    counts = ("done", *get_args(Verdict))
    return object_of(
        {
            "id": TEXT,
            "object": {"const": "catalog.refresh"},
            "status": {"enum": ["running", "done", "failed"]},
            "reason": TEXT,
            "scope": object_of({"provider": MAYBE_TEXT, "model": MAYBE_TEXT}),
            "created_at": MOMENT,
            "started_at": MAYBE_MOMENT,
            "ended_at": MAYBE_MOMENT,
            "counts": object_of(
                {
                    "models": described(_MAYBE_COUNT, "Null until it has begun."),
                    **dict.fromkeys(counts, COUNT),
                }
            ),
            "cost_usd": _USD,
            "problem": described(MAYBE_TEXT, "Why it failed."),
        }
    )


def _verification() -> Schema:
    schema = object_of(
        {
            "object": {"const": "catalog.verification"},
            "provider": TEXT,
            "model": TEXT,
            "verified_at": MOMENT,
            "verdict": described(_VERDICT, "Whether it answers."),
            "reason": described(MAYBE_TEXT, "Why not."),
            "latency_ms": _MAYBE_COUNT,
            "first_token_ms": _MAYBE_COUNT,
            "tokens_per_second": _FIGURE,
            "quality_score": described(_FIGURE, "0 to 10."),
            "quality_interval": {
                "type": ["array", "null"],
                "items": {"type": "number"},
                "description": "Where the score lies with 95 % certainty: from, to.",
            },
            "quality_version": described(MAYBE_TEXT, "Of the set of tasks."),
            "proven": list_of(TEXT),
            "withdrawn": described(_REASONS, "Capabilities that are claimed and not there: why."),
            "flags": described(_REASONS, "What is suspicious, and why: `drift`, `impostor`."),
            "requests": COUNT,
            "tokens": COUNT,
            "cost_usd": _USD,
        }
    )
    schema["properties"]["checks"] = described(
        list_of(reference("CatalogCheck")), "Where one model of one provider is named."
    )
    schema["properties"]["live"] = {
        **object_of({**dict.fromkeys(_fields(Live), _FIGURE), "answered_at": MAYBE_MOMENT}),
        "type": ["object", "null"],
        "description": "How it does with callers, in the last hour; where one model of one provider"
        " is named.",
    }
    return schema


def _check() -> Schema:
    return object_of(
        {
            "name": TEXT,
            "verdict": _VERDICT,
            "reason": MAYBE_TEXT,
            "prompt": TEXT,
            "answer": TEXT,
            "at": MOMENT,
            "ms": _MAYBE_COUNT,
            "first_token_ms": _MAYBE_COUNT,
            "tokens_per_second": _FIGURE,
            "points": described(_FIGURE, "0 to 1, of a task that quality is scored by."),
            "reported_model": described(MAYBE_TEXT, "Who answered, as the provider says."),
            "requests": COUNT,
            "prompt_tokens": COUNT,
            "completion_tokens": COUNT,
            "cost_usd": _USD,
        }
    )


def _change() -> Schema:
    return object_of(
        {
            "id": TEXT,
            "object": {"const": "catalog.change"},
            "at": MOMENT,
            "provider": TEXT,
            "model": TEXT,
            "kind": {"enum": list(get_args(Kind))},
            "field": MAYBE_TEXT,
            "before": described({}, "Whatever it was."),
            "after": described({}, "Whatever it is."),
            "text": described(TEXT, "The same in a sentence."),
        }
    )


def _incident() -> Schema:
    return object_of(
        {
            "id": TEXT,
            "object": {"const": "catalog.incident"},
            "provider": TEXT,
            "model": described(MAYBE_TEXT, "Null: the whole provider."),
            "key": described(
                _MAYBE_COUNT, "Which of the provider's keys, from 1; null: all of them."
            ),
            "source": {"enum": ["traffic", "verification", "list"]},
            "began_at": MOMENT,
            "seen_at": described(MOMENT, "When it was last known to go on."),
            "ended_at": MAYBE_MOMENT,
            "why": TEXT,
        }
    )


def _fields(kind: type[Struct]) -> list[str]:
    return [field.encode_name for field in structs.fields(kind)]
