"""The tokens of a request and its answer: as providers tell them, else estimated.

OpenAI's reference names the figures. Others name them differently, or mean something else:

| who                | what is different                                                       |
|--------------------|-------------------------------------------------------------------------|
| DeepSeek, Moonshot | cached tokens as `prompt_cache_hit_tokens`, as `cached_tokens`          |
| xAI                | reasoning is counted beside the completion, though it is in the total   |
| Gemini             | thoughts are in the total and nowhere else                              |
| OpenAI's Responses | `input_tokens`, `output_tokens`                                         |
| Anthropic          | the same names, and cached tokens are counted beside the input          |
"""

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from manyways import tokens
from manyways.dialects import json_text
from manyways.dialects.json_text import Fields
from manyways.types import Usage

_AT_MOST: Final = 10**9
"""Tokens: a larger figure is a mistake, and no figure at all."""

_FRAMING: Final = 4
"""Tokens that hold a message together, its role among them."""
_REPLY: Final = 3
"""Tokens that open the answer."""
_IMAGE: Final = 765
_SMALL_IMAGE: Final = 85
_FILE: Final = 1500
"""Tokens of a recording or a file whose size nobody knows before it is opened: two pages of
text, two minutes and a half of speech."""


def told(usage: Raw | None) -> Usage | None:
    """The figures of a `usage` object, `source` `upstream`.

    `None` where it tells nothing that could be believed: no object, no figure above zero, or
    one that is negative or above 10^9. Figures may be written as strings or with a fraction.
    A total beyond prompt and completion is reasoning that the completion leaves out.
    """
    if usage is None:
        return None
    try:
        fields = _decode_any(usage)
        return _figures(fields) if isinstance(fields, dict) else None
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError, OverflowError):
        return None


def _figures(fields: dict[str, Any]) -> Usage | None:
    prompt = _first(fields, "prompt_tokens", "input_tokens")
    completion = _first(fields, "completion_tokens", "output_tokens")
    total = _first(fields, "total_tokens")
    inputs = fields.get("prompt_tokens_details") or fields.get("input_tokens_details")
    outputs = fields.get("completion_tokens_details") or fields.get("output_tokens_details")
    cached = _first(inputs, "cached_tokens") or _first(fields, *_CACHED)
    reasoning = _first(outputs, "reasoning_tokens") or _first(fields, "reasoning_tokens")
    if not _first(fields, "prompt_tokens") and not inputs:
        prompt += sum(_first(fields, name) for name in _ANTHROPIC)
    beside = max(0, total - prompt - completion) if prompt else 0
    if reasoning > completion + beside:  # beside the completion, and in no total
        beside = reasoning
    if not prompt and not completion + beside:
        return None
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion + beside,
        cached_tokens=min(cached, prompt),
        reasoning_tokens=reasoning or beside,
        source="upstream",
    )


_CACHED: Final = ("prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens")
_ANTHROPIC: Final = ("cache_read_input_tokens", "cache_creation_input_tokens")


def _first(fields: Any, *names: str) -> int:
    """The first of these figures that is more than zero; 0 where none is told.

    Raises `ValueError`, `OverflowError` for one that cannot be.
    """
    for name in names if isinstance(fields, dict) else ():
        value = fields.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            continue
        figure = round(float(value))
        if not 0 <= figure <= _AT_MOST:
            raise ValueError(f"{name} is {figure}")
        if figure:
            return figure
    return 0


def measured(
    usage: Usage | None, *, prompt: int, produced: str, complete: bool, model: str = ""
) -> Usage:
    """What an answer came to, of which the provider told `usage` and produced this text.

    The provider's figures count. `prompt` tokens and those of `produced` are put in where it
    told none, or no completion to a text; or, of an answer that is not `complete`, when it told
    less than half of what was produced: a figure from the beginning, not from the end.
    """
    if usage is not None and complete and usage.completion_tokens:
        return usage
    said = tokens.count(produced, model)
    if usage is not None and usage.completion_tokens * 2 >= said:
        return usage
    known = usage or Usage(prompt_tokens=prompt)
    return Usage(
        prompt_tokens=known.prompt_tokens or prompt,
        completion_tokens=max(said, known.completion_tokens),
        cached_tokens=known.cached_tokens,
        reasoning_tokens=known.reasoning_tokens,
        source="estimated",
    )


