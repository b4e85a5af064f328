"""A broken streamed answer, joined to what another attempt says.

What the caller has stays; only what it does not have yet is handed on, and that only once it
is proven to belong there:

| method   | the new attempt                | the joint is proven by                            |
|----------|--------------------------------|---------------------------------------------------|
| again    | is asked the same once more    | its own text, which agrees with all that was said |
| prefill  | goes on from our partial text  | the model, which is known to do so                |
| instruct | is asked in words to go on     | nothing: only where the operator allows it        |
"""

from collections import deque
from collections.abc import Sequence
from decimal import Decimal, DecimalException
from itertools import accumulate
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw, Struct

from manyways.dialects import json_text
from manyways.dialects.json_text import Fields
from manyways.dialects.openai_chat.said import (
    REASONING_FIELDS,
    CallBegun,
    Choice,
    Delta,
    Function,
    Kind,
    Said,
    ToolCall,
    Transcript,
    beside_fields,
    call_index,
    decode_odd,
    odd_fields,
    pieces,
)
from manyways.dialects.openai_chat.stream import HELD_AT_MOST, NOTES_AT_MOST, ChatStream
from manyways.dialects.openai_chat.whole import AnswerLabel
from manyways.errors import AttemptFailed

Method = Literal["again", "prefill", "instruct"]

_ECHO: Final = 16
"""Characters from which on a text that begins like the one before is no accident."""
_OVERLAP: Final = 8
"""Characters of the old text's end from which on their repetition is no accident."""
_ROUNDS: Final = 100
"""Times a text may come back to its first words, and still not end with them."""

_GO_ON: Final = (
    "Your last message was cut off. Go on from the exact character where it stopped, in the same"
    " language and format. Repeat nothing of it, and add no introduction and no comment."
)


def methods(
    said: Said, *, prefill: bool, best_effort: bool, structured: bool
) -> tuple[Method, ...]:
    """The ways to go on from here, best first; none where no joint could be trusted.

    `prefill`: the model is known to go on from a partial answer. `best_effort`: joints that
    nothing proves are allowed. `structured`: the answer has to be JSON.
    """
    if not said.alone or said.odd or (said.beside and not said.past_reasoning):
        return ()
    plain = said.is_plain and not structured and not said.logprobs and bool(said.content.strip())
    found: list[Method] = []
    if plain and prefill:
        found.append("prefill")
    found.append("again")
    if plain and best_effort:
        found.append("instruct")
    return tuple(found)


def extra_messages(said: Said, method: Method) -> tuple[Raw, ...]:
    """What is to be put behind the request's messages."""
    if method == "again":
        return ()
    # Chat templates strip white space at the end: so it is asked for again.
    begun = json_text.raw({"role": "assistant", "content": said.content.rstrip()})
    if method == "prefill":
        return (begun,)
    return begun, json_text.raw({"role": "user", "content": _GO_ON})


