"""The life of a request, from a key to the last byte.

1. Authenticate  from the headers alone: strangers get nothing parsed.
2. Decode        bytes to a request; bad input stops here.
3. Resolve       the candidates that can serve it, a pure look at the catalog's snapshot.
4. Admit         requests, tokens, places and quotas are reserved in one step, all or none.
5. Attempt       as the plan says: one candidate after the other, until one answers.
6. Answer        whole at its end, or streamed as it comes. The first event with content
                 commits the answer: before it, fallback is free; after it, it is gone on from
                 where that can be proven, or there is an error event. A cut answer never looks
                 like a finished one.
7. Settle        before the answer's last byte leaves, its record is in the journal and what was
                 reserved becomes what was used. Once, however the request ends: the exchange
                 sees to it that its bill is closed.
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from manyways import attempts
from manyways.access.keys import KeyRing
from manyways.access.limits import Standing
from manyways.attempts import bill as bills
from manyways.attempts.bill import Bill, Books
from manyways.attempts.history import refusal_of, told
from manyways.dialects.openai_chat.request import (
    NO_CHOICE,
    ChatRequest,
    decode_request,
    request_timeout,
)
from manyways.errors import Refusal
from manyways.routing.health import Health
from manyways.routing.hedging import HedgeBudget
from manyways.routing.plan import Plan
from manyways.routing.resolve import Candidates, Offers, Wish, resolve
from manyways.types import Caller


class Exchange(attempts.CallersReply, bills.Exchange, Protocol):
    """One request and its answer, as the flow sees them; `edge` has the real one."""

    @property
    def secret(self) -> str | None:
        """The key that came with the request."""
        ...

    @property
    def address(self) -> str:
        """Where the caller is; empty where that is not known."""
        ...

    async def body(self) -> bytes:
        """The request's body. Raises `Refusal` if it is too large or too slow."""
        ...

    def asked_by(self, caller: Caller) -> None:
        """For the log: whose key it was."""
        ...

    def limited_to(self, standing: Standing | None) -> None:
        """For the answer's headers: how a limit on requests stands."""
        ...

    def closes_with(self, closing: Callable[[], None] | None) -> None:
        """`closing` is to be called once, before the last byte of the answer leaves."""
        ...

    @property
    def wanted_timeout(self) -> bytes | None:
        """The `X-Request-Timeout` that came with the request."""
        ...

    def tried(self, history: list[str]) -> None:
        """For the log: every attempt, in words."""
        ...

    async def fail(self, refusal: Refusal) -> None:
        """End an answer that has been started with an error event. Raises `CallerLeft`."""
        ...


class Shelf(Offers, Protocol):
    """What the catalog has at one moment."""

    @property
    def untold(self) -> Sequence[str]:
        """Providers that have not told their models since the start."""
        ...


class Catalog(Protocol):
    """Where models are looked up."""

    @property
    def snapshot(self) -> Shelf: ...

    async def settled(self, names: Iterable[str], limit: float) -> bool: ...


