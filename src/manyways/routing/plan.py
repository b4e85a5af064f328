"""The plan of one request: a machine of plain values that decides who is asked, and when.

    begin ─▶ Start ──spoke──▶ committed ──succeeded──▶ over
               │                  │
             failed             broke: another attempt goes on from what the caller has
               ▼                  ▼
       the next candidate, the same again after a Wait, or GiveUp

Events are methods, and each returns the commands that follow from it. Every command names an
attempt by its id, so that one attempt, two in a race and a continuation are the same thing.
There is no I/O and no clock here: `now` is handed in, in seconds of the clock that `Health`
is on.

Whatever happens, a plan makes at most `max_attempts` attempts, none of them after `deadline`,
and none at a candidate that cannot serve the request. What the caller caused is never tried
again.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from typing import Final, Literal

from manyways.errors import AttemptFailed, Refusal
from manyways.routing.attempt import Attempt, Tried
from manyways.routing.commands import Cancel, Commands, GiveUp, Start, Wait
from manyways.routing.continuation import Joint, Method, joints
from manyways.routing.health import Health
from manyways.routing.hedging import HedgeBudget
from manyways.routing.queue import OF_THE_KEY, Queue
from manyways.routing.resolve import Candidates
from manyways.routing.settings import Settings
from manyways.types import Model

SHARE: Final = 0.75
"""Of the time that is left, what one attempt may take while others could follow it."""
NEAR: Final = 0.05
"""Seconds before the deadline in which nothing is begun any more: an attempt that was given all
the time there was may end that much early, by the event loop's clock."""
WORTH_SHARING: Final = 1.0
"""Seconds below which an attempt gets all the time that is left."""
LONGEST_PAUSE: Final = 30.0
JITTER: Final = 0.25

_AGAIN = frozenset(
    {
        "rate_limited", "provider_error", "connect", "tls", "reset", "cut", "garbled", "timeout",
        "no_answer", "error_inside", "crowded", "out_of_sockets",
    }
)  # fmt: skip
"""What may be gone when the same candidate is asked once more."""
_OF_THE_REQUEST = frozenset({"diverged", "unsuitable", "crowded", "out_of_sockets"})
"""What says nothing of how a provider does."""


