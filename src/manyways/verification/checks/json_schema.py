"""JSON to a schema: whose keys stand nowhere else, so that nobody meets them by chance."""

import json
from collections.abc import Callable
from typing import Any, Final

from manyways.verification.check import Finding, failed, passed
from manyways.verification.checks.invention import word
from manyways.verification.checks.words import quoted
from manyways.verification.interview import Interview

_TYPES: Final[dict[str, Callable[[object], bool]]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool))
        or (isinstance(value, float) and value.is_integer())
    ),
    "boolean": lambda value: isinstance(value, bool),
}


async def json_schema(interview: Interview) -> Finding:
    """It answers with one JSON document that the schema allows, and nothing else."""
    chance = interview.chance
    types = {
        f"buyer_{word(chance, 2)}": "string",
        f"lamps_{word(chance, 2)}": "integer",
        f"paid_{word(chance, 2)}": "boolean",
    }
    prompt = (
        f"{word(chance).capitalize()} orders {chance.randint(11, 99)} lamps, and has paid for"
        " them. Write this down as JSON."
    )
    said = await interview.say(prompt, limit=128, response_format=_format(types))
    asked = f"{prompt} (to a schema with {', '.join(types)})"
    reason = _wrong(said.text, types)
    return failed(asked, said.text, reason) if reason else passed(asked, said.text)


def _format(types: dict[str, str]) -> dict[str, Any]:
    return {
        "type": "json_schema",
        "json_schema": {
            "name": "order",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {key: {"type": kind} for key, kind in types.items()},
                "required": list(types),
                "additionalProperties": False,
            },
        },
    }


def _wrong(text: str, types: dict[str, str]) -> str:
    """What is wrong with an answer; empty where nothing is."""
    text = text.strip()
    if text.startswith("```"):
        return f"its JSON stands in a fence of backticks: {quoted(text)}"
    try:
        document, end = _read(text)
    except (ValueError, RecursionError):
        return f"its answer is no JSON: {quoted(text)}"
    if end < len(text):
        return f"there is more behind its JSON: {quoted(text[end:])}"
    astray = _astray(document, types)
    return f"it does not keep to the schema: {astray} in {quoted(text)}" if astray else ""


def _astray(document: object, types: dict[str, str]) -> str:
    """Where a document leaves the schema; empty where it does not."""
    if not isinstance(document, dict):
        return "there is no object"
    for key, kind in types.items():
        if key not in document:
            return f"{key} is missing"
        if not _TYPES[kind](document[key]):
            return f"{key} is not of type {kind}"
    return "there is a key too many" if len(document) > len(types) else ""


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not of JSON")


_read = json.JSONDecoder(parse_constant=_no_number).raw_decode
