"""A chat model that does what verification asks of it, from the request alone.

honest_chat(fields)    the message it answers with
"""

import json
import re
from typing import Any

from tests.support.seeing import read

SOURCE = "https://news.manyways-times.com/today"


def honest_chat(fields: dict[str, Any]) -> dict[str, Any]:
    """The message that answers a request: `content`, and what else belongs to it. What a begun
    answer goes on with is without what was begun. A riddle is thought about."""
    *_, last = fields["messages"]
    prompt = _text(fields["messages"])
    if last["role"] == "assistant":
        line = prompt.partition(": ")[2]
        return _message(line.removeprefix(last["content"]))
    if isinstance(last["content"], list):
        (picture,) = (part for part in last["content"] if part["type"] == "image_url")
        return _message(read(picture["image_url"]["url"]))
    if fields.get("tools"):
        function = fields["tools"][0]["function"]
        arguments = json.dumps(_filled(function["parameters"], prompt))
        call = {"name": function["name"], "arguments": arguments}
        return _message(None, tool_calls=[{"id": "call_1", "type": "function", "function": call}])
    if "response_format" in fields:
        schema = fields["response_format"]["json_schema"]["schema"]
        return _message(json.dumps(_filled(schema, prompt)))
    if "web_search_options" in fields:
        cited = {"type": "url_citation", "url_citation": {"url": SOURCE, "title": "Today"}}
        return _message("A lighthouse was reopened today.", annotations=[cited])
    return _in_words(prompt)


def _in_words(prompt: str) -> dict[str, Any]:
    if found := re.match(r"Count from (\d+) to (\d+)", prompt):
        first, last = map(int, found.groups())
        return _message(", ".join(map(str, range(first, last + 1))))
    if found := re.search(r"Each of them has (\d+) sisters", prompt):
        sisters = str(int(found[1]) - 1)
        return _message(sisters, reasoning_content="Anna is one of their sisters herself.")
    return _message("Hello.")


def _message(content: str | None, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def _text(messages: list[dict[str, Any]]) -> str:
    """What the user has said."""
    content = next(one["content"] for one in reversed(messages) if one["role"] == "user")
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if part["type"] == "text")


def _filled(schema: dict[str, Any], prompt: str) -> dict[str, Any]:
    """An object to a schema: numbers and names are taken from the prompt."""
    number = re.search(r"\d+", prompt)
    name = re.search(r"(?<=[a-z] )[A-Z][a-z]+", prompt) or re.match(r"\w+", prompt)
    found = {
        "integer": int(number[0]) if number else 1,
        "string": name[0] if name else "",
        "boolean": True,
    }
    return {key: found[kind["type"]] for key, kind in schema["properties"].items()}
