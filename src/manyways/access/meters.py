"""What was used of quotas: plain values, `wall` in Unix seconds handed in.

A quota is kept by the period, and the wall clock says which one it is. What was reserved in a
period is settled in it, however late; and a clock that is set back finds the meters that it left.

Costs are kept in billionths of a dollar: whole numbers, so that giving back leaves no crumbs.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from manyways.access.obstacles import Kind
from manyways.access.windows import NO_LIMIT, Span, span_of
from manyways.types import Period, Quota

BILLION: Final = 1_000_000_000
MOST: Final = 10**15
"""No request uses so many tokens, or billionths of a dollar: who says so is wrong."""
KEPT: Final = 4
"""Periods of a kind that are kept: those next to the clock."""


def billionths(cost: float) -> int:
    """USD as they are counted, never negative."""
    return round(min(cost * BILLION, MOST)) if cost > 0 else 0


class Need(NamedTuple):
    """What a request may use at most, and what has to be there of it before it is let in: 1 to
    `MOST` tokens and billionths of a dollar.

    Even what may be free takes 1 until it is settled: nothing gets in where nothing is left.
    """

    tokens: int
    cost: int
    least_tokens: int
    least_cost: int

    def least(self, kind: Kind) -> int:
        """What of the kind has to be there."""
        if kind == "requests":
            return 1
        return self.least_tokens if kind == "tokens" else self.least_cost

    def is_open(self, kind: Kind) -> bool:
        """Whether more may be used than has to be there."""
        if kind == "tokens":
            return self.least_tokens < self.tokens
        return kind == "cost" and self.least_cost < self.cost


class Meter:
    """What was used in one period."""

    __slots__ = ("cost", "requests", "span", "tokens")

    def __init__(self, span: Span, requests: int = 0, tokens: int = 0, cost: int = 0) -> None:
        self.span = span
        self.requests = requests
        self.tokens = tokens
        self.cost = cost

    def __repr__(self) -> str:
        return f"<Meter {self.requests} requests, {self.tokens} tokens, {self.cost} billionths>"


class Rule(NamedTuple):
    """All quotas of one kind of period: the smallest amount of each."""

    requests: int = NO_LIMIT
    tokens: int = NO_LIMIT
    cost: int = NO_LIMIT

    def tightened(self, quota: Quota) -> "Rule":
        return Rule(
            self.requests if quota.requests is None else min(self.requests, quota.requests),
            self.tokens if quota.tokens is None else min(self.tokens, quota.tokens),
            self.cost if quota.cost is None else min(self.cost, round(quota.cost * BILLION)),
        )

    def broken(self, meter: Meter, need: Need) -> Kind | None:
        """What is too little."""
        if meter.requests >= self.requests:
            return "requests"
        if meter.tokens + need.least_tokens > self.tokens:
            return "tokens"
        if meter.cost + need.least_cost > self.cost:
            return "cost"
        return None


class Shortage(NamedTuple):
    """A quota that has too little left."""

    per: Period
    kind: Kind
    rule: Rule
    meter: Meter


class Charge(NamedTuple):
    """What one request has reserved of one meter."""

    meter: Meter
    tokens: int
    cost: int


class Meters:
    """The quotas of one scope, and what counts against them."""

    __slots__ = ("_kept", "_rules")

    def __init__(self) -> None:
        self._rules: dict[Period, Rule] = {}
        # Meters of a kind of period, the one opened last first. A quota that is lifted leaves
        # its meters here, and they go on counting.
        self._kept: dict[Period, list[Meter]] = {}

    def lacks(self, quotas: Iterable[Quota], wall: float) -> bool:
        """Whether it is not known what was used of one of these."""
        return any(self.at(quota.per, wall) is None for quota in quotas)

    def adapt(
        self,
        quotas: Iterable[Quota],
        wall: float,
        totals: Mapping[Period, tuple[int, int, float]],
    ) -> None:
        """These hold from now on. `totals` tell the use (cost in USD) that was not counted here."""
        rules: dict[Period, Rule] = {}
        for quota in quotas:
            rules[quota.per] = rules.get(quota.per, Rule()).tightened(quota)
        self._rules = rules
        for per in rules:
            if self.at(per, wall) is None:
                requests, tokens, cost = totals.get(per, (0, 0, 0.0))
                used = Meter(span_of(per, wall), requests, tokens, round(cost * BILLION))
                self._keep(per, used)

    def at(self, per: Period, wall: float) -> Meter | None:
        """The meter of the period; a fresh one where a new period has begun. `None`: it is not
        known what was used in it."""
        meters = self._kept.get(per)
        if meters is None:
            return None
        for meter in meters:
            if meter.span.start <= wall < meter.span.end:
                return meter
        if wall < max(meter.span.start for meter in meters):
            return None
        return self._keep(per, Meter(span_of(per, wall)))

    def knows(self, wall: float) -> bool:
        """Whether the meters of all quotas are there."""
        return all(self.at(per, wall) is not None for per in self._rules)

    def shortages(self, need: Need, wall: float) -> Iterator[Shortage]:
        """One for each kind of period that has too little left."""
        for per, rule in self._rules.items():
            meter = self.at(per, wall)
            kind = rule.broken(meter, need) if meter is not None else None
            if meter is not None and kind is not None:
                yield Shortage(per, kind, rule, meter)

    def charge(self, need: Need, wall: float) -> dict[Period, Charge]:
        """Reserve what is needed, or what is left of it."""
        charges = {}
        for per in self._kept:
            meter = self.at(per, wall)
            if meter is not None:
                rule = self._rules.get(per, _FREE)
                tokens = min(need.tokens, max(rule.tokens - meter.tokens, 0))
                cost = min(need.cost, max(rule.cost - meter.cost, 0))
                meter.requests += 1
                meter.tokens += tokens
                meter.cost += cost
                charges[per] = Charge(meter, tokens, cost)
        return charges

    def settle(
        self, charges: dict[Period, Charge], wall: float, counted: bool, tokens: int, cost: int
    ) -> None:
        """What was reserved at `wall` has come to this much."""
        for charge in charges.values():
            meter = charge.meter
            meter.requests -= not counted
            meter.tokens += tokens - charge.tokens
            meter.cost += cost - charge.cost
        for per, meters in self._kept.items():
            if per in charges:
                continue
            # The quota came while the request ran: nobody else will tell its meter.
            for meter in meters:
                if meter.span.start <= wall < meter.span.end:
                    meter.requests += counted
                    meter.tokens += tokens
                    meter.cost += cost

    def _keep(self, per: Period, meter: Meter) -> Meter:
        meters = self._kept.setdefault(per, [])
        meters.insert(0, meter)
        if len(meters) > KEPT:
            start = meter.span.start
            meters.remove(max(meters, key=lambda one: abs(one.span.start - start)))
        return meter


_FREE: Final = Rule()
