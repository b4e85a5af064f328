"""Tools: a function is called, with arguments that are right."""

import json
from typing import Any, Final

from manyways.verification.check import Finding, failed, passed
from manyways.verification.checks.invention import word
from manyways.verification.checks.words import quoted, spoken
from manyways.verification.interview import Interview

_FUNCTION: Final = "order_boxes"
_SHOWN: Final = 500


async def tools(interview: Interview) -> Finding:
    """It calls the one function there is, with the place and the count of the prompt."""
    wanted = {
        "place": word(interview.chance).capitalize(),
        "count": interview.chance.randint(103, 989),
    }
    prompt = (
        f"Order {wanted['count']} boxes for the warehouse in {wanted['place']}. Use the function"
        f" {_FUNCTION}; write no words."
    )
    said = await interview.say(prompt, limit=96, tools=[_tool()], tool_choice="auto")
    if not said.tool_calls:
        return failed(prompt, said.text, f"it answered in prose: {quoted(spoken(said))}")
    calls = [_called(call) for call in said.tool_calls]
    answer = "; ".join(f"{name}({arguments})"[:_SHOWN] for name, arguments in calls[:4])
    for name, arguments in calls:
        reason = _wrong(name, arguments, wanted)
        if reason:
            return failed(prompt, answer, reason)
    return passed(prompt, answer)


def _tool() -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": _FUNCTION,
            "description": "Orders empty boxes for a warehouse.",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string", "description": "Where the warehouse is"},
                    "count": {"type": "integer", "description": "How many boxes"},
                },
                "required": ["place", "count"],
                "additionalProperties": False,
            },
        },
    }


def _called(call: dict[str, Any]) -> tuple[str | None, str | None]:
    """Its name and its arguments; `None` for what is no text."""
    function = call.get("function")
    if not isinstance(function, dict):
        return None, None
    name, arguments = function.get("name"), function.get("arguments")
    return (
        name if isinstance(name, str) else None,
        arguments if isinstance(arguments, str) else None,
    )


def _wrong(name: str | None, text: str | None, wanted: dict[str, Any]) -> str:
    """What is wrong with a call; empty where nothing is."""
    if name != _FUNCTION:
        return f"it calls a function that there is not: {quoted(name or '')}"
    if text is None:
        return "its call has no arguments as text"
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        return f"the arguments of its call are no JSON: {quoted(text)}"
    amiss = _amiss(arguments, wanted)
    return f"its call {amiss}: {quoted(text)}" if amiss else ""


def _amiss(arguments: object, wanted: dict[str, Any]) -> str:
    """What arguments lack, or have too much of; empty where they are right."""
    if not isinstance(arguments, dict):
        return "has no arguments by name"
    for key, value in wanted.items():
        if key not in arguments:
            return f"lacks the argument {key}"
        if not _same(arguments[key], value):
            return f"has not {value} as {key}"
    return "has an argument that the function has not" if len(arguments) > len(wanted) else ""


def _same(found: object, wanted: str | int) -> bool:
    if isinstance(wanted, str):
        return isinstance(found, str) and found.strip().casefold() == wanted.casefold()
    # In JSON, 7.0 is an integer too; in Python, True is one.
    return isinstance(found, int | float) and not isinstance(found, bool) and found == wanted