class _Image(Struct, gc=False):
    detail: Any = None


class _Part(Struct, gc=False):
    type: str = ""
    text: str | None = None
    refusal: str | None = None
    image_url: _Image | str | None = None


class _Function(Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(Struct, gc=False):
    function: _Function | None = None
    custom: Raw = json_text.NULL


class _Message(Struct, gc=False):
    content: str | list[_Part] | None = None
    name: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None


class _Choice(Struct, gc=False):
    message: _Message | None = None
    text: str | None = None


class _Answer(Struct, gc=False):
    choices: list[_Choice] = []


_decode_any = msgspec.json.Decoder().decode
_decode_messages = msgspec.json.Decoder(list[_Message]).decode
_decode_answer = msgspec.json.Decoder(_Answer, strict=False).decode


def prompt_tokens(fields: Fields, model: str = "") -> int:
    """An estimate of what a request's fields come to, as a prompt of `model`.

    Texts, names, tool calls, tools and a schema by the tokenizer, 4 tokens to hold each message
    together. A picture is 85 tokens in low detail, else 765; a recording or a file 1,500. `fields`
    are of a `ChatRequest`.
    """
    texts: list[str] = []
    messages = _decode_messages(fields["messages"])
    flat = _REPLY + _FRAMING * len(messages)
    for message in messages:
        flat += _take(message, texts)
    texts += [
        str(bytes(fields[name]), "utf-8", "replace")
        for name in ("tools", "functions", "response_format")
        if name in fields and len(fields[name]) > _NOTHING
    ]
    return flat + tokens.count("\n".join(texts), model)


_NOTHING: Final = 22
"""The length of `{"type":"json_object"}`, which says nothing to count."""


def answer_tokens(body: bytes, model: str = "") -> int:
    """An estimate of what a whole answer's choices come to: text, reasoning, refusals, names and
    arguments of tool calls. 0 where it cannot be read."""
    try:
        answer = _decode_answer(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        try:
            answer = _decode_answer(json_text.without_halves(body))
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return 0
    texts: list[str] = []
    for choice in answer.choices:
        if choice.message is not None:
            _take(choice.message, texts)
        if choice.text:
            texts.append(choice.text)
    return tokens.count("\n".join(texts), model)


def _take(message: _Message, texts: list[str]) -> int:
    """Put a message's texts behind `texts`. Returns the tokens of what is no text."""
    flat = 0
    content = message.content
    if isinstance(content, str):
        texts.append(content)
    elif content:
        for part in content:
            flat += _take_part(part, texts)
    if message.name:
        texts.append(message.name)
    if message.refusal:
        texts.append(message.refusal)
    if thoughts := message.reasoning_content or message.reasoning:
        texts.append(thoughts)
    if message.function_call is not None:
        _take_function(message.function_call, texts)
    for call in message.tool_calls or ():
        if call.function is not None:
            _take_function(call.function, texts)
        elif call.custom != json_text.NULL:
            texts.append(str(bytes(call.custom), "utf-8", "replace"))
    return flat


def _take_part(part: _Part, texts: list[str]) -> int:
    if text := part.text or part.refusal:
        texts.append(text)
    if part.image_url is not None or part.type == "image_url":
        image = part.image_url
        low = isinstance(image, _Image) and image.detail == "low"
        return _SMALL_IMAGE if low else _IMAGE
    return 0 if text or part.type in ("text", "refusal") else _FILE


def _take_function(function: _Function, texts: list[str]) -> None:
    texts.extend(text for text in (function.name, function.arguments) if text)
