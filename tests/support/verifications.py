"""What verifications have found and what has become of models, put into a database."""

from typing import Any

import msgspec
from sqlalchemy import insert

from manyways.catalog.verified import Check, Verified
from manyways.store import verifications
from manyways.store.database import Database
from manyways.store.ids import new_id
from manyways.store.tables import catalog_changes, catalog_incidents
from manyways.store.verifications import CheckRow, VerificationRow

NOON = 1_800_000_000
"""2027-01-15T08:00:00Z."""


def found(model: str, *, provider: str = "Capi", at: float = NOON, **what: Any) -> Verified:
    """What a verification found out about one model; it passed unless said otherwise."""
    return msgspec.convert(
        {"provider": provider, "model": model, "at": at, "verdict": "passed", **_plain(what)},
        Verified,
    )


def save(database: Database, run_id: str, *rows: Verified) -> None:
    """As one run found it, and the latest word on these models."""
    kept = [
        VerificationRow(
            run_id,
            row.provider,
            row.model,
            int(row.at),
            row.verdict,
            row.latency_ms,
            None if row.quality is None else row.quality.score,
            msgspec.json.encode(row).decode(),
        )
        for row in rows
    ]
    cost = sum(row.cost for row in rows)
    database.run(lambda one: verifications.save_verifications(one, kept, cost=cost), write=True)


def save_checks(database: Database, run_id: str, model: Verified, *checks: Check) -> None:
    """The checks that it follows from."""
    rows = [
        CheckRow(model.provider, model.model, one.name, msgspec.json.encode(one).decode())
        for one in checks
    ]
    database.run(lambda one: verifications.save_checks(one, run_id, rows), write=True)


def change(
    database: Database,
    model: str,
    *,
    provider: str = "Capi",
    at: int = NOON,
    kind: str = "changed",
    field: str | None = "context_window",
    before: object = None,
    after: object = None,
) -> None:
    """A change of a model."""
    row = {
        "id": new_id(at * 10**9),
        "at": at,
        "provider": provider,
        "model": model,
        "kind": kind,
        "field": field,
        "before": msgspec.json.encode(before).decode(),
        "after": msgspec.json.encode(after).decode(),
    }
    database.run(lambda one: one.execute(insert(catalog_changes).values(row)), write=True)


def incident(
    database: Database,
    model: str,
    *,
    provider: str = "Capi",
    credential: int = -1,
    source: str = "traffic",
    began: int,
    ended: int | None = None,
    why: str = "HTTP 500",
) -> None:
    """An incident of a model; without a name, of the whole provider."""
    row = {
        "id": new_id(began * 10**9),
        "provider": provider,
        "model": model,
        "credential": credential,
        "source": source,
        "began_at": began,
        "seen_at": began if ended is None else ended,
        "ended_at": ended,
        "why": why,
    }
    database.run(lambda one: one.execute(insert(catalog_incidents).values(row)), write=True)


def _plain(what: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(what)
    return plain
