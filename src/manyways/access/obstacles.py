"""A limit in the way of a request, and how its caller is told."""

from typing import Final, Literal

from msgspec import Struct

from manyways.errors import Refusal
from manyways.types import Caller, Period, Scope

Kind = Literal["requests", "tokens", "cost"]

NEVER: Final = 86400
"""Seconds to wait for what does not renew by itself: somebody may have raised it by then."""

LOOKED_UP_WITHIN: Final = 5
"""Seconds to wait where it cannot be looked up what was used: whoever knows may be back then."""

_SHORTEST = " even with the shortest answer"
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


class Obstacle(Struct, frozen=True, kw_only=True):
    """One limit that refuses one request.

    `limit`, `used` (what runs has reserved included) and `need` are of `kind`, costs in USD.
    One of `length` (of a window, seconds) and `per` (of a quota) is set; neither is where
    requests run at once. `wait` is in whole seconds. `share` is what this gateway may let in of
    `limit` where it cannot ask the others. `at_least`: `need` is what the shortest answer takes,
    and a longer one would not be in the way.
    """

    scope: Scope
    kind: Kind
    limit: float
    used: float
    need: float
    wait: int
    length: float | None = None
    per: Period | None = None
    share: float | None = None
    at_least: bool = False

    @property
    def code(self) -> str:
        if self.per is not None:
            return "quota_exceeded"
        return "concurrent_requests" if self.length is None else "rate_limit_exceeded"

    def message(self, caller: Caller) -> str:
        """Whose limit it is, its numbers, and what to do."""
        who = _who(self.scope, caller)
        share = ""
        if self.share is not None:
            share = (
                f", at the moment only {self.share:,} of them on this gateway,"
                " as the gateways cannot reach each other"
            )
        if self.length is None and self.per is None:
            return (
                f"{who} may have {self.limit:,} requests running at once{share}, and has."
                " Ask again when one of them is over."
            )
        allowed = f"{who} may {_allowed(self.kind, self.limit, self.length, self.per)}{share}"
        if self.kind == "requests":
            done = ", and has done so."
        else:
            used, need = _amount(self.kind, self.used), _amount(self.kind, self.need)
            need += _SHORTEST if self.at_least else ""
            done = f"; {used} are used or reserved, and this request may take {need}."
            if self.share is not None and self.need > self.share:
                done = f"; this request may take {need}."
        if self.per == "ever":
            return f"{allowed}{done} This does not renew by itself: ask the operator for more."
        if self.per is not None:
            return f"{allowed}{done} The next {self.per} begins at 00:00 UTC, in {self.wait} s."
        return f"{allowed}{done} Ask again in {self.wait} s."


def check_size(caller: Caller, size: tuple[int, float], least: tuple[int, float]) -> None:
    """Whether limits can ever meet `size`, tokens and cost in USD, of which the shortest answer
    takes `least`. Raises `Refusal`: waiting does not help here, and the message says what does."""
    longest = _never_met(caller, *size)
    if longest is None:
        return
    shortest = _never_met(caller, *least)
    if shortest is None:
        raise Refusal(
            "invalid_request",
            f"With its max_tokens, {longest.told(caller)} Lower max_tokens.",
            param="max_tokens",
        )
    cheaper = ", or list only cheaper models in models" if shortest.kind == "cost" else ""
    raise Refusal(
        "invalid_request",
        f"Even with the shortest answer, {shortest.told(caller)} Shorten the prompt{cheaper}.",
        param="messages",
    )


def quota_unknown(caller: Caller, scope: Scope) -> Refusal:
    """Nobody can say at the moment what the scope has used of its quota."""
    return Refusal(
        "server_error",
        f"The quota of {_who(scope, caller, inside=True)} cannot be looked up at the moment."
        f" Ask again in {LOOKED_UP_WITHIN} s.",
        status=503,
        retry_after=LOOKED_UP_WITHIN,
    )


class _Excess(Struct, frozen=True, kw_only=True):
    """A limit that can never meet what a request needs."""

    scope: Scope
    kind: Kind
    limit: float
    need: float
    length: float | None = None
    per: Period | None = None

    def told(self, caller: Caller) -> str:
        return (
            f"this request may take {_amount(self.kind, self.need)}, and"
            f" {_who(self.scope, caller, inside=True)} may only"
            f" {_allowed(self.kind, self.limit, self.length, self.per)}."
        )


def _never_met(caller: Caller, tokens: int, cost: float) -> _Excess | None:
    """The first limit that has not so much, even where nothing is used of it."""
    for scope in caller.scopes:
        allowance = scope.allowance
        if allowance.tokens and tokens > allowance.tokens:
            return _Excess(scope=scope, kind="tokens", limit=allowance.tokens, need=tokens,
                           length=allowance.tokens_window)  # fmt: skip
        for quota in allowance.quota:
            if quota.tokens is not None and tokens > quota.tokens:
                return _Excess(scope=scope, kind="tokens", limit=quota.tokens, need=tokens,
                               per=quota.per)  # fmt: skip
            if quota.cost is not None and cost > quota.cost:
                return _Excess(scope=scope, kind="cost", limit=quota.cost, need=cost,
                               per=quota.per)  # fmt: skip
    return None


def _who(scope: Scope, caller: Caller, *, inside: bool = False) -> str:
    of = "" if scope.id.startswith("key:") else "account of the "
    return f"{'the' if inside else 'The'} {of}API key ending in {caller.last4}"


def _allowed(kind: Kind, limit: float, length: float | None, per: Period | None) -> str:
    verb = "make" if kind == "requests" else "use"
    when = f"in any {_span(length)}" if length is not None else _PERIODS[per or "ever"]
    return f"{verb} {_amount(kind, limit)} {when}"


_PERIODS: dict[Period, str] = {
    "day": "in a day (UTC)",
    "month": "in a month (UTC)",
    "ever": "in all",
}


def _amount(kind: Kind, amount: float) -> str:
    """`1,000 tokens`, `1 request`, `$0.05`."""
    if kind == "cost":
        digits = f"{amount:,.6f}".rstrip("0")
        whole, _, part = digits.partition(".")
        return f"${whole}.{part:0<2}"
    return f"{amount:,} {kind if amount != 1 else kind[:-1]}"


def _span(seconds: float) -> str:
    """`minute`, `30 days`, `1.5 seconds`."""
    for size, name in _UNITS:
        count, rest = divmod(seconds, size)
        if count and not rest:
            return name if count == 1 else f"{count:.0f} {name}s"
    return f"{seconds:g} seconds"
