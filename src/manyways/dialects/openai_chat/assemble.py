"""OpenAI's Chat Completions: the whole answer, assembled from a streamed one.

OpenAI's reference says what a stream's `delta` is: a piece of the message. What providers add
to it follows the same habits, so one rule by shape serves fields that nobody has heard of:

| what comes again        | what becomes of it                                                 |
|-------------------------|--------------------------------------------------------------------|
| text                    | is put behind what was there                                       |
| a mark (`id`, `type`)   | the first that says something stays                                |
| a `name`                | as text, but for one that is told once more                        |
| a state (`status`)      | the last that says something stays, and so with numbers            |
| an object               | field by field                                                     |
| a list                  | grows; a part that goes on the last one's text is joined to it     |
| tool calls              | piece by piece, by their `index`                                   |

Beside the delta there is no text in pieces: there the last value that says something stays.
Strings are joined and numbers kept as the bytes that came.
"""

from typing import Final

import msgspec
from msgspec import Raw

from manyways.dialects import json_text
from manyways.dialects.json_text import Fields
from manyways.dialects.sse import DONE, EventReader

_FIRST: Final = ("id", "object", "created", "model", "provider")
_OBJECT: Final = Raw(b'"chat.completion"')
_ASSISTANT: Final = Raw(b'"assistant"')
_PADDING: Final = "obfuscation"
"""Evens out the size of events; it belongs to the stream alone."""

_MARKS: Final = frozenset({"id", "type", "role"})
_STATES: Final = frozenset({"channel", "format", "mime_type", "object", "phase", "status"})
_WHOLE: Final = frozenset({"usage", "_metadata"})
"""Objects that are told anew each time, not piece by piece."""

_PROSE: Final = frozenset({"text", "thinking", "summary", "reasoning"})
"""What a part of a list may bring more of."""

_PLAIN_PARTS: Final = (Raw(b'"text"'), Raw(b'"thinking"'))
"""Parts that go on without an `index`; Mistral's reasoning models send them."""

_INSTEAD_OF_TEXT: Final = ("tool_calls", "function_call", "refusal", "audio")
_DEPTH: Final = 32
"""Objects inside each other that are looked into; what is deeper is one value."""

_NOTHING: Final = frozenset({b"null", b'""', b"[]", b"{}"})

_decode_index = msgspec.json.Decoder(int | None).decode
_decode_fields = msgspec.json.Decoder(Fields).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode


class Assembly:
    """One streamed answer, put together as it comes; `answer` is the whole.

    The events must be those that a `ChatStream` hands out: their JSON has been checked.
    """

    __slots__ = ("_choices", "_fields", "_halves", "_reader", "size")

    def __init__(self) -> None:
        self._reader = EventReader()
        self._fields: Fields = {}
        self._choices: dict[int, _Choice] = {}
        self._halves = False  # characters came cut in two
        self.size = 0
        """Bytes fed so far: what is held is about as much, at most."""

    def __repr__(self) -> str:
        return f"<Assembly of {len(self._choices)} choices, {self.size} bytes>"

    def feed(self, events: bytes) -> None:
        """Take complete events; comments and `[DONE]` say nothing."""
        self.size += len(events)
        for event in self._reader.feed(events):
            if event.data == DONE:
                continue
            try:
                fields = json_text.decode_object(event.data)
            except json_text.NotJson:
                fields = json_text.decode_object(json_text.without_halves(event.data))
                self._halves = True
            self._take(fields)

    def answer(self) -> bytes:
        """The `chat.completion` of all that came, in the order of fields that people know."""
        told = self._fields | {"object": _OBJECT}
        head = {name: told.pop(name) for name in _FIRST if name in told}
        choices = [self._choices[index].whole() for index in sorted(self._choices)]
        answer = json_text.encode(head | {"choices": json_text.raw(choices)} | told)
        return json_text.with_halves(answer) if self._halves else answer

    def _take(self, fields: Fields) -> None:
        choices = fields.pop("choices", json_text.NULL)
        fields.pop(_PADDING, None)
        for name, value in fields.items():
            self._fields[name] = _latest(self._fields.get(name), value, name)
        if choices == json_text.NULL:
            return
        for piece in map(_decode_fields, _decode_list(choices)):
            index = _decode_index(piece.pop("index", json_text.NULL)) or 0
            if index not in self._choices:
                self._choices[index] = _Choice(index)
            self._choices[index].take(piece)


