"""What one request comes to: written down once, before the last byte of its answer leaves.

open ──admit──▶ reserved ──close──▶ recorded and settled
           └──▶ refused by a limit: counted, not recorded

Answers of which nobody wants the rest may be read to their end all the same (`upstream.drain`), and
tell only then what they came to. Their request is recorded before, with what is known by then, and
the record is corrected when all of them are over:

recorded and released ──heard──▶ corrected and settled
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

import structlog
from msgspec import Raw
from msgspec.structs import replace

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
        "_tally", "drains", "journal", "limits", "output_tokens", "refusals", "saw",
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
        self.refusals = RefusalCounts()

    def __repr__(self) -> str:
        return f"<Books {self.journal!r} {self.limits!r} {self.drains!r}>"

    def _drained(self, attempt: Attempt, usage: Raw | None) -> None:
        if usage is not None:
            self._tally.drained += 1
        attempt.usage = chat_usage.told(usage)
        model = attempt.model
        log.info("drained", model=model.id, provider=model.provider, told=usage is not None)


class Bill:
    """Follows one request of a known caller. The flow adds what it finds out; `close` does the
    rest, once."""

    __slots__ = (
        "_books", "_caller", "_closed", "_endpoint", "_exchange", "_moments", "_passed", "_prompt",
        "_reached", "_reservation", "_unheard", "is_limited", "party", "plan", "request",
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
        self._unheard = 0  # answers that may tell their usage yet
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
        record = self._write()
        owes = self._listen(record)
        if self._reservation is None:
            return
        if owes:
            self._reservation.release()
        else:
            self._settle(record)

    def _listen(self, record: UsageRecord) -> bool:
        """Hear of the answers that may tell yet what they came to. Whether what the caller has
        used depends on one of them."""
        made = () if self.plan is None else self.plan.attempts
        owes = False
        for one, attempt in zip(made, record.attempts, strict=False):  # it may tell of none
            if attempt.outcome == "answered":  # it has told, though its end may be awaited yet
                continue
            if self._books.drains.then(one, partial(self._heard, record)):
                self._unheard += 1
                owes = owes or self._is_part(one, attempt)
        return owes

    def _heard(self, record: UsageRecord) -> None:
        """One of them is over. With the last one, it is known what the request has come to."""
        self._unheard -= 1
        if self._unheard:
            return
        try:
            corrected = self._corrected(record)
            if corrected is not None:
                self._books.journal.write(corrected)
                record = corrected
        except Exception:  # whatever it was: what was recorded before stays
            log.exception("a record could not be corrected", id=record.id)
        self._settle(record)

    def _corrected(self, record: UsageRecord) -> UsageRecord | None:
        """With what is known now of tokens and costs; `None` where that is nothing new."""
        made = () if self.plan is None else self.plan.attempts
        attempts = tuple(
            [self._priced(one, attempt) for one, attempt in zip(made, record.attempts, strict=True)]
        )
        if attempts == record.attempts:
            return None
        usage, price = self._sum(made, attempts)
        return replace(record, attempts=attempts, usage=usage, cost=price, corrects=True)

    def _priced(self, one: Attempt, attempt: AttemptRecord) -> AttemptRecord:
        usage = self._usage(one, complete=attempt.outcome == "answered")
        price = None if usage is NO_USAGE else cost(one.model.pricing, usage)
        return replace(attempt, usage=usage, cost=price)

    def _settle(self, record: UsageRecord) -> None:
        """What was reserved becomes what was used; a second time, nothing happens."""
        if self._reservation is not None:
            self._reservation.settle(
                counted=record.counted, tokens=record.usage.total_tokens, cost=record.cost or 0.0
            )

    def _write(self) -> UsageRecord:
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
        return record

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
            if self._is_part(made[0], only):
                usage, price = only.usage, only.cost
        else:
            attempts = tuple([self._attempt(one, now, wall, good=good) for one in made])
            usage, price = self._sum(made, attempts)
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

    def _is_part(self, one: Attempt, attempt: AttemptRecord) -> bool:
        """Whether what it came to is the caller's. Who has left is the reason for whatever was
        produced."""
        return attempt.outcome == "answered" or one.spoke_at is not None or self._exchange.left

    def _sum(
        self, made: Sequence[Attempt], attempts: Sequence[AttemptRecord]
    ) -> tuple[Usage, float | None]:
        """What the caller's answer came to: all attempts that it has a part of."""
        both = zip(made, attempts, strict=True)
        parts = [attempt for one, attempt in both if self._is_part(one, attempt)]
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
