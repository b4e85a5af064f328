"""A foreign answer's body: as JSON of a shape, or in words for people where it is not."""

from typing import Any, Final, TypeVar

import msgspec

from manyways.verification.asking import Answer
from manyways.verification.checks.words import quoted
from manyways.verification.interview import BadAnswer

_LOOKED_AT: Final = 400
_FORMATS: Final = {
    b"\x89PNG": "a PNG",
    b"\xff\xd8\xff": "a JPEG",
    b"GIF8": "a GIF",
    b"OggS": "an Ogg file",
    b"fLaC": "a FLAC",
    b"ID3": "an MP3",
    b"\x1aE\xdf\xa3": "a WebM",
    b"%PDF": "a PDF",
    b"PK\x03\x04": "a ZIP",
}

T = TypeVar("T")


def decoded(answer: Answer, shape: type[T]) -> T:
    """The body as JSON of this shape. Raises `BadAnswer`, which says what it is instead."""
    try:
        return msgspec.json.decode(answer.body, type=shape)
    except msgspec.ValidationError as error:
        raise BadAnswer(
            _complaint(answer.body) or f"its JSON is of another kind: {error}"
        ) from None
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise BadAnswer(f"it sent {described(answer.body)}, no proper JSON") from None


def described(data: bytes) -> str:
    """What bytes are that were to be something else: "a web page", "JSON: ...", "no bytes"."""
    if not data:
        return "no bytes"
    for begin, name in _FORMATS.items():
        if data.startswith(begin):
            return f"{name} of {size(len(data))}"
    begin = data[:_LOOKED_AT]
    text = begin.decode(errors="ignore").strip()
    if text.startswith("<"):
        return f"a web page or XML: {quoted(text)}"
    if text.startswith(("{", "[")):
        return f"JSON: {quoted(text)}"
    if len(text) > 1 and sum(map(str.isprintable, text)) > 0.9 * len(begin):
        return f"text: {quoted(text)}"
    return f"{size(len(data))} that begin with {data[:4].hex(' ')}"


def size(count: int) -> str:
    """A count of bytes: "120 kB", "1.2 MB"."""
    if count >= 1_000_000:
        return f"{count / 1_000_000:.1f} MB"
    return f"{round(count / 1000)} kB" if count >= 10_000 else f"{count} bytes"


def _complaint(body: bytes) -> str:
    """An error that stands in an answer of status 200; empty where there is none."""
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ""
    error: Any = fields.get("error") if isinstance(fields, dict) else None
    if not error:
        return ""
    words = error.get("message") or error if isinstance(error, dict) else error
    return f"it answers 200 with an error: {quoted(str(words))}"
