"""`Idempotency-Key`: a request that is sent again gets the answer it had.

Stands around an endpoint. What the endpoint sends is copied on its way out, and kept before its
last byte leaves; a repeat gets the copy, and the endpoint hears nothing of it.
"""

import asyncio
import hashlib
import math
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from msgspec import Struct

from manyways.access.idempotency import Claim, Claims
from manyways.access.limits import Standing
from manyways.attempts.pursuit import KEEP_ALIVE_INTERVAL
from manyways.attempts.reply import PatientReply
from manyways.dialects.openai_chat.request import request_timeout
from manyways.edge.exchange import Exchange, Send
from manyways.edge.routes import Endpoint
from manyways.errors import CallerLeft, Refusal
from manyways.store.idempotency import Answer, Pairs, Request
from manyways.types import Caller
from manyways.watch import TimeLimit

LONGEST: Final = 16 * 1024 * 1024
"""Bytes of an answer that is kept."""
TOGETHER: Final = 256 * 1024 * 1024
"""Bytes of all copies in memory. An answer that finds no room is not kept."""

_KEY = re.compile(rb"[\x20-\x7e]{1,255}")
_PIECE = 256 * 1024
_STREAM = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
)
_OF_THE_ANSWER = frozenset(
    {b"content-type", b"cache-control", b"x-accel-buffering", b"x-manyways-provider",
     b"x-manyways-model", b"x-manyways-attempts"}
)  # fmt: skip
"""Headers that a repeat gets, too. The others are about one request or one moment."""


