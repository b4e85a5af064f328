"""What one request comes to: written down once, before the last byte of its answer leaves.

open ──admit──▶ reserved ──close──▶ recorded and settled
           └──▶ refused by a limit: counted, not recorded
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog
from msgspec import Raw

from manyways.access.limits import (
    Demand,
    LimitReached,
    Limits,
    Reservation,
    Standing,
    wants_tokens,
)
from manyways.attempts.refusals import RefusalCounts
from manyways.attempts.tally import Tally
from manyways.dialects.openai_chat import usage as chat_usage
from manyways.dialects.openai_chat.request import ChatRequest
from manyways.routing.attempt import Attempt
from manyways.routing.plan import Plan
from manyways.routing.resolve import Candidates
from manyways.types import NO_USAGE, Caller, Model, Usage
from manyways.upstream.drain import Drains
from manyways.usage.journal import Journal
from manyways.usage.pricing import cost
from manyways.usage.record import AttemptRecord, UsageRecord

log = structlog.get_logger("manyways.attempts")

_WORDS: Final = 500
"""Letters of an error that are kept."""
_LEFT: Final = 499
"""The status of an answer whose caller did not wait for its end."""


_NOTHING: Final = Demand()

Saw = Callable[[AttemptRecord, float], None]
"""Hears how an attempt went, and when it ended (Unix seconds)."""


class Exchange(Protocol):
    """What a bill is told of a request by whoever answers it."""

    id: str
    began: float
    client_id: str | None
    error_code: str | None
    error_message: str | None
    left: bool
    model: Model | None
    status: int


class Books:
    """Where all bills are written. `output_tokens` are reserved where nobody says how long an
    answer may get."""

    __slots__ = (
        "_awaited", "_tally", "drains", "journal", "limits", "output_tokens", "refusals", "saw",
    )  # fmt: skip

    def __init__(
        self,
        journal: Journal,
        limits: Limits,
        output_tokens: int,
        tally: Tally,
        saw: Saw = lambda *_: None,
    ) -> None:
        self.saw = saw
        self.journal = journal
        self.limits = limits
        self.output_tokens = output_tokens
        self._tally = tally
        self.drains = Drains(self._drained)
        self._awaited: dict[Attempt, Bill] = {}  # bills of callers that left
        self.refusals = RefusalCounts()

    def __repr__(self) -> str:
        return f"<Books {self.journal!r} {self.limits!r} {self.drains!r}>"

    def waits_for(self, attempt: Attempt, bill: Bill) -> bool:
        """Whether an attempt's answer is being read to its end although its caller has left: the
        bill is closed behind it."""
        if not self.drains.holds(attempt):
            return False
        self._awaited[attempt] = bill
        return True

    def _drained(self, attempt: Attempt, usage: Raw | None) -> None:
        if usage is not None:
            self._tally.drained += 1
        # Also where no bill waits for it: one that is about to be closed will find it.
        attempt.usage = chat_usage.told(usage)
        model = attempt.model
        log.info("drained", model=model.id, provider=model.provider, told=usage is not None)
        bill = self._awaited.pop(attempt, None)
        if bill is not None:
            bill.drained()


class Bill:
    """Follows one request of a known caller. The flow adds what it finds out; `close` does the
    rest, once."""

    __slots__ = (
        "_books", "_caller", "_closed", "_drains", "_endpoint", "_exchange", "_moments", "_passed",
        "_prompt", "_reached", "_reservation", "is_limited", "party", "plan", "request",
    )  # fmt: skip

    def __init__(self, books: Books, exchange: Exchange, caller: Caller, endpoint: str) -> None:
        self._books = books
        self._exchange = exchange
        self._caller = caller
        self.party = caller.account_id or caller.line or caller.key_id
        """Whoever stands behind the key, whatever key that is."""
        self.is_limited = bool(caller.scopes)
        """Whether anything limits the caller: only then is there something to be admitted to."""
        self._endpoint = endpoint
        self._closed = False
        self._drains = 0  # answers that are read on behind a caller that has left
        self._passed = 0.0  # seconds until it was closed
        self._moments = (0.0, 0.0)  # when it was, by the monotonic clock and by the wall's
        self._prompt: int | None = None
        self._reached: LimitReached | None = None
        self._reservation: Reservation | None = None
        self.request: ChatRequest | None = None
        self.plan: Plan | None = None

    def __repr__(self) -> str:
        state = "closed" if self._closed else "reserved" if self._reservation else "open"
        return f"<Bill {self._exchange.id} {state}>"

    @property
    def _prompt_tokens(self) -> int:
        """An estimate of the prompt's length."""
        if self._prompt is None:
            self._prompt = (
                0
                if self.request is None
                else chat_usage.prompt_tokens(self.request.fields, self.request.model)
            )
        return self._prompt

    @property
    def standing(self) -> Standing | None:
        """How the caller's limits on requests stand, if there are any."""
        if self._reached is not None:
            return self._reached.standing
        if self._reservation is not None:
            return self._reservation.standing
        return self._books.limits.peek(self._caller)

    async def admit(self, candidates: Candidates, at_most: int) -> None:
        """Reserve the most that the request can come to: of tokens, and of money at the price
        of the dearest among the `at_most` who may be asked. Raises `Refusal`."""
        caller, limits = self._caller, self._books.limits
        demand = _NOTHING
        if wants_tokens(caller):
            demand = self._demand(candidates, at_most)
        try:
            self._reservation = limits.admit(caller, demand) or await limits.reserve(caller, demand)
        except LimitReached as reached:
            self._reached = reached
            self._books.refusals.add(caller, reached.code, time.time())
            raise

    def _demand(self, candidates: Candidates, at_most: int) -> Demand:
        first = candidates.first[0]
        output = None if self.request is None else self.request.max_output
        choices = 1 if self.request is None else self.request.choices
        bound = output or choices * (first.max_output_tokens or self._books.output_tokens)
        # No further than is needed: behind the first may stand the whole catalog.
        behind = itertools.chain.from_iterable(candidates.behind(first))
        some = itertools.islice(itertools.chain(candidates.first, behind), at_most)
        most = Usage(prompt_tokens=self._prompt_tokens, completion_tokens=bound)
        # What `max_tokens = 1` would come to: who leaves it out is held to no less than that.
        least = Usage(prompt_tokens=self._prompt_tokens, completion_tokens=choices)
        prices = [
            (cost(model.pricing, most) or 0.0, cost(model.pricing, least) or 0.0) for model in some
        ]
        return Demand(
            tokens=most.total_tokens,
            cost=max(price for price, _ in prices),
            least_tokens=least.total_tokens,
            least_cost=max(price for _, price in prices),
            fixed=self.request is not None and self.request.sets_output,
        )

    def close(self) -> None:
        """The answer is over, or will be with the next byte. Neither waits nor raises."""
        if self._closed or self._reached is not None:
            return
        self._closed = True
        self._passed = time.perf_counter() - self._exchange.began
        self._moments = time.monotonic(), time.time()
        if self._exchange.left and self.plan is not None:
            waiting = [self._books.waits_for(one, self) for one in self.plan.attempts]
            self._drains = sum(waiting)
        if not self._drains:
            self._write()

    def drained(self) -> None:
        """An answer whose caller had left has come to its end."""
        self._drains -= 1
        if not self._drains:
            self._write()

    def _write(self) -> None:
        try:
            record = self._record()
        except Exception:  # whatever it was: the request is recorded, and its place is given back
            log.exception("a request could not be told in full", id=self._exchange.id)
            record = self._least()
        for attempt in record.attempts:
            self._books.saw(attempt, attempt.started_at + attempt.latency_ms / 1000)
        if record.attempts or self._books.refusals.has_room(self._caller, self._moments[1]):
            self._books.journal.write(record)
        else:
            code = record.error_code or str(record.status_code)
            self._books.refusals.add(self._caller, code, self._moments[1])
        if self._reservation is not None:
            self._reservation.settle(
                counted=record.counted, tokens=record.usage.total_tokens, cost=record.cost or 0.0
            )

    def _least(self) -> UsageRecord:
        """What can be said of a request without looking into it."""
        exchange = self._exchange
        return UsageRecord(
            id=exchange.id,
            created_at=self._moments[1] - self._passed,
            api_key_id=self._caller.key_id,
            user_id=self._caller.account_id,
            endpoint=self._endpoint,
            status_code=_LEFT if exchange.left else exchange.status,
            response_time_ms=round(self._passed * 1000),
            error_code=exchange.error_code,
        )

    def _record(self) -> UsageRecord:
        exchange, request = self._exchange, self.request
        made = () if self.plan is None else self.plan.attempts
        now, wall = self._moments
        passed = self._passed
        good = not exchange.left and exchange.error_code is None
        usage: Usage = NO_USAGE
        price: float | None = None
        if len(made) == 1:  # as nearly always
            only = self._attempt(made[0], now, wall, good=good)
            attempts: tuple[AttemptRecord, ...] = (only,)
            usage, price = only.usage, only.cost
        else:
            attempts = tuple([self._attempt(one, now, wall, good=good) for one in made])
            usage, price = _sum(made, attempts, all_of_them=exchange.left)
        first_token: int | None = None
        if request is not None and request.stream:
            spoke = [one.spoke_at for one in made if one.spoke_at is not None]
            first_token = int((passed - now + min(spoke)) * 1000 + 0.5) if spoke else None
        model = exchange.model
        order = None if request is None else request.provider.order
        return UsageRecord(
            id=exchange.id,
            created_at=wall - passed,
            api_key_id=self._caller.key_id,
            user_id=self._caller.account_id,
            endpoint=self._endpoint,
            status_code=_LEFT if exchange.left else exchange.status,
            response_time_ms=int(passed * 1000 + 0.5),
            requested_model=None if request is None else request.model,
            requested_provider=order[0] if order else None,
            model=None if model is None else model.id,
            provider=None if model is None else model.provider,
            attempts=attempts,
            stream=request is not None and request.stream,
            usage=usage,
            first_token_ms=first_token,
            error_code=exchange.error_code,
            error_message=exchange.error_message and exchange.error_message[:_WORDS],
            cost=price,
            client_request_id=exchange.client_id,
        )

    def _attempt(self, one: Attempt, now: float, wall: float, *, good: bool) -> AttemptRecord:
        # Whoever still runs when a good answer ends is the one that gave it.
        outcome = one.outcome or ("answered" if good else "cancelled")
        usage = self._usage(one, complete=outcome == "answered")
        model = one.model
        failure = one.failure or one.refusal
        return AttemptRecord(
            model=model.id,
            provider=model.provider,
            upstream_model=model.upstream_id,
            outcome=outcome,
            started_at=wall - (now - one.began),
            latency_ms=int(((one.ended or now) - one.began) * 1000 + 0.5),
            method=one.method,
            status_code=None if failure is None else failure.status,
            error_message=None if failure is None else failure.message[:_WORDS],
            first_token_ms=None
            if one.spoke_at is None
            else round((one.spoke_at - one.began) * 1000),
            usage=usage,
            cost=None if usage is NO_USAGE else cost(model.pricing, usage),
        )

    def _usage(self, one: Attempt, *, complete: bool) -> Usage:
        """What an attempt came to: its provider's word, else an estimate of what it produced."""
        if one.usage is not None:
            return one.usage
        speech = one.speech
        if speech is None:
            return NO_USAGE
        usage = chat_usage.told(speech.usage)
        if usage is None or not (complete and usage.completion_tokens):
            produced = speech.produced
            if usage is None and not produced:
                return NO_USAGE
            prompt = self._prompt_tokens if usage is None else usage.prompt_tokens
            usage = chat_usage.measured(
                usage, prompt=prompt, produced=produced, complete=complete, model=one.model.id
            )
        one.usage = usage
        return usage


def _sum(
    made: Sequence[Attempt], attempts: Sequence[AttemptRecord], *, all_of_them: bool
) -> tuple[Usage, float | None]:
    """What the caller's answer came to: all attempts that it has a part of. Who has left is the
    reason for whatever was produced."""
    parts = [
        record
        for one, record in zip(made, attempts, strict=True)
        if all_of_them or one.spoke_at is not None or record.outcome == "answered"
    ]
    usages = [part.usage for part in parts if part.usage is not NO_USAGE]
    if not usages:
        return NO_USAGE, None
    prices = [part.cost for part in parts if part.cost is not None]
    told = all(usage.source == "upstream" for usage in usages)
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        cached_tokens=sum(usage.cached_tokens for usage in usages),
        reasoning_tokens=sum(usage.reasoning_tokens for usage in usages),
        source="upstream" if told else "estimated",
    ), sum(prices) if prices else None
