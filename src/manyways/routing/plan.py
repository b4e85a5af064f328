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
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal

from manyways.errors import AttemptFailed, Refusal
from manyways.routing.attempt import Attempt, Tried
from manyways.routing.commands import Cancel, Commands, GiveUp, Start, Wait
from manyways.routing.continuation import Joint, Method, joints
from manyways.routing.health import Health
from manyways.routing.hedging import HedgeBudget
from manyways.routing.resolve import Candidates
from manyways.routing.settings import Settings
from manyways.types import Model

SHARE: Final = 0.75
"""Of the time that is left, what one attempt may take while others could follow it."""
WORTH_SHARING: Final = 1.0
"""Seconds below which an attempt gets all the time that is left."""
PREFERRED: Final = 1.0
"""Seconds that a model which was asked for may rest longer than others, and still come first."""
STRUCK: Final = 2.0
"""Strikes against a provider that put its other models behind everybody else's."""
STRIKES: Final = {"connect": 2.0, "tls": 2.0, "credentials": 2.0, "reset": 1.0}
"""How much a failure of one model says about all of its provider. Silence before the first
token says all, so that a silent provider is waited for once."""
STRIKE: Final = 0.4
"""What other failures say: five of ten attempts may go to one provider that fails quickly."""
LONGEST_PAUSE: Final = 30.0
JITTER: Final = 0.25

_NOT_REACHED = frozenset({"connect", "tls"})
_OF_THE_MODEL = frozenset({"rate_limited", "model_gone", "unsuitable", "diverged"})
_AGAIN = frozenset(
    {
        "rate_limited", "provider_error", "connect", "tls", "reset", "cut", "garbled", "timeout",
        "no_answer", "error_inside",
    }
)  # fmt: skip
"""What may be gone when the same candidate is asked once more."""


