"""What verifications have found, put into a database as they put it there."""

from typing import Any

import msgspec

from manyways.catalog.verified import Check, Verified
from manyways.store import verifications
from manyways.store.database import Database
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


def _plain(what: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(what)
    return plain
