"""OpenAI's Chat Completions, the whole answer."""

import contextlib

import msgspec
from msgspec import Raw, Struct

from manyways.dialects import json_text
from manyways.errors import AttemptFailed


class AnswerLabel(Struct, frozen=True):
    """What the gateway writes on an answer: the catalog's names of who gave it, and what
    stands in where a provider sends no `id` or `created` (Unix seconds) of its own.
    `metadata`, a JSON object, says how the answer came about, where that is worth a word."""

    model: str
    provider: str
    id: str
    created: int
    metadata: Raw | None = None


class _Choice(Struct):
    message: dict[str, Raw]
    finish_reason: str | None = None


_OBJECT = Raw(b'"chat.completion"')
_FIRST = dict.fromkeys(("id", "object", "created", "model", "provider"), json_text.NULL)
"""What an answer begins with, whatever the provider's order: people read it, too."""

_decode_choices = msgspec.json.Decoder(list[_Choice]).decode
_NONE = Raw(b"[]")


def edit_answer(body: bytes, label: AnswerLabel) -> tuple[bytes, Raw | None]:
    """The provider's answer as the caller gets it: `model` and `provider` set, `id`, `object`
    and `created` filled in where they are missing, `_metadata` set where the label has some,
    everything else as it came. With it, the `usage` that it tells.

    Raises `AttemptFailed` where a 200 is no answer: not JSON, an error inside, no choices.
    """
    try:
        fields = json_text.decode_object(body)
    except json_text.NotJson as error:
        raise AttemptFailed("no_answer", f"answered 200 with {what_it_is(body, error)}") from None
    if json_text.means_something(fields.get("error")):
        raise AttemptFailed("error_inside", error_words(fields["error"]), status=200)
    try:
        choices = _decode_choices(fields.get("choices", _NONE))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AttemptFailed("no_answer", f"its answer has malformed choices: {error}") from None
    if not choices:
        raise AttemptFailed("no_answer", "answered 200 without any choice")
    for choice in choices:
        if choice.finish_reason == "error":
            raise AttemptFailed(
                "error_inside", "reports that it failed while answering", status=200
            )
    fields = _FIRST | fields
    if not json_text.means_something(fields.get("id")):
        fields["id"] = json_text.raw(label.id)
    if not tells_when(fields.get("created")):
        fields["created"] = json_text.raw(label.created)
    fields["object"] = _OBJECT
    fields["model"] = json_text.raw(label.model)
    fields["provider"] = json_text.raw(label.provider)
    if label.metadata is not None:
        fields["_metadata"] = label.metadata
    return json_text.encode(fields), fields.get("usage")


def no_stream(body: bytes) -> AttemptFailed:
    """What a whole answer means that came where a stream was asked for."""
    with contextlib.suppress(json_text.NotJson):
        fields = json_text.decode_object(body)
        if json_text.means_something(fields.get("error")):
            return AttemptFailed("error_inside", error_words(fields["error"]), status=200)
    return AttemptFailed("no_answer", "answered whole where a stream was asked for")


def tells_when(created: Raw | None) -> bool:
    """Whether a `created` is a moment: some send null or 0."""
    return json_text.means_something(created) and created != Raw(b"0")


def error_words(error: Raw) -> str:
    """The message of a provider's error value, whatever its shape, 500 characters at most."""
    text = str(bytes(error), "utf-8", "replace")
    try:
        fields = json_text.decode_object(bytes(error))
        named = [fields[name] for name in ("message", "detail", "code") if name in fields]
        text = msgspec.json.decode(next(filter(json_text.means_something, named)), type=str)
    except (json_text.NotJson, StopIteration, msgspec.DecodeError, UnicodeDecodeError):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            text = msgspec.json.decode(error, type=str)
    return text[:500]


def what_it_is(body: bytes, error: json_text.NotJson) -> str:
    """A body that is no JSON, named in words an operator recognises."""
    start = body[:200].lstrip().lower()
    if not start:
        return "an empty body"
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if start.startswith((b"data:", b"event:")):
        return "an event stream, which was not asked for"
    return f"what is not an answer: {error}"
