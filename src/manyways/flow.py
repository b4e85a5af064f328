"""The life of a request, from a key to the last byte.

1. Authenticate  from the headers alone: strangers get nothing parsed.
2. Decode        bytes to a request; bad input stops here.
3. Resolve       the candidates that can serve it, a pure look at the catalog's snapshot.
4. Attempt       ask the first candidate; each wait has its limit.
5. Answer        whole at its end, or streamed as it comes. The first event with content
                 commits the answer: before it a failure is an HTTP error, after it an error
                 event, and a cut answer never looks like a finished one.

Limits belong between 3 and 4, more than one attempt into 4, the record behind 5.
"""

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import structlog
from msgspec import Struct

from manyways import attempts
from manyways.access.keys import KeyRing
from manyways.dialects.openai_chat import AnswerLabel, ChatRequest, ChatStream, decode_request
from manyways.errors import AttemptFailed, Refusal
from manyways.routing.resolve import Offers, resolve
from manyways.routing.settings import Settings
from manyways.types import Caller, Model
from manyways.upstream.openai import OpenAIProvider

log = structlog.get_logger("manyways.flow")


class Exchange(attempts.Reply, Protocol):
    """One request and its answer, as the flow sees them; `edge` has the real one."""

    id: str

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

    def answered_by(self, model: Model, attempts: int) -> None:
        """For the answer's headers and the log: who is asked for it."""
        ...

    async def answer(self, body: bytes) -> None:
        """A whole answer from a model. Raises `CallerLeft`."""
        ...

    async def fail(self, refusal: Refusal) -> None:
        """End an answer that has been started with an error event. Raises `CallerLeft`."""
        ...


class Catalog(Protocol):
    """Where models are looked up."""

    @property
    def snapshot(self) -> Offers: ...

    async def settled(self, names: Iterable[str], limit: float) -> bool: ...


class Limits(Struct, frozen=True, kw_only=True):
    """What the flow needs of other stages' settings; seconds."""

    send_timeout: float
    discovery_wait: float = 5.0


class Flow:
    """Brings requests to models. It holds parts, and no state of its own."""

    def __init__(
        self,
        *,
        ring: KeyRing,
        catalog: Catalog,
        providers: Mapping[str, OpenAIProvider],
        routing: Settings,
        limits: Limits,
        defaults: Mapping[str, float],
    ) -> None:
        self._ring = ring
        self._catalog = catalog
        self._providers = providers
        self._routing = routing
        self._limits = limits
        self._defaults = defaults

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
        request = decode_request(await exchange.body(), self._defaults)
        candidates = await self._resolve(request)
        model = candidates[0]
        exchange.answered_by(model, attempts=1)
        run = self._stream if request.stream else self._whole
        try:
            await run(exchange, request, model, began + self._routing.deadline - time.monotonic())
        except AttemptFailed as failure:
            elapsed = time.monotonic() - began
            log.warning(
                "attempt failed",
                id=exchange.id,
                model=model.id,
                provider=model.provider,
                code=failure.code,
                status=failure.status,
                reason=self._providers[model.provider].redact(str(failure.__cause__ or failure)),
                ms=round(elapsed * 1000),
            )
            refusal = self._exhausted(model, failure, elapsed)
            if not exchange.started:
                raise refusal from failure
            await exchange.fail(refusal)
        except Refusal as refusal:
            if not exchange.started:
                raise
            await exchange.fail(refusal)

    async def _resolve(self, request: ChatRequest) -> tuple[Model, ...]:
        try:
            return self._look_up(request)
        except Refusal as refusal:
            if refusal.code != "model_not_found":
                raise
            missing = refusal
        # A provider may not have told its models yet: right after the start that is no 404.
        names = self._catalog.snapshot.provider_names
        if await self._catalog.settled(names, self._limits.discovery_wait):
            return self._look_up(request)
        try:
            return self._look_up(request)
        except Refusal:
            raise Refusal(
                "all_models_failed",
                f"{missing.message} But not every provider has told its models yet; ask again.",
                retry_after=5,
            ) from None

    def _look_up(self, request: ChatRequest) -> tuple[Model, ...]:
        wish = request.provider
        return resolve(
            self._catalog.snapshot,
            request.model,
            begin=wish.order or (),
            only=wish.only,
            ignore=wish.ignore or (),
        )

    async def _whole(
        self, exchange: Exchange, request: ChatRequest, model: Model, time_left: float
    ) -> None:
        answer = await attempts.whole(
            self._providers[model.provider],
            request.encode_for(model.upstream_id),
            _label(exchange, model),
            self._routing,
            time_left,
        )
        await exchange.answer(answer)

    async def _stream(
        self, exchange: Exchange, request: ChatRequest, model: Model, time_left: float
    ) -> None:
        attempt = attempts.StreamedAttempt(
            ChatStream(_label(exchange, model), request.choices),
            self._routing,
            send_timeout=self._limits.send_timeout,
            time_left=time_left,
        )
        await attempt.run(
            self._providers[model.provider], request.encode_for(model.upstream_id), exchange
        )

    def _exhausted(self, model: Model, failure: AttemptFailed, elapsed: float) -> Refusal:
        """Every attempt failed: R's 503, or 504 where it was the caller's time that ran out."""
        tried = f"{model.id} ({model.provider})"
        details: dict[str, Any] = {
            "total_attempts": 1,
            "tried_models": [tried],
            "error_history": [
                {
                    "model": model.id,
                    "provider": model.provider,
                    "status": failure.status,
                    "code": failure.code,
                    "message": self._providers[model.provider].redact(failure.message),
                    "latency_ms": round(elapsed * 1000),
                    "started_at": _iso(time.time() - elapsed),
                }
            ],
        }
        if elapsed >= self._routing.deadline:
            return Refusal(
                "timeout",
                f"No answer within {self._routing.deadline:g} s.\n\nTried models:\n{tried}",
                details=details,
            )
        retry_after = failure.retry_after if failure.retry_after is not None else 1.0
        return Refusal(
            "all_models_failed",
            "Service temporarily unavailable. All 1 model(s) failed to respond."
            f"\n\nTried models:\n{tried}",
            retry_after=max(1, min(3600, math.ceil(retry_after))),
            details=details,
        )


def _label(exchange: Exchange, model: Model) -> AnswerLabel:
    return AnswerLabel(
        model=model.id,
        provider=model.provider,
        id=f"chatcmpl-{exchange.id.replace('-', '')}",
        created=int(time.time()),
    )


def _iso(moment: float) -> str:
    milliseconds = int(moment * 1000) % 1000
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{milliseconds:03d}Z"
