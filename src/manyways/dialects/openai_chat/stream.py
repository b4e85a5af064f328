"""OpenAI's Chat Completions, the streamed answer: a machine of bytes in, bytes out.

        feed                    feed: content              feed: last finish_reason
    ┌─ waiting ──────────────────▶ started ───────────────────▶ complete
    │  holds contentless events    hands every event on         only usage may still come
    └──────────── feed: an error, or no JSON ──────▶ failure (kept in `.failure`)

A stream is complete only when each of its choices has told its finish reason: `[DONE]`
alone proves nothing, as proxies put it behind cut streams too. Nor does a finish reason that
more came behind: then the stream must also have ended, by `[DONE]` or cleanly. One that broke
tells what it `said`, so that another (`resume`) can go on from there.
"""

from collections.abc import Callable, Sequence

import msgspec
from msgspec import Raw, Struct

from manyways.dialects import json_text
from manyways.dialects.json_text import Fields
from manyways.dialects.openai_chat.said import (
    Choice,
    Said,
    Transcript,
    adds_something,
    decode_known,
    decode_odd,
    has_content,
)
from manyways.dialects.openai_chat.whole import (
    AnswerLabel,
    error_words,
    tells_when,
    what_it_is,
)
from manyways.dialects.sse import DONE, Event, EventReader, EventTooLong
from manyways.errors import AttemptFailed

HELD_AT_MOST = 256
"""Contentless events kept back before the first with content. Real providers send one or two."""

NOTES_AT_MOST = 64
"""Events that wait to be written into the transcript: some 20 kB."""

TRIES = 3
"""Events behind each of which nothing was like it: then it is looked for no more."""