class ResumedStream(ChatStream):
    """Another attempt's stream, of which the caller gets what it has not got yet.

    As `ChatStream`; `started` says that something new was handed out, and `said` tells all
    the caller has, old and new. A text that does not fit ends in a failure, `diverged`.
    """

    __slots__ = (
        "_answering", "_at", "_calls", "_earlier", "_method", "_opening", "_own", "_own_notes",
        "_pending", "_text", "_told", "heard",
    )  # fmt: skip

    def __init__(
        self, label: AnswerLabel, said: Said, method: Method, *, wants_usage: bool = True
    ) -> None:
        super().__init__(label, said=said, wants_usage=wants_usage)
        self.heard = 0
        self._tries = 0  # each event is taken apart
        self._earlier = said
        self._method: Method = method
        self._own = Transcript()  # what this attempt said itself, old and new
        self._own_notes: list[Sequence[Choice]] = []
        self._calls: dict[int, CallBegun] = {}  # this attempt's, as they are joined
        self._told: dict[int, CallBegun] = {}  # and as they come
        self._answering = False  # this attempt has got past its thoughts
        # What this attempt still has to say again, from `_at` in the first of them on.
        self._pending = deque(
            run for run in said.runs if run[0] != "reasoning" or not said.past_reasoning
        )
        self._at = 0
        # Events kept back while it is open how this attempt goes on, and their text.
        self._opening: list[tuple[Fields, Sequence[Choice]]] | None = (
            None if method == "again" else []
        )
        self._text = ""

    @property
    def produced(self) -> str:
        self._own.write(self._own_notes)
        self._own_notes.clear()
        return self._own.text()

    def _usage(self) -> Raw | None:
        earlier = self._earlier.usage
        return earlier if self.usage is None else _added(earlier, self.usage)

    def _one(self, fields: Fields, choices: Sequence[Choice], out: list[bytes]) -> None:
        self._own_notes.append(choices)
        if len(self._own_notes) >= NOTES_AT_MOST:
            self._own.write(self._own_notes)
            self._own_notes.clear()
        if "usage" in fields and json_text.means_something(fields["usage"]):
            fields["usage"] = _added(self._earlier.usage, fields["usage"])
        if not self.started and (self._listen(choices) or not self.heard):
            self.heard += 1
        fields.pop("id", None)  # the caller knows this answer by another
        fields.pop("created", None)
        if self._opening is None:
            self._pass(fields, choices, out)
            return
        again = self._said_again(choices)
        if again is None and not self._text:
            return  # thoughts, which the caller is past
        self._opening.append((fields, choices))
        if again is None:
            return
        self._pending = deque([("content", 0, again)] if again else [])
        opening, self._opening = self._opening, None
        for held in opening:
            self._pass(*held, out)

    def _listen(self, choices: Sequence[Choice]) -> bool:
        """Whether an event has any words, be they old or new."""
        deltas = [choice.delta for choice in choices if choice.delta is not None]
        return bool([piece for delta in deltas for piece in pieces(delta, self._told)])

    def _said_again(self, choices: Sequence[Choice]) -> str | None:
        """What this attempt repeats at its beginning; `None` while that is open."""
        over = False
        for choice in choices:
            delta = choice.delta or Delta()
            for kind, _, text in pieces(delta, {}):
                if kind == "content" and not over:
                    self._text += text
                elif kind != "reasoning":
                    over = True
            if (over or odd_fields(delta)) and not self._text:
                raise _diverged("opened with what is no text")
        over = over or any(choice.finish_reason for choice in choices)
        said = self._earlier.content
        known = overlap(said, self._text, instructed=self._method == "instruct", over=over)
        if known is not None:
            return self._text[:known]
        if len(self._opening or ()) < HELD_AT_MOST:
            return None
        if len(said) >= _ECHO and said.startswith(self._text) and not _comes_round(said):
            return said  # all of it, surely
        raise _diverged("goes round in circles")

    def _pass(self, fields: Fields, choices: Sequence[Choice], out: list[bytes]) -> None:
        """Hand on what is new of an event."""
        parts = _decode_parts(fields.get("choices", json_text.NULL)) or []
        new = [self._trim(choice, part) for choice, part in zip(choices, parts, strict=True)]
        if any(new) and self._pending:
            raise _diverged("ended before it came to all that was said")
        if not self.started and not any(new):
            return
        if parts:
            fields["choices"] = json_text.raw(parts)
            choices = decode_odd(fields["choices"])
        super()._one(fields, choices, out)

    def _trim(self, choice: Choice, part: Fields) -> bool:
        """Take from a choice what the caller has. Whether anything new is left."""
        new = bool(choice.finish_reason)
        delta = choice.delta
        if choice.index and not self.started:
            raise _diverged("gives more than one answer")
        if delta is None:
            return new
        fields = _decode_fields(part["delta"])
        if self._earlier.role is not None:
            fields.pop("role", None)
        if not self.started:
            new = self._trim_beside(delta, fields) or new
        new = self._trim_reasoning(delta, fields) or new
        texts: tuple[tuple[Kind, str | None], ...] = (
            ("content", delta.content),
            ("refusal", delta.refusal),
        )
        for kind, text in texts:
            if not text:
                continue
            self._answering = True
            rest = self._consume(kind, 0, text)
            new = new or bool(rest)
            _put(fields, kind, text, rest)
            if choice.logprobs is not None:
                part["logprobs"] = _trimmed(part["logprobs"], kind, text, rest)
            elif rest and self._earlier.logprobs and not self.started:
                raise _diverged("tells no log probabilities")
        if delta.tool_calls:
            self._answering = True
            calls = _decode_parts(fields["tool_calls"]) or []
            pairs = zip(delta.tool_calls, calls, strict=True)
            kept = [call for told, call in pairs if self._trim_call(told, call)]
            fields["tool_calls"] = json_text.raw(kept)
            if not kept:
                del fields["tool_calls"]
            new = new or bool(kept)
        part["delta"] = json_text.raw(fields)
        return new or bool(odd_fields(delta))

    def _trim_beside(self, delta: Delta, fields: Fields) -> bool:
        """Take from a delta what the caller has of what goes with its text. Whether there is
        anything new in that."""
        found = set(beside_fields(delta))
        if not found:
            return False
        if self._pending and not self._earlier.past_reasoning:
            raise _diverged("says more about its thoughts than could be cut in two")
        thoughts = {"reasoning_details"} if self._earlier.past_reasoning else set[str]()
        old = self._earlier.beside
        for name in found & (old if self._answering and not self._pending else old | thoughts):
            del fields[name]
        return not self._pending and bool(found - old - thoughts)

    def _trim_reasoning(self, delta: Delta, fields: Fields) -> bool:
        text = delta.reasoning_content or delta.reasoning
        if not text:
            return False
        if self._earlier.past_reasoning and (self._pending or not self._answering):
            for name in (*REASONING_FIELDS, "reasoning_details"):
                fields.pop(name, None)
            return False
        rest = self._consume("reasoning", 0, text)
        field = self._earlier.reasoning_field
        if field is not None and not json_text.means_something(fields.get(field)):
            for name in REASONING_FIELDS:  # where the caller has found the thoughts so far
                fields.pop(name, None)
            fields[field] = json_text.raw(text)
        for name in REASONING_FIELDS:
            if json_text.means_something(fields.get(name)):
                _put(fields, name, text, rest)
        return bool(rest)

    def _trim_call(self, told: ToolCall, part: Fields) -> bool:
        """Take from a part of a tool call what the caller has. Whether anything is left."""
        index = call_index(told, self._calls)
        begun = self._calls.setdefault(index, CallBegun())
        begun.id = begun.id or told.id
        if index not in self._earlier.calls:
            if self._pending:
                raise _diverged("begins a tool call early")
            return True
        function = told.function or Function()
        if function.name:
            part.pop("extra_content", None)  # it belongs to the opening, which the caller has
            if function.name != begun.name:  # some repeat it in each part
                begun.name += function.name
                if self._consume("name", index, function.name):
                    raise _diverged("calls another function")
        rest = self._consume("arguments", index, function.arguments or "")
        part.pop("id", None)  # the caller has one
        part.pop("type", None)
        part["index"] = json_text.raw(index)
        if told.function is not None:
            fields = _decode_fields(part["function"])
            fields.pop("name", None)
            _put(fields, "arguments", function.arguments or "", rest)
            part["function"] = json_text.raw(fields)
        besides = (value for name, value in part.items() if name not in ("index", "function"))
        return bool(rest) or (self.started and any(map(json_text.means_something, besides)))

    def _consume(self, kind: Kind, call: int, text: str) -> str:
        """What of a text is behind the joint. Raises where it is not what was said."""
        done = 0
        while self._pending and done < len(text):
            wanted, of, said = self._pending[0]
            size = min(len(said) - self._at, len(text) - done)
            if (wanted, of) != (kind, call) or not said.startswith(
                text[done : done + size], self._at
            ):
                raise _diverged("does not say again what was said")
            done += size
            self._at += size
            if self._at == len(said):
                self._pending.popleft()
                self._at = 0
        return text[done:]


