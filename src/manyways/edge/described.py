"""The words of OpenAPI 3.1: one route, one object, one list."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

JSON: Final = "application/json"

TEXT: Final[dict[str, Any]] = {"type": "string"}
COUNT: Final[dict[str, Any]] = {"type": "integer"}
MAYBE_TEXT: Final[dict[str, Any]] = {"type": ["string", "null"]}
MOMENT: Final[dict[str, Any]] = {"type": "string", "format": "date-time"}
MAYBE_MOMENT: Final[dict[str, Any]] = {"type": ["string", "null"], "format": "date-time"}

Schema = dict[str, Any]


def operation(
    summary: str,
    tag: str,
    answer: str,
    *,
    query: Mapping[str, str] | None = None,
    path: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    body: Schema | None = None,
    body_needed: bool = True,
    status: int = 200,
    kinds: Sequence[str] = (JSON,),
    schema: Schema | None = None,
    key: bool = False,
) -> dict[str, Any]:
    """One method of a path. `schema` is that of the answer in the first of `kinds`; the others
    are texts. With `key`, it wants one."""
    first, *others = kinds
    usual = {"type": "object"} if first == JSON else TEXT
    content: dict[str, Any] = {first: {"schema": schema or usual}}
    content |= {kind: {"schema": TEXT} for kind in others}
    described: dict[str, Any] = {
        "summary": summary,
        "tags": [tag],
        "parameters": [
            {"name": name, "in": place, "required": place == "path", "description": text,
             "schema": TEXT}
            for place, names in (("path", path), ("query", query), ("header", headers))
            for name, text in (names or {}).items()
        ],
        "responses": {
            str(status): {"description": answer, "content": content},
            "default": {
                "description": "An error",
                "content": {JSON: {"schema": reference("Error")}},
            },
        },
    }  # fmt: skip
    if body is not None:
        described["requestBody"] = {
            "required": body_needed,
            "content": {JSON: {"schema": body}},
        }
    if key:
        described["security"] = [{"key": []}]
    return described


def reference(name: str) -> Schema:
    """A schema that stands among the components."""
    return {"$ref": f"#/components/schemas/{name}"}


def described(schema: Mapping[str, Any], words: str) -> Schema:
    """The same, with words about it."""
    return {**schema, "description": words}


def object_of(properties: Mapping[str, Schema]) -> Schema:
    """An object that has all of these."""
    return {"type": "object", "required": list(properties), "properties": dict(properties)}


def wish_of(properties: Mapping[str, Schema], *needed: str) -> Schema:
    """An object that may have these, needs some of them, and has nothing else."""
    return {
        "type": "object",
        "required": list(needed),
        "properties": dict(properties),
        "additionalProperties": False,
    }


def list_of(schema: Schema) -> Schema:
    """Some of these."""
    return {"type": "array", "items": schema}


def page_of(schema: Schema) -> Schema:
    """A part of a listing."""
    return object_of(
        {
            "object": {"const": "list"},
            "data": list_of(schema),
            "has_more": {"type": "boolean"},
            "next_cursor": described(MAYBE_TEXT, "What `cursor` is for the next page."),
        }
    )