class Plan:
    """Decides for one request. `chance` gives numbers from 0 to 1; `caller` is whoever asks, in
    whatever words.

    `attempts` are all that were made, in order. `committed` is the one whose answer the
    caller gets.
    """

    __slots__ = (
        "_budget", "_caller", "_candidates", "_chance", "_deadline", "_health", "_hedge_at",
        "_joints", "_made", "_probe", "_settings", "_stream", "_tried", "_verdict", "_ways",
        "attempts", "committed", "over",
    )  # fmt: skip

    def __init__(
        self,
        candidates: Candidates,
        health: Health,
        settings: Settings,
        *,
        deadline: float,
        stream: bool,
        chance: Callable[[], float],
        budget: HedgeBudget | None = None,
        caller: str = "",
    ) -> None:
        self._candidates = candidates
        self._health = health
        self._settings = settings
        self._deadline = deadline
        self._stream = stream
        self._chance = chance
        self._budget = budget
        self._caller = caller
        self._made: Queue | None = None  # most requests never need one
        self._tried: dict[tuple[str, str], Tried] = {}
        self._hedge_at: float | None = None
        self._probe: Model | None = None  # whoever is watched looks whether it is back
        self._verdict: Refusal | None = None  # told once nobody else is about to speak
        self._ways: tuple[Method, ...] = ()  # how a broken answer may be gone on from
        self._joints: list[Joint] | None = None  # set once an answer broke
        self.attempts: list[Attempt] = []
        self.committed: Attempt | None = None
        self.over = False

    def __repr__(self) -> str:
        state = "over" if self.over else "committed" if self.committed else "open"
        return f"<Plan {state} {self.attempts!r}>"

    @property
    def _queue(self) -> Queue:
        if self._made is None:
            self._made = Queue(
                self._candidates,
                self._health,
                self.attempts,
                stream=self._stream,
                chance=self._chance,
                caller=self._caller,
            )
        return self._made

    @property
    def original(self) -> Model:
        """Who was meant: the model of the first attempt, or who it stands in for."""
        named = self._candidates.unfit
        if named is None:
            named = self._candidates.first[0]
            if self.attempts and self.attempts[0].model in self._candidates.first:
                named = self.attempts[0].model
        return named

    # Events

    def begin(self, now: float) -> Commands:
        """The request is there."""
        if self._settings.hedge and self._stream and self._budget is not None:
            self._budget.earn(self._settings.hedge_budget)
        first = self._candidates.first
        if len(first) == 1 and now < self._deadline:
            credential = self._health.credential(first[0], now, (), self._caller)
            if credential is not None:  # the usual case: one is meant, and it is well
                return self._launch(first[0], credential, now)
        return self._next(now)

    def spoke(self, attempt: int, now: float) -> Commands:
        """The first content of an attempt has come: its answer is the caller's from now on."""
        one = self.attempts[attempt]
        one.spoke_at = now
        if one.method is None:  # else it took as long as what it had to say again
            self._health.spoke(one, now)
        self.committed = one
        self._hedge_at = self._verdict = None
        return self._cancel_others(one, now)

    def came(self, attempt: int, now: float) -> Commands:
        """A whole answer has come, and is the caller's from now on."""
        one = self.attempts[attempt]
        self.committed = one
        self._hedge_at = self._verdict = None
        return self._cancel_others(one, now)

    def succeeded(self, attempt: int, now: float) -> Commands:
        """The answer is complete."""
        one = self.attempts[attempt]
        if one.outcome is not None:
            return ()  # it was cancelled meanwhile
        self._ended(one, "answered", now)
        self._health.succeeded(one, now)
        self.committed = one
        self.over = True
        return self._cancel_others(one, now) if len(self.attempts) > 1 else ()

    def failed(self, attempt: int, failure: AttemptFailed, now: float) -> Commands:
        """An attempt failed before it gave anything to the caller."""
        one = self.attempts[attempt]
        if one.outcome is not None:
            return ()  # it was cancelled meanwhile
        self._note(one, failure, now)
        return self._go_on(now)

    def refused(self, attempt: int, refusal: Refusal, now: float) -> Commands:
        """The provider says that the request is wrong."""
        one = self.attempts[attempt]
        if one.outcome is not None:
            return ()  # it was cancelled meanwhile
        one.refusal = refusal
        if self._joints is not None or self._not_the_callers(one, refusal):
            # Of a form of ours, or of a model whose abilities nobody told: not the caller's fault.
            self._ended(one, "unsuitable", now)
            self._health.dropped(one, outcome="unsuitable")
            one.failure = AttemptFailed("unsuitable", refusal.message, status=refusal.status)
            self._tried_of(one.model).over = True
            return self._go_on(now)
        self._ended(one, "refused", now)
        self._health.refused(one)
        tried = self._tried_of(one.model)
        tried.over = tried.useless = True
        if refusal.code == "context_length_exceeded" and self._candidates.wish.fallbacks:
            self._queue.too_long_for(one.model)
            return self._go_on(now)
        if self._may_go_on(one.model, refusal):
            return self._go_on(now)
        self._verdict = refusal
        if any(other.outcome is None and other.id < one.id for other in self.attempts):
            return ()  # it was only a hedge, beside one that may still speak
        return (*self._cancel_others(one, now), *self._next(now))

    def broke(
        self, attempt: int, failure: AttemptFailed, ways: tuple[Method, ...], now: float
    ) -> Commands:
        """An answer broke that the caller already has a part of. `ways` are how it may be gone
        on from, best first; without any there is only the honest error."""
        one = self.attempts[attempt]
        if one.outcome is not None:
            return ()  # it was cancelled meanwhile
        self._note(one, failure, now)
        self._ways = ways
        self._joints = self._joinable(one, now) if ways else []
        return self._go_on(now)

    def rang(self, now: float) -> Commands:
        """The moment of a `Wait` has come."""
        if self.over:
            return ()
        running = self._running()
        if running:
            if self._hedge_at is None or now < self._hedge_at:
                return () if self._hedge_at is None else (Wait(self._hedge_at),)
            self._hedge_at = None
            return self._hedge(now)
        return self._go_on(now)

    def left(self, now: float) -> Commands:
        """The caller has gone."""
        self.over = True
        return self._cancel_others(None, now)

    # Decisions

    def _go_on(self, now: float) -> Commands:
        if self._running():
            return ()  # the other one of a race may still speak
        return self._next(now)

    def _next(self, now: float) -> Commands:
        """The next attempt, when none is running."""
        if self._verdict is not None:
            return (self._give_up(now, "refused", self._verdict),)
        if now >= self._deadline - NEAR:
            return (self._give_up(now, "deadline"),)
        if len(self.attempts) >= self._settings.max_attempts:
            return (self._give_up(now, "exhausted"),)
        if self._joints is not None:
            return self._join(now)
        chosen = self._queue.next(now) or self._queue.last(now)
        if chosen is not None:
            return self._launch(*chosen, now)
        return self._repeat(now)

    def _join(self, now: float) -> Commands:
        """Go on from what the caller has, with the next candidate for that."""
        method = self.attempts[-1].method
        other_key = None if method is None else self._queue.other_key(now)
        if other_key is not None:
            return (self._start(*other_key, now, method),)
        while self._joints:
            model, method = self._joints.pop(0)
            if self._able((model,)):
                return (self._start(model, self._queue.key(model, now), now, method),)
        return self._repeat(now) if self._ways else (self._give_up(now, "exhausted"),)

    def _repeat(self, now: float) -> Commands:
        """The same again, when nothing else is left: the one whose pause is over first."""
        waiting = [
            (tried.again_at, tried)
            for tried in self._tried.values()
            if not tried.over
            and tried.repeats < self._settings.retries
            and not self._queue.is_too_small(tried.model)
            and (self._joints is None or self._ways_of(tried.model, now))
        ]
        if not waiting:
            return (self._give_up(now, "exhausted"),)
        again_at, tried = min(waiting, key=lambda one: one[0])
        # One after the other: all at once would use up every attempt within the same moment.
        latest = max(one.ended or now for one in self.attempts)
        pause = self._settings.retry_pause * (1 - JITTER) * 2.0**tried.repeats
        again_at = max(again_at, latest + pause)
        if again_at >= self._deadline:
            return (self._give_up(now, "exhausted"),)
        if again_at > now:
            return (Wait(again_at),)
        tried.repeats += 1
        method = None if self._joints is None else self._ways_of(tried.model, now)[0]
        return (self._start(tried.model, self._queue.key(tried.model, now), now, method),)

    def _launch(self, model: Model, credential: int, now: float) -> Commands:
        """Start an attempt, and look again when its first token is later than it nearly always
        is. A probe is always watched: no caller is to wait out whether somebody is back."""
        start = self._start(model, credential, now)
        self._hedge_at = None
        if self._joints is not None:
            return (start,)
        candidate = self._health.candidate(model)
        self._probe = model if self._health.is_probe(self.attempts[-1]) else None
        if self._probe is not None:
            patience = min(candidate.usual(stream=self._stream) * 1.5, start.limit / 2)
        elif self._settings.hedge and self._stream and start.attempt == 0:
            patience = candidate.percentile(0.95) or math.inf
        else:
            return (start,)
        if now + patience >= self._deadline:
            return (start,)
        self._hedge_at = now + patience
        return (start, Wait(self._hedge_at))

    def _hedge(self, now: float) -> Commands:
        """A second candidate beside one that is slow, if the budget has it. A probe needs none:
        there is one for each rest."""
        if (
            self._verdict is not None
            or len(self.attempts) >= self._settings.max_attempts
            or now >= self._deadline
        ):
            return ()
        budget = self._budget if self._probe is None else None
        if self._probe is None and (budget is None or not budget.covers()):
            return ()
        chosen = self._queue.beside(now, self._probe)
        if chosen is None:
            return ()
        if budget is not None:
            budget.spend()
        return (self._start(*chosen, now),)

    def _joinable(self, broken: Attempt, now: float) -> list[Joint]:
        """Who may go on from a broken answer, and how, best first."""
        first = self.attempts[0].model
        tiers = itertools.chain(((first,),), self._candidates.behind(first), ((broken.model,),))
        return joints(
            (self._able(tier) for tier in tiers),
            broken.model,
            self._ways,
            stalled=broken.outcome == "timeout",
            unwell=lambda model: self._queue.is_unwell(model, now),
            useless=self._useless(),
        )

    def _ways_of(self, model: Model, now: float) -> list[Method]:
        """How one candidate may go on."""
        found = joints(
            ((model,),),
            model,
            self._ways,
            stalled=False,
            unwell=lambda model: self._queue.is_unwell(model, now),
            useless=self._useless(),
        )
        return [method for _, method in found]

    def _useless(self) -> set[tuple[str, str, Method | None]]:
        """Joints that were tried, and could not be made."""
        return {
            (one.model.provider, one.model.id, one.method)
            for one in self.attempts
            if one.outcome in {"diverged", "unsuitable"}
        }

    def _able(self, models: Iterable[Model]) -> list[Model]:
        """Without those that have shown in this plan that they cannot."""
        able = []
        for model in models:
            tried = self._tried.get((model.provider, model.id))
            useless = self._queue.is_out_of_reach(model) if tried is None else tried.useless
            if not (useless or self._queue.is_too_small(model)):
                able.append(model)
        return able

    # What is kept of it

    def _start(
        self, model: Model, credential: int, now: float, method: Method | None = None
    ) -> Start:
        number = len(self.attempts)
        settings = self._settings
        left = self._deadline - now
        limit = settings.first_token_timeout if self._stream else settings.answer_timeout
        if limit > SHARE * left:
            shared = left > WORTH_SHARING and self._others_left(model)
            limit = SHARE * left if shared else min(limit, left)
        tried = self._tried.get((model.provider, model.id)) if number else None
        if tried is not None and tried.silent:
            limit = min(limit, max(0.001, settings.first_token_timeout - tried.silent))
        candidate = self._health.candidate(model)
        attempt = Attempt(
            candidate,
            credential,
            now,
            stream=self._stream,
            number=number,
            method=method,
            caller=self._caller,
        )
        attempt.limit = limit
        self._health.begin(attempt)
        self.attempts.append(attempt)
        return Start(number, model, credential, limit, method)

    def _others_left(self, model: Model) -> bool:
        """Whether somebody else could still be asked after this one."""
        if len(self.attempts) + 1 >= self._settings.max_attempts:
            return False
        return bool(self._joints) or not self._queue.is_empty_but(model)

    def _note(self, one: Attempt, failure: AttemptFailed, now: float) -> None:
        one.failure = failure
        self._ended(one, failure.code, now)
        code, took = failure.code, now - one.began
        if code in _OF_THE_REQUEST or (code == "rate_limited" and failure.status == 413):
            # It says something about this request, or about ourselves,
            self._health.dropped(one, outcome=code)
        elif code == "timeout" and self._was_hurried(one, now):
            self._health.left(one, now)  # or about the patience of this caller
        else:
            words = failure.words or failure.message
            words = f"{failure.status} {words}" if failure.status else words
            self._health.failed(one, now, code, words, failure.retry_after)
        self._queue.struck(one, code, took)
        tried = self._tried_of(one.model)
        if code == "timeout" and one.spoke_at is None:
            tried.silent += took
        limit = self._settings.first_token_timeout if self._stream else 0.0
        silent = code == "timeout" and tried.silent >= limit * SHARE
        tried.over = silent or (code not in _AGAIN and not self._has_other_keys(one))
        tried.useless = silent or code == "model_gone"
        pause = self._settings.retry_pause * 2.0**tried.repeats
        pause = min(LONGEST_PAUSE, pause * (1 - JITTER + 2 * JITTER * self._chance()))
        told = failure.retry_after
        if one.outcome in OF_THE_KEY and self._health.credentials(one.model) > 1:
            told = self._queue.back_at(one.model, now)[0] - now  # another may be free earlier
        if told is not None:  # many were told the same
            pause = told + min(1.0, told * JITTER) * self._chance()
        tried.again_at = now + pause

    def _has_other_keys(self, failed: Attempt) -> bool:
        """Whether it was the key that failed, and not every key has."""
        if failed.outcome != "credentials":
            return False
        dead = self._queue.dead_keys(failed.model)
        return len(dead) < self._health.credentials(failed.model)

    def _was_hurried(self, one: Attempt, now: float) -> bool:
        """Whether it had less time than the settings give, for the deadline was near."""
        if one.spoke_at is not None:
            return now >= self._deadline
        stream = self._stream
        full = self._settings.first_token_timeout if stream else self._settings.answer_timeout
        full = min(full, SHARE * self._settings.deadline)
        return one.limit < full and now - one.began >= one.limit

    def _not_the_callers(self, one: Attempt, refusal: Refusal) -> bool:
        """A refusal by a model that was not asked for, and may not be able to do this at all."""
        return (
            refusal.code == "provider_refused"
            and self._candidates.asked_on_trust(one.model)
            and not self._candidates.asked_for(one.model)
        )

    def _may_go_on(self, model: Model, refusal: Refusal) -> bool:
        """Whether somebody else may be asked for what this one refuses: where that is wished, or
        where it lacks something, and was our choice."""
        candidates = self._candidates
        if refusal.code == "not_supported":
            return candidates.wish.fallbacks and not candidates.asked_for(model)
        return refusal.code == "content_filter" and self._settings.content_filter == "next"

    def _give_up(
        self,
        now: float,
        reason: Literal["refused", "exhausted", "deadline"],
        refusal: Refusal | None = None,
    ) -> GiveUp:
        self.over = True
        if refusal is None and self._joints is None:
            # Where nobody could have served the request, that is the reason.
            able = (
                one for one in self.attempts
                if one.outcome != "refused" and not self._queue.is_too_small(one.model)
            )  # fmt: skip
            refusals = [one.refusal for one in self.attempts if one.outcome == "refused"]
            if reason == "exhausted" and refusals and not any(able):
                refusal, reason = refusals[0], "refused"
        retry_after = None
        if self.attempts:
            moments = (self._health.back_at(one.model, now)[0] for one in self.attempts)
            retry_after = min(moments) - now
        return GiveUp(reason, refusal, retry_after)

    def _running(self) -> bool:
        return any(one.outcome is None for one in self.attempts)

    def _cancel_others(self, but: Attempt | None, now: float) -> Commands:
        cancelled = []
        for one in self.attempts:
            if one.outcome is None and one is not but:
                self._ended(one, "cancelled", now)
                if but is None:
                    self._health.left(one, now)
                else:
                    self._health.dropped(one, now)
                cancelled.append(Cancel(one.id))
        return tuple(cancelled)

    def _ended(self, one: Attempt, outcome: str, now: float) -> None:
        one.outcome = outcome
        one.ended = now

    def _tried_of(self, model: Model) -> "Tried":
        key = (model.provider, model.id)
        found = self._tried.get(key)
        if found is None:
            found = self._tried[key] = Tried(model)
        return found