class Plan:
    """Decides for one request. `chance` gives numbers from 0 to 1.

    `attempts` are all that were made, in order. `committed` is the one whose answer the
    caller gets.
    """

    __slots__ = (
        "_budget", "_candidates", "_chance", "_deadline", "_health", "_hedge_at", "_hedging",
        "_joints", "_last", "_longer_than", "_not_reached", "_probing", "_settings", "_stream",
        "_strikes", "_tier", "_tiers", "_tried", "_verdict", "_ways", "attempts", "committed",
        "over",
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
    ) -> None:
        self._candidates = candidates
        self._health = health
        self._settings = settings
        self._deadline = deadline
        self._stream = stream
        self._chance = chance
        self._budget = budget
        self._tier: list[Model] = list(candidates.first)
        self._tiers: Iterator[tuple[Model, ...]] | None = None
        self._last: list[Model] = []  # whoever rests, or whose provider has failed: asked last
        self._tried: dict[tuple[str, str], Tried] = {}
        self._strikes: dict[str, float] = {}
        self._not_reached: set[str] = set()  # providers: their other models are not asked
        self._longer_than: int | None = None  # a window this short is too short
        self._hedge_at: float | None = None
        self._hedging = False  # whoever is looked for is to be well for sure
        self._probing = False  # what is watched looks whether somebody is back
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
        only = self._tier[0] if len(self._tier) == 1 else None
        credential = None if only is None else self._health.credential(only, now)
        if only is not None and credential is not None and now < self._deadline:
            self._tier = []  # the usual case: one is meant, and it is well
            return self._launch(only, credential, now)
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

    def succeeded(self, attempt: int, now: float) -> Commands:
        """The answer is complete."""
        one = self.attempts[attempt]
        self._ended(one, "answered", now)
        self._health.succeeded(one, now)
        self.committed = one
        self.over = True
        return self._cancel_others(one, now) if len(self.attempts) > 1 else ()

    def failed(self, attempt: int, failure: AttemptFailed, now: float) -> Commands:
        """An attempt failed before it gave anything to the caller."""
        one = self.attempts[attempt]
        self._note(one, failure, now)
        return self._go_on(now)

    def refused(self, attempt: int, refusal: Refusal, now: float) -> Commands:
        """The provider says that the request is wrong."""
        one = self.attempts[attempt]
        one.refusal = refusal
        if self._joints is not None or self._not_the_callers(one, refusal):
            # Of a form of ours, or of a model whose abilities nobody told: not the caller's fault.
            self._ended(one, "unsuitable", now)
            self._health.dropped(one)
            one.failure = AttemptFailed("unsuitable", refusal.message, status=refusal.status)
            self._tried_of(one.model).over = True
            return self._go_on(now)
        self._ended(one, "refused", now)
        self._health.refused(one)
        tried = self._tried_of(one.model)
        tried.over = tried.useless = True
        if refusal.code == "context_length_exceeded" and self._candidates.wish.fallbacks:
            window = one.model.context_window or 0
            self._longer_than = max(self._longer_than or 0, window)
            return self._go_on(now)
        if refusal.code == "content_filter" and self._settings.content_filter == "next":
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
        if now >= self._deadline:
            return (self._give_up(now, "deadline"),)
        if len(self.attempts) >= self._settings.max_attempts:
            return (self._give_up(now, "exhausted"),)
        if self._joints is not None:
            return self._join(now)
        chosen = self._choose(now) or self._choose_last(now)
        if chosen is not None:
            return self._launch(*chosen, now)
        return self._repeat(now)

    def _join(self, now: float) -> Commands:
        """Go on from what the caller has, with the next candidate for that."""
        while self._joints:
            model, method = self._joints.pop(0)
            if self._able((model,)):
                return (self._start(model, self._key(model, now), now, method),)
        return self._repeat(now) if self._ways else (self._give_up(now, "exhausted"),)

    def _choose(self, now: float) -> tuple[Model, int] | None:
        """The best candidate that is well and was not asked, and the key to ask it with."""
        if self.attempts:
            other_key = self._other_key(now)
            if other_key is not None:
                return other_key
        while True:
            well: list[Model] = []
            for model in self._tier:
                if self._is_out(model):
                    continue
                if self._is_unwell(model, now):
                    self._last.append(model)
                else:
                    well.append(model)
            if well:
                model = self._better(well, now)
                if self._tiers is None:  # behind the very first one `behind` knows who comes
                    self._tier, self._last = [], []
                else:
                    self._tier = [m for m in well if m is not model]
                return model, self._key(model, now)
            if not self._next_tier(now):
                return None

    def _next_tier(self, now: float) -> bool:
        """Whether there was another tier to take."""
        if self._tiers is None:
            # Whoever is asked first, or would have been, tells whose neighbours come next.
            if self.attempts:
                chosen = self.attempts[0].model
            else:
                chosen = min(
                    self._candidates.first, key=lambda model: self._health.back_at(model, now)
                )
                self._last = [chosen]
            self._tiers = self._candidates.behind(chosen)
        tier = next(self._tiers, None)
        if tier is None:
            return False
        self._tier = list(tier)
        return True

    def _choose_last(self, now: float) -> tuple[Model, int] | None:
        """Of those that rest the one that is back first: a plan is never empty."""
        waiting = {
            (model.provider, model.id): model
            for model in self._last
            if not self._is_out(model) and model.provider not in self._not_reached
        }
        self._last.clear()
        if not waiting:
            return None

        def back_at(model: Model) -> float:
            moment, _ = self._health.back_at(model, now)
            return moment - (PREFERRED if self._candidates.asked_for(model) else 0.0)

        models = sorted(waiting.values(), key=back_at)
        self._last.extend(models[1:])
        return models[0], self._key(models[0], now)

    def _key(self, model: Model, now: float) -> int:
        """The key to ask with: one that is well, else the one whose rest is over first."""
        credential = self._health.credential(model, now)
        return self._health.back_at(model, now)[1] if credential is None else credential

    def _other_key(self, now: float) -> tuple[Model, int] | None:
        """The same model with another key, where it was the key that failed."""
        latest = self.attempts[-1]
        if latest.outcome not in {"credentials", "rate_limited"} or latest.method is not None:
            return None
        keys = {one.credential for one in self.attempts if one.candidate is latest.candidate}
        if len(keys) >= self._health.credentials(latest.model):
            return None
        credential = self._health.credential(latest.model, now, keys)
        return None if credential is None else (latest.model, credential)

    def _better(self, models: list[Model], now: float) -> Model:
        """Of two taken by chance the cheaper one, so that one favourite is not flooded. One
        whose rest is over comes first: a single request looks whether it is back."""
        if len(models) == 1:
            return models[0]
        for model in models:
            if self._health.is_due(model):
                return model
        first = int(self._chance() * len(models)) % len(models)
        second = (first + 1 + int(self._chance() * (len(models) - 1))) % len(models)
        a, b = (self._health.candidate(models[i]) for i in (first, second))
        cheaper = b.cost(now, stream=self._stream) < a.cost(now, stream=self._stream)
        return models[second if cheaper else first]

    def _is_unwell(self, model: Model, now: float) -> bool:
        return (
            self._strikes.get(model.provider, 0) >= STRUCK
            or (self._hedging and self._health.is_due(model))
            or self._health.credential(model, now) is None
        )

    def _is_out(self, model: Model) -> bool:
        """Whether it has been asked already, or is known to be too small by now."""
        asked = any(
            one.model.id == model.id and one.model.provider == model.provider
            for one in self.attempts
        )
        return asked or self._is_too_small(model)

    def _is_too_small(self, model: Model) -> bool:
        window = model.context_window
        return self._longer_than is not None and window is not None and window <= self._longer_than

    def _repeat(self, now: float) -> Commands:
        """The same again, when nothing else is left: the one whose pause is over first."""
        waiting = [
            (tried.again_at, tried)
            for tried in self._tried.values()
            if not tried.over
            and tried.repeats < self._settings.retries
            and not self._is_too_small(tried.model)
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
            return (self._give_up(now, "exhausted", retry_after=again_at - now),)
        if again_at > now:
            return (Wait(again_at),)
        tried.repeats += 1
        method = None if self._joints is None else self._ways_of(tried.model, now)[0]
        return (self._start(tried.model, self._key(tried.model, now), now, method),)

    def _launch(self, model: Model, credential: int, now: float) -> Commands:
        """Start an attempt, and look again when its first token is later than it nearly always
        is. A probe is always watched: no caller is to wait out whether somebody is back."""
        start = self._start(model, credential, now)
        self._hedge_at = None
        if not self._stream or self._joints is not None:
            return (start,)
        candidate = self._health.candidate(model)
        self._probing = self._health.is_probe(self.attempts[-1])
        if self._probing:
            usual = candidate.percentile(0.95) or (candidate.first_token or math.inf) * 2
            patience = min(usual * 1.5, start.limit / 2)
        elif self._settings.hedge and start.attempt == 0:
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
        budget = self._budget
        if not self._probing and (budget is None or not budget.covers()):
            return ()
        self._hedging = True
        chosen = self._choose_beside(now)
        self._hedging = False
        if chosen is None:
            return ()
        if budget is not None and not self._probing:
            budget.spend()
        return (self._start(*chosen, now),)

    def _choose_beside(self, now: float) -> tuple[Model, int] | None:
        """Who races: the mates of a probe are suspected with it, and come behind all others."""
        if not self._probing:
            return self._choose(now)
        provider = self.attempts[-1].model.provider
        before = self._strikes.get(provider, 0.0)
        self._strikes[provider] = before + STRUCK
        chosen = self._choose(now)
        if chosen is None:
            self._strikes[provider] = before
            self._tier, self._last = self._last, []
            chosen = self._choose(now)
            self._strikes[provider] = before + STRUCK
        return chosen

    def _joinable(self, broken: Attempt, now: float) -> list[Joint]:
        """Who may go on from a broken answer, and how, best first."""
        first = self.attempts[0].model
        tiers = itertools.chain(((first,),), self._candidates.behind(first), ((broken.model,),))
        return joints(
            (self._able(tier) for tier in tiers),
            broken.model,
            self._ways,
            stalled=broken.outcome == "timeout",
            unwell=lambda model: self._is_unwell(model, now),
            useless=self._useless(),
        )

    def _ways_of(self, model: Model, now: float) -> list[Method]:
        """How one candidate may go on."""
        found = joints(
            ((model,),),
            model,
            self._ways,
            stalled=False,
            unwell=lambda model: self._is_unwell(model, now),
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
            useless = model.provider in self._not_reached if tried is None else tried.useless
            if not (useless or self._is_too_small(model)):
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
            candidate, credential, now, stream=self._stream, number=number, method=method
        )
        attempt.limit = limit
        self._health.begin(attempt)
        self.attempts.append(attempt)
        return Start(number, model, credential, limit, method)

    def _others_left(self, model: Model) -> bool:
        """Whether somebody else could still be asked after this one."""
        if len(self.attempts) + 1 >= self._settings.max_attempts:
            return False
        if self._tier or self._last or self._joints:
            return True
        return any(
            other is not model and not self._is_out(other)
            for tier in self._candidates.behind(model)
            for other in tier
        )

    def _note(self, one: Attempt, failure: AttemptFailed, now: float) -> None:
        one.failure = failure
        self._ended(one, failure.code, now)
        code, took = failure.code, now - one.began
        if code in {"diverged", "unsuitable"} or (code == "rate_limited" and failure.status == 413):
            self._health.dropped(one)  # it says something about this request alone
        elif code == "timeout" and self._was_hurried(one, now):
            self._health.dropped(one)  # or about the patience of this caller
        else:
            words = failure.words or failure.message
            words = f"{failure.status} {words}" if failure.status else words
            self._health.failed(one, now, code, words, failure.retry_after)
        provider = one.model.provider
        if code not in _OF_THE_MODEL:
            silent = code == "timeout" and one.spoke_at is None
            strikes = STRUCK if silent else STRIKES.get(code, STRIKE)
            self._strikes[provider] = self._strikes.get(provider, 0.0) + strikes
        if code in _NOT_REACHED:
            self._not_reached.add(provider)
        tried = self._tried_of(one.model)
        if code == "timeout" and one.spoke_at is None:
            tried.silent += took
        limit = self._settings.first_token_timeout if self._stream else 0.0
        silent = code == "timeout" and tried.silent >= limit * SHARE
        tried.over = code not in _AGAIN or silent
        tried.useless = silent or code == "model_gone"
        pause = self._settings.retry_pause * 2.0**tried.repeats
        pause = min(LONGEST_PAUSE, pause * (1 - JITTER + 2 * JITTER * self._chance()))
        tried.again_at = now + (pause if failure.retry_after is None else failure.retry_after)

    def _was_hurried(self, one: Attempt, now: float) -> bool:
        """Whether it had less time than the settings give, for the deadline was near."""
        if one.spoke_at is not None:
            return now >= self._deadline - self._settings.idle_timeout
        stream = self._stream
        full = self._settings.first_token_timeout if stream else self._settings.answer_timeout
        return one.limit < full and now - one.began >= one.limit

    def _not_the_callers(self, one: Attempt, refusal: Refusal) -> bool:
        """A refusal by a model that was not asked for, and may not be able to do this at all."""
        return (
            refusal.code == "provider_refused"
            and self._candidates.asked_on_trust(one.model)
            and not self._candidates.asked_for(one.model)
        )

    def _give_up(
        self,
        now: float,
        reason: Literal["refused", "exhausted", "deadline"],
        refusal: Refusal | None = None,
        retry_after: float | None = None,
    ) -> GiveUp:
        self.over = True
        if refusal is None and self._joints is None:
            # Where nobody could have served the request, that is the reason.
            able = (
                one for one in self.attempts
                if one.outcome != "refused" and not self._is_too_small(one.model)
            )  # fmt: skip
            refusals = [one.refusal for one in self.attempts if one.outcome == "refused"]
            if reason == "exhausted" and refusals and not any(able):
                refusal, reason = refusals[0], "refused"
        if retry_after is None and self.attempts:
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
                self._health.dropped(one, None if but is None else now)
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
