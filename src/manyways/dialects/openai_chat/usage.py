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

import re
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from manyways import tokens
from manyways.dialects import json_text
from manyways.dialects.json_text import Fields
from manyways.dialects.openai_chat.said import REASONING_FIELDS
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

    `None` where it tells nothing that could be believed: no object, no figure above zero, or a
    prompt or completion that is negative or above 10^9. Figures may be written as strings or
    with a fraction. A total beyond prompt and completion is reasoning that the completion leaves
    out. Details that cannot be are left out.
    """
    if usage is None:
        return None
    try:
        plain = _decode_plain(usage)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    else:
        prompt, completion = plain.prompt_tokens, plain.completion_tokens
        if prompt + completion == plain.total_tokens:
            return Usage(prompt_tokens=prompt, completion_tokens=completion, source="upstream")
    try:
        fields = _decode_any(usage)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return _figures(fields) if isinstance(fields, dict) else None


_Figure = Annotated[int, Meta(ge=0, le=_AT_MOST)]
_Positive = Annotated[int, Meta(ge=1, le=_AT_MOST)]
_Nothing = Literal[0] | None


class _Details(Struct, gc=False):
    """Of what is a part of the prompt or the completion: nothing."""

    cached_tokens: _Nothing = None
    reasoning_tokens: _Nothing = None


class _Plain(Struct, gc=False):
    """Figures that mean what OpenAI says, as nearly all are; the others take the long way."""

    prompt_tokens: _Positive
    completion_tokens: _Figure
    total_tokens: _Positive
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    prompt_cache_hit_tokens: _Nothing = None
    cached_tokens: _Nothing = None
    cache_read_input_tokens: _Nothing = None
    reasoning_tokens: _Nothing = None


_decode_plain = msgspec.json.Decoder(_Plain).decode


def _figures(fields: dict[str, Any]) -> Usage | None:
    inputs = fields.get("prompt_tokens_details") or fields.get("input_tokens_details")
    outputs = fields.get("completion_tokens_details") or fields.get("output_tokens_details")
    prompt = _figure(fields, "prompt_tokens") or _figure(fields, "input_tokens")
    completion = _figure(fields, "completion_tokens") or _figure(fields, "output_tokens")
    if prompt < 0 or completion < 0:
        return None
    if "prompt_tokens" not in fields and not inputs:
        prompt += sum(max(0, _figure(fields, name)) for name in _BESIDE_INPUT)
    cached = _detail(inputs, fields, "cached_tokens", "prompt_cache_hit_tokens", *_BESIDE_INPUT[:1])
    reasoning = _detail(outputs, fields, "reasoning_tokens")
    beside = max(0, _figure(fields, "total_tokens") - prompt - completion) if prompt else 0
    if reasoning > completion + beside:  # in no total either
        beside = reasoning
    if not prompt and not completion + beside:
        return None
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion + beside,
        cached_tokens=min(cached, prompt),
        reasoning_tokens=reasoning or (beside if completion else 0),
        source="upstream",
    )


_BESIDE_INPUT: Final = ("cache_read_input_tokens", "cache_creation_input_tokens")


def _detail(details: Any, fields: dict[str, Any], *names: str) -> int:
    """The first of these figures that is told, among the details or beside them."""
    if isinstance(details, dict) and (figure := _figure(details, names[0])) > 0:
        return figure
    return next((figure for name in names if (figure := _figure(fields, name)) > 0), 0)


def _figure(fields: dict[str, Any], name: str) -> int:
    """A figure; 0 where it is not told, and -1 where it cannot be."""
    value = fields.get(name, 0)
    if type(value) is int:
        return value if 0 <= value <= _AT_MOST else -1
    if not isinstance(value, float | str):
        return 0
    try:
        return _figure({name: round(float(value))}, name)
    except (ValueError, OverflowError):  # words, or beyond all numbers
        return -1


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
        completion_tokens=said,
        cached_tokens=known.cached_tokens,
        reasoning_tokens=known.reasoning_tokens,
        source="estimated",
    )


def prompt_tokens(fields: Fields, model: str = "") -> int:
    """An estimate of what a request's fields come to, as a prompt of `model`.

    Texts, names, tool calls, tools and a schema by the tokenizer, 4 tokens to hold each message
    together. A picture is 85 tokens in low detail, else 765; a recording or a file 1,500. Of
    messages that cannot be taken apart, all of their JSON. `fields` are of a `ChatRequest`.
    """
    texts: list[str] = []
    if len(fields["messages"]) > _LARGE:
        return _REPLY + _large(bytes(fields["messages"]), model)
    try:
        messages = _decode_messages(fields["messages"])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        # Fields that nobody knows may hold what no number can be.
        return _REPLY + tokens.count(str(bytes(fields["messages"]), "utf-8", "replace"), model)
    flat = _REPLY + _FRAMING * len(messages) + _take(messages, texts)
    texts += [
        str(bytes(fields[name]), "utf-8", "replace")
        for name in ("tools", "functions", "response_format")
        if name in fields and len(fields[name]) > _NOTHING
    ]
    return flat + tokens.count("\n".join(texts), model)


_LARGE: Final = 512 * 1024
"""Bytes of messages above which they are not taken apart: that would hold up everybody."""
_MEDIA: Final = re.compile(
    rb'data:[\w./+-]{1,100};base64,[A-Za-z0-9+/=\\]+|"data"\s*:\s*"[A-Za-z0-9+/=\\]+"'
)


def _large(messages: bytes, model: str) -> int:
    """The same for long messages, by their JSON without what pictures and recordings hold."""
    flat = messages.count(b'"image_url":') * _IMAGE + messages.count(b'"input_audio":') * _FILE
    return flat + tokens.count(str(_MEDIA.sub(b"", messages), "utf-8", "replace"), model)


def answer_tokens(body: bytes, model: str = "") -> int:
    """An estimate of what a whole answer's choices come to: text, reasoning, refusals, names and
    arguments of tool calls. 0 where it cannot be read."""
    try:
        choices = _decode_answer(body).choices
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        try:
            choices = _decode_answer(json_text.without_halves(body)).choices
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return 0
    texts: list[str] = []
    _take(choices, texts)
    return tokens.count("\n".join(texts), model)


class _Answer(Struct):
    choices: list[dict[str, Any]] = []


_decode_any = msgspec.json.Decoder().decode
_decode_messages = msgspec.json.Decoder(list[dict[str, Any]]).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode

_WORDS: Final = (
    "message", "content", "text", "name", "refusal", "thinking", "tool_calls", "function",
    "function_call", "arguments", "custom", "input",
)  # fmt: skip
"""Where a message has what is read or said."""
_FILES: Final = frozenset({"input_audio", "file", "input_file", "video_url"})
_NOTHING: Final = 23
"""The length of `{"type": "json_object"}`, which says nothing to count."""
_DEPTH: Final = 12
"""Objects and lists inside each other that are looked into."""


def _take(value: Any, texts: list[str], depth: int = 0) -> int:
    """Put the texts of a message, or of a part of it, behind `texts`. Returns the tokens of what
    is no text."""
    if isinstance(value, str):
        texts.append(value)
        return 0
    if depth > _DEPTH:
        return 0
    flat = 0
    if isinstance(value, list):
        for item in value:
            flat += _take(item, texts, depth + 1)
    elif isinstance(value, dict):
        if (image := value.get("image_url")) is not None:
            low = isinstance(image, dict) and image.get("detail") == "low"
            flat += _SMALL_IMAGE if low else _IMAGE
        elif value.get("type") in _FILES:
            flat += _FILE
        # Whatever else it says is counted, too: nothing is to hide behind a picture.
        for name in _WORDS:
            if (inner := value.get(name)) is not None:
                if name == "arguments" and not isinstance(inner, str):
                    inner = str(json_text.encode(inner), "utf-8")
                flat += _take(inner, texts, depth + 1)
        if thoughts := next(filter(None, map(value.get, REASONING_FIELDS)), None):
            flat += _take(thoughts, texts, depth + 1)
    return flat
