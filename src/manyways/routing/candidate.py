"""What is remembered of one model at its provider, and what one attempt is to that memory.

Nothing here knows a clock: `now` is handed in, in seconds of any monotonic clock.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

from manyways.routing.breaker import Breaker, Name
from manyways.routing.doubts import Doubts
from manyways.types import Model

HALF_LIFE: Final = 60.0
"""Seconds in which what happened counts half as much."""
DOUBT: Final = 5.0
"""Successes that are assumed beside what was counted, so that few failures say little, and old
ones nothing."""
SAMPLES: Final = 100
"""So many latencies are kept of each candidate, for its percentiles."""
ENOUGH: Final = 20
"""A percentile of fewer would say nothing."""
UNTRIED: Final = 0.01
"""Seconds that are assumed where nothing was measured: whoever is unknown is worth a try."""
SMOOTHING: Final = 0.2
"""The weight of each new measurement."""
SAID: Final = 0.5
"""A rate of less than half a request, decayed, says nothing."""
SLOWEST: Final = 10.0
"""No single answer counts for slower."""
FAILURE_COST: Final = 10.0
"""Seconds a failure is taken to cost, when candidates are compared."""
ASKED_LAST: Final = 1000.0
"""Seconds that make whoever is to be asked last dearer than anybody else."""


class Credential(Breaker):
    """The breaker of one key of a provider, and how the key has done lately. Rates are decayed
    counts. It is kept of providers with several keys, where there is something to choose."""

    __slots__ = ("at", "bad", "good", "pace")

    def __init__(self, name: Name) -> None:
        super().__init__(name)
        self.at = 0.0
        self.good = 0.0
        self.bad = 0.0
        self.pace = 1.0  # what its answers take, of what all keys' take: 2.0 is twice as long

    @property
    def failure_rate(self) -> float | None:
        """`None` where nothing was counted lately."""
        seen = self.good + self.bad
        return self.bad / seen if seen >= SAID else None

    def ended(self, now: float, *, well: bool) -> None:
        """An attempt with this key is over."""
        self._decay(now)
        self.good += well
        self.bad += not well

    def measured(self, now: float, pace: float) -> None:
        """An answer with it took so long, of what answers of that model usually take."""
        self._decay(now)
        self.pace += (min(pace, SLOWEST) - self.pace) * SMOOTHING

    def cost(self, now: float) -> float:
        """How much dearer one more request is expected to be with this key than with one that
        is as quick as others and never fails."""
        self._decay(now)
        return max(self.pace, 0.1) * (1 + FAILURE_COST * self.bad / (self.good + self.bad + DOUBT))

    def _decay(self, now: float) -> None:
        passed = now - self.at
        if passed > 1.0:
            factor = 0.5 ** (passed / HALF_LIFE)
            self.good *= factor
            self.bad *= factor
            self.pace = 1.0 + (self.pace - 1.0) * factor
            self.at = now


class ProviderHealth:
    """The whole provider, and its credentials."""

    __slots__ = ("breaker", "credentials", "only", "proved", "turn")

    def __init__(self, name: str, credentials: int) -> None:
        self.breaker = Breaker((name, None, None))
        self.credentials = [Credential((name, None, i)) for i in range(credentials)]
        self.proved = 0.0  # when the latest attempt began that has spoken
        self.only = self.credentials[0] if credentials == 1 else None
        self.turn = 0


class Candidate:
    """One model at one provider, as it has done lately. Rates are decayed counts."""

    __slots__ = (
        "at", "bad", "breaker", "doubts", "first_token", "forgiven", "good", "limited",
        "measured_at", "model", "outcomes", "proved", "provider", "running", "samples", "served",
        "silences", "whole",
    )  # fmt: skip

    def __init__(self, model: Model, provider: ProviderHealth) -> None:
        self.model = model
        self.provider = provider
        self.breaker = Breaker((model.provider, model.id, None))
        self.limited: dict[int, Breaker] = {}  # credential × model, where a rate was limited
        self.running = 0
        self.good = 0.0
        self.bad = 0.0
        self.forgiven = 0.0  # of `bad`, what lies before a recovery
        self.at = 0.0
        self.first_token: float | None = None  # smoothed, seconds
        self.whole: float | None = None
        self.measured_at = 0.0
        self.samples: deque[float] = deque(maxlen=SAMPLES)  # seconds to the first token
        self.proved = 0.0  # when the latest attempt began that has spoken
        self.served = 0
        self.silences = 0  # in a row, that callers have not waited out
        self.outcomes: Counter[str] = Counter()
        self.doubts = Doubts()

    def __repr__(self) -> str:
        name = f"{self.model.provider}/{self.model.id}"
        return f"<Candidate {name} running={self.running} {self.breaker!r}>"

    @property
    def failure_rate(self) -> float:
        total = self.good + self.bad
        return self.bad / total if total else 0.0

    def decay(self, now: float) -> None:
        """Let time pass. A second makes no difference, and is not worth a power."""
        passed = now - self.at
        if passed > 1.0:
            factor = 0.5 ** (passed / HALF_LIFE)
            self.good *= factor
            self.bad *= factor
            self.forgiven *= factor
            self.at = now

    def percentile(self, share: float) -> float | None:
        """Seconds in which so many of the latest first tokens came; `None` for too few."""
        if len(self.samples) < ENOUGH:
            return None
        return sorted(self.samples)[min(len(self.samples) - 1, int(len(self.samples) * share))]

    def usual(self, *, stream: bool) -> float:
        """Seconds in which nearly every first token comes, or whole answer; infinite where
        nothing is known."""
        if not stream:
            return (self.whole or math.inf) * 2
        return self.percentile(0.95) or (self.first_token or math.inf) * 2

    def spoke(self, now: float, began: float, *, stream: bool) -> None:
        """An attempt that began at a moment has spoken now, or answered whole."""
        self.proved = max(self.proved, began)
        self.provider.proved = max(self.provider.proved, began)
        self.silences = 0
        self.measured(now, now - began, stream=stream)

    def measured(self, now: float, seconds: float, *, stream: bool) -> None:
        """A first token came after so many seconds, or a whole answer."""
        self.measured_at = now
        if stream:
            known = self.first_token
            self.first_token = seconds if known is None else known + (seconds - known) * SMOOTHING
            self.samples.append(seconds)
        else:
            known = self.whole
            self.whole = seconds if known is None else known + (seconds - known) * SMOOTHING

    def cost(self, now: float, *, stream: bool) -> float:
        """Seconds one more request is expected to take here; quality makes it cheaper.

        What was measured fades, so that whoever was slow once is looked at again in minutes.
        """
        self.decay(now)
        told = self.model.latency_ms
        latency = UNTRIED if told is None else told / 1000
        known = self.first_token if stream else self.whole
        if known is not None:
            latency += (known - latency) * 0.5 ** ((now - self.measured_at) / HALF_LIFE)
        bad = self.bad - self.forgiven
        risk = bad / (self.good + bad + DOUBT)
        quality = self.model.quality_score
        worth = 1.0 if quality is None else max(0.1, quality / 7.0)
        if self.model.asked_last:
            latency += ASKED_LAST
        return (latency + risk * FAILURE_COST) * (1 + self.running) / worth


class Ticket:
    """One attempt, as the memory sees it. `caller` is whoever asks, in whatever words; empty where
    nobody knows."""

    __slots__ = ("began", "caller", "candidate", "credential", "heard", "open", "stream")

    def __init__(
        self,
        candidate: Candidate,
        credential: int,
        began: float,
        *,
        stream: bool,
        caller: str = "",
    ) -> None:
        self.candidate = candidate
        self.credential = credential
        self.began = began
        self.caller = caller
        self.stream = stream
        self.heard = False
        self.open = True

    @property
    def way(self) -> Iterable[Breaker]:
        """Every breaker it passes."""
        provider = self.candidate.provider
        yield self.candidate.breaker
        yield provider.credentials[self.credential]
        yield provider.breaker
        limited = self.candidate.limited.get(self.credential)
        if limited is not None:
            yield limited
