"""The rows of the catalog: what providers have told of their models, and what has changed.

Moments are whole Unix seconds. Documents and values are JSON, read and written by those who know
what is in them. Texts hold no NUL and no half of a surrogate pair.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, delete, or_, select

from manyways.store.bulk import Statement
from manyways.store.ids import new_id
from manyways.store.tables import catalog_changes, catalog_models


class Remembered(NamedTuple):
    """One model of one provider as it was told last. `gone_since` is when it was listed no
    more; `None`: it is there."""

    provider: str
    id: str
    first_seen: int
    gone_since: int | None
    document: str


class Noted(NamedTuple):
    """One change. `before` and `after` are JSON."""

    provider: str
    model: str
    kind: str
    field: str | None = None
    before: str | None = None
    after: str | None = None


class Entry(NamedTuple):
    """A change as it is kept: `id` is a UUID of version 7, greater than those noted before."""

    id: str
    at: int
    provider: str
    model: str
    kind: str
    field: str | None
    before: str | None
    after: str | None


MOST: Final = 200_000
"""Changes that are kept: a provider that tells other models each time must not fill the disk."""

_models = catalog_models.c
_changes = catalog_changes.c
_UPSERT: Final = Statement(
    "INSERT INTO catalog_models (provider, id, first_seen, gone_since, document)",
    list(catalog_models.columns),
    """
    ON CONFLICT (provider, id) DO UPDATE SET
        first_seen = CASE
            WHEN excluded.first_seen < catalog_models.first_seen THEN excluded.first_seen
            ELSE catalog_models.first_seen
        END,
        gone_since = excluded.gone_since,
        document = excluded.document
    """,
)
_NOTE: Final = Statement(
    "INSERT INTO catalog_changes (id, at, provider, model, kind, field, before, after)",
    list(catalog_changes.columns),
    "",
)
_forget = delete(catalog_models).where(
    _models.provider == bindparam("its_provider"), _models.id == bindparam("its_id")
)


def remembered(connection: Connection, provider: str | None = None) -> list[Remembered]:
    """All models, or one provider's, by provider and id."""
    query = select(*(_models[name] for name in Remembered._fields))
    if provider is not None:
        query = query.where(_models.provider == provider)
    rows = connection.execute(query.order_by(_models.provider, _models.id))
    return [Remembered(*row) for row in rows]


def remember(connection: Connection, rows: Iterable[Remembered]) -> None:
    """Keep what is told of these models now. `first_seen` is the earliest that was ever given;
    of several rows of one model, the last counts."""
    latest = {(row.provider, row.id): row for row in rows}
    # In one order, so that two processes do not wait for each other.
    _UPSERT.run(connection, [latest[key] for key in sorted(latest)])


def forget(connection: Connection, keys: Iterable[tuple[str, str]]) -> None:
    """Models, by provider and id, leave. Those that are not there do no harm."""
    gone = [{"its_provider": provider, "its_id": model} for provider, model in sorted(keys)]
    if gone:
        connection.execute(_forget, gone)


def note(connection: Connection, changes: Iterable[Noted], at: float) -> None:
    """Keep changes that happened now, in this order."""
    _NOTE.run(connection, [Entry(new_id(), int(at), *change) for change in changes])


def changes(
    connection: Connection,
    *,
    provider: str | None = None,
    model: str | None = None,
    since: float | None = None,
    before: str | None = None,
    limit: int,
) -> list[Entry]:
    """Changes, the newest first, `limit` at most: of a provider, of a model by its id, those at
    `since` or later. `before` is the id of the last one told; what comes next follows it."""
    query = select(*(_changes[name] for name in Entry._fields))
    if provider is not None:
        query = query.where(_changes.provider == provider)
    if model is not None:
        query = query.where(_changes.model == model)
    if since is not None:
        query = query.where(_changes.at >= int(since))
    if before is not None:
        query = query.where(_changes.id < before)
    rows = connection.execute(query.order_by(_changes.id.desc()).limit(limit))
    return [Entry(*row) for row in rows]


def prune(connection: Connection, before_at: float, *, most: int = MOST) -> int:
    """Delete changes from before this moment, and of the rest all but the newest. Says how many."""
    oldest = connection.execute(
        select(_changes.id).order_by(_changes.id.desc()).offset(most).limit(1)
    ).scalar()
    old = _changes.at < int(before_at)
    if oldest is not None:
        old = or_(old, _changes.id <= oldest)
    return connection.execute(delete(catalog_changes).where(old)).rowcount


def first_seen(connection: Connection) -> dict[tuple[str, str], int]:
    """When each model (provider, id) was seen first, in Unix seconds."""
    rows = connection.execute(select(_models.provider, _models.id, _models.first_seen))
    return {(provider, model): int(at) for provider, model, at in rows}
