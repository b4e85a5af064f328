"""One connection: bytes in, answers out, one at a time.

    idle ──begin──▶ asked ──headers──▶ answering ──last byte──▶ complete ──rest──▶ idle
      │               │                    │                       │
      └── anything that comes unasked, breaks the framing or ends the connection ──▶ broken

What went wrong is kept in `failure`, and found by whoever reads behind the bytes that had come.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from manyways.errors import Cut, Garbled, Reset, TransportError

Headers = list[tuple[bytes, bytes]]

_HEAD: Final = 32 * 1024
"""Bytes of headers, and of framing without content in a row, that are put up with."""
_UNREAD: Final = 128 * 1024
"""Bytes that may wait for a reader before the provider is made to wait."""


class Wire(asyncio.Protocol):
    """Made before its connection stands; `begin` is for one that is idle, and `dropped` is told
    when an idle one is gone.

    `uses` counts the requests it was given, `heard` tells whether any byte came since the last of
    them. `born` and `rested` are moments of the event loop. `unread` counts bytes since `read`,
    framing included. While `complete` is true all of the answer has come; `failure` is what
    there is in place of the rest.
    """

    __slots__ = (
        "_bodiless",
        "_dropped",
        "_ended",
        "_fed",
        "_keeps",
        "_loop",
        "_parser",
        "_paused",
        "_pieces",
        "_surplus",
        "_transport",
        "_waiter",
        "_where",
        "_whole",
        "answering",
        "asked",
        "below",
        "blocked",
        "born",
        "complete",
        "failure",
        "headers",
        "heard",
        "on_body",
        "rested",
        "status",
        "unread",
        "uses",
    )  # fmt: skip

    def __init__(
        self, loop: asyncio.AbstractEventLoop, where: object, dropped: Callable[["Wire"], object]
    ) -> None:
        self._loop = loop
        self._dropped = dropped
        self._where = where
        self._transport: asyncio.Transport | None = None  # until connected, and when it is gone
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # which the parser looks up when it is made
        self._parser = _parser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._bodiless = False
        self._paused = False
        self._fed = 0  # bytes since the last that meant something
        self._ended = False  # the other side has said that nothing more comes
        self._surplus = False  # more came than was asked for
        self._whole = 0  # pieces that belong to the answer, once it is complete
        self._keeps = False  # the server says that it goes on
        self.below: asyncio.Transport | None = None  # where TLS leaves what it has encrypted
        self.born = self.rested = loop.time()
        self.uses = 0
        self.heard = False
        self.asked = False
        self.answering = False
        self.complete = False
        self.blocked = False
        self.status = 0
        self.headers: Headers = []
        self.unread = 0
        self.failure: TransportError | None = None

    def __repr__(self) -> str:
        state = (
            f"broken: {self.failure}" if self.failure
            else "connecting" if self._transport is None
            else "complete" if self.complete
            else "answering" if self.answering
            else "asked" if self.asked
            else "idle"
        )  # fmt: skip
        return f"<Wire {self._where} uses={self.uses} {state}>"

    # What its owner does

    def begin(self, request: tuple[bytes, ...], *, bodiless: bool) -> None:
        """Write a request. It is in memory anyway, so that nothing is gained by writing it slowly:
        a provider may answer before it has read all of it."""
        self.uses += 1
        self.asked = True
        self.heard = self.answering = self.complete = False
        self._bodiless = bodiless
        self._fed = self.unread = 0
        self.headers = []
        transport = self._transport
        if transport is not None:
            for part in request:
                transport.write(part)

    def wait(self) -> "asyncio.Future[None]":
        """Until something has happened: headers, content, an end, or room for writing."""
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def read(self) -> bytes:
        """What has come of the body since the last call."""
        pieces = self._pieces
        if not pieces:
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.unread = 0
        if self._paused:
            self._paused = False
            if self._transport is not None:
                self._transport.resume_reading()
        return data

    @property
    def stale(self) -> bool:
        """Whether a server that had kept it for another request has closed it without a word."""
        return isinstance(self.failure, Reset) and self.uses > 1 and not self.heard

    @property
    def open(self) -> bool:
        """Whether nothing is known to be wrong with it."""
        transport = self._transport
        return transport is not None and not self._surplus and not transport.is_closing()

    @property
    def reusable(self) -> bool:
        """Whether another request may follow: the answer is whole, and so is the request."""
        transport = self._transport
        return (
            self.complete
            and self._keeps
            and not self._pieces
            and self.open
            and transport is not None
            and not transport.get_write_buffer_size()
            and not (self.below and self.below.get_write_buffer_size())
        )

    def rest(self, now: float) -> None:
        """The answer was read; what comes from now on is unasked for."""
        self.rested = now
        self.asked = self.answering = self.complete = False
        if self._bodiless:  # it waits for the body that was announced
            self._parser = _parser(self)

    def abort(self, failure: TransportError | None = None) -> None:
        """Close at once. Who waits, and who reads on, gets the failure."""
        if self.failure is None and not self.complete:
            self.failure = failure or (Cut if self.answering else Reset)("closed by us")
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    # What the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.heard = True
        if self.complete or not self.asked or self.failure is not None:
            self._overfull()
            return
        pieces, answering = len(self._pieces), self.answering
        self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:  # found out before
            pass
        except HttpParserError as error:
            self._broken(str(error))
        if self.complete and len(self._pieces) > self._whole:
            del self._pieces[self._whole :]
            self._overfull()
        if self.answering and len(self._pieces) > pieces:
            self._fed = 0
            self.unread += len(data)
            if self.unread > _UNREAD and not self._paused and self._transport is not None:
                self._paused = True
                self._transport.pause_reading()
        elif self._fed > _HEAD and not self.complete:
            self._broken("framing without an end")
        # Framing alone wakes nobody: it is no sign of life.
        if self.answering > answering or len(self._pieces) > pieces or self.complete:
            self._wake()

    def eof_received(self) -> None:
        """The transport closes itself. Over TLS this is not told of a connection that was only cut:
        uvloop knows the difference."""
        self._ended = True

    def connection_lost(self, exc: BaseException | None) -> None:
        self._transport = None
        del self._parser  # which holds this object, as this object held it
        if not self.asked:
            self._dropped(self)
        if self.failure is None and not self.complete:
            if not self.answering:
                reason = "the connection was closed" if exc is None else str(exc)
                self.failure = Reset(reason)
            elif exc is None and self._ended and not _is_framed(self.headers):
                self.complete = True
            else:
                self.failure = Cut("closed before its end" if exc is None else str(exc))
        self._wake()

    def pause_writing(self) -> None:
        self.blocked = True

    def resume_writing(self) -> None:
        self.blocked = False
        self._wake()

    # What the parser tells

    def on_message_begin(self) -> None:
        if self.complete:
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.answering:  # else it is a trailer
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self.complete or self.failure is not None:
            return
        status = self._parser.get_status_code()
        if status < 100:
            self._broken(f"a status of {status}")
            return
        if status < 200:  # another one follows
            self.headers.clear()
            if status == 101:
                self._broken("another protocol, which nobody asked for")
            return
        if self._fed > _HEAD and _size(self.headers) > _HEAD:
            self._broken(f"more than {_HEAD} bytes of headers")
            return
        self.status = status
        self.answering = True
        if self._bodiless:
            self.on_message_complete()

    def on_message_complete(self) -> None:
        if not self.answering or self.complete:
            return
        self.complete = True
        self._whole = len(self._pieces)
        self._keeps = self._parser.should_keep_alive()

    def _broken(self, reason: str) -> None:
        if self.complete:
            self._overfull()
        else:
            self.abort(Garbled(reason))

    def _overfull(self) -> None:
        """More came than the answer: nobody may take it for the next one."""
        self._surplus = True
        if not self.complete and self.failure is None:
            self.failure = Garbled("it spoke before it was asked")
        if self._transport is not None:
            self._transport.abort()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _parser(wire: Wire) -> HttpResponseParser:
    """llhttp as strict as it is, but for blanks behind a chunk's size, with which servers pad it.

    Bare LF at the end of lines, which it could put up with, it would put up with in bodies too: a
    chunk that is a byte too short would be taken as whole.
    """
    parser = HttpResponseParser(wire)
    parser.set_dangerous_leniencies(lenient_spaces_after_chunk_size=True)
    return parser


def _size(headers: Headers) -> int:
    return sum(len(name) + len(value) + len(b": \r\n") for name, value in headers)


def _is_framed(headers: Headers) -> bool:
    """Whether the end of the connection is not the end of the answer (RFC 9112, 6.3)."""
    names = {name.lower(): value for name, value in headers}
    coding = names.get(b"transfer-encoding", b"")
    return b"content-length" in names or coding.rpartition(b",")[2].strip().lower() == b"chunked"
