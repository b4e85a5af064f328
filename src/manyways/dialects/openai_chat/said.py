"""What the caller has been told of a streamed answer so far, and what a delta can say.

A broken answer can only be joined to what is known to the letter. So every event that is
handed on is noted as it was decoded (an append), and the notes are written up into runs of
text when somebody asks, or when there are many: an event costs some 0.1 microseconds.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from manyways.dialects import json_text
from manyways.dialects.json_text import Fields

Kind = Literal["reasoning", "content", "refusal", "name", "arguments"]
Piece = tuple[Kind, int, str]
"""Some text of an answer: of what kind, of which tool call (0 where of none), and the text."""

REASONING_FIELDS = ("reasoning_content", "reasoning")
"""Where providers put their thoughts. Of both in one delta, the first counts: they agree."""


class Function(Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class ToolCall(Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Delta(Struct, gc=False):
    """What one event adds to a choice."""

    content: str | None = None
    role: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: Sequence[ToolCall] | None = None
    reasoning_details: Raw = json_text.NULL


class _KnownFunction(Function, forbid_unknown_fields=True, gc=False):
    pass


class _KnownCall(ToolCall, forbid_unknown_fields=True, gc=False):
    """A part of a call to a function. Of other calls nothing is known, nor of signed ones."""

    function: _KnownFunction | None = None
    type: Raw = json_text.NULL


class _KnownDelta(Delta, forbid_unknown_fields=True, gc=False):
    """A delta of fields that all have a meaning here, or need none."""

    tool_calls: Sequence[_KnownCall] | None = None
    # They even out the size of events.
    obfuscation: Raw = json_text.NULL
    padding: Raw = json_text.NULL
    # Some proxies send every field they know, empty.
    annotations: tuple[()] | None = None
    audio: None = None
    function_call: None = None
    provider_specific_fields: Annotated[Fields, Meta(max_length=0)] | None = None


class _OddDelta(Delta, gc=False):
    """A delta with fields besides: `odd` names those that mean something we do not know,
    `beside` those that go with text."""

    odd: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


class Choice(Struct, gc=False):
    """One choice of an event."""

    index: int | None = None
    delta: Delta | None = None
    finish_reason: str | None = None
    logprobs: Fields | None = None


class _KnownChoice(Choice, gc=False):
    delta: _KnownDelta | None = None


class _OddChoice(Struct, gc=False):
    index: int | None = None
    delta: Fields | None = None
    finish_reason: str | None = None
    logprobs: Raw = json_text.NULL


decode_known = msgspec.json.Decoder(list[_KnownChoice] | None).decode
"""An event's `choices`, the quick way. `msgspec.ValidationError` where `decode_odd` has to look."""

_decode_odd = msgspec.json.Decoder(list[_OddChoice] | None).decode
_decode_function = msgspec.json.Decoder(Fields | None).decode
_decode_text = msgspec.json.Decoder(str | None).decode
_decode_calls = msgspec.json.Decoder(list[ToolCall] | None).decode
_decode_parts = msgspec.json.Decoder(list[Fields] | None).decode


def decode_odd(choices: Raw) -> list[Choice]:
    """An event's `choices`, whatever fields their deltas have.

    Raises `msgspec.DecodeError` where they are no choices at all.
    """
    return [
        Choice(
            index=choice.index,
            delta=None if choice.delta is None else _odd_delta(choice.delta),
            finish_reason=choice.finish_reason,
            logprobs={"": choice.logprobs} if json_text.means_something(choice.logprobs) else None,
        )
        for choice in _decode_odd(choices) or ()
    ]


def _odd_delta(fields: Fields) -> Delta:
    delta = _OddDelta()
    odd: list[str] = []
    beside: list[str] = []
    for name, value in fields.items():
        try:
            if json_text.HALF in bytes(value):  # half a character: nobody knows which
                odd.append(name)
            elif name == "tool_calls":
                delta.tool_calls = _decode_calls(value)
                if not all(map(_is_understood, _decode_parts(value) or ())):
                    odd.append(name)
            elif name in _TEXTS:
                setattr(delta, name, _decode_text(value))
            elif name not in _PADDING and json_text.means_something(value):
                (beside if name in _BESIDE else odd).append(name)
        except msgspec.ValidationError:
            odd.append(name)
    delta.reasoning_details = fields.get("reasoning_details", json_text.NULL)
    delta.odd = tuple(odd)
    delta.beside = tuple(beside)
    return delta