class Repeats:
    """Sees to it that a request with a key is answered once.

    `authenticate` says whose key came with a request, and has an account kept of it from then on,
    of which a repeat is taken out. `owner` tells who may repeat a caller's requests. In seconds:
    `patience` is how long any request may take, `send_timeout` how long a caller may not read,
    `keep_alive` the silence after which one who waits for a stream gets a comment. `standing` is
    how a caller's limit on requests stands, of which a repeat takes nothing.
    """

    def __init__(
        self,
        claims: Claims,
        *,
        authenticate: Callable[[Exchange], Awaitable[Caller]],
        owner: Callable[[Caller], str],
        patience: float,
        send_timeout: float,
        keep_alive: float = KEEP_ALIVE_INTERVAL,
        standing: Callable[[Caller], Standing | None] = lambda _: None,
    ) -> None:
        self._claims = claims
        self._authenticate = authenticate
        self._owner = owner
        self._patience = patience
        self._send_timeout = send_timeout
        self._keep_alive = keep_alive
        self._standing = standing
        self._room = _Room(TOGETHER)

    def once(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint, for requests with and without a key."""

        def answered_once(exchange: Exchange) -> Awaitable[None]:
            key = exchange.headers.get(b"idempotency-key")
            return endpoint(exchange) if key is None else self._answer(endpoint, exchange, key)

        return answered_once

    async def _answer(self, endpoint: Endpoint, exchange: Exchange, key: bytes) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        caller = await self._authenticate(exchange)
        exchange.limited_to(self._standing(caller))
        if _KEY.fullmatch(key) is None:
            raise Refusal(
                "invalid_request",
                "Idempotency-Key: must be 1 to 255 printable ASCII characters.",
                param="Idempotency-Key",
            )
        patience = min(self._patience, request_timeout(exchange.wanted_timeout) or math.inf)
        body = await exchange.body()
        request = Request(
            owner=self._owner(caller),
            key=key.decode("ascii"),
            fingerprint=_fingerprint(exchange, body),
            id=exchange.id,
        )
        try:
            found = await self._find(exchange, request, began + patience, stream=_streams(body))
            if isinstance(found, Claim):
                await self._ask(endpoint, exchange, found)
            else:
                await self._repeat(exchange, found)
        except Refusal as refusal:
            if exchange.over or not exchange.started:
                raise
            await exchange.fail(refusal)  # a comment has committed the status

    async def _find(
        self, exchange: Exchange, request: Request, deadline: float, *, stream: bool
    ) -> Claim | Answer:
        """Who waits for another's stream is told that it is not forgotten."""
        interval = self._keep_alive if stream else math.inf
        with PatientReply(exchange, interval, self._send_timeout) as patient:
            found = await self._claims.claim(request, deadline)
            try:
                await patient.settle()
            except BaseException:  # also the caller's leaving: others wait for the claim
                if isinstance(found, Claim):
                    await self._claims.free(found)
                raise
        return found

    async def _ask(self, endpoint: Endpoint, exchange: Exchange, claim: Claim) -> None:
        copy = _Copy(exchange, claim, self._claims, self._room)
        exchange.send_through(copy.through)
        try:
            await endpoint(exchange)
        finally:
            copy.drop()
            await self._claims.free(claim)

    async def _repeat(self, exchange: Exchange, answer: Answer) -> None:
        if answer.body is None:
            raise Refusal(
                "idempotency_conflict",
                "Idempotency-Key: the request with this key was answered, but its answer was too"
                " large to be kept. Send a new key to ask again.",
                param="Idempotency-Key",
            )
        exchange.tried([f"as {answer.request_id}"])
        exchange.closes_with(None)  # it has its record
        if not exchange.started:
            headers = [(name.encode(), value.encode("latin-1")) for name, value in answer.headers]
            headers.append((b"idempotency-replayed", b"true"))
            headers.append((b"x-original-request-id", answer.request_id.encode()))
            await exchange.answer(answer.body, answer.status, headers)
            return
        view = memoryview(answer.body)
        last = max(0, len(view) - 1) // _PIECE * _PIECE
        try:
            with TimeLimit(self._send_timeout, "the caller to read") as limit:
                for start in range(0, last, _PIECE):
                    await exchange.write(bytes(view[start : start + _PIECE]))
                    limit.restart(self._send_timeout)
                await exchange.end(bytes(view[last:]))
        except TimeoutError as error:
            raise CallerLeft(str(error)) from error


class _Room:
    """Memory for copies, in bytes."""

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self, size: int) -> bool:
        """Whether there is room for so much more; then it is taken."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give_back(self, size: int) -> None:
        self._left += size


class _Copy:
    """What goes to a caller, kept once it is complete and no error."""

    __slots__ = (
        "_claim", "_claims", "_exchange", "_headers", "_pieces", "_room", "_send", "_size",
        "_status", "_too_large",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, claim: Claim, claims: Claims, room: _Room) -> None:
        self._exchange = exchange
        self._claim = claim
        self._claims = claims
        self._room = room
        # As they are where a comment has committed the status.
        self._status = 200
        self._headers: Pairs = _STREAM
        self._pieces: list[bytes] = []
        self._size = 0
        self._too_large = False
        self._send: Send | None = None

    def through(self, send: Send) -> Send:
        """The way to the caller, by way of this."""
        self._send = send
        return self._take

    def drop(self) -> None:
        """Give the memory back."""
        self._room.give_back(self._size)
        self._size = 0
        self._pieces.clear()

    async def _take(self, message: dict[str, Any]) -> None:
        if self._send is None:
            raise RuntimeError("nothing can be sent before `through`")
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = tuple(
                (name.decode(), value.decode("latin-1"))
                for name, value in message["headers"]
                if name in _OF_THE_ANSWER
            )
        elif self._exchange.error_code is None and self._status < 300:
            self._add(message.get("body", b""))
            if not message.get("more_body"):
                await self._claims.keep(self._claim, self._answer())
        await self._send(message)

    def _add(self, data: bytes) -> None:
        if self._too_large:
            return
        if self._size + len(data) <= LONGEST and self._room.take(len(data)):
            self._size += len(data)
            self._pieces.append(data)
        else:
            self._too_large = True
            self.drop()

    def _answer(self) -> Answer:
        return Answer(
            request_id=self._exchange.id,
            status=self._status,
            headers=self._headers,
            body=None if self._too_large else b"".join(self._pieces),
        )


class _Wish(Struct):
    stream: bool = False


_wish = msgspec.json.Decoder(_Wish)


def _streams(body: bytes) -> bool:
    """Whether a stream is asked for. What is wrong with the body, others will tell."""
    if b'"stream"' not in body:
        return False
    try:
        return _wish.decode(body).stream
    except (msgspec.DecodeError, RecursionError):
        return False


def _fingerprint(exchange: Exchange, body: bytes) -> bytes:
    head = f"{exchange.method} {exchange.path}\0".encode("utf-8", "surrogatepass")
    return hashlib.sha256(head + body).digest()
