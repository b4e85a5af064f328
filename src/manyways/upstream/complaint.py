"""What a provider says of an error, whatever the shape it says it in.

OpenAI's is `{"error": {"message", "type", "code", "param"}}`. Beside it are in use:
`{"error": "text"}` and `{"error": ["text"]}`, with a `code` beside it at xAI's; `{"message",
"type", "code"}` at Mistral's and vLLM's; `{"detail": ...}` of FastAPI and RFC 9457;
`{"errors": [{...}]}` at Cloudflare's; a list around it all at Google's; `error.metadata.raw`
at OpenRouter's; and a whole body as the message, where proxies wrap what they were told.
"""

import re
from typing import Any, Self

import msgspec

_LONGEST = 2000
"""Letters of a message that are kept."""
_LONGEST_CODE = 200
_NESTED = 3
_MESSAGES = ("message", "detail", "title", "Message")
# From the first mark to the last of its kind, or to the end: what is quoted may hold marks, too.
# An apostrophe inside a word is none.
_QUOTED = re.compile(r"""(?<!\w)(['"`])(?:.*\1(?!\w)|.*)""", re.DOTALL)


class Complaint(msgspec.Struct, frozen=True):
    """The error object of a provider's answer.

    `message` is for whoever caused it, with the words of a provider behind this one. `own` are
    the provider's own words, codes included: no quotations, and no message that names a field,
    as those may be the caller's. `told` is whether the body says anything at all, `proper`
    whether it says so under `error`.
    """

    message: str = ""
    code: str = ""
    param: str | None = None
    own: str = ""
    told: bool = False
    proper: bool = False

    @classmethod
    def read(cls, body: bytes) -> Self:
        """Whatever the body is: an empty complaint where it says nothing that we understand."""
        found = cls._of(_decode(body))
        for _ in range(_NESTED):
            if not found.message.startswith(("{", "[")):
                break
            inner = cls._of(_decode(found.message))
            if not inner.proper:
                break
            found = inner
        return found

    @property
    def text(self) -> str:
        """All of its words."""
        return f"{self.own} {self.message}"

    @classmethod
    def _of(cls, value: Any) -> Self:
        if isinstance(value, list) and value:
            value = value[0]
        if not isinstance(value, dict):
            return cls()
        fields, proper = _fields(value)
        said = next((fields[name] for name in _MESSAGES if fields.get(name)), "")
        code = _text(fields.get("code"))[:_LONGEST_CODE]
        kind = _text(fields.get("type") or fields.get("status"))[:_LONGEST_CODE]
        param = fields.get("param")
        words = _QUOTED.sub("''", said[:_LONGEST]) if isinstance(said, str) and not param else ""
        reasons, raw = _details(fields)
        message = _text(said)
        if raw:
            raw = cls._of(_decode(raw)).message or raw
            message = f"{message}: {raw}"
        return cls(
            message=message[:_LONGEST],
            code=code,
            param=param if isinstance(param, str) and param else None,
            own=f"{code} {kind} {words} {reasons[:_LONGEST]}",
            told=bool(said or (proper and code)),
            proper=proper,
        )


def _decode(text: bytes | str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _fields(value: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Where an error's fields stand, and whether that is under `error`."""
    error, listed = value.get("error"), value.get("errors")
    if isinstance(error, list) and error:
        error = error[0]
    if isinstance(error, dict) and error:
        return error, True
    if isinstance(error, str) and error:
        return {**value, "message": error}, True
    if isinstance(listed, list) and listed and isinstance(listed[0], dict):
        return listed[0], False
    return value, False


def _details(fields: dict[str, Any]) -> tuple[str, str]:
    """The codes that stand deeper (Google's `details`, Azure's `innererror`), and what an
    OpenRouter hands on from the provider behind it."""
    details, inner, metadata = (fields.get(n) for n in ("details", "innererror", "metadata"))
    reasons = [_text(one.get("reason")) for one in _objects(details)]
    reasons += [_text(one.get("code")) for one in _objects([inner])]
    raw = ""
    for one in _objects([metadata]):
        reasons += ["flagged_input"] if one.get("flagged_input") else []
        raw += _text(one.get("raw"))
    return " ".join(reasons), raw


def _objects(values: Any) -> list[dict[str, Any]]:
    return [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return str(msgspec.json.encode(value), "utf-8")