class ChatStream:
    """One provider's stream on its way to the caller.

    `feed` and `end` return what the caller may have now, as complete events; `b""` while
    nothing may be sent yet. `choices` is how many answers were asked for (`n`); `said` is what
    the caller has of this answer already, from a stream that broke. Without `wants_usage` the
    caller has not asked for usage, and is spared events that tell nothing else.
    """

    __slots__ = (
        "_choices", "_decode", "_finished", "_frame", "_halves", "_held", "_metadata", "_notes",
        "_ours", "_over", "_plain", "_reader", "_transcript", "_tries", "_trusted", "_wants_usage",
        "done", "failure", "started", "usage",
    )  # fmt: skip

    heard = 0
    """Events whose text was taken in, though the caller had it already: a stream that resumes
    another makes progress in silence."""

    def __init__(
        self,
        label: AnswerLabel,
        choices: int = 1,
        said: Said | None = None,
        *,
        wants_usage: bool = True,
    ) -> None:
        self._choices = choices
        self._wants_usage = wants_usage
        self._reader = EventReader()
        self._held: list[Fields] = []
        self._finished: set[int] = set()
        self._trusted = True  # nothing came behind a finish reason
        self._halves = False  # characters came cut in two
        self._over = False  # the body has ended cleanly
        self._transcript = Transcript(choices, said)
        self._notes: list[Sequence[Choice]] = []  # handed out, and not yet in the transcript
        self._decode: Callable[[Raw], Sequence[Choice] | None] = decode_known
        self._plain = False  # events pass with nothing to be added
        self._frame: _Frame | None = None  # of the event before, once they pass
        self._tries = TRIES
        # One id and one moment throughout: known once the answer starts.
        self._ours = {
            "id": said.id if said else json_text.raw(label.id),
            "created": said.created if said else json_text.raw(label.created),
            "model": json_text.raw(label.model),
            "provider": json_text.raw(label.provider),
            "object": _OBJECT,
        }
        self._metadata = label.metadata
        self.started = False
        """An event with content has been handed out: the answer belongs to the caller now."""
        self.done = False
        """The provider has said `[DONE]`; what follows is passed over."""
        self.failure: AttemptFailed | None = None
        """Why nothing more will come, once the stream is broken."""
        self.usage: Raw | None = None
        """The usage that this provider told last, handed on or not."""

    def __repr__(self) -> str:
        state = (
            "failed" if self.failure
            else "complete" if self.complete
            else "started" if self.started
            else "waiting"
        )  # fmt: skip
        done = " done" if self.done else ""
        return f"<{type(self).__name__} {state}{done} held={len(self._held)}>"

    @property
    def complete(self) -> bool:
        """Every choice, asked for or seen, has told why it ended: the answer is whole.

        Some providers tell that in each event. Where more came behind it, only the stream's
        own end counts.
        """
        if not self._finished:
            return False
        if self._trusted or self.done or (self._over and self.failure is None):
            return self._all_finished()
        return False

    def _all_finished(self) -> bool:
        if not self._finished:
            return False
        self._write_up()
        seen = self._transcript.choices
        # Many providers know of one choice only: whoever says `[DONE]` has left none out by a cut.
        return len(self._finished) >= (seen if self.done else max(self._choices, seen))

    def said(self) -> Said:
        """All that the caller has been handed, once the stream has started."""
        self._write_up()
        return self._transcript.said(self._ours["id"], self._ours["created"], self._usage())

    @property
    def produced(self) -> str:
        """All text that this provider has produced so far, to be counted: of every choice, with
        thoughts, refusals, and the names and arguments of tool calls, handed on or not."""
        self._write_up()
        return self._transcript.text()

    def _usage(self) -> Raw | None:
        """What all attempts at this answer have told."""
        return self.usage

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
        out = self._edit(self._reader.end())
        self._over = True
        return out

    def _edit(self, events: list[Event]) -> bytes:
        out: list[bytes] = []
        for event in events:
            if self.done or self.failure:
                break
            if self._frame is not None and self._pass_alike(event, self._frame, out):
                continue
            if event.data == DONE:
                self.done = True
                break
            if event.data:
                try:
                    self._take(event, out)
                except AttemptFailed as failure:
                    self.failure = failure
        data = out[0] if len(out) == 1 else b"".join(out)
        return json_text.with_halves(data) if self._halves else data

    def _take(self, event: Event, out: list[bytes]) -> None:
        """Take an event apart. Raises `AttemptFailed`."""
        try:
            fields = _read(event)
        except json_text.NotJson as error:
            fields = self._read_closer(event, error)
        try:
            choices = self._decode(fields.get("choices", json_text.NULL)) or ()
        except (msgspec.DecodeError, RecursionError):
            choices = self._look_closer(fields)
        if "usage" in fields:
            if len(fields["usage"]) > _NULL:
                self.usage = fields["usage"]
                if not (self._wants_usage or choices):
                    return
            elif not self._wants_usage:
                del fields["usage"]
        begun = self._plain
        self._one(fields, choices, out)
        if begun and self._plain and self._tries:
            self._tries -= 1
            self._frame = _framed(event, fields, out[-1])

    def _pass_alike(self, event: Event, frame: "_Frame", out: list[bytes]) -> bool:
        """Hand on an event that differs from the one before in its choices alone, as most do.
        Whatever is unusual about it is for others to look at: then this says no."""
        data = event.data
        head, tail = frame.head, frame.tail
        if self._finished or event.name or not (data.startswith(head) and data.endswith(tail)):
            return False
        value = data[len(head) : -len(tail)]
        try:
            if not value.isascii():
                str(value, "utf-8")
            choices = decode_known(value) or ()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        if 10 in value or 13 in value:
            return False
        for choice in choices:
            if choice.finish_reason:
                return False
        self._tries = TRIES
        self._note(choices)
        out.append(frame.before + value + frame.behind)
        return True

    def _note(self, choices: Sequence[Choice]) -> None:
        notes = self._notes
        notes.append(choices)
        if len(notes) >= NOTES_AT_MOST:
            self._write_up()

    def _one(self, fields: Fields, choices: Sequence[Choice], out: list[bytes]) -> None:
        """Put what the caller gets for an event into `out`. Raises `AttemptFailed`."""
        if self._finished and any(map(self._is_late, choices)):
            self._trusted = False
        finished = False
        for choice in choices:
            if choice.finish_reason:  # some send "" until the end
                self._finish(choice)
                finished = True
        self._note(choices)
        if self._plain:
            out.append(self._event(fields))
        elif self.started:
            self._sign(fields)
            out.append(self._event(fields))
        else:
            if len(self._held) >= HELD_AT_MOST:
                raise AttemptFailed("garbled", f"sent {HELD_AT_MOST} events without any content")
            self._held.append(fields)
            if finished or has_content(fields.get("choices", json_text.NULL)):
                self._start()
                out.extend(map(self._event, self._held))
                self._held.clear()

    def _is_late(self, choice: Choice) -> bool:
        """Whether a choice goes on that has told why it ended."""
        delta = choice.delta
        return delta is not None and (choice.index or 0) in self._finished and adds_something(delta)

    def _finish(self, choice: Choice) -> None:
        if choice.finish_reason == "error":
            raise AttemptFailed("error_inside", "reports that it failed while answering")
        self._finished.add(choice.index or 0)
        self._plain = self._plain and self._metadata is None

    def _read_closer(self, event: Event, error: json_text.NotJson) -> Fields:
        """As `_read`, for an event with half a character. Others are no JSON."""
        try:
            fields = _read(Event(json_text.without_halves(event.data), event.name))
        except json_text.NotJson:
            raise AttemptFailed("garbled", f"sent {what_it_is(event.data, error)}") from None
        self._halves = True
        self._look_at_each()
        return fields

    def _look_closer(self, fields: Fields) -> Sequence[Choice]:
        """Choices with something unusual."""
        self._look_at_each()
        try:
            return decode_odd(fields["choices"])
        except (msgspec.DecodeError, RecursionError) as error:
            raise _malformed(error) from None

    def _look_at_each(self) -> None:
        """From here on no event is taken to be as usual."""
        self._decode = decode_odd
        self._frame = None
        self._tries = 0

    def _write_up(self) -> None:
        self._transcript.write(self._notes)
        self._notes.clear()

    def _start(self) -> None:
        """One `id` and one `created` from here on: the first that mean something."""
        self.started = True
        self._plain = True
        for fields in reversed(self._held):
            if json_text.means_something(fields.get("id")):
                self._ours["id"] = fields["id"]
            if tells_when(fields.get("created")):
                self._ours["created"] = fields["created"]
        if self._metadata is not None:
            self._held[0]["_metadata"] = self._metadata
            self._sign(self._held[-1])

    def _sign(self, fields: Fields) -> None:
        """A complete answer tells how it came about, in each event from its end on."""
        if self._metadata is not None and self._all_finished():
            fields["_metadata"] = self._metadata
            self._plain = False

    def _event(self, fields: Fields) -> bytes:
        fields.update(self._ours)
        return b"data: %s\n\n" % json_text.encode(fields)