def overlap(said: str, new: str, *, instructed: bool, over: bool) -> int | None:
    """How many characters at the beginning of `new` repeat the end of `said`, where `new`
    goes on from `said` without the white space at its end; `None` while that is open.

    `over`: `new` is all there is. Raises `AttemptFailed` where `new` does not go on from there.
    """
    if not new and not over:
        return None
    if len(said) >= _ECHO or not instructed:
        if new.startswith(said):
            if len(said) < _ECHO or _comes_round(said):
                raise _diverged("begins with words that may be old or new")
            return len(said)
        if said.startswith(new) and not over:
            return None
        if new[:_ECHO] == said[:_ECHO]:
            raise _diverged("answered anew")
    repeated = _repeated(said, new, over=over) if instructed else 0
    if repeated != 0:
        return repeated
    space = said[len(said.rstrip()) :]
    if new.startswith(space):
        return len(space)
    if space.startswith(new) and not over:
        return None
    raise _diverged("does not go on from where the answer broke")


def _comes_round(text: str) -> bool:
    """Whether a text ends as it began, so that it may well begin once more."""
    text = text.strip()
    start = text.find(text[:_OVERLAP], 1)
    for _ in range(_ROUNDS):
        if start < 0 or text.startswith(text[start:]):
            return start >= 0
        start = text.find(text[:_OVERLAP], start + 1)
    return True