def _is_understood(part: Fields) -> bool:
    """Whether a part of a tool call says nothing but what a `ToolCall` holds. What vendors
    add to the opening of a call (Google its signature) stands there whole, and does no harm."""
    function = _decode_function(part.get("function", json_text.NULL)) or {}
    besides = [value for name, value in function.items() if name not in _FUNCTION]
    known = _OPENING if json_text.means_something(function.get("name")) else _CALL
    besides += [value for name, value in part.items() if name not in known]
    return not any(map(json_text.means_something, besides))


_TEXTS = frozenset({"content", "role", *REASONING_FIELDS, "refusal"})
_CALL = frozenset({"index", "id", "type", "function"})
_OPENING = _CALL | {"extra_content"}
_FUNCTION = frozenset(Function.__struct_fields__)
_PADDING = frozenset({"obfuscation", "padding"})
_BESIDE = frozenset({"annotations", "provider_specific_fields", "reasoning_details"})
"""Fields that go with text, and say more about it: nobody could tell which part of it they
are about, where it was cut in two."""


def has_content(choices: Raw) -> bool:
    """Whether any choice of an event says something: in any field but the role. Text,
    reasoning, a refusal, a tool call, or a field we have never heard of."""
    return any(
        name != "role" and json_text.means_something(value)
        for choice in _decode_odd(choices) or ()
        for name, value in (choice.delta or {}).items()
    )


_THOUGHT = "<think>"
"""What begins the thoughts of models whose server leaves them in the text."""


class CallBegun(Struct):
    """A tool call the caller knows of."""

    id: str | None = None
    name: str = ""


class Said(Struct, frozen=True, kw_only=True):
    """The caller's state of an answer of one choice: all that was handed out.

    `runs` is the text in the order it was said, each run as long as it can be. `calls` are
    the tool calls begun, by index. `odd` names delta fields whose meaning is not known, and
    `beside` those that go with text (details of thoughts, as long as these are told).
    `usage` is that of all parts, as far as providers have told it, handed out or not.
    """

    id: Raw
    created: Raw
    runs: tuple[Piece, ...] = ()
    calls: dict[int, CallBegun] = {}
    role: str | None = None
    reasoning_field: str | None = None
    logprobs: bool = False
    odd: frozenset[str] = frozenset()
    beside: frozenset[str] = frozenset()
    usage: Raw | None = None
    alone: bool = True
    """One choice was asked for, and no other was seen. Of more, nothing else is known."""

    def __repr__(self) -> str:
        """Without any text: whatever is printed ends in a log."""
        sizes = [f"{kind} {len(text)}" for kind, _, text in self.runs]
        return f"<Said {', '.join(sizes) or 'nothing'}>"

    @property
    def content(self) -> str:
        return self._text("content")

    @property
    def is_plain(self) -> bool:
        """Text, and nothing begun besides: no tool call, no refusal, no thought under way."""
        kinds = {kind for kind, _, _ in self.runs}
        return (
            kinds <= {"reasoning", "content"}
            and self.past_reasoning
            and not self.calls
            and _THOUGHT not in self.content
        )

    @property
    def reasoning(self) -> str:
        return self._text("reasoning")

    @property
    def past_reasoning(self) -> bool:
        """The answer itself is being given: thoughts are over."""
        return bool(self.runs) and self.runs[-1][0] != "reasoning"

    def _text(self, wanted: Kind) -> str:
        return "".join(text for kind, _, text in self.runs if kind == wanted)


_NULL = 4
"""The length of `null`: what is longer says something."""


