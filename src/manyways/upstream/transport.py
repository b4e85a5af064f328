"""The seam to providers' sockets. Everything the gateway promises about time limits,
cancellation and honest ends is decided behind it.

    send ──connect──▶ request written ──headers──▶ Response ──body──▶ b"" (a clean end)
      │                   │                            │
      ConnectFailed       Reset, Garbled               Cut, Garbled
      TlsFailed           TimedOut("headers")          TimedOut("body")
      TimedOut("connect")

An implementation that can tell more exactly what took too long says "pool" (the wait for a free
connection), "dns" or "tls" for "connect", "write" for "headers", and "whole" for an exchange that
never stood still and yet took too long.

An implementation promises, and `tests/upstream/test_transport*.py` hold every one to it:
- a chunk is handed on the moment it has arrived; chunks that came in one read may be joined;
- a body that ended early, was reset or broke its framing is never a clean end;
- cancelling the task that waits, at any await, closes the connection at once, so that the
  provider notices; a response that is left before its end is closed, not drained;
- a caller that does not read makes the provider's socket stop (back-pressure);
- content that comes compressed with gzip, deflate, br or zstd, asked for or not, is decoded as it
  comes, `limit` of `body` counting what is decoded; `Content-Encoding` and `Content-Length` are
  gone then. Data that is broken or ends too early is `Garbled`;
- no redirect is followed, no cookie kept, no header added but `Host`, `Content-Length`,
  and `Accept-Encoding: identity` where the request names no encoding; a proxy is used only
  if the implementation was given one;
- a proxy that refuses, 407 to a plain request included, is `ConnectFailed`: one line that names the
  proxy, and neither the user nor the password, whatever it says itself.
"""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from socket import AddressFamily
from typing import Final, NamedTuple, Protocol, Self

from msgspec import Struct

STALE: Final = 0.25
"""Seconds, of those in which the event loop is awake, in which a kept connection turns out to have
been closed. What is closed later was at work on the request, and may be paid for it."""


class Limits(Struct, frozen=True, kw_only=True):
    """How long each phase may take, in seconds.

    `connect`: until a connection stands, the wait for a free one, DNS and TLS included.
    `headers`: from there until the answer's headers are complete, writing included.
    `idle`: between two arrivals of body bytes.

    Within these, `pool`, `dns`, `dial` (one TCP connection, a proxy's consent included) and `tls`
    are parts of `connect`, `write` of `headers` (until the request is handed to the system), and
    `whole` bounds everything together. An implementation that cannot tell them apart keeps the
    first three.
    """

    connect: float
    headers: float
    idle: float
    pool: float = math.inf
    dns: float = math.inf
    dial: float = math.inf
    tls: float = math.inf
    write: float = math.inf
    whole: float = math.inf


class Address(NamedTuple):
    """Where a host can be reached: an IP address, never a name."""

    family: AddressFamily
    host: str
    port: int


Lookup = Callable[[str, int], Awaitable[Sequence[Address]]]
"""Finds the addresses of a host and port, the preferred ones first. Raises `OSError` where there
are none, and what it likes for those that must not be reached."""


class Response(Protocol):
    """An answer whose headers have come. Use as `async with`: leaving it gives the
    connection back if the body was read to its end, and closes it otherwise."""

    status: int
    headers: Mapping[str, str]
    """Case-insensitive to look up; of repeated headers the first."""

    async def chunk(self) -> bytes:
        """The next bytes of the body as they arrived; `b""` at its clean end, and ever after.

        Raises `Cut`, `Garbled`, `TimedOut("body")`.
        """
        ...

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises as `chunk` does, and `TooLarge` beyond `limit` bytes."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...


def untold() -> None:
    """What is told that a request was sent again, where nobody asks."""


class Transport(Protocol):
    """Sends requests to providers over pooled connections."""

    async def send(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        limits: Limits,
        *,
        on_resend: Callable[[], object] = untold,
    ) -> Response:
        """Send one request and wait for the answer's headers, whatever its status.

        Raises `ConnectFailed`, `TlsFailed`, `Reset`, `Garbled`, `TimedOut`, and `ValueError`
        for headers that cannot be sent.
        A request that got no byte of answer on a reused connection that turned out, within
        `STALE`, to be closed may be sent again on a fresh one, once; `on_resend` is called then.
        """
        ...

    async def aclose(self) -> None:
        """Close every connection. Responses still open are cut."""
        ...
