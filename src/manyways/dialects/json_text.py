"""JSON objects taken apart at their top level only, so that what is inside stays as it was.

`msgspec.Raw` values are the very bytes that came; encoding a `dict[str, Raw]` puts them back.
"""

import json
import re

import msgspec
from msgspec import Raw

Fields = dict[str, Raw]

NULL = Raw(b"null")

encode = msgspec.json.Encoder().encode
_decode_fields = msgspec.json.Decoder(Fields).decode

_SPACE = rb"[ \t\n\r]*"
_NO_VALUE = re.compile(rb'\A(?:null|false|""|\[' + _SPACE + rb"\]|\{" + _SPACE + rb"\})\Z")

HALF = "\uffff\uffff".encode()
"""Stands in place of the `\\u` of half a surrogate pair. Nobody sends it: it is no character."""
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair
    rb"|\\u([dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)
_HALF = re.compile(HALF + rb"([dD][89a-fA-F][0-9a-fA-F]{2})")


class NotJson(ValueError):
    """The bytes are not one JSON object in UTF-8: the message says in plain words why."""


def decode_object(data: bytes) -> Fields:
    """The top-level fields of a JSON object. Raises `NotJson`.

    Syntax is checked to the end, and so is UTF-8, which msgspec leaves unchecked in `Raw`.
    Of duplicate keys the last wins: see `duplicate_key`.
    """
    if not data.isascii():
        try:
            str(data, "utf-8")
        except UnicodeDecodeError as error:
            raise NotJson(f"byte {error.start} is not valid UTF-8") from None
    try:
        return _decode_fields(data)
    except msgspec.ValidationError:
        raise NotJson("a JSON object is expected, starting with {") from None
    except RecursionError:
        raise NotJson("the JSON is nested too deeply") from None
    except msgspec.DecodeError as error:
        if not data.strip():
            raise NotJson("it is empty") from None
        raise NotJson(_syntax_error(str(error))) from None


def without_halves(data: bytes) -> bytes:
    """JSON in which no half of a surrogate pair stands alone: each is marked by `HALF`.

    Where characters are streamed in UTF-16, one may be cut in two; JavaScript joins them.
    """
    return _ESCAPE.sub(lambda found: HALF + found[1] if found[1] else found[0], data)


def with_halves(data: bytes) -> bytes:
    """The JSON of which `data` is `without_halves`."""
    return _HALF.sub(rb"\\u\1", data)


def duplicate_key(data: bytes, fields: Fields) -> str | None:
    """A top-level key that stands twice in `data`, of which `fields` were decoded.

    Raises `NotJson` where the nesting is too deep to look.
    """
    # Without duplicates and spare white space the fields give back the very same bytes.
    # Only what differs is worth the slower look.
    if encode(fields) == data:
        return None
    if b"\\u" not in data and all(
        data.count(b'"%s"' % key.encode()) == 1 and "/" not in key for key in fields
    ):
        return None  # each key stands there once, and no escapes could hide another
    pairs: list[tuple[str, object]] = []

    def keep(found: list[tuple[str, object]]) -> None:
        pairs[:] = found  # objects close inside out: the last to be reported is the outermost

    try:
        # Numbers stay text: nobody asks for them, and long ones are slow to convert.
        json.loads(data, object_pairs_hook=keep, parse_int=str, parse_float=str)
    except RecursionError:
        raise NotJson("the JSON is nested too deeply") from None
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            return key
        seen.add(key)
    return None


def means_something(value: Raw | None) -> bool:
    """False for an absent value, `null`, `false`, and an empty string, list or object."""
    return value is not None and _NO_VALUE.match(value) is None


def raw(value: object) -> Raw:
    """A Python value as JSON text."""
    return Raw(encode(value))


def _syntax_error(text: str) -> str:
    found = re.search(r"byte (\d+)", text)
    where = f" at byte {found.group(1)}" if found else ""
    if "truncated" in text or "surrogate" in text:
        return "the JSON is cut short, or holds an unpaired surrogate (\\ud800 to \\udfff)"
    return f"the JSON is malformed{where}"