class Transcript:
    """What a stream hands to its caller, written up from its events' choices."""

    __slots__ = (
        "_alone", "_beside", "_calls", "_indexes", "_logprobs", "_many", "_odd",
        "_reasoning_field", "_role", "_runs",
    )  # fmt: skip

    def __init__(self, choices: int = 1, said: Said | None = None) -> None:
        self._alone = choices == 1
        self._indexes: set[int] = set()
        self._runs: list[tuple[Kind, int, list[str]]] = []
        self._many: dict[int, _Words] = {}  # of several choices asked for, and nothing else
        self._calls: dict[int, CallBegun] = {}
        self._role: str | None = None
        self._reasoning_field: str | None = None
        self._logprobs = False
        self._odd: set[str] = set()
        self._beside: set[str] = set()
        if said is not None:
            self._alone = said.alone
            self._runs = [(kind, call, [text]) for kind, call, text in said.runs]
            self._calls = _copied(said.calls)
            self._role = said.role
            self._reasoning_field = said.reasoning_field
            self._logprobs = said.logprobs
            self._odd = set(said.odd)
            self._beside = set(said.beside)

    def __repr__(self) -> str:
        return f"<Transcript of {len(self._indexes)} choices, {len(self._runs)} runs>"

    @property
    def choices(self) -> int:
        """How many choices were seen."""
        return len(self._indexes)

    def said(self, id_: Raw, created: Raw, usage: Raw | None) -> Said:
        """Everything written so far."""
        return Said(
            id=id_,
            created=created,
            runs=tuple((kind, call, "".join(texts)) for kind, call, texts in self._runs),
            calls=_copied(self._calls),
            role=self._role,
            reasoning_field=self._reasoning_field,
            logprobs=self._logprobs,
            odd=frozenset(self._odd),
            beside=frozenset(self._beside),
            usage=usage,
            alone=self._alone and self._indexes <= {0},
        )

    def text(self) -> str:
        """All texts of all choices, one behind the other: enough to be counted."""
        runs = [text for _, _, texts in self._runs for text in texts]
        return "".join(runs + [text for words in self._many.values() for text in words.texts])

    def write(self, events: Iterable[Iterable[Choice]]) -> None:
        """Add the choices of each of these events."""
        # Lists, not generators: this is most of what the transcript costs.
        choices = [choice for event in events for choice in event]
        if [choice for choice in choices if choice.index or choice.logprobs]:
            self._indexes.update([choice.index or 0 for choice in choices])
            self._logprobs = self._logprobs or any(choice.logprobs for choice in choices)
        elif choices:
            self._indexes.add(0)
        if not self._alone:
            self._count(choices)
            return
        deltas = [choice.delta for choice in choices if choice.delta is not None]
        if not deltas:
            return
        if self._role is None:
            self._role = next((delta.role for delta in deltas if delta.role), None)
        thinking = not self._runs or self._runs[-1][0] == "reasoning"
        if thinking and [delta for delta in deltas if len(delta.reasoning_details) > _NULL]:
            self._beside.add("reasoning_details")
        if not self._plain(deltas):
            for delta in deltas:
                self._write(delta)

    def _count(self, choices: list[Choice]) -> None:
        """Keep the texts of one of several choices, each with its own."""
        for choice in choices:
            index = choice.index or 0
            if choice.delta is not None:
                if index not in self._many:
                    self._many[index] = _Words()
                self._many[index].take(choice.delta)

    def _plain(self, deltas: list[Delta]) -> bool:
        """Text and nothing else, or thoughts and nothing else, as most events are: written in
        one go, if these are such."""
        if isinstance(deltas[-1], _OddDelta):  # which follow upon others, not the other way
            return False
        if [delta for delta in deltas if delta.tool_calls or delta.refusal]:
            return self._arguments(deltas)
        thoughts = [delta.reasoning_content or delta.reasoning or "" for delta in deltas]
        texts = [delta.content or "" for delta in deltas]
        if not any(thoughts):
            self._add("content", 0, "".join(texts))
        elif not any(texts):
            self._reasoning_field = self._reasoning_field or reasoning_field(deltas)
            self._add("reasoning", 0, "".join(thoughts))
        else:
            return False
        return True

    def _arguments(self, deltas: list[Delta]) -> bool:
        """Arguments of the tool call that is going on, and nothing else: written in one go."""
        if [d for d in deltas if d.content or d.reasoning_content or d.reasoning or d.refusal]:
            return False
        parts = [part for delta in deltas for part in delta.tool_calls or ()]
        index = parts[0].index if parts else None
        if index is None or index not in self._calls:
            return False
        texts = [
            part.function.arguments or ""
            for part in parts
            if part.index == index and part.id is None and part.function is not None
            if part.function.name is None
        ]
        if len(texts) < len(parts):
            return False
        self._add("arguments", index, "".join(texts))
        return True

    def _write(self, delta: Delta) -> None:
        if isinstance(delta, _OddDelta):
            self._odd.update(delta.odd)
            self._beside.update(delta.beside)
        self._reasoning_field = self._reasoning_field or reasoning_field([delta])
        for piece in pieces(delta, self._calls):
            self._add(*piece)

    def _add(self, kind: Kind, call: int, text: str) -> None:
        runs = self._runs
        if runs and runs[-1][0] == kind and runs[-1][1] == call:
            runs[-1][2].append(text)
        elif text:
            runs.append((kind, call, [text]))


