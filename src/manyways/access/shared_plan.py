"""What is asked of Redis for one caller: a row for each limit, as `scripts/reserve.lua` reads them.

All keys of a caller carry one tag, its account's or else its own: so an account is kept together
with all its keys, wherever a cluster keeps them.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from msgspec.structs import replace

from manyways.access.limits import Standing
from manyways.access.meters import BILLION, Need, Rule
from manyways.access.obstacles import LOOKED_UP_WITHIN, Kind, Obstacle
from manyways.access.windows import NO_LIMIT
from manyways.store.shared import key
from manyways.types import Allowance, Caller, Period, Scope

Word = str | int | float


class Row(NamedTuple):
    """One limit. `words` say its numbers, as reserving wants them. A window has one key, all else
    two."""

    scope: Scope
    kind: Literal["requests", "tokens", "running", "quota"]
    keys: tuple[str, ...]
    words: tuple[Word, ...]
    limit: int = 0
    length: float | None = None
    per: Period | None = None
    rule: Rule = Rule()

    def settling(self, taken: bytes) -> tuple[Word | bytes, ...]:
        """As settling wants it, with what was taken."""
        if self.kind == "running":
            return self.words
        return (*(self.words[:2] if self.kind == "quota" else self.words), taken)

    def obstacle(self, kind: Kind, used: int, need: Need, wait: int) -> Obstacle:
        """This limit in the way; `used` in the units of `kind` as they are counted."""
        numbers: list[float] = [self.limit, used, 1]
        if self.kind == "tokens":
            numbers[2] = min(need.tokens, self.limit)
        elif self.kind == "quota":
            numbers = [getattr(self.rule, kind), used, need.least(kind)]
        if kind == "cost":
            numbers = [amount / BILLION for amount in numbers]
        return Obstacle(
            scope=self.scope,
            kind=kind,
            limit=numbers[0],
            used=numbers[1],
            need=numbers[2],
            wait=wait,
            length=self.length,
            per=self.per,
            at_least=self.kind == "quota" and need.is_open(kind),
        )


class Plan:
    """A caller's limits. `held` are the rows that a node has to renew while a request runs, and
    `running` those of them that are about its place among those that run at once;
    `settles` says whether there is anything to settle for a request that counts. `quota` is the
    first scope that has one. `standing` is what was told last."""

    __slots__ = ("_near", "caller", "held", "keys", "quota", "rows", "running", "settles",
                 "standing", "words")  # fmt: skip

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        tag = f"{{{caller.account_id or caller.line or caller.key_id}}}"
        self.rows = tuple(row for scope in caller.scopes for row in _rows(scope, tag))
        self.keys = tuple(name for row in self.rows for name in row.keys)
        self.words = tuple(word for row in self.rows for word in row.words)
        self.held = tuple(
            number for number, row in enumerate(self.rows) if row.kind in {"running", "quota"}
        )
        self.running = tuple(each for each in self.held if self.rows[each].kind == "running")
        self.quota = next((row.scope for row in self.rows if row.kind == "quota"), None)
        self.settles = any(row.kind != "requests" for row in self.rows)
        self.standing: Standing | None = None
        self._near: dict[int, Caller] = {}

    def __repr__(self) -> str:
        return f"<Plan {self.caller.key_id} {len(self.rows)} limits>"

    def share(self, nodes: int) -> Caller:
        """The caller with one node's share of its limits, of so many nodes; with 0, without
        bounds, to be counted only. Quotas are left out."""
        found = self._near.get(nodes)
        if found is None:
            scopes = tuple(
                Scope(id=scope.id, allowance=shared)
                for scope in self.caller.scopes
                if (shared := _share(scope.allowance, nodes)).limits
            )
            caller = self.caller
            found = self._near[nodes] = Caller(
                key_id=caller.key_id, key_type=caller.key_type, last4=caller.last4, scopes=scopes
            )
            if len(self._near) > 2:  # the number of nodes has changed: the oldest goes
                del self._near[next(number for number in self._near if number not in (0, nodes))]
        return found

    def whole(self, obstacle: Obstacle) -> Obstacle:
        """A share in the way, told as the limit that it is a share of."""
        kind = "running" if obstacle.length is None else obstacle.kind
        of = obstacle.scope.id
        row = next(row for row in self.rows if row.kind == kind and row.scope.id == of)
        if obstacle.limit == row.limit:
            return obstacle
        return replace(obstacle, scope=row.scope, limit=row.limit, share=obstacle.limit)

    def beyond(self, share: Caller, tokens: int) -> Obstacle | None:
        """The share that can never meet so much, though the whole limit can."""
        for scope in share.scopes:
            allowance = scope.allowance
            if allowance.tokens and tokens > allowance.tokens:
                obstacle = Obstacle(
                    scope=scope,
                    kind="tokens",
                    limit=allowance.tokens,
                    used=0,
                    need=tokens,
                    wait=LOOKED_UP_WITHIN,
                    length=allowance.tokens_window,
                    at_least=True,
                )
                return self.whole(obstacle)
        return None

    def settling(self, taken: Sequence[bytes]) -> tuple[Any, ...]:
        """The rows with what was taken of each."""
        return tuple(
            word for row, what in zip(self.rows, taken, strict=True) for word in row.settling(what)
        )


def _rows(scope: Scope, tag: str) -> Iterator[Row]:
    allowance = scope.allowance

    def keys(*names: str) -> tuple[str, ...]:
        return tuple(key(tag, scope.id, name) for name in names)

    if allowance.requests and allowance.window:
        yield Row(
            scope,
            "requests",
            keys("requests"),
            ("requests", allowance.requests, allowance.window),
            limit=allowance.requests,
            length=allowance.window,
        )
    if allowance.tokens and allowance.tokens_window:
        yield Row(
            scope,
            "tokens",
            keys("tokens"),
            ("tokens", allowance.tokens, allowance.tokens_window),
            limit=allowance.tokens,
            length=allowance.tokens_window,
        )
    if allowance.concurrent:
        yield Row(
            scope,
            "running",
            keys("running", "crowd"),
            ("running", allowance.concurrent),
            limit=allowance.concurrent,
        )
    rules: dict[Period, Rule] = {}
    for quota in allowance.quota:
        rules[quota.per] = rules.get(quota.per, Rule()).tightened(quota)
    for per, rule in rules.items():
        yield Row(
            scope, "quota", keys(f"used-{per}", f"held-{per}"), ("quota", per, *rule),
            per=per, rule=rule,
        )  # fmt: skip


def _share(allowance: Allowance, nodes: int) -> Allowance:
    def part(amount: int | None) -> int | None:
        return amount and (max(1, amount // nodes) if nodes else NO_LIMIT)

    return Allowance(
        requests=part(allowance.requests),
        window=allowance.window,
        tokens=part(allowance.tokens),
        tokens_window=allowance.tokens_window,
        concurrent=part(allowance.concurrent),
    )
