"""One request, asked and counted to the byte: the proof that a gateway answers right at all."""

import http.client
import io
import socket
import time
from dataclasses import dataclass
from typing import cast

from bench import wire
from bench.failures import Wrong
from bench.target import Target


@dataclass(frozen=True)
class Answer:
    """`size` counts every byte on the wire, headers and framing included."""

    status: int
    body: bytes
    size: int
    seconds: float


class _Received:
    """Bytes that came, dressed as the socket which `HTTPResponse` wants to read."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def ask(target: Target, body: bytes, *, limit: float) -> Answer:
    """Post `body` and read one complete answer within `limit` seconds.

    Raises `OSError` when nobody listens or time runs out, `Wrong` when the answer breaks off.
    """
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", target.port), timeout=limit) as connection:
        connection.sendall(target.request(body))
        received = b""
        while (answer := _complete(received)) is None:
            left = started + limit - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no complete answer within {limit:.0f} s")
            connection.settimeout(left)
            data = connection.recv(1 << 16)
            if not data:
                raise Wrong(f"the connection closed after {len(received)} bytes")
            received += data
    status, answered = answer
    return Answer(status, answered, len(received), time.monotonic() - started)


def _complete(received: bytes) -> tuple[int, bytes] | None:
    head, found, rest = received.partition(b"\r\n\r\n")
    chunked = b"\r\ntransfer-encoding: chunked" in head.lower()
    if not found or (chunked and not rest.endswith(b"0\r\n\r\n")):
        return None
    response = http.client.HTTPResponse(cast("socket.socket", _Received(received)))
    try:
        response.begin()
        return response.status, response.read()
    except http.client.IncompleteRead:
        return None


def check(target: Target, *, stream: bool, pace: str = wire.DENSE, limit: float = 20.0) -> int:
    """Ask once and compare every word. Returns the answer's size on the wire, in bytes.

    Raises `Wrong` when a word is missing or different, `OSError` when there is no answer.
    """
    body = wire.question(stream=stream, pace=pace, model=target.model)
    answer = ask(target, body, limit=limit)
    if answer.status != 200:
        raise Wrong(f"status {answer.status}: {answer.body[:300].decode(errors='replace')}")
    try:
        text = wire.streamed_text(answer.body) if stream else wire.whole_text(answer.body)
    except ValueError as error:
        raise Wrong(str(error)) from error
    expected = wire.STREAMED_TEXT if stream else wire.WHOLE_TEXT
    if text != expected:
        raise Wrong(f"{len(text)} characters arrived, {len(expected)} were sent")
    return answer.size