class _Words:
    """What one of several choices says."""

    __slots__ = ("_calls", "texts")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._calls: dict[int, CallBegun] = {}

    def take(self, delta: Delta) -> None:
        if delta.tool_calls or delta.refusal or delta.reasoning_content or delta.reasoning:
            self.texts += [text for _, _, text in pieces(delta, self._calls)]
        elif delta.content:
            self.texts.append(delta.content)


def _copied(calls: dict[int, CallBegun]) -> dict[int, CallBegun]:
    return {index: CallBegun(call.id, call.name) for index, call in calls.items()}


def reasoning_field(deltas: Iterable[Delta]) -> str | None:
    """The field in which these deltas have thoughts."""
    for delta in deltas:
        if delta.reasoning_content:
            return "reasoning_content"
        if delta.reasoning:
            return "reasoning"
    return None


def odd_fields(delta: Delta) -> tuple[str, ...]:
    """The fields of a delta that say something we cannot follow."""
    return delta.odd if isinstance(delta, _OddDelta) else ()


def beside_fields(delta: Delta) -> tuple[str, ...]:
    """The fields of a delta that say more about its text."""
    if isinstance(delta, _OddDelta):
        return delta.beside
    return ("reasoning_details",) if len(delta.reasoning_details) > _NULL else ()


def adds_something(delta: Delta) -> bool:
    """Whether a delta adds to an answer: text, a tool call, or what we cannot follow."""
    return bool(
        delta.content
        or delta.reasoning_content
        or delta.reasoning
        or delta.refusal
        or delta.tool_calls
        or odd_fields(delta)
    )


def pieces(delta: Delta, calls: dict[int, CallBegun]) -> Iterator[Piece]:
    """The texts of a delta, none of them empty, in the order they count. `calls` are those
    begun before it, and kept up to date."""
    if text := delta.reasoning_content or delta.reasoning:
        yield "reasoning", 0, text
    if delta.content:
        yield "content", 0, delta.content
    if delta.refusal:
        yield "refusal", 0, delta.refusal
    for part in delta.tool_calls or ():
        index = call_index(part, calls)
        call = calls.setdefault(index, CallBegun())
        call.id = call.id or part.id
        if function := part.function:
            if function.name and function.name != call.name:  # some repeat it in each part
                call.name += function.name
                yield "name", index, function.name
            if function.arguments:
                yield "arguments", index, function.arguments


def call_index(part: ToolCall, calls: dict[int, CallBegun]) -> int:
    """Which call a part belongs to. Some providers leave the index out: a new id begins a new
    call, no id goes on with the last."""
    if part.index is not None:
        return part.index
    last = max(calls, default=-1)
    if part.id and (last < 0 or part.id != calls[last].id):
        return last + 1
    return max(last, 0)
