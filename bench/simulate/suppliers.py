"""Providers that do not exist: what becomes of a request is a function of its time, and luck."""

import math
from collections import deque
from dataclasses import dataclass, field
from random import Random
from typing import Final, Literal

Kind = Literal["refused", "silent", "errors", "cuts", "slow", "flapping", "limited"]

REFUSED_IN: Final = 0.02
"""Seconds in which a machine that is not there says so."""
ERROR_IN: Final = (0.05, 0.4)
"""Seconds in which a machine that is broken says so."""
FLAPS: Final = 5.0
"""Seconds up, and seconds down, of one that cannot decide."""
NEVER: Final = math.inf


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong at a provider from `begin` until `end`, seconds of the scenario.

    It hits a `share` of its requests, at one `model` or at all. `factor` is how much slower a
    slow one is, `after` how long a broken one takes to say so, `admits` how many requests a
    minute pass a limit.
    """

    kind: Kind
    begin: float = 0.0
    end: float = NEVER
    share: float = 1.0
    model: str | None = None
    factor: float = 10.0
    after: float | None = None
    admits: int = 0

    def hits(self, model: str, now: float) -> bool:
        """Whether a request at that moment meets it, but for luck."""
        if not self.begin <= now < self.end or self.model not in (None, model):
            return False
        return self.kind != "flapping" or (now - self.begin) % (2 * FLAPS) < FLAPS

    @property
    def is_outage(self) -> bool:
        """Whether nobody who asks meanwhile can be answered."""
        return self.share == 1.0 and self.kind in {"refused", "silent", "errors"}


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one request: when its first content comes and when it ends, seconds of
    the scenario; `code` is the outcome class of a failure. What is silent never ends."""

    first: float = NEVER
    end: float = NEVER
    code: str | None = None
    retry_after: float | None = None


@dataclass(slots=True)
class Supplier:
    """A provider. `models` have the median seconds to their first token; `spread` is the sigma
    of the log-normal around it. A `tail` share of all answers takes `tail_factor` longer."""

    name: str
    models: dict[str, float]
    troubles: tuple[Trouble, ...] = ()
    spread: float = 0.4
    tail: float = 0.0
    tail_factor: float = 12.0
    _admitted: deque[float] = field(default_factory=deque)

    def fate(self, model: str, now: float, luck: Random) -> Fate:
        """What becomes of a request for a model that comes now."""
        first = self.models[model] * luck.lognormvariate(0.0, self.spread)
        lasts = 4.0 * luck.lognormvariate(0.0, 0.5)
        if luck.random() < self.tail:
            first *= self.tail_factor
        chance, pause, cut = luck.random(), luck.uniform(*ERROR_IN), luck.random()
        struck = [t for t in self.troubles if t.hits(model, now) and chance < t.share]
        for trouble in struck:
            if trouble.kind == "slow":
                first *= trouble.factor
        begins, ends = now + first, now + first + lasts
        for trouble in struck:
            fate = self._failure(trouble, now, pause)
            if fate is not None:
                return fate
            if trouble.kind == "cuts":
                return Fate(begins, begins + lasts * cut, "cut")
        crash = self._crash(model, now, ends)
        if crash is None:
            return Fate(begins, ends)
        return Fate(begins, crash, "cut") if begins < crash else Fate(end=crash, code="reset")

    def _failure(self, trouble: Trouble, now: float, pause: float) -> Fate | None:
        """What becomes of a request that meets it, if no word of an answer does."""
        match trouble.kind:
            case "refused" | "flapping":
                return Fate(end=now + REFUSED_IN, code="connect")
            case "silent":
                return Fate()
            case "errors":
                said = pause if trouble.after is None else trouble.after
                return Fate(end=now + said, code="provider_error")
            case "limited":
                wait = self._over_limit(trouble.admits, now)
                if wait is not None:
                    return Fate(end=now + pause, code="rate_limited", retry_after=wait)
        return None

    def is_dead(self, model: str, now: float) -> bool:
        """Whether a request that comes now is lost."""
        return any(trouble.is_outage and trouble.hits(model, now) for trouble in self.troubles)

    def _crash(self, model: str, now: float, until: float) -> float | None:
        """When a machine goes down that takes what it was about to say with it."""
        for trouble in self.troubles:
            whole = trouble.model in (None, model)
            if trouble.kind == "refused" and whole and now < trouble.begin < until:
                return trouble.begin
        return None

    def _over_limit(self, admits: int, now: float) -> float | None:
        """Seconds until the next request may pass; `None` if this one may."""
        admitted = self._admitted
        while admitted and admitted[0] <= now - 60.0:
            admitted.popleft()
        if len(admitted) >= admits:
            return math.ceil(admitted[0] + 60.0 - now)
        admitted.append(now)
        return None
