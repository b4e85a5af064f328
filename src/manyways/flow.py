"""The life of a request, from a key to the last byte.

1. Authenticate  from the headers alone: strangers get nothing parsed.
2. Decode        bytes to a request; bad input stops here.
3. Resolve       the candidates that can serve it, a pure look at the catalog's snapshot.
4. Attempt       as the plan says: one candidate after the other, until one answers.
5. Answer        whole at its end, or streamed as it comes. The first event with content
                 commits the answer: before it, fallback is free; after it, it is gone on from
                 where that can be proven, or there is an error event. A cut answer never looks
                 like a finished one.

Limits belong between 3 and 4, the record behind 5.
"""

import math
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from manyways import attempts
from manyways.access.keys import KeyRing
from manyways.dialects.openai_chat.request import (
    NO_CHOICE,
    ChatRequest,
    decode_request,
    request_timeout,
)
from manyways.errors import Refusal
from manyways.routing.attempt import Attempt
from manyways.routing.commands import GiveUp
from manyways.routing.health import Health
from manyways.routing.hedging import HedgeBudget
from manyways.routing.plan import Plan
from manyways.routing.resolve import Candidates, Offers, Wish, resolve
from manyways.types import Caller


class Exchange(attempts.CallersReply, Protocol):
    """One request and its answer, as the flow sees them; `edge` has the real one."""

    @property
    def secret(self) -> str | None:
        """The key that came with the request."""
        ...

    async def body(self) -> bytes:
        """The request's body. Raises `Refusal` if it is too large or too slow."""
        ...

    def asked_by(self, caller: Caller) -> None:
        """For the log: whose key it was."""
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
        defaults: Mapping[str, float],
        discovery_wait: float = 5.0,
    ) -> None:
        """`discovery_wait` is how many seconds an unknown model is waited for while providers
        have yet to tell theirs."""
        self._ring = ring
        self._catalog = catalog
        self._health = health
        self._means = means
        self._defaults = defaults
        self._discovery_wait = discovery_wait
        self._budget = HedgeBudget()
        self._seen: Offers | None = None

    async def authenticate(self, exchange: Exchange) -> Caller:
        """Whose key came with the request. Raises `Refusal`."""
        now = time.time()
        secret = exchange.secret
        caller = self._ring.known(secret, now) or await self._ring.authenticate(secret, now)
        exchange.asked_by(caller)
        return caller

    async def chat(self, exchange: Exchange) -> None:
        """`POST /chat/completions`. Raises `Refusal` while the status is still open."""
        began = time.monotonic()
        await self.authenticate(exchange)
        settings = self._means.settings
        patience = settings.deadline
        wanted = request_timeout(exchange.wanted_timeout)
        if wanted is not None:
            patience = min(patience, wanted)
        request = decode_request(await exchange.body(), self._defaults)
        candidates = await self._resolve(request, began + patience)
        plan = Plan(
            candidates,
            self._health,
            settings,
            deadline=began + patience,
            stream=request.stream or settings.assemble,
            chance=random.random,
            budget=self._budget,
        )
        pursuit = attempts.Pursuit(plan, request, exchange, self._means, began + patience)
        try:
            await pursuit.run()
        except attempts.Unanswered as unanswered:
            refusal = _refusal(unanswered.end, plan.attempts, patience)
            if not exchange.started:
                raise refusal from unanswered
            await exchange.fail(refusal)
        finally:
            if len(plan.attempts) > 1 or plan.committed is None:
                exchange.tried([_told(attempt) for attempt in plan.attempts])
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
            raise Refusal(
                "all_models_failed",
                f"{refusal.message} But {', '.join(untold)} cannot be asked for models yet,"
                " and may have it; ask again.",
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


def _refusal(end: GiveUp, made: list[Attempt], patience: float) -> Refusal:
    """What the caller is told when there is no answer: its own mistake, or R's 503 (504 where
    it was the time that ran out) with everything that was tried."""
    if end.refusal is not None:
        return end.refusal
    names = [f"{one.model.id} ({one.model.provider})" for one in made]
    tried = list(dict.fromkeys(names))
    details: dict[str, Any] = {
        "total_attempts": len(made),
        "tried_models": tried,
        "error_history": [_history(one) for one in made],
    }
    listed = "\n".join(tried)
    if end.reason == "deadline":
        return Refusal(
            "timeout",
            f"No answer within {patience:g} s.\n\nTried models:\n{listed}",
            details=details,
        )
    what = f"Service temporarily unavailable. All {len(tried)} model(s) failed to respond."
    if any(one.spoke_at is not None for one in made):
        what = "The answer broke off, and nobody could go on with it."
    return Refusal(
        "all_models_failed",
        f"{what}\n\nTried models:\n{listed}",
        retry_after=max(1, min(3600, math.ceil(end.retry_after or 1.0))),
        details=details,
    )


def _history(one: Attempt) -> dict[str, Any]:
    """A row of `error_history`."""
    now = time.monotonic()
    failure = one.failure
    return {
        "model": one.model.id,
        "provider": one.model.provider,
        "status": failure.status if failure else one.refusal.status if one.refusal else None,
        "code": one.outcome or "running",
        "message": failure.message if failure else one.refusal.message if one.refusal else "",
        "latency_ms": round(((one.ended or now) - one.began) * 1000),
        "started_at": _iso(time.time() - (now - one.began)),
    }


def _told(one: Attempt) -> str:
    """An attempt in the log: `Capi/gpt-4o timeout 10003ms`."""
    ended = one.ended or time.monotonic()
    method = f" {one.method}" if one.method else ""
    name = f"{one.model.provider}/{one.model.id}"
    return f"{name}{method} {one.outcome} {round((ended - one.began) * 1000)}ms"


def _iso(moment: float) -> str:
    milliseconds = int(moment * 1000) % 1000
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{milliseconds:03d}Z"
