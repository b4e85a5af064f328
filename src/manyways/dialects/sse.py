"""Server-sent events, the part of the WHATWG standard that model providers use.

An event is one or more `data:` lines ended by an empty line; lines end with LF or CRLF.
Comments, `id:` and `retry:` are passed over. `event:` is kept, as some dialects name their
events there.
"""

from msgspec import Struct

DONE = b"[DONE]"
DONE_EVENT = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
_LF, _CR = b"\n\r"
"""As numbers: one byte is found several times as fast as a string of one."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Event(Struct, frozen=True, gc=False):
    """One event: its payload, and its name where it has one."""

    data: bytes
    name: bytes


class EventTooLong(ValueError):
    """An event is longer than the limit, so what follows cannot be trusted to be events."""


class EventReader:
    """Cuts a stream of bytes, however the network split it, into events.

    `limit` is the longest event in bytes: what is held back is never more than that.
    """

    __slots__ = ("_begun", "_data", "_held", "_limit", "_name", "_pieces")

    def __init__(self, limit: int = 64 * 1024 * 1024) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []  # of a line whose end has not come
        self._data: list[bytes] = []  # the data lines of an event whose end has not come
        self._name = b""
        self._held = 0
        self._begun = False  # the first line has been read

    def __repr__(self) -> str:
        return f"<EventReader holding {self._held} bytes>"

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that `chunk` completes, in order. Raises `EventTooLong`."""
        if (
            chunk.find(_LF) == len(chunk) - 2
            and chunk[-1] == _LF
            and chunk.startswith(b"data: ")
            and _CR not in chunk
            and not (self._pieces or self._data or self._name)
        ):
            return [Event(chunk[6:-2], b"")]  # as most come: one event, one line, one read
        if b"\n" not in chunk:
            self._pieces.append(chunk)
            self._hold(self._held + len(chunk))
            return []
        if self._pieces:
            self._pieces.append(chunk)
            chunk = b"".join(self._pieces)
            self._pieces.clear()
        if not self._begun:
            self._begun = True
            chunk = chunk.removeprefix(_BYTE_ORDER_MARK)
        if self._data or self._name:
            return self._read(chunk)
        events, rest = _plain(chunk)
        if rest:
            return events + self._read(rest)
        self._held = 0
        return events

    def _read(self, chunk: bytes) -> list[Event]:
        """The same for lines of any kind, the last of which may be there in part."""
        lines = chunk.split(b"\n")
        rest = lines.pop()
        data = self._data
        events: list[Event] = []
        for line in lines:
            text = line[:-1] if line.endswith(b"\r") else line
            if not text:
                if data:
                    payload = data[0] if len(data) == 1 else b"\n".join(data)
                    events.append(Event(payload, self._name))
                    data.clear()
                self._name = b""
            elif text.startswith(b"data:"):
                data.append(text[6:] if text.startswith(b"data: ") else text[5:])
            elif text.startswith(b"event:"):
                self._name = text[6:].strip()
        if rest:
            self._pieces.append(rest)
        self._hold(len(rest) + sum(map(len, data)))
        return events

    def end(self) -> list[Event]:
        """The stream ended cleanly: the last event counts even without its empty line."""
        return self.feed(b"\n\n") if self._pieces or self._data else []

    def _hold(self, size: int) -> None:
        self._held = size
        if size > self._limit:
            raise EventTooLong(f"an event is longer than {self._limit} bytes")


def _plain(chunk: bytes) -> tuple[list[Event], bytes]:
    """The events of `chunk` if they are as most are, of one line each; and what is left to be
    read: an event that has only begun, or else all of it."""
    whole, _, rest = chunk.rpartition(b"\n\n")
    events = []
    if _CR in chunk:
        return [], chunk
    for text in whole.split(b"\n\n"):
        if _LF in text or not text.startswith(b"data: "):
            return [], chunk
        events.append(Event(text[6:], b""))
    return events, rest
