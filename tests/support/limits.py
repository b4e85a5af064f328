"""Limits in virtual time: clocks that are set by hand, and a database that says what it is told."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from manyways.access.limits import (
    Demand,
    LimitReached,
    Limits,
    LocalLimits,
    Past,
    Reservation,
)
from manyways.errors import StoreError
from manyways.types import Allowance, Caller, Scope

NOON = datetime(2026, 2, 27, 12, tzinfo=UTC).timestamp()
HOUR = 3600.0
ANY = Demand()
THIRTY = Allowance(requests=30, window=60.0)


class Clocks:
    """Both clocks, in virtual time."""

    def __init__(self) -> None:
        self.now = 5000.0
        self.wall = NOON

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds


class Database:
    """What is loaded of scopes, and how often; `gate` holds answers back."""

    def __init__(self) -> None:
        self.pasts: dict[str, Past] = {}
        self.asked: list[str] = []
        self.gate: asyncio.Event | None = None
        self.failure: StoreError | None = None

    async def load(self, scope: Scope) -> Past:
        self.asked.append(scope.id)
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return self.pasts.get(scope.id, Past())


def old_process(
    clocks: Clocks,
    database: Database,
    *,
    most: int = 100_000,
    evictable: Callable[[], bool] = lambda: True,
) -> LocalLimits:
    """One that has run longer than any window."""
    return LocalLimits(
        database.load,
        clock=lambda: clocks.now,
        wall=lambda: clocks.wall,
        since=-1e9,
        most=most,
        evictable=evictable,
    )


def young_process(clocks: Clocks, database: Database) -> LocalLimits:
    return LocalLimits(database.load, clock=lambda: clocks.now, wall=lambda: clocks.wall)


def caller(key: Allowance, account: Allowance | None = None, name: str = "one") -> Caller:
    """Whose key has these limits, and its account, `account:them`, those."""
    scopes = [Scope(id=f"key:{name}", allowance=key)]
    if account is not None:
        scopes.append(Scope(id="account:them", allowance=account))
    return Caller(key_id=name, key_type="full", last4="wxyz", scopes=tuple(scopes))


def admit(limits: Limits, who: Caller, demand: Demand = ANY) -> Reservation:
    reservation = limits.admit(who, demand)
    assert reservation is not None
    return reservation


def refused(limits: Limits, who: Caller, demand: Demand = ANY) -> LimitReached:
    with pytest.raises(LimitReached) as caught:
        limits.admit(who, demand)
    return caught.value


def told(reached: LimitReached) -> tuple[str, int | None]:
    return reached.code, reached.retry_after


def done(reservation: Reservation, tokens: int = 0, cost: float = 0.0) -> None:
    reservation.settle(counted=True, tokens=tokens, cost=cost)
