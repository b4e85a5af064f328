"""Who is asked next, of those that can serve a request: well ones first, tier by tier.

Whoever rests, and whoever's provider has failed in this very request, comes last; nobody who
can serve it is left out for good, but for the models of a provider that cannot be reached.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from manyways.routing.attempt import Attempt
from manyways.routing.health import Health
from manyways.routing.resolve import Candidates
from manyways.types import Model

PREFERRED: Final = 1.0
"""Seconds that a model which was asked for may rest longer than others, and still come first."""
STRUCK: Final = 2.0
"""Strikes against a provider that put its other models behind everybody else's."""
STRIKES: Final = {"connect": 2.0, "tls": 2.0, "credentials": 2.0, "reset": 1.0}
"""How much a failure of one model says about all of its provider. Silence before the first
token says all, so that a silent provider is waited for once."""
STRIKE: Final = 0.4
"""What other failures say, and every second they took: five of ten attempts may go to one
provider that fails quickly, two where it takes its time."""
DRAWN: Final = 8
"""Of a large tier, so many are drawn before all of it is looked at."""

_NOT_REACHED = frozenset({"connect", "tls"})
_OURS = frozenset({"crowded", "out_of_sockets"})
OF_THE_KEY: Final = frozenset({"credentials", "rate_limited"})
"""Failures that another key may not have."""
_OF_THE_MODEL = frozenset({"rate_limited", "model_gone", "unsuitable", "diverged"})


