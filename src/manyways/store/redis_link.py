"""One connection to a Redis or Valkey server.

Whatever is asked in one turn of the event loop leaves in one write, and nobody waits for the
answers of others: the server answers in order. That is what makes a question cost a tenth of
what it costs over a client library's connection pool. What must be on its way before something
else happens (`flush`) does not wait for the turn's end.

A server that leaves a question without an answer for `LIMIT` is taken for gone: the connection
ends, and everybody who waits on it hears `Away`. Time in which our own event loop was kept busy
is not held against it.
"""

import asyncio
import math
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Self, cast

import hiredis

from manyways.errors import StoreError
from manyways.store.redis_address import Address, Server

LIMIT: Final = 2.0
"""Seconds a question may take, whatever happens. Not less: a server on a busy machine may get no
turn for some tenths of a second, and who is taken for gone is not asked for limits."""
CONNECT_LIMIT: Final = 2.0
"""Seconds to connect and sign in. No request waits for it."""
WAITING: Final = 10_000
"""So many questions may be under way on one connection; more are refused with `Away`."""

# The limit is counted in looks: a loop that was kept busy looks once, however late it is, and at
# what came meanwhile before it looks again.
_LOOKS: Final = 8
_NOTHING = object()

Word = str | bytes | int | float
Pushed = Callable[[bytes, bytes], None]
"""Hears a channel's name and what was said there."""

pack = cast("Callable[[tuple[Word, ...]], bytes]", hiredis.pack_command)
"""A command as it is sent."""


class Away(StoreError):
    """Redis does not answer. What was asked may have happened, or not."""


class Link(asyncio.Protocol):
    """An open connection. Invariant: one future in `_waiting` for each command that was sent or
    is about to be, in their order; none once it is lost."""

    def __init__(self, server: Server, pushed: Pushed, ended: Callable[["Link"], None]) -> None:
        self.server = server
        self.lost = ""
        self._pushed = pushed
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._closed = self._loop.create_future()
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._transport: asyncio.WriteTransport | None = None
        self._out: list[bytes] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._suspect: asyncio.Future[Any] | None = None  # who waited longest at the last look
        self._looks = 0  # so many found it waiting

    def __repr__(self) -> str:
        return f"<Link to {self.server} waiting={len(self._waiting)} {self.lost or 'open'}>"

    @classmethod
    async def open(
        cls,
        server: Server,
        address: Address,
        *,
        pushed: Pushed = lambda *_: None,
        ended: Callable[["Link"], None] = lambda _: None,
    ) -> Self:
        """Connect and sign in. Raises `Away`."""
        loop = asyncio.get_running_loop()
        secure = ssl.create_default_context() if address.tls else None
        link: Self | None = None
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                below, link = await loop.create_connection(
                    lambda: cls(server, pushed, ended), server.host, server.port
                )
                # uvloop keeps what is written until the turn's end, unless that were too much.
                below.set_write_buffer_limits(high=0)
                if secure is not None:
                    above = await loop.start_tls(below, link, secure, server_hostname=server.host)
                    if above is None:
                        raise Away(f"{server} closed the connection")
                    link.connection_made(above)
                await _sign_in(link, address)
        except TimeoutError:
            raise Away(f"{server} does not answer within {CONNECT_LIMIT:g} s") from None
        except OSError as error:
            raise Away(f"{server} cannot be reached: {_words(error)}") from None
        else:
            opened, link = link, None
            return opened
        finally:
            if link is not None:
                await link.aclose()

    async def ask(self, *words: Word) -> Any:
        """The answer to a command about the connection itself, which is sent however many wait;
        strings in it as bytes. Raises `Away`, also for an error."""
        answer = await self.send(words, most=math.inf)
        if isinstance(answer, Away):
            raise answer
        if isinstance(answer, Exception):
            raise Away(f"{self.server} says: {answer}")
        return answer

    def listen(self, channel: str | bytes) -> None:
        """From now on, `pushed` hears what is said there."""
        if not self.lost:
            self._write(("SUBSCRIBE", channel))  # which is answered by a push

    def send(self, words: tuple[Word, ...], most: float | None = None) -> "asyncio.Future[Any]":
        """Send a command, where no more than `most` wait already. An error is a result, too:
        `hiredis.ReplyError`, or `Away`."""
        future = self._loop.create_future()
        if self.lost or len(self._waiting) >= (WAITING if most is None else most):
            future.set_result(Away(self.lost or f"{self.server}: too many wait for answers"))
            return future
        self._write(words)
        self._waiting.append(future)
        if self._timer is None:
            self._timer = self._loop.call_later(LIMIT / _LOOKS, self._look)
        return future

    def flush(self) -> None:
        """Hand all that was sent to the socket, now."""
        if self._out and self._transport is not None and not self.lost:
            out, self._out = self._out, []
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def drop(self, why: str) -> None:
        """End it at once: whoever waits hears why."""
        if self._transport is not None:
            self._transport.abort()
        self._fail(f"{self.server} {why}")

    async def aclose(self) -> None:
        """End it, and wait until it has ended."""
        self.drop("is not asked any more")
        await asyncio.wait([self._closed], timeout=1.0)

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        reader, waiting = self._reader, self._waiting
        try:
            reader.feed(data)
            while (answer := reader.gets()) is not _NOTHING:
                if isinstance(answer, hiredis.PushNotification):
                    if answer[0] == b"message":
                        self._pushed(answer[1], answer[2])
                elif waiting:
                    future = waiting.popleft()
                    if not future.done():
                        future.set_result(answer)
        except hiredis.ProtocolError as error:
            self.drop(f"does not speak Redis: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"{self.server} closed the connection{f': {error}' if error else ''}")
        if not self._closed.done():
            self._closed.set_result(None)

    def _write(self, words: tuple[Word, ...]) -> None:
        self._out.append(pack(words))
        if len(self._out) == 1:
            self._loop.call_soon(self.flush)

    def _look(self) -> None:
        """Whether the one who waits longest has waited too long."""
        self._timer = None
        if not self._waiting:
            return
        longest = self._waiting[0]
        self._looks = self._looks + 1 if longest is self._suspect else 1
        self._suspect = longest
        if self._looks >= _LOOKS:
            self.drop(f"has not answered for {LIMIT:g} s")
        else:
            self._timer = self._loop.call_later(LIMIT / _LOOKS, self._look)

    def _fail(self, why: str) -> None:
        if self.lost:
            return
        self.lost = why
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for future in self._waiting:
            if not future.done():
                future.set_result(Away(why))
        self._waiting.clear()
        self._ended(self)


def _words(error: OSError) -> str:
    """Why a connection was not made; event loops word it differently."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"no TLS with it ({error.reason or error})"
    if isinstance(error, socket.gaierror):
        return "its host name leads nowhere (DNS)"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return (os.strerror(error.errno) if error.errno else str(error)) or "connection failed"


async def _sign_in(link: Link, address: Address) -> None:
    hello: tuple[Word, ...] = ("HELLO", 3)
    if address.password:
        hello += ("AUTH", address.user or "default", address.password)
    await link.ask(*hello)
    if address.db:
        await link.ask("SELECT", address.db)