class _Frame(Struct, frozen=True, gc=False):
    """What stands before and behind the choices of an event, as it came (`head`, `tail`) and as
    it was handed on. Between the same, any one JSON value makes an event that is right, and has
    all other fields the same."""

    head: bytes
    tail: bytes
    before: bytes
    behind: bytes


def _framed(event: Event, fields: Fields, handed_on: bytes) -> _Frame | None:
    """The frame of an event; `None` where it has none that is sure."""
    choices = bytes(fields.get("choices", json_text.NULL))
    data = event.data
    if (
        data.count(choices) != 1
        or handed_on.count(choices) != 1
        or len(fields.get("usage", json_text.NULL)) > _NULL
        or 10 in data
        or 13 in data
    ):
        return None
    head, _, tail = data.partition(choices)
    before, _, behind = handed_on.partition(choices)
    return _Frame(head, tail, before, behind)


_NULL = 4
"""The length of `null`, which is not worth a comparison of its own in each event."""
_OBJECT = Raw(b'"chat.completion.chunk"')


def _read(event: Event) -> Fields:
    """An event's fields. Raises `NotJson`, and `AttemptFailed` where it is an error."""
    data = event.data
    try:
        if 10 in data or 13 in data:  # LF and CR as numbers: six times as quick as b"\n"
            data = msgspec.json.format(data, indent=-1)  # one line an event
        fields = json_text.decode_object(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error) from None
    if "error" in fields and json_text.means_something(fields["error"]):
        raise AttemptFailed("error_inside", error_words(fields["error"]))
    if event.name == b"error":
        raise AttemptFailed("error_inside", error_words(Raw(data)))
    return fields


def _malformed(error: Exception) -> AttemptFailed:
    return AttemptFailed("garbled", f"sent a malformed event: {error}")
