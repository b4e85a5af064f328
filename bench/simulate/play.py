"""One run: requests arrive, plans decide, suppliers do what they do, and everything is counted."""

import heapq
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Final

from bench.simulate.suppliers import Fate, Supplier
from manyways.catalog.snapshot import Snapshot
from manyways.errors import AttemptFailed
from manyways.routing.attempt import Attempt
from manyways.routing.candidate import Ticket
from manyways.routing.commands import Commands, GiveUp, Start, Wait
from manyways.routing.health import Health
from manyways.routing.hedging import HedgeBudget
from manyways.routing.plan import Plan
from manyways.routing.resolve import Wish, resolve
from manyways.routing.settings import Settings
from manyways.types import NO_NEEDS, Model

AGREES: Final = 0.5
"""How often the same model says the same again, up to where its answer broke."""
DEFAULTS: Final = Settings()
T0: Final = 1000.0
"""The clock of health when a scenario begins."""


class EveryFailureCounts(Health):
    """A memory that knows no strays: whoever fails once, rests."""

    def failed(
        self,
        ticket: Ticket,
        now: float,
        code: str,
        words: str = "",
        retry_after: float | None = None,
    ) -> None:
        breaker = ticket.candidate.breaker
        breaker.failures = max(1, breaker.failures)
        super().failed(ticket, now, code, words, retry_after)


class RacingAt(Plan):
    """A plan whose race begins at another share of the usual times than 95 %."""

    __slots__ = ()
    share = 0.95

    def _launch(self, model: Model, credential: int, now: float) -> Commands:
        commands = super()._launch(model, credential, now)
        usual = self._health.candidate(model).percentile(self.share)
        if len(commands) == 1 or self._probe is not None or not usual:
            return commands
        self._hedge_at = now + usual
        return (commands[0], Wait(self._hedge_at))


class RacingAtHalf(RacingAt):
    """Where half of all first tokens are there."""

    __slots__ = ()
    share = 0.5


class RacingLate(RacingAt):
    """Where nearly all of them are."""

    __slots__ = ()
    share = 0.99


class WaitingOut(Plan):
    """A plan that waits for a probe as long as for any other attempt."""

    __slots__ = ()

    def _launch(self, model: Model, credential: int, now: float) -> Commands:
        commands = super()._launch(model, credential, now)
        if self._probe is None:
            return commands
        self._hedge_at = None
        return commands[:1]


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to set the gateway up. Without `remembers`, each request knows nothing of others."""

    settings: Settings = DEFAULTS
    remembers: bool = True
    strays: bool = True
    jitter: bool = True
    plan: type[Plan] = Plan


@dataclass(frozen=True, slots=True)
class Scenario:
    """Who offers what, who asks for what, and what goes wrong. Times are seconds; `rate` is
    requests a second, Poisson; `regular` ones come evenly, at a phase that chance decides."""

    name: str
    about: str
    suppliers: Callable[[], Sequence[Supplier]]
    asks: str = "Capi/gpt"
    seconds: float = 300.0
    rate: float = 5.0
    regular: bool = False
    seeds: int = 3
    gateways: int = 1


@dataclass(slots=True)
class Counts:
    """What came of it. Seconds to the first token are of requests that got one; `back` are the
    seconds between the end of an outage and the first answer from whoever had it."""

    requests: int = 0
    answered: int = 0
    as_asked: int = 0
    broken: int = 0
    attempts: int = 0
    first: list[float] = field(default_factory=list)
    dead: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)

    def add(self, other: "Counts") -> None:
        for name in ("requests", "answered", "as_asked", "broken", "attempts"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.first += other.first
        self.dead += other.dead
        self.back += other.back

    def busiest(self, begin: float, end: float, width: float = 0.5) -> int:
        """The most attempts at a dead provider in any `width` seconds' slot between two moments."""
        slots = Counter(int(at / width) for at in self.dead if begin <= at < end)
        return max(slots.values(), default=0)

    @property
    def success(self) -> float:
        return self.answered / self.requests

    @property
    def fidelity(self) -> float:
        """Of the answers, the share that the asked model gave, at whichever provider."""
        return self.as_asked / max(1, self.answered)

    @property
    def load(self) -> float:
        """Attempts a request."""
        return self.attempts / self.requests

    def later_than(self, seconds: float) -> float:
        """The share of those with a first token that waited longer for it."""
        return sum(first > seconds for first in self.first) / max(1, len(self.first))

    def percentile(self, share: float) -> float:
        """Seconds to the first token in which so many of those had it that got one."""
        if not self.first:
            return math.nan
        ordered = sorted(self.first)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class _Request:
    __slots__ = ("arrived", "first", "number", "plan", "ring_at", "share")

    def __init__(self, number: int, plan: Plan, arrived: float) -> None:
        self.number = number
        self.plan = plan
        self.arrived = arrived
        self.first: float | None = None
        self.ring_at: float | None = None
        self.share = 0.0  # of the answer, which the caller has