class _Choice:
    """One of an answer's choices: its message, and what stands beside it."""

    __slots__ = ("_calls", "_fields", "_index", "_logprobs", "_message")

    def __init__(self, index: int) -> None:
        self._index = index
        self._calls = _Calls()
        self._message = _Object({})
        self._logprobs: _Value | None = None
        self._fields: Fields = {}

    def take(self, fields: Fields) -> None:
        delta = fields.pop("delta", json_text.NULL)
        if delta != json_text.NULL:
            pieces = _decode_fields(delta)
            pieces.pop("index", None)  # some number the delta, too
            calls = pieces.get("tool_calls", json_text.NULL)
            if bytes(calls)[:1] == b"[" and json_text.means_something(calls):
                self._message.fields["tool_calls"] = self._calls
                self._calls.take(_decode_list(calls))
                del pieces["tool_calls"]
            self._message.take(pieces)
        if "logprobs" in fields:
            self._logprobs = _joined(self._logprobs, fields.pop("logprobs"), "logprobs")
        for name, value in fields.items():
            self._fields[name] = _latest(self._fields.get(name), value, name)

    def whole(self) -> Fields:
        beside = dict(self._fields)
        message = beside.pop("message", None)  # some repeat all of it each time
        if message is None or self._message.fields:
            message = self._written()
        fields = {"index": json_text.raw(self._index), "message": message}
        if self._logprobs is not None:
            fields["logprobs"] = _written(self._logprobs)
        fields["finish_reason"] = beside.pop("finish_reason", json_text.NULL)
        return fields | beside

    def _written(self) -> Raw:
        fields = {name: _written(value) for name, value in self._message.fields.items()}
        content = fields.pop("content", json_text.NULL)
        if _says_nothing(bytes(content)) and any(
            json_text.means_something(fields.get(name)) for name in _INSTEAD_OF_TEXT
        ):
            content = json_text.NULL
        role = fields.pop("role", _ASSISTANT)
        head = {"role": _ASSISTANT if role == json_text.NULL else role, "content": content}
        return json_text.raw(head | fields)


class _Text:
    """A string in pieces, each as it stood between its quotes."""

    __slots__ = ("pieces",)

    def __init__(self, piece: bytes) -> None:
        self.pieces = [piece]

    def written(self) -> Raw:
        return Raw(b'"%s"' % b"".join(self.pieces))


class _Object:
    """An object that grows field by field."""

    __slots__ = ("depth", "fields")

    def __init__(self, fields: "dict[str, _Value]", depth: int = 0) -> None:
        self.fields = fields
        self.depth = depth

    def take(self, fields: Fields) -> None:
        for name, value in fields.items():
            self.fields[name] = _joined(self.fields.get(name), value, name, self.depth + 1)

    def written(self) -> Raw:
        return json_text.raw({name: _written(value) for name, value in self.fields.items()})


class _List:
    """A list that grows, and the text of its last part with it."""

    __slots__ = ("depth", "items")

    def __init__(self, items: "list[_Value]", depth: int) -> None:
        self.items = items
        self.depth = depth

    def take(self, items: list[Raw]) -> None:
        for item in items:
            if not self._goes_on(item):
                self.items.append(item)

    def written(self) -> Raw:
        return json_text.raw([_written(item) for item in self.items])

    def _goes_on(self, item: Raw) -> bool:
        """Whether `item` was the next piece of the last part, and is joined to it now."""
        if not self.items or bytes(item)[:1] != b"{":
            return False
        piece = _decode_fields(item)
        if "type" not in piece:
            return False
        last = _opened(self.items[-1], self.depth + 1)
        if not isinstance(last, _Object) or not _is_piece(piece, last.fields):
            return False
        self.items[-1] = last
        last.take(piece)
        return True


