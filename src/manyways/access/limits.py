"""How much a caller may use: reserved before a model is asked, settled once the answer is there.

A limit is borne by a scope: a key, or an account. All limits of all scopes of a caller are looked
at and taken from in one step, so that a request takes from all of them or from none.

    requests, tokens    at most so many in any span of the window's length, never one over
    concurrent          at once
    quota               in a calendar day or month (UTC), or ever

Tokens and costs are not known before an answer is there. What a request may use at most is
reserved, and the true figure takes its place when the reservation is settled; so what runs at the
same time cannot be over a limit together. An answer that turns out larger than was reserved
counts whole: the limit may then be over, and nobody new gets in until it is not.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from msgspec import Struct

from manyways.errors import Refusal
from manyways.types import Caller, Period, Scope


class Demand(Struct, frozen=True, kw_only=True):
    """What a request may use at most: `tokens` of prompt and answer together, `cost` in USD.

    `fixed`: the caller has set the length of the answer itself. Then a demand that a limit can
    never meet is refused; otherwise as much is reserved as the limit has.
    """

    tokens: int = 0
    cost: float = 0.0
    fixed: bool = False


class Standing(NamedTuple):
    """Where a caller stands with its limit of requests; of several the one with the least left.

    `remaining` is what is left after this request. `reset` is the Unix second, rounded up, at
    which the oldest request that counts leaves the window.
    """

    limit: int
    remaining: int
    reset: int


class LimitReached(Refusal):
    """A limit refuses. `retry_after` is set: who waits that long, and is alone, gets in.

    `code` is `rate_limit_exceeded` (a window), `quota_exceeded` or `concurrent_requests`.
    """

    def __init__(
        self, code: str, message: str, *, retry_after: int, standing: Standing | None
    ) -> None:
        super().__init__(code, message, retry_after=retry_after)
        self.standing = standing


class Reservation(Protocol):
    """What a request has taken from its limits, until it is settled."""

    @property
    def standing(self) -> Standing | None:
        """As the answer's headers tell it; `None` where requests are not limited."""
        ...

    def settle(self, *, counted: bool, tokens: int, cost: float) -> None:
        """The request is over, and has used so much (`cost` in USD). To be called once, however
        it ended; at once, never fails, and a second call does nothing.

        `counted=False` gives the request itself back: it failed through no fault of the caller.
        """
        ...


class Limits(Protocol):
    """Who keeps count."""

    def admit(self, caller: Caller, demand: Demand) -> Reservation | None:
        """Reserve from memory, at once. `None` says nothing yet: ask `reserve`.

        Raises `LimitReached`, and `Refusal` where the demand can never be met.
        """
        ...

    async def reserve(self, caller: Caller, demand: Demand) -> Reservation:
        """Reserve, asking the database or Redis first where that is needed.

        Raises as `admit` does, and `StoreError` where what was used before cannot be found out.
        """
        ...

    def peek(self, caller: Caller) -> Standing | None:
        """Where the caller stands, without counting anything: for answers to requests that were
        refused before they were counted. `None` also where it is not known yet."""
        ...


class Totals(NamedTuple):
    """What was used in a period; `cost` in USD."""

    requests: int = 0
    tokens: int = 0
    cost: float = 0.0


class Past(Struct, kw_only=True):
    """What a scope used before this process counted it.

    `requests` are those that count, in any order: how many seconds ago each was admitted, and
    its tokens; as far back as the scope's longest window reaches. `totals` are of the current
    period, for each that the scope has a quota of; an absent one is empty.
    """

    requests: list[tuple[float, int]] = []
    totals: dict[Period, Totals] = {}


Load = Callable[[Scope], Awaitable[Past]]
"""Finds out a scope's past, in bounded time. Raises `StoreError`."""


def wants_tokens(caller: Caller) -> bool:
    """Whether tokens or cost of the caller are limited: only then is a prompt worth counting."""
    for scope in caller.scopes:
        allowance = scope.allowance
        if allowance.tokens:
            return True
        for quota in allowance.quota:
            if quota.tokens is not None or quota.cost is not None:
                return True
    return False
