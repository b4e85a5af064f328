"""Who answers a request that comes several times: one at a time, on all nodes together.

claimed ──keep──▶ the answer is there: whoever waits, or comes within a day, gets it
   ├──free──▶ one of those who wait claims it, and tries again
   └──(the node dies)──▶ its lease lapses, with the same effect
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from manyways.errors import Refusal, StoreError
from manyways.store.database import Database

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from manyways.store.idempotency import Answer, Found, Request

T = TypeVar("T")

CALL_LIMIT: Final = 2.0
"""Seconds in which the database has answered, or is away."""
_QUICKLY_PACKED: Final = 32 * 1024
"""Bytes of an answer that the event loop packs by itself."""

log = logging.getLogger(__name__)


class Claim:
    """The right to answer a request. Whoever has it ends it: by `keep`, else by `free`."""

    __slots__ = ("ending", "held", "outcome", "request")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.held = False  # whether the database knows of it, and the lease is to be renewed
        loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[Answer | Refusal | None] = loop.create_future()
        self.ending: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "over" if self.outcome.done() else "held" if self.held else "asked for"
        return f"<Claim {self.request.id} {state}>"


class Claims:
    """The claims of this process. What stands in the database holds for all.

    `lease` is how long a claim outlives its process, in seconds; `follow` renews it every
    `renewal`. Who waits for another node looks every `poll` seconds. The clocks of all nodes must
    agree within a few seconds. `wall` tells Unix seconds.
    """

    def __init__(
        self,
        database: Database,
        *,
        lease: float = 20.0,
        renewal: float = 5.0,
        poll: float = 0.25,
        wall: Callable[[], float] = time.time,
    ) -> None:
        # Here and not above: SQLAlchemy is heavy.
        from manyways.store import idempotency

        self._rows = idempotency
        self._database = database
        self._lease = lease
        self._renewal = renewal
        self._poll = poll
        self._wall = wall
        # One a key of a caller: whoever answers, or asks other nodes on behalf of all here.
        self._claims: dict[tuple[str, str], Claim] = {}
        self._undoing: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Claims {len(self._claims)}>"

    async def claim(self, request: Request, deadline: float) -> Claim | Answer:
        """The right to answer, or the answer. Waits for another who is at it, until `deadline`,
        a moment of the event loop's clock.

        Raises `Refusal`: `idempotency_conflict`, `timeout`, or 503 `server_error` while the
        database is away.
        """
        name = request.owner, request.key
        while (other := self._claims.get(name)) is not None:
            if other.request.fingerprint != request.fingerprint:
                raise _conflict()
            outcome = await _outcome_of(other, deadline)
            if isinstance(outcome, Refusal):
                raise outcome
            if outcome is not None:
                return outcome
        claim = self._claims[name] = Claim(request)
        try:
            found = await self._obtain(request, deadline)
        except asyncio.CancelledError:
            # What the database's thread has begun is carried out, behind the caller's back.
            await self.free(claim)
            raise
        except Refusal as refusal:
            # Without a database nobody who waits here would fare better.
            self._over(claim, refusal if refusal.code == "server_error" else None)
            raise
        if found is None:
            claim.held = True
            return claim
        self._over(claim, found)
        return found

    async def keep(self, claim: Claim, answer: Answer) -> None:
        """The answer, for whoever waits and whoever comes. Returns once it is in the database,
        or cannot be brought there: then those who come later will not find it."""
        if claim.ending is None:
            claim.ending = asyncio.create_task(self._keep(claim, answer))
        await asyncio.shield(claim.ending)

    async def free(self, claim: Claim) -> None:
        """There is no answer. Does nothing where one was kept."""
        if claim.ending is None:
            claim.ending = asyncio.create_task(self._free(claim))
        await asyncio.shield(claim.ending)

    async def follow(self) -> None:
        """Renew leases until cancelled."""
        while True:
            await asyncio.sleep(self._renewal)
            held = tuple(one.request for one in self._claims.values() if one.held)
            if held:
                await self._renew(held)

    async def _obtain(self, request: Request, deadline: float) -> Answer | None:
        """The answer, or `None`: it is for us to answer. Raises `Refusal`."""
        clock = asyncio.get_running_loop().time
        while True:
            try:
                found: Found = await self._call(
                    lambda connection: self._rows.claim(
                        connection, request, self._wall(), self._lease
                    )
                )
            except StoreError as error:
                log.warning("A request with a key for repeats cannot be answered: %s", error)
                self._undo(request)
                raise _cannot_promise() from error
            if found == "conflict":
                raise _conflict()
            if found == "claimed":
                return None
            if found != "running":
                return found
            left = deadline - clock()
            if left <= 0:
                raise _too_late()
            await asyncio.sleep(min(self._poll, left))

    def _undo(self, request: Request) -> None:
        """A claim that took too long may be made all the same: nobody is to wait for it."""
        task = asyncio.create_task(self._forget(request))
        self._undoing.add(task)
        task.add_done_callback(self._undoing.discard)

    async def _forget(self, request: Request) -> None:
        with contextlib.suppress(StoreError):  # then it lapses by itself
            await self._database.call(
                lambda connection: self._rows.free(connection, request),
                limit=self._lease,
                write=True,
            )

    async def _renew(self, held: tuple[Request, ...]) -> None:
        until = self._wall() + self._lease
        try:
            await self._call(lambda connection: self._rows.renew(connection, held, until))
        except StoreError as error:
            log.warning("Claims to requests with a key may lapse: %s", error)

    async def _keep(self, claim: Claim, answer: Answer) -> None:
        request = claim.request
        try:
            if answer.body is None or len(answer.body) <= _QUICKLY_PACKED:
                body = self._rows.packed(answer)
            else:
                body = await asyncio.to_thread(self._rows.packed, answer)
            now = self._wall()
            if not await self._call(
                lambda connection: self._rows.keep(connection, request, answer, body, now)
            ):
                log.warning("Request %s lost its claim: repeats get another answer", request.id)
        except StoreError as error:
            log.warning("A repeat of request %s will ask again: %s", request.id, error)
        finally:
            self._over(claim, answer)

    async def _free(self, claim: Claim) -> None:
        request = claim.request
        try:
            await self._call(lambda connection: self._rows.free(connection, request))
        except StoreError as error:
            log.warning("Who repeats request %s waits some seconds: %s", request.id, error)
        finally:
            self._over(claim, None)

    def _over(self, claim: Claim, outcome: Answer | Refusal | None) -> None:
        """Whoever waits here goes on."""
        claim.held = False
        name = claim.request.owner, claim.request.key
        if self._claims.get(name) is claim:
            del self._claims[name]
        if not claim.outcome.done():
            claim.outcome.set_result(outcome)

    async def _call(self, work: Callable[[Connection], T]) -> T:
        return await self._database.call(work, limit=CALL_LIMIT, write=True)


async def _outcome_of(claim: Claim, deadline: float) -> Answer | Refusal | None:
    """What becomes of another's claim. Raises `Refusal` when the time is up."""
    left = deadline - asyncio.get_running_loop().time()
    done, _ = await asyncio.wait([claim.outcome], timeout=max(0.0, left))
    if not done:
        raise _too_late()
    return claim.outcome.result()


def _conflict() -> Refusal:
    return Refusal(
        "idempotency_conflict",
        "Idempotency-Key: this key came with another request within the last 24 hours. Send the"
        " same request, or a new key.",
        param="Idempotency-Key",
    )


def _too_late() -> Refusal:
    return Refusal(
        "timeout",
        "Idempotency-Key: the first request with this key is not answered yet, and your time is"
        " up. Ask again with the same key.",
        retry_after=1,
    )


def _cannot_promise() -> Refusal:
    return Refusal(
        "server_error",
        "Idempotency-Key: it cannot be seen to now that a repeat gets the same answer, as the"
        " database does not answer. Ask again soon, or without this header.",
        status=503,
        retry_after=2,
    )
