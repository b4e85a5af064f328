"""The provider behind every gateway: canned answers, as cheap as Python can give them.

Run as `python -m bench.upstream --port P`. It speaks HTTP/1.1 with keep-alive and pipelining on
loopback. Paced streams are written by one timer for all of them, a millisecond a tick; each
stream has its own phase within its pace, as strangers' streams do.
"""

import argparse
import asyncio
import json
import signal
import ssl
from collections.abc import Callable, Iterator
from typing import Protocol, cast

import uvloop

from bench import wire

TICK = 0.001
SLOWEST = max(wire.PACES.values())


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _answer(body: bytes, more: bytes = b"") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
    return head % (len(body), more) + body


def as_json(value: object) -> bytes:
    """A whole answer that has this for its body."""
    return _answer(json.dumps(value).encode())


_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_OPENING = _STREAM_HEAD + _chunk(wire.ROLE_EVENT)
_WORDS = tuple(_chunk(event) for event in wire.WORD_EVENTS)
_END = _chunk(wire.FINISH_EVENT) + _chunk(wire.DONE_EVENT) + b"0\r\n\r\n"
_END_WITH_USAGE = (
    _chunk(wire.FINISH_EVENT) + _chunk(wire.USAGE_EVENT) + _chunk(wire.DONE_EVENT) + b"0\r\n\r\n"
)
_DENSE = {end: _OPENING + b"".join(_WORDS) + end for end in (_END, _END_WITH_USAGE)}
_WHOLE = _answer(wire.WHOLE_BODY)
_LAST_WHOLE = _answer(wire.WHOLE_BODY, b"Connection: close\r\n")
_MODELS = as_json({"object": "list", "data": [{"id": wire.MODEL, "object": "model"}]})
_PACES = {name.encode(): pause for name, pause in wire.PACES.items() if pause}
_SILENT = wire.SILENT.encode()
_CLOSE = b"\r\nconnection: close\r\n"


def at_once(body: bytes) -> bytes:
    """All of the answer to a question, whatever pace was asked for."""
    if b'"stream":true' in body or b'"stream": true' in body:
        return _DENSE[_end(body)]
    return _WHOLE


def _end(body: bytes) -> bytes:
    return _END_WITH_USAGE if b'"include_usage":' in body else _END


class Timers(Protocol):
    """The part of an event loop that keeps time."""

    def time(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], object], /) -> object: ...


class Metronome:
    """Writes one chunk to each paced stream whenever its pause has passed.

    A tick that comes late is made up for, so that streams keep their schedule; `latest` is the
    longest delay seen, in seconds.
    """

    def __init__(self, loop: Timers) -> None:
        self._loop = loop
        self._slots: list[list[tuple[Connection, Iterator[bytes], int]]]
        self._slots = [[] for _ in range(SLOWEST)]
        self._tick = 0
        self._due = loop.time()
        self._running = False
        self._arrivals = 0
        self.streams = 0
        self.latest = 0.0

    def add(self, connection: "Connection", end: bytes, pause: int) -> None:
        """Write a chunk every `pause` milliseconds, `end` last; then let the connection resume."""
        if not self._running:
            self._running = True
            self._due = self._loop.time() + TICK
            self._loop.call_at(self._due, self._beat)
        self._arrivals += 1
        self.streams += 1
        first = (self._tick + 1 + self._arrivals % pause) % SLOWEST
        self._slots[first].append((connection, iter((*_WORDS, end)), pause))

    def _beat(self) -> None:
        now = self._loop.time()
        self.latest = max(self.latest, now - self._due)
        while self._due <= now:
            self._tick = (self._tick + 1) % SLOWEST
            self._due += TICK
            self._write(self._tick)
        if self.streams:
            self._loop.call_at(self._due, self._beat)
        else:
            self._running = False

    def _write(self, tick: int) -> None:
        slot = self._slots[tick]
        self._slots[tick] = []
        for stream in slot:
            connection, chunks, pause = stream
            chunk = next(chunks, None)
            if chunk is None or connection.transport.is_closing():
                self.streams -= 1
                connection.resume()
                continue
            connection.transport.write(chunk)
            self._slots[(tick + pause) % SLOWEST].append(stream)


class Connection(asyncio.Protocol):
    """One keep-alive connection. Requests are answered in their order."""

    transport: asyncio.Transport

    def __init__(self, metronome: Metronome) -> None:
        self._metronome = metronome
        self._received = b""
        self._streaming = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        if not self._streaming:
            self._answer_all()

    def resume(self) -> None:
        self._streaming = False
        if self._received and not self.transport.is_closing():
            self._answer_all()

    def _answer_all(self) -> None:
        while self._received and not self._streaming:
            end_of_head = self._received.find(b"\r\n\r\n") + 4
            if end_of_head < 4:
                return
            head = self._received[:end_of_head].lower()
            end = end_of_head + _content_length(head)
            if len(self._received) < end:
                return
            body = self._received[end_of_head:end]
            self._received = self._received[end:]
            self._answer(head, body)
            if _CLOSE in head and not self._streaming:
                self.transport.close()
                return

    def _answer(self, head: bytes, body: bytes) -> None:
        if not head.startswith(b"post"):
            self.transport.write(self._looked_up(head))
        elif b'"stream":true' in body or b'"stream": true' in body:
            self._stream(body)
        else:
            self.transport.write(_LAST_WHOLE if _CLOSE in head else _WHOLE)

    def _looked_up(self, head: bytes) -> bytes:
        if head.startswith(b"get /latest"):
            latest, self._metronome.latest = self._metronome.latest, 0.0
            return as_json({"latest": latest})
        return _MODELS

    def _stream(self, body: bytes) -> None:
        end = _end(body)
        for name, pause in _PACES.items():
            if name in body:
                self._streaming = True
                self.transport.write(_OPENING)
                self._metronome.add(self, end, pause)
                return
        if _SILENT in body:
            self._streaming = True
            self.transport.write(_OPENING)
            return
        self.transport.write(_DENSE[end])


def _content_length(head: bytes) -> int:
    start = head.find(b"\r\ncontent-length:")
    if start < 0:
        assert b"transfer-encoding" not in head, "requests of unknown length are not spoken"
        return 0
    return int(head[start + 17 : head.index(b"\r\n", start + 17)])


async def serve(
    port: int,
    certificate: str | None = None,
    connection: Callable[[Metronome], Connection] = Connection,
) -> None:
    """Serve on loopback until SIGTERM or SIGINT. Prints a line when it listens.

    `certificate` is a file with a chain and its key: then it speaks TLS.
    """
    tls = None
    if certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    metronome = Metronome(loop)
    server = await loop.create_server(
        lambda: connection(metronome), "127.0.0.1", port, backlog=4096, ssl=tls
    )
    print("listening", flush=True)
    await stopped.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificate", help="speak TLS; a file with the chain and its key")
    options = parser.parse_args()
    uvloop.run(serve(options.port, options.certificate))


if __name__ == "__main__":
    main()