class _Calls:
    """Tool calls: the `index` says which one a piece belongs to, and is the stream's alone."""

    __slots__ = ("_indexes", "_items")

    def __init__(self) -> None:
        self._items: list[_Object | Raw] = []
        self._indexes: list[Raw | None] = []

    def take(self, items: list[Raw]) -> None:
        for item in items:
            if bytes(item)[:1] != b"{":
                self._items.append(item)
                self._indexes.append(None)
                continue
            piece = _decode_fields(item)
            index = piece.pop("index", None)
            if index == json_text.NULL:
                index = None
            call = self._known(index, piece)
            if call is None:
                call = _Object({}, depth=1)
                self._items.append(call)
                self._indexes.append(index)
            call.take(piece)

    def written(self) -> Raw:
        return json_text.raw([_written(item) for item in self._items])

    def _known(self, index: Raw | None, piece: Fields) -> _Object | None:
        """The call that `piece` belongs to, if it does not begin another.

        Some number all their calls 0, or none: a new id together with a name is a new call.
        """
        identity = piece.get("id", json_text.NULL)
        named = not _says_nothing(bytes(identity))
        for i in range(len(self._items) - 1, -1, -1):
            call = self._items[i]
            if isinstance(call, Raw) or (index is not None and self._indexes[i] != index):
                continue
            known = call.fields.get("id", json_text.NULL)
            if not named or known == identity:
                return call
            if index is None:
                continue
            begins = _has_a_name(piece) and known != json_text.NULL
            return None if begins else call
        return None


_Value = Raw | _Text | _Object | _List | _Calls


def _joined(old: _Value | None, new: Raw, name: str, depth: int = 0) -> _Value:
    """What a field of the message is with another piece of it."""
    data = bytes(new)
    if old is None or (isinstance(old, Raw) and _says_nothing(bytes(old)) and data != b"null"):
        return new
    if _says_nothing(data) or name in _MARKS:
        return old
    if name == "name" and data == bytes(_written(old)):
        return old
    if name in _STATES or depth > _DEPTH:
        return new
    return _grown(_opened(old, depth), data)


def _grown(old: _Value, data: bytes) -> _Value:
    kind = data[:1]
    if isinstance(old, _Text):
        if kind == b'"':
            old.pieces.append(data[1:-1])
            return old
        if kind == b"[":  # it was text, and goes on in parts
            old = _List([_text_part(old.written())], 0)
    if isinstance(old, _Object) and kind == b"{":
        old.take(_decode_fields(data))
        return old
    if isinstance(old, _List) and kind in b'["':
        old.take(_decode_list(data) if kind == b"[" else [_text_part(Raw(data))])
        return old
    return Raw(data)


def _latest(old: Raw | None, new: Raw, name: str, depth: int = 0) -> Raw:
    """What a field beside the message is once it is told again."""
    if old is None or old == new:
        return new
    if _says_nothing(bytes(new)):
        return old
    both = bytes(old)[:1] + bytes(new)[:1]
    if both != b"{{" or name in _WHOLE or depth > _DEPTH:
        return new
    fields = _decode_fields(old)
    for key, value in _decode_fields(new).items():
        fields[key] = _latest(fields.get(key), value, key, depth + 1)
    return json_text.raw(fields)


def _opened(value: _Value, depth: int) -> _Value:
    """A value that came once, made ready to grow."""
    if not isinstance(value, Raw):
        return value
    data = bytes(value)
    match data[:1]:
        case b'"':
            return _Text(data[1:-1])
        case b"{":
            return _Object(dict(_decode_fields(data)), depth)
        case b"[":
            return _List(list(_decode_list(data)), depth)
        case _:
            return value


def _is_piece(piece: Fields, part: dict[str, _Value]) -> bool:
    """Whether `piece` goes on `part`, so that nothing of either is lost when they are joined."""
    kind = piece["type"]
    if kind != part.get("type") or piece.get("index") != part.get("index"):
        return False
    if piece.get("index", json_text.NULL) == json_text.NULL and kind not in _PLAIN_PARTS:
        return False
    for name, value in piece.items():
        known = part.get(name, json_text.NULL)
        if name in _PROSE or _says_nothing(bytes(value)) or known == value:
            continue
        if not (isinstance(known, Raw) and _says_nothing(bytes(known))):
            return False
    return True


def _has_a_name(call: Fields) -> bool:
    for kind in ("function", "custom"):
        body = call.get(kind, json_text.NULL)
        if bytes(body)[:1] == b"{" and json_text.means_something(_decode_fields(body).get("name")):
            return True
    return False


def _text_part(text: Raw) -> Raw:
    return json_text.raw({"type": "text", "text": text})


def _written(value: _Value) -> Raw:
    return value if isinstance(value, Raw) else value.written()


def _says_nothing(data: bytes) -> bool:
    """`null` and what is empty. `false` and `0` say something."""
    return len(data) <= 4 and data in _NOTHING
