"""Verifications that operators ask for: begun, looked at, followed.

Everything may raise `StoreError`.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, and_, exists, select

from manyways.catalog.verified import Verified
from manyways.operations.reports import iso
from manyways.operations.wording import Mistake
from manyways.store import verifications
from manyways.store.database import Database
from manyways.store.ids import new_id
from manyways.store.tables import catalog_checks, catalog_verifications
from manyways.store.verifications import RUNNING, RunRow

ASKED: Final = "asked"
"""Why a run is made that somebody asked for."""
MOST: Final = 100
"""Runs that may wait to be carried out."""
AT_ONCE: Final = 20
"""Models that `progress` names at most."""

_VERDICTS: Final = ("passed", "failed", "unsure", "skipped")


class Scope(Struct, frozen=True, kw_only=True):
    """Which models a run is about: those of one provider, those of one name, or all."""

    provider: str | None = None
    model: str | None = None


EVERYTHING: Final = Scope()


class Refresh(NamedTuple):
    """A run, and where it stands: `running`, `done` or `failed`."""

    id: str
    status: str


class Progress(Struct, frozen=True, kw_only=True):
    """How far a run is. `models` is `None` before it has begun, `current` names models that are
    being asked, `cost` is in USD."""

    status: str
    models: int | None = None
    done: int = 0
    failed: int = 0
    current: tuple[str, ...] = ()
    cost: float = 0.0
    problem: str | None = None


def refresh(database: Database, scope: Scope = EVERYTHING, *, now: float) -> Refresh:
    """A run that whoever serves this database carries out; where one that asks the same is not
    over yet, that one. Whether there is such a provider or model is the caller's to know."""

    def begin(connection: Connection) -> Refresh:
        found = under_way(connection, scope)
        if found is not None:
            return found
        if len(verifications.unfinished(connection)) >= MOST:
            raise Mistake("model", f"{MOST} verifications wait already; ask when some are over.")
        row = RunRow(
            id=new_id(int(now * 1e9)),
            due=None,
            reason=ASKED,
            scope=msgspec.json.encode(scope).decode(),
            status=RUNNING,
            created_at=int(now),
        )
        verifications.insert_run(connection, row)
        return Refresh(row.id, row.status)

    return database.run(begin, write=True)


def under_way(connection: Connection, scope: Scope) -> Refresh | None:
    """The run of just this scope that was asked for, or was due, and is not over yet."""
    for row in verifications.unfinished(connection):
        whole = row.due is not None or row.reason == ASKED  # and leaves nothing of its scope out
        if whole and msgspec.json.decode(row.scope, type=Scope) == scope:
            return Refresh(row.id, row.status)
    return None


def refresh_status(database: Database, run_id: str) -> dict[str, Any] | None:
    """A run with everything that it has found out so far, as JSON has it; `None` where there is
    none of this id."""

    def look(connection: Connection) -> dict[str, Any] | None:
        row = verifications.run(connection, run_id)
        if row is None:
            return None
        found = verifications.verifications(connection, run_id)
        return {
            **_run_document(row, verifications.counts(connection, run_id)),
            "results": [verified_document(one.document) for one in found],
        }

    return database.run(look)


def refreshes(database: Database, *, limit: int) -> list[dict[str, Any]]:
    """The latest runs, the newest first, without what they have found."""

    def look(connection: Connection) -> list[dict[str, Any]]:
        return [
            _run_document(row, verifications.counts(connection, row.id))
            for row in verifications.runs(connection, limit)
        ]

    return database.run(look)


def progress(connection: Connection, run_id: str) -> Progress | None:
    """How far a run is; `None` where there is none of this id."""
    row = verifications.run(connection, run_id)
    if row is None:
        return None
    counts = verifications.counts(connection, run_id)
    return Progress(
        status=row.status,
        models=row.models,
        done=sum(counts.values()),
        failed=counts.get("failed", 0),
        current=_current(connection, run_id) if row.status == RUNNING else (),
        cost=row.cost,
        problem=row.problem,
    )


def latencies(connection: Connection, *, since: int) -> dict[tuple[str, str], list[int | None]]:
    """The latencies in ms that verifications have found since a moment, the oldest first, by
    provider and model; `None` where it did not answer."""
    columns = catalog_verifications.c
    found: dict[tuple[str, str], list[int | None]] = {}
    for provider, model, latency in connection.execute(
        select(columns.provider, columns.model, columns.latency_ms)
        .where(columns.at >= since)
        .order_by(columns.at)
    ):
        found.setdefault((provider, model), []).append(latency)
    return found


def flags(connection: Connection) -> dict[tuple[str, str], dict[str, str]]:
    """What is suspicious, by provider and model: the flags, each with its reason."""
    found = {}
    for provider, model, document, _ in verifications.verified(connection):
        told = msgspec.json.decode(document, type=_Flags).flags
        if told:
            found[provider, model] = told
    return found


def verified_document(document: str) -> dict[str, Any]:
    """What a verification found out about one model, as JSON has it."""
    found = msgspec.json.decode(document, type=Verified)
    score = found.quality
    return {
        "object": "catalog.verification",
        "provider": found.provider,
        "model": found.model,
        "verified_at": iso(found.at),
        "verdict": found.verdict,
        "reason": found.reason or None,
        "latency_ms": found.latency_ms,
        "first_token_ms": found.first_token_ms,
        "tokens_per_second": found.tokens_per_second,
        "quality_score": None if score is None else score.score,
        "quality_interval": None if score is None else [score.low, score.high],
        "quality_version": None if score is None else score.version,
        "proven": list(found.proven),
        "withdrawn": found.withdrawn,
        "flags": found.flags,
        "requests": found.requests,
        "tokens": found.tokens,
        "cost_usd": found.cost,
    }


class _Flags(Struct):
    """As much of a `Verified` as lists show."""

    flags: dict[str, str] = {}


def _run_document(row: RunRow, counts: Mapping[str, int]) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "catalog.refresh",
        "status": row.status,
        "reason": row.reason,
        "scope": msgspec.to_builtins(msgspec.json.decode(row.scope, type=Scope)),
        "created_at": iso(row.created_at),
        "started_at": None if row.began_at is None else iso(row.began_at),
        "ended_at": None if row.ended_at is None else iso(row.ended_at),
        "counts": {
            "models": row.models,
            "done": sum(counts.values()),
            **{verdict: counts.get(verdict, 0) for verdict in _VERDICTS},
        },
        "cost_usd": row.cost,
        "problem": row.problem,
    }


def _current(connection: Connection, run_id: str) -> tuple[str, ...]:
    """Models with checks, and without the word on them."""
    checks, done = catalog_checks.c, catalog_verifications.c
    over = exists().where(
        and_(
            done.run_id == checks.run_id,
            done.provider == checks.provider,
            done.model == checks.model,
        )
    )
    rows = connection.execute(
        select(checks.provider, checks.model)
        .where(checks.run_id == run_id, ~over)
        .distinct()
        .limit(AT_ONCE)
    )
    return tuple(sorted(f"{provider}/{model}" for provider, model in rows))