class Queue:
    """The order of one request. `attempts` are those of its plan, which go on growing."""

    __slots__ = (
        "_attempts", "_caller", "_candidates", "_chance", "_health", "_last", "_longer_than",
        "_not_reached", "_racing", "_stream", "_strikes", "_tier", "_tiers",
    )  # fmt: skip

    def __init__(
        self,
        candidates: Candidates,
        health: Health,
        attempts: list[Attempt],
        *,
        stream: bool,
        chance: Callable[[], float],
        caller: str = "",
    ) -> None:
        self._candidates = candidates
        self._caller = caller
        self._health = health
        self._attempts = attempts
        self._stream = stream
        self._chance = chance
        self._tier: Sequence[Model] = candidates.first
        self._tiers: Iterator[Sequence[Model]] | None = None
        self._last: list[Model] = []  # whoever rests, or whose provider has failed
        self._strikes: dict[str, float] = {}
        self._not_reached: set[str] = set()  # providers: their other models are not asked
        self._longer_than: int | None = None  # a window this short is too short
        self._racing = False  # whoever is looked for is to be well for sure

    def __repr__(self) -> str:
        return f"<Queue tier={len(self._tier)} last={len(self._last)}>"

    # Who is next

    def next(self, now: float) -> tuple[Model, int] | None:
        """The best candidate that is well and was not asked, and the key to ask it with."""
        other_key = self.other_key(now)
        if other_key is not None:
            return other_key
        while True:
            model = self._draw(now) if len(self._tier) > DRAWN else None
            if model is None:
                well = self._well(now)
                model = self._better(well, now) if well else None
            if model is not None:
                if self._tiers is None:  # behind the very first one `behind` knows who comes
                    self._tier, self._last = (), []
                return model, self.key(model, now)
            self._tier = ()
            if not self._next_tier(now):
                return None

    def last(self, now: float) -> tuple[Model, int] | None:
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
            moment, _ = self.back_at(model, now)
            return moment - (PREFERRED if self._candidates.asked_for(model) else 0.0)

        models = sorted(waiting.values(), key=back_at)
        self._last.extend(models[1:])
        return models[0], self.key(models[0], now)

    def beside(self, now: float, probe: Model | None) -> tuple[Model, int] | None:
        """Who may race with what is running. The mates of a `probe` are suspected with it, and
        come behind all others."""
        self._racing = True
        if probe is None:
            chosen = self.next(now)
        else:
            before = self._strikes.get(probe.provider, 0.0)
            self._strikes[probe.provider] = before + STRUCK
            chosen = self.next(now)
            if chosen is None:
                self._strikes[probe.provider] = before
                self._tier, self._last = self._last, []
                chosen = self.next(now)
                self._strikes[probe.provider] = before + STRUCK
        self._racing = False
        return chosen

    def other_key(self, now: float) -> tuple[Model, int] | None:
        """The model that was asked last, with another key, where it was the key that failed. It
        may rest: that it was asked all the same is decided. To go on from an answer that broke,
        the key that this came with may be taken again."""
        latest = self._attempts[-1] if self._attempts else None
        if latest is None or latest.outcome not in OF_THE_KEY:
            return None
        tried = {
            one.credential
            for one in self._attempts
            if one.candidate is latest.candidate
            and (one.outcome in OF_THE_KEY or latest.method is None)
        }
        if len(tried) >= self._health.credentials(latest.model):
            return None
        credential = self._health.key(latest.model, now, tried)
        return None if credential is None else (latest.model, credential)

    def key(self, model: Model, now: float) -> int:
        """The key to ask with: one that is well, else the one whose rest is over first."""
        dead = self.dead_keys(model)
        credential = self._health.credential(model, now, dead, self._caller)
        return self._health.back_at(model, now, dead)[1] if credential is None else credential

    def back_at(self, model: Model, now: float) -> tuple[float, int]:
        """When it may be asked again, and the key to do it with: none that was not accepted."""
        return self._health.back_at(model, now, self.dead_keys(model))

    def dead_keys(self, model: Model) -> set[int]:
        """The keys that its provider has not accepted in this request."""
        candidate = self._health.candidate(model)
        return {
            one.credential
            for one in self._attempts
            if one.outcome == "credentials" and one.candidate is candidate
        }

    # What is known of them

    def struck(self, one: Attempt, code: str, took: float) -> None:
        """An attempt failed: what that says about its provider."""
        provider = one.model.provider
        if code not in _OF_THE_MODEL:
            silent = code == "timeout" and one.spoke_at is None
            # Where it is about us, its other models have the same way.
            strikes = (
                STRUCK if silent or code in _OURS else max(STRIKES.get(code, STRIKE), took * STRIKE)
            )
            self._strikes[provider] = self._strikes.get(provider, 0.0) + strikes
        if code in _NOT_REACHED:
            self._not_reached.add(provider)

    def too_long_for(self, model: Model) -> None:
        """The prompt does not fit into this model's window."""
        self._longer_than = max(self._longer_than or 0, model.context_window or 0)

    def is_too_small(self, model: Model) -> bool:
        """Whether a model is known not to take the prompt."""
        window = model.context_window
        return self._longer_than is not None and window is not None and window <= self._longer_than

    def is_out_of_reach(self, model: Model) -> bool:
        """Whether its provider could not be reached."""
        return model.provider in self._not_reached

    def is_unwell(self, model: Model, now: float) -> bool:
        """Whether it comes last: it rests, or its provider has failed in this request."""
        if self._strikes.get(model.provider, 0.0) >= STRUCK:
            return True
        if self._racing and self._health.is_due(model):
            return True
        if self._health.credential(model, now, caller=self._caller) is not None:
            return False
        if self._health.was_costly(model):  # what is remembered counts like what is met
            self._strikes[model.provider] = STRUCK
        return True

    def is_empty_but(self, model: Model) -> bool:
        """Whether nobody else could be asked after `model`."""
        tiers = itertools.chain((self._last, self._tier), self._candidates.behind(model))
        return not any(
            other is not model and not self._is_out(other) for tier in tiers for other in tier
        )

    def _is_out(self, model: Model) -> bool:
        """Whether it has been asked already, or is known to be too small by now."""
        asked = any(
            one.model.id == model.id and one.model.provider == model.provider
            for one in self._attempts
        )
        return asked or self.is_too_small(model)

    def _draw(self, now: float) -> Model | None:
        """One of a large tier, if a few drawn by chance are well: to look at all takes long."""
        tier = self._tier
        drawn = {int(self._chance() * len(tier)) % len(tier) for _ in range(DRAWN)}
        models = [tier[i] for i in sorted(drawn)]
        well = [m for m in models if not (self._is_out(m) or self.is_unwell(m, now))]
        return self._better(well, now) if well else None

    def _well(self, now: float) -> list[Model]:
        """Whoever of the tier is well; the others come last."""
        well: list[Model] = []
        for model in self._tier:
            if self._is_out(model):
                continue
            if self.is_unwell(model, now):
                self._last.append(model)
            else:
                well.append(model)
        self._tier = well
        return well

    def _better(self, models: Sequence[Model], now: float) -> Model:
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

    def _next_tier(self, now: float) -> bool:
        """Whether there was another tier to take."""
        if self._tiers is None:
            # Whoever is asked first, or would have been, tells whose neighbours come next.
            if self._attempts:
                chosen = self._attempts[0].model
            else:
                chosen = min(
                    self._candidates.first, key=lambda model: self._health.back_at(model, now)
                )
                self._last = [chosen]
            self._tiers = self._candidates.behind(chosen)
        tier = next(self._tiers, None)
        self._tier = tier or ()
        return tier is not None
