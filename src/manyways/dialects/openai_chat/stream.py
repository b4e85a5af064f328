"""OpenAI's Chat Completions, the streamed answer: a machine of bytes in, bytes out.

        feed                    feed: content              feed: last finish_reason
    ┌─ waiting ──────────────────▶ started ───────────────────▶ complete
    │  holds contentless events    hands every event on         only usage may still come
    └──────────── feed: an error, or no JSON ──────▶ failure (kept in `.failure`)

A stream is complete only when each of its choices has told its finish reason: `[DONE]`
alone proves nothing, as proxies put it behind cut streams too.
"""

import msgspec
from msgspec import Raw, Struct

from manyways.dialects import json_text
from manyways.dialects.json_text import Fields
from manyways.dialects.openai_chat.whole import (
    AnswerLabel,
    error_words,
    tells_when,
    what_it_is,
)
from manyways.dialects.sse import DONE, Event, EventReader, EventTooLong
from manyways.errors import AttemptFailed

_HELD_AT_MOST = 256
"""Contentless events kept back before the first with content. Real providers send one or two."""


class _Choice(Struct):
    index: int | None = None
    delta: dict[str, Raw] | None = None
    finish_reason: str | None = None


class _Chunk(Struct):
    choices: list[_Choice] | None = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class ChatStream:
    """One provider's stream on its way to the caller.

    `feed` and `end` return what the caller may have now, as complete events; `b""` while
    nothing may be sent yet. `choices` is how many answers were asked for (`n`).
    """

    __slots__ = (
        "_choices", "_created", "_finished", "_held", "_id", "_model", "_provider",
        "_reader", "_seen", "done", "failure", "started",
    )  # fmt: skip

    def __init__(self, label: AnswerLabel, choices: int = 1) -> None:
        self._choices = choices
        self._reader = EventReader()
        self._held: list[Fields] = []
        self._seen: set[int] = set()
        self._finished: set[int] = set()
        # One id and one moment throughout: known once the answer starts.
        self._id = json_text.raw(label.id)
        self._created = json_text.raw(label.created)
        self._model = json_text.raw(label.model)
        self._provider = json_text.raw(label.provider)
        self.started = False
        """An event with content has been handed out: the answer belongs to the caller now."""
        self.done = False
        """The provider has said `[DONE]`; what follows is passed over."""
        self.failure: AttemptFailed | None = None
        """Why nothing more will come, once the stream is broken."""

    def __repr__(self) -> str:
        state = (
            "failed" if self.failure
            else "complete" if self.complete
            else "started" if self.started
            else "waiting"
        )  # fmt: skip
        return f"<ChatStream {state}{' done' if self.done else ''} held={len(self._held)}>"

    @property
    def complete(self) -> bool:
        """Every choice, asked for or seen, has told why it ended: the answer is whole."""
        return len(self._finished) >= max(self._choices, len(self._seen))

    def feed(self, chunk: bytes) -> bytes:
        """What the caller gets for these bytes. A failure is kept, behind what came before."""
        try:
            events = self._reader.feed(chunk)
        except EventTooLong as error:
            self.failure = AttemptFailed("garbled", str(error))
            return b""
        return self._edit(events)

    def end(self) -> bytes:
        """The provider's body has ended cleanly: what the caller still gets."""
        return self._edit(self._reader.end())

    def _edit(self, events: list[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if self.done or self.failure:
                break
            if event.data == DONE:
                self.done = True
                break
            if not event.data:
                continue
            try:
                self._one(event, out)
            except AttemptFailed as failure:
                self.failure = failure
        return out[0] if len(out) == 1 else b"".join(out)

    def _one(self, event: Event, out: list[bytes]) -> None:
        fields, choices = _read(event)
        content = False
        for choice in choices or ():
            self._seen.add(choice.index or 0)
            if choice.finish_reason:  # some send "" until the end
                if choice.finish_reason == "error":
                    raise AttemptFailed("error_inside", "reports that it failed while answering")
                self._finished.add(choice.index or 0)
                content = True
            elif not self.started and choice.delta:
                content = content or _has_content(choice.delta)
        if self.started:
            out.append(self._event(fields))
            return
        if len(self._held) >= _HELD_AT_MOST:
            raise AttemptFailed("garbled", f"sent {_HELD_AT_MOST} events without any content")
        self._held.append(fields)
        if content:
            self._start()
            out.extend(map(self._event, self._held))
            self._held.clear()

    def _start(self) -> None:
        """One `id` and one `created` from here on: the first that mean something."""
        self.started = True
        for fields in reversed(self._held):
            if json_text.means_something(fields.get("id")):
                self._id = fields["id"]
            if tells_when(fields.get("created")):
                self._created = fields["created"]

    def _event(self, fields: Fields) -> bytes:
        fields["id"] = self._id
        fields["created"] = self._created
        fields["model"] = self._model
        fields["provider"] = self._provider
        fields["object"] = _OBJECT
        return b"data: %s\n\n" % json_text.encode(fields)


_OBJECT = Raw(b'"chat.completion.chunk"')


def _read(event: Event) -> tuple[Fields, list[_Choice] | None]:
    """An event's fields and choices. Raises `AttemptFailed` where it is an error, or no JSON."""
    data = event.data
    try:
        if b"\n" in data or b"\r" in data:
            data = msgspec.json.format(data, indent=-1)  # one line an event
        fields = json_text.decode_object(data)
        choices = _decode_chunk(data).choices
    except json_text.NotJson as error:
        raise AttemptFailed("garbled", f"sent {what_it_is(data, error)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AttemptFailed("garbled", f"sent a malformed event: {error}") from None
    if "error" in fields and json_text.means_something(fields["error"]):
        raise AttemptFailed("error_inside", error_words(fields["error"]))
    if event.name == b"error":
        raise AttemptFailed("error_inside", error_words(Raw(data)))
    return fields, choices


def _has_content(delta: dict[str, Raw]) -> bool:
    """A delta says something when any field but its role does: text, reasoning, a refusal,
    a tool call, or a field we have never heard of."""
    return any(name != "role" and json_text.means_something(value) for name, value in delta.items())
