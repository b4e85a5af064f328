"""The rows of verifications: runs, the checks they are made of, and what they found out.

Documents are JSON, read and written by those who know what is in them. The latest row of each
model is numbered in `changes` under `catalog`, so that every process hears of it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import delete, func, select, text, tuple_, update

from manyways.store.tables import (
    catalog_checks,
    catalog_runs,
    catalog_verifications,
    catalog_verified,
    changes,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

RUNNING, DONE, FAILED = "running", "done", "failed"


class RunRow(NamedTuple):
    """A verification of several models. `due` is the day it stands for, where it is one that was
    due; `scope` is JSON; `models` is not known before it has begun."""

    id: str
    due: str | None
    reason: str
    scope: str
    status: str
    created_at: int
    began_at: int | None = None
    ended_at: int | None = None
    models: int | None = None
    cost: float = 0.0
    problem: str | None = None


class VerificationRow(NamedTuple):
    """What one run found out about one model."""

    run_id: str
    provider: str
    model: str
    at: int
    verdict: str
    latency_ms: int | None
    quality: float | None
    document: str


class CheckRow(NamedTuple):
    """One check of one model."""

    provider: str
    model: str
    name: str
    document: str


# Runs


def insert_run(connection: Connection, row: RunRow) -> bool:
    """Whether it was made: the day of one that is due can be taken."""
    from sqlalchemy.dialects import postgresql, sqlite

    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    made = connection.execute(
        dialect.insert(catalog_runs)
        .values(row._asdict())
        .on_conflict_do_nothing(index_elements=["due"])
        .returning(catalog_runs.c.id)
    ).first()
    return made is not None


def run(connection: Connection, run_id: str) -> RunRow | None:
    """One run."""
    found = connection.execute(_runs.where(catalog_runs.c.id == run_id)).first()
    return None if found is None else RunRow(*found)


def unfinished(connection: Connection) -> list[RunRow]:
    """Runs that are to be carried out, the oldest first."""
    rows = connection.execute(_runs.where(catalog_runs.c.status == RUNNING).order_by("id"))
    return [RunRow(*row) for row in rows]


def runs(connection: Connection, limit: int) -> list[RunRow]:
    """The newest first."""
    return [
        RunRow(*row)
        for row in connection.execute(_runs.order_by(catalog_runs.c.id.desc()).limit(limit))
    ]


def begin_run(connection: Connection, run_id: str, *, models: int, now: int) -> None:
    """So many models are to be verified. Its first beginning counts."""
    began = func.coalesce(catalog_runs.c.began_at, now)
    connection.execute(
        update(catalog_runs)
        .where(catalog_runs.c.id == run_id)
        .values(models=models, began_at=began)
    )


def end_run(connection: Connection, run_id: str, *, problem: str | None, now: int) -> None:
    """It is done, or failed for a reason."""
    connection.execute(
        update(catalog_runs)
        .where(catalog_runs.c.id == run_id)
        .values(status=FAILED if problem else DONE, ended_at=now, problem=problem)
    )


# What they found


def save_checks(connection: Connection, run_id: str, rows: Iterable[CheckRow]) -> None:
    """Keep checks that were made, each once."""
    found = [{"run_id": run_id, **row._asdict()} for row in rows]
    if found:
        connection.execute(text(_SAVE_CHECK), found)


def save_verifications(
    connection: Connection,
    rows: Sequence[VerificationRow],
    *,
    cost: float,
    silent: Container[tuple[str, str]] = (),
) -> None:
    """Keep what was found out, as the latest word on these models, but for those (provider, id)
    about which it says nothing. `cost` is what has been spent since the last call, in USD."""
    if not rows:
        return
    connection.execute(text(_SAVE_VERIFICATION), [row._asdict() for row in rows])
    telling = [row for row in rows if (row.provider, row.model) not in silent]
    if telling:
        number = connection.execute(text(_NEXT)).scalar_one()
        latest = [
            {"provider": r.provider, "model": r.model, "document": r.document, "change": number}
            for r in telling
        ]
        connection.execute(text(_SAVE_VERIFIED), latest)
    spent = func.coalesce(catalog_runs.c.cost, 0.0) + cost
    connection.execute(
        update(catalog_runs).where(catalog_runs.c.id == rows[0].run_id).values(cost=spent)
    )


def checks(
    connection: Connection, run_id: str, provider: str | None = None, model: str | None = None
) -> list[CheckRow]:
    """The checks of a run, or of one model in it."""
    columns = catalog_checks.c
    query = select(columns.provider, columns.model, columns.name, columns.document).where(
        columns.run_id == run_id
    )
    if provider is not None:
        query = query.where(columns.provider == provider)
    if model is not None:
        query = query.where(columns.model == model)
    return [CheckRow(*row) for row in connection.execute(query)]


def latest_checks(connection: Connection, provider: str, model: str) -> list[CheckRow]:
    """The checks of the newest verification of a model whose checks are still kept."""
    columns = catalog_verifications.c
    newest = connection.execute(
        select(columns.run_id)
        .where(columns.provider == provider, columns.model == model)
        .order_by(columns.at.desc(), columns.run_id.desc())
        .limit(1)
    ).scalar()
    return [] if newest is None else checks(connection, newest, provider, model)


def verifications(connection: Connection, run_id: str) -> list[VerificationRow]:
    """What a run has found out so far."""
    return [
        VerificationRow(*row)
        for row in connection.execute(
            _verifications.where(catalog_verifications.c.run_id == run_id).order_by(
                catalog_verifications.c.provider, catalog_verifications.c.model
            )
        )
    ]


def verified_in(connection: Connection, run_id: str) -> set[tuple[str, str]]:
    """The models (provider, id) that a run has done with."""
    columns = catalog_verifications.c
    found = connection.execute(
        select(columns.provider, columns.model).where(columns.run_id == run_id)
    )
    return {(provider, model) for provider, model in found}


def counts(connection: Connection, run_id: str) -> dict[str, int]:
    """How many models of a run came to which verdict."""
    columns = catalog_verifications.c
    found = connection.execute(
        select(columns.verdict, func.count())
        .where(columns.run_id == run_id)
        .group_by(columns.verdict)
    )
    return {verdict: int(count) for verdict, count in found}


def history(
    connection: Connection,
    *,
    provider: str | None = None,
    model: str | None = None,
    since: int | None = None,
    limit: int,
) -> list[VerificationRow]:
    """What was found out about models, the newest first."""
    columns = catalog_verifications.c
    query = _verifications.order_by(columns.at.desc(), columns.run_id.desc()).limit(limit)
    if provider is not None:
        query = query.where(columns.provider == provider)
    if model is not None:
        query = query.where(columns.model == model)
    if since is not None:
        query = query.where(columns.at >= since)
    return [VerificationRow(*row) for row in connection.execute(query)]


def verified(connection: Connection, since: int = -1) -> list[tuple[str, str, str, int]]:
    """The latest word on each model (provider, model, document, change), of those that changed
    behind `since`."""
    columns = catalog_verified.c
    found = connection.execute(
        select(columns.provider, columns.model, columns.document, columns.change).where(
            columns.change > since
        )
    )
    return [(str(p), str(m), str(document), int(change)) for p, m, document, change in found]


def counted(connection: Connection) -> int:
    """How often the latest words have changed."""
    found = connection.execute(select(changes.c.counter).where(changes.c.name == "catalog"))
    return int(found.scalar_one_or_none() or 0)


def forget(connection: Connection, models: Sequence[tuple[str, str]]) -> None:
    """Nothing is known of models (provider, id) that have left; their history stays."""
    columns = catalog_verified.c
    for start in range(0, len(models), 500):
        some = models[start : start + 500]
        connection.execute(
            delete(catalog_verified).where(tuple_(columns.provider, columns.model).in_(some))
        )


def prune(connection: Connection, *, runs_before: int, checks_before: int) -> None:
    """Delete runs with what they found that ended before a moment, and the checks of others."""
    old = select(catalog_runs.c.id).where(catalog_runs.c.ended_at < runs_before)
    older = select(catalog_runs.c.id).where(catalog_runs.c.ended_at < checks_before)
    connection.execute(delete(catalog_checks).where(catalog_checks.c.run_id.in_(older)))
    connection.execute(delete(catalog_verifications).where(catalog_verifications.c.run_id.in_(old)))
    connection.execute(delete(catalog_runs).where(catalog_runs.c.ended_at < runs_before))


_runs = select(*(catalog_runs.c[name] for name in RunRow._fields))
_verifications = select(*(catalog_verifications.c[name] for name in VerificationRow._fields))

_NEXT = (
    "INSERT INTO changes (name, counter) VALUES ('catalog', 1)"
    " ON CONFLICT (name) DO UPDATE SET counter = changes.counter + 1 RETURNING counter"
)
_SAVE_CHECK = (
    "INSERT INTO catalog_checks (run_id, provider, model, name, document)"
    " VALUES (:run_id, :provider, :model, :name, :document)"
    " ON CONFLICT (run_id, provider, model, name) DO NOTHING"
)
_SAVE_VERIFICATION = (
    "INSERT INTO catalog_verifications"
    " (run_id, provider, model, at, verdict, latency_ms, quality, document)"
    " VALUES (:run_id, :provider, :model, :at, :verdict, :latency_ms, :quality, :document)"
    " ON CONFLICT (run_id, provider, model) DO NOTHING"
)
_SAVE_VERIFIED = (
    "INSERT INTO catalog_verified (provider, model, document, change)"
    " VALUES (:provider, :model, :document, :change)"
    " ON CONFLICT (provider, model)"
    " DO UPDATE SET document = excluded.document, change = excluded.change"
)