def _repeated(said: str, new: str, *, over: bool) -> int | None:
    """How much of the end of `said` a model tells once more that was asked not to."""
    if not new:
        raise _diverged("said nothing")
    if not over and 0 <= said.find(new, 0, len(said) - 1) <= len(said) - _OVERLAP:
        return None
    sizes = range(min(len(said), len(new)), _OVERLAP - 1, -1)
    return next((size for size in sizes if said.endswith(new[:size])), 0)


def _diverged(what: str) -> AttemptFailed:
    return AttemptFailed("diverged", f"asked to go on with a broken answer, {what}")


def _put(fields: Fields, name: str, text: str, rest: str) -> None:
    """A text's rest in its place; its own bytes where that is all of it."""
    if not rest:
        fields.pop(name, None)
    elif rest != text:
        fields[name] = json_text.raw(rest)


class _Token(Struct):
    token: str
    bytes: list[int] | None = None


def _trimmed(logprobs: Raw, kind: str, text: str, rest: str) -> Raw:
    """The log probabilities of a text's rest. Raises where no token begins with it."""
    if rest == text:
        return logprobs
    swallowed = len(text.encode()) - len(rest.encode())
    try:
        fields = _decode_fields(logprobs)
        tokens = _decode_raws(fields.get(kind, json_text.NULL)) or []
        sizes = [_size(_decode_token(token)) for token in tokens]
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise _diverged("has log probabilities of an unknown kind") from None
    ends = [0, *accumulate(sizes)]
    if swallowed not in ends or ends[-1] != len(text.encode()):
        raise _diverged("has no token that begins where the answer broke")
    # Of tokens without any text, those at the joint have been told.
    first = max(i for i, end in enumerate(ends) if end == swallowed)
    fields[kind] = json_text.raw(tokens[first:])
    return json_text.raw(fields)


def _size(token: _Token) -> int:
    return len(token.token.encode() if token.bytes is None else token.bytes)


def _added(earlier: Raw | None, usage: Raw) -> Raw:
    """The usage of all parts of an answer. What is no number is the last part's."""
    if earlier is None:
        return usage
    try:
        return Raw(_encode_usage(_sum(_decode_usage(earlier), _decode_usage(usage))))
    except (msgspec.DecodeError, RecursionError, DecimalException):
        return usage


def _sum(a: Any, b: Any) -> Any:
    if isinstance(a, dict) and isinstance(b, dict):
        return a | {name: _sum(a.get(name), value) for name, value in b.items()}
    if _is_number(a) and _is_number(b):
        return a + b
    return a if b is None else b


def _is_number(value: Any) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


_decode_fields = msgspec.json.Decoder(Fields).decode
_decode_parts = msgspec.json.Decoder(list[Fields] | None).decode
_decode_raws = msgspec.json.Decoder(list[Raw] | None).decode
_decode_token = msgspec.json.Decoder(_Token).decode
# Sums of money stay what they are in writing: 0.1 + 0.2 is 0.3.
_decode_usage = msgspec.json.Decoder(float_hook=Decimal).decode
_encode_usage = msgspec.json.Encoder(decimal_format="number").encode