class Run:
    """A scenario, played once in one setting. Times inside are of the clock of health."""

    def __init__(self, scenario: Scenario, variant: Variant, seed: int) -> None:
        self.scenario = scenario
        self.variant = variant
        self.counts = Counts()
        # Who comes when is the same for every variant, and so is the luck of each attempt.
        self._arrivals = Random(f"{scenario.name} arrivals {seed}")
        self._luck = Random()
        self._seed = seed
        self._chance = Random(f"{scenario.name} chance {seed}").random
        self._suppliers = {one.name: one for one in scenario.suppliers()}
        self._catalog = _catalog(self._suppliers)
        self._health = [self._memory() for _ in range(scenario.gateways)]
        self._budget = HedgeBudget()
        self._wish = Wish(models=(scenario.asks,))
        self._asked = scenario.asks.rpartition("/")[2]
        self._ends = [
            (name, trouble.model, T0 + trouble.end)
            for name, one in self._suppliers.items()
            for trouble in one.troubles
            if trouble.is_outage and trouble.end < scenario.seconds
        ]
        self._heap: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = 0

    def play(self) -> Counts:
        now, at, scenario = T0, 0, self.scenario
        if scenario.regular:
            now -= self._arrivals.random() / scenario.rate
        while True:
            gap = 1.0 if scenario.regular else self._arrivals.expovariate(1.0)
            now += gap / scenario.rate
            if now > T0 + scenario.seconds:
                break
            health = self._health[at % len(self._health)]
            self._at(now, partial(self._arrives, health))
            at += 1
        while self._heap:
            moment, _, happens = heapq.heappop(self._heap)
            happens(moment)
        return self.counts

    def _at(self, moment: float, happens: Callable[[float], None]) -> None:
        self._number += 1
        heapq.heappush(self._heap, (moment, self._number, happens))

    def _memory(self) -> Health:
        chance = self._chance if self.variant.jitter else lambda: 0.0
        kind = Health if self.variant.strays else EveryFailureCounts
        return kind(self.variant.settings, dict.fromkeys(self._suppliers, 1), chance=chance)

    def _arrives(self, health: Health, now: float) -> None:
        settings = self.variant.settings
        plan = self.variant.plan(
            resolve(self._catalog, self._wish, NO_NEEDS, settings.order),
            health if self.variant.remembers else self._memory(),
            settings,
            deadline=now + settings.deadline,
            stream=True,
            chance=self._chance,
            budget=self._budget,
        )
        self.counts.requests += 1
        request = _Request(self.counts.requests, plan, now)
        self._obey(request, plan.begin(now), now)

    def _obey(self, request: _Request, commands: Commands, now: float) -> None:
        for command in commands:
            if isinstance(command, Start):
                self._start(request, command, now)
            elif isinstance(command, Wait):
                request.ring_at = command.until
                self._at(command.until, lambda when: self._rings(request, when))
            elif isinstance(command, GiveUp) and request.first is not None:
                self.counts.broken += 1

    def _start(self, request: _Request, start: Start, now: float) -> None:
        self.counts.attempts += 1
        supplier = self._suppliers[start.model.provider]
        if supplier.is_dead(start.model.id, now - T0):
            self.counts.dead.append(now - T0)
        self._luck.seed(self._seed << 40 | request.number << 8 | start.attempt)
        fate = supplier.fate(start.model.id, now - T0, self._luck)
        speaks, ends = T0 + fate.first, T0 + fate.end
        if start.method is not None and fate.code is None:
            # It says again what the caller has, and only then something new.
            if start.model.id != self._asked or self._luck.random() > AGREES:
                fate, ends = Fate(code="diverged"), speaks
                speaks = math.inf
            else:
                speaks += (ends - speaks) * request.share
        late = now + start.limit
        number = start.attempt
        if min(speaks, ends) > late:
            failure = AttemptFailed("timeout", "silence")
            self._at(late, lambda when: self._fails(request, number, failure, when))
        elif speaks < ends:
            self._at(speaks, lambda when: self._speaks(request, number, fate, when))
        else:
            failure = AttemptFailed(fate.code or "cut", "", retry_after=fate.retry_after)
            self._at(ends, lambda when: self._fails(request, number, failure, when))

    def _is_over(self, request: _Request, attempt: int) -> bool:
        return request.plan.over or request.plan.attempts[attempt].outcome is not None

    def _rings(self, request: _Request, now: float) -> None:
        if not request.plan.over and request.ring_at == now:
            request.ring_at = None
            self._obey(request, request.plan.rang(now), now)

    def _fails(self, request: _Request, attempt: int, failure: AttemptFailed, now: float) -> None:
        if not self._is_over(request, attempt):
            self._obey(request, request.plan.failed(attempt, failure, now), now)

    def _speaks(self, request: _Request, attempt: int, fate: Fate, now: float) -> None:
        if self._is_over(request, attempt):
            return
        self._obey(request, request.plan.spoke(attempt, now), now)
        self._note_return(request.plan.attempts[attempt])
        if request.first is None:
            request.first = now - request.arrived
            self.counts.first.append(request.first)
        self._at(T0 + fate.end, lambda when: self._ends_so(request, attempt, fate, when))

    def _ends_so(self, request: _Request, attempt: int, fate: Fate, now: float) -> None:
        if self._is_over(request, attempt):
            return
        if fate.code is not None:
            request.share = max(request.share, 0.5)
            failure = AttemptFailed(fate.code, "broken")
            self._obey(request, request.plan.broke(attempt, failure, ("again",), now), now)
            return
        self._obey(request, request.plan.succeeded(attempt, now), now)
        self.counts.answered += 1
        self.counts.as_asked += request.plan.attempts[attempt].model.id == self._asked

    def _note_return(self, one: Attempt) -> None:
        """Whether this is the first word after an outage of whoever had it."""
        for outage in tuple(self._ends):
            name, model, end = outage
            whole = model in (None, one.model.id)
            if one.began >= end and one.model.provider == name and whole:
                self._ends.remove(outage)
                self.counts.back.append(one.began - end)


def _catalog(suppliers: dict[str, Supplier]) -> Snapshot:
    return Snapshot(
        models=tuple(
            Model(id=model, provider=one.name, upstream_id=model, created=1)
            for one in suppliers.values()
            for model in one.models
        ),
        provider_names=tuple(suppliers),
    )


def play(scenario: Scenario, variant: Variant) -> Counts:
    """All seeds of a scenario together."""
    counts = Counts()
    for seed in range(scenario.seeds):
        counts.add(Run(scenario, variant, seed).play())
    return counts
