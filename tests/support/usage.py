"""Records of requests as the gateway writes them, and days full of them."""

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any, TypeVar

from sqlalchemy import Connection

from manyways.store.database import Database
from manyways.store.ids import new_id
from manyways.store.usage import insert
from manyways.types import Usage
from manyways.usage.record import AttemptRecord, RefusalRecord, UsageRecord

T = TypeVar("T")

NOON = 1_764_072_000.0
"""2025-11-25T12:00:00Z, in the middle of a day and at a full hour."""
MODELS = {"gpt-4o": "Capi", "gemini-2.5-flash": "Capi", "llama-3.3-70b": "Groq"}


def request(at: float = NOON, **given: Any) -> UsageRecord:
    """A request that began at a moment, Unix seconds; answered by `gpt-4o` of Capi, in a second,
    unless said otherwise."""
    usage = Usage(prompt_tokens=100, completion_tokens=20, source="upstream")
    answered = given.get("status_code", 200) == 200
    record = {
        "id": new_id(int(at * 1e9)),
        "created_at": at,
        "api_key_id": "key-1",
        "endpoint": "/chat/completions",
        "status_code": 200,
        "response_time_ms": 1000,
        "model": "gpt-4o",
        "provider": "Capi",
        "usage": usage if answered else Usage(),
        "cost": 0.001 if answered else None,
    }
    model, provider = given.get("model", "gpt-4o"), given.get("provider", "Capi")
    attempt = AttemptRecord(
        model=model or "",
        provider=provider or "",
        upstream_model=model or "",
        outcome="answered" if answered else "provider_error",
        started_at=at,
        latency_ms=given.get("response_time_ms", 1000),
    )
    return UsageRecord(**{**record, "attempts": (attempt,) if model else (), **given})


def refusal(at: float = NOON, **given: Any) -> RefusalRecord:
    """Requests that a limit refused in the minute of a moment."""
    row = {
        "id": new_id(int(at * 1e9)),
        "minute": int(at) // 60 * 60,
        "api_key_id": "key-1",
        "code": "rate_limit_exceeded",
        "count": 1,
    }
    return RefusalRecord(**{**row, **given})


def some(count: int, *, until: float = NOON, days: float = 3, seed: int = 1) -> list[UsageRecord]:
    """So many requests of all kinds, spread over the days before a moment."""
    chance = Random(seed)
    found = []
    for _ in range(count):
        model = chance.choice([*MODELS])
        status = chance.choice([200] * 8 + [400, 503])
        found.append(
            request(
                until - chance.random() * days * 86_400,
                api_key_id=f"key-{chance.randrange(4)}",
                user_id=chance.choice(["ann", "bob", None]),
                model=model,
                provider=MODELS[model],
                status_code=status,
                response_time_ms=int(chance.lognormvariate(7, 1)),
                first_token_ms=chance.choice([None, int(chance.lognormvariate(5, 1))]),
            )
        )
    return found


def fill(
    database: Database, requests: Sequence[UsageRecord], refusals: Sequence[RefusalRecord] = ()
) -> None:
    """Write them as the ledger does."""
    for start in range(0, len(requests), 500):
        part = requests[start : start + 500]
        database.run(partial(_write, part, ()), write=True)
    if refusals:
        database.run(partial(_write, (), refusals), write=True)


def _write(
    requests: Sequence[UsageRecord], refusals: Sequence[RefusalRecord], connection: Connection
) -> None:
    insert(connection, requests, refusals)


class _Undone(Exception):
    pass


def undone(database: Database, work: Callable[[Connection], T]) -> T:
    """What `work` finds in a transaction that leaves nothing behind."""
    found: list[T] = []

    def run(connection: Connection) -> None:
        found.append(work(connection))
        raise _Undone

    try:
        database.run(run, write=True)
    except _Undone:
        return found[0]
    raise AssertionError("a transaction that raises is no success")
