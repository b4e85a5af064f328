"""One check, asked of a model that answers by script."""

import json
from collections.abc import Callable
from typing import Any

from manyways.verification.check import Ask, Finding
from tests.support.asked import Asked, Reply, Script, chat, chunks, interview, model
from tests.support.honest import honest_chat


async def asked(ask: Ask, script: Script, *, seed: int = 1) -> Finding:
    """What the check finds out."""
    return await ask(interview(model(), Asked(script), seed=seed))


def always(reply: Reply) -> Script:
    """The script of a model that answers everything alike."""
    return lambda *_: reply


async def told(ask: Ask, text: str | None, **message: Any) -> Finding:
    """The same of a model that always says this, streamed or not."""

    def script(path: str, fields: dict[str, Any]) -> bytes | list[bytes]:
        return chunks(text or "") if fields.get("stream") else chat(text, **message)

    return await asked(ask, script)


def honest(path: str, fields: dict[str, Any]) -> bytes | list[bytes]:
    """The script of a model that can do all of it."""
    message = honest_chat(fields)
    if fields.get("stream"):
        return chunks(*(f"{word}, " for word in message["content"].split(", ")))
    return chat(message.pop("content"), **message)


def distorted(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Script:
    """The same, but each message is changed before it is sent."""

    def script(path: str, fields: dict[str, Any]) -> bytes:
        message = change(honest_chat(fields))
        return chat(message.pop("content"), **message)

    return script


def called(function: Any) -> dict[str, Any]:
    """A message that calls a function, with nothing that the honest one says."""
    call = {"id": "call_1", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def arguments(message: dict[str, Any]) -> dict[str, Any]:
    """Those of an honest call."""
    found: dict[str, Any] = json.loads(message["tool_calls"][0]["function"]["arguments"])
    return found