class Flow:
    """Brings requests to models. It holds parts, and no state but what all requests have saved
    up for hedges."""

    def __init__(
        self,
        *,
        ring: KeyRing,
        catalog: Catalog,
        health: Health,
        means: attempts.Means,
        books: Books,
        defaults: Mapping[str, float],
        discovery_wait: float = 5.0,
    ) -> None:
        """`discovery_wait` is how many seconds an unknown model is waited for while providers
        have yet to tell theirs."""
        self._ring = ring
        self._catalog = catalog
        self._health = health
        self._means = means
        self._books = books
        self._defaults = defaults
        self._discovery_wait = discovery_wait
        self._budget = HedgeBudget()
        self._seen: Offers | None = None

    async def authenticate(self, exchange: Exchange) -> Caller:
        """Whose key came with the request. Raises `Refusal`."""
        now = time.time()
        secret = exchange.secret
        caller = self._ring.known(secret, now)
        if caller is None:
            caller = await self._ring.authenticate(secret, now, exchange.address)
        exchange.asked_by(caller)
        return caller

    async def open(self, exchange: Exchange, endpoint: str, *, repeatable: bool = False) -> Bill:
        """Authenticate, and keep account of the request from now on. What is `repeatable` may
        have been answered before: it is not refused where no record can be written, and has none
        then. Raises `Refusal`."""
        caller = self._ring.known(exchange.secret, time.time())
        if caller is None:
            caller = await self.authenticate(exchange)
        else:
            exchange.asked_by(caller)
        bill = Bill(self._books, exchange, caller, endpoint)
        if not self._books.journal.refuses:
            exchange.closes_with(bill.close)
        elif not repeatable:
            raise Refusal(
                "server_error",
                "The gateway cannot record requests now, and serves none; ask again later.",
                status=503,
                retry_after=5,
            )
        return bill

    async def chat(self, exchange: Exchange) -> None:
        """`POST /chat/completions`. Raises `Refusal` while the status is still open."""
        began = time.monotonic() - (time.perf_counter() - exchange.began)
        bill = await self.open(exchange, "/chat/completions")
        try:
            patience = self._means.settings.deadline
            wanted = request_timeout(exchange.wanted_timeout)
            if wanted is not None:
                patience = min(patience, wanted)
            request = bill.request = decode_request(await exchange.body(), self._defaults)
            candidates = await self._resolve(request, began + patience)
            if bill.is_limited:
                await bill.admit(candidates, self._means.settings.max_attempts)
        finally:
            if bill.is_limited:
                exchange.limited_to(bill.standing)
        settings = self._means.settings
        plan = bill.plan = Plan(
            candidates,
            self._health,
            settings,
            deadline=began + patience,
            stream=request.stream or settings.assemble,
            chance=random.random,
            budget=self._budget,
            caller=bill.party,
        )
        pursuit = attempts.Pursuit(plan, request, exchange, self._means, began + patience)
        try:
            await pursuit.run()
        except attempts.Unanswered as unanswered:
            refusal = refusal_of(unanswered.end, plan.attempts, patience)
            if not exchange.started:
                raise refusal from unanswered
            await exchange.fail(refusal)
        finally:
            if len(plan.attempts) > 1 or plan.committed is None:
                exchange.tried([told(attempt) for attempt in plan.attempts])
                answering = plan.committed
                if answering is not None and answering.id > 0 and answering.outcome == "answered":
                    self._means.tally.fallbacks += 1

    async def _resolve(self, request: ChatRequest, deadline: float) -> Candidates:
        try:
            return self._look_up(request)
        except Refusal as refusal:
            if refusal.code != "model_not_found":
                raise
        # A provider may not have told its models yet: right after the start that is no 404.
        names = self._catalog.snapshot.provider_names
        wait = min(self._discovery_wait, deadline - time.monotonic())
        await self._catalog.settled(names, wait)
        untold = self._catalog.snapshot.untold
        try:
            return self._look_up(request, untold)
        except Refusal as refusal:
            if refusal.code != "model_not_found" or not untold:
                raise
            who = ", ".join(untold)
            raise Refusal(
                "all_models_failed",
                f"{refusal.message} But {who} cannot be asked for models yet, and may have it;"
                " ask again."
                if self._catalog.snapshot.models
                else f"There is no model yet: {who} cannot be asked for models; ask again."
                " On the gateway's machine, `manyways doctor` says why.",
                retry_after=5,
            ) from None

    def _look_up(self, request: ChatRequest, untold: Sequence[str] = ()) -> Candidates:
        offers = self._catalog.snapshot
        if offers is not self._seen:
            self._seen = offers
            self._health.keep(offers.models)
        order = self._means.settings.order
        return resolve(offers, _wish(request), request.needs, order, untold=untold)


def _wish(request: ChatRequest) -> Wish:
    choice = request.provider
    if choice is NO_CHOICE and not request.models:
        return Wish(models=(request.model,))
    return Wish(
        models=request.models or (request.model,),
        begin=tuple(choice.order or ()),
        only=frozenset(choice.only or ()),
        ignore=frozenset(choice.ignore or ()),
        fallbacks=request.allow_fallbacks,
        listed=bool(request.models),
    )
