"""The rows of `catalog_incidents`. Moments are whole Unix seconds.

Several processes see the same incident, each from its own side: what overlaps is one row, as
long as the latest of them lasts. Incidents found by traffic have to be seen again and again, and
end where nobody sees them any more; those of other sources last until they are ended.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, Literal, NamedTuple

from msgspec import Struct
from sqlalchemy import Connection, bindparam, case, delete, func, or_, select, update

from manyways.store.bulk import Statement
from manyways.store.ids import new_id
from manyways.store.tables import catalog_incidents as incidents

Source = Literal["traffic", "verification", "list"]
"""How it was found out: callers failed; it failed a verification; its provider lists it no
more."""

SKEW: Final = 60
"""Seconds by which two processes may differ: who sees an incident so much later than another
says it ended still has it."""
_LOOK_BACK: Final = 86_400


class Sighting(Struct, frozen=True, kw_only=True):
    """An incident as one process has seen it. An empty `model` is the whole provider, and
    `credential` -1 all of them. `seen` is when it was last known to go on, `ended` is `None` as
    long as it does."""

    provider: str
    model: str = ""
    credential: int = -1
    source: Source
    began: int
    seen: int
    ended: int | None = None
    why: str


class Incident(Struct, frozen=True, kw_only=True):
    """A row. `id` is a UUID of version 7 of the moment it began."""

    id: str
    provider: str
    model: str
    credential: int
    source: Source
    began: int
    seen: int
    ended: int | None
    why: str


class Span(NamedTuple):
    """From when to when a model, or with an empty `model` a whole provider, was not to be had;
    without an end, it still is not."""

    provider: str
    model: str
    began: int
    ended: int | None


_Name = tuple[str, str, int, str]

_columns = incidents.c
_all = select(
    _columns.id,
    _columns.provider,
    _columns.model,
    _columns.credential,
    _columns.source,
    _columns.began_at.label("began"),
    _columns.seen_at.label("seen"),
    _columns.ended_at.label("ended"),
    _columns.why,
)
_open = _all.where(_columns.ended_at.is_(None))
_closed = _all.where(
    _columns.ended_at >= bindparam("since"), _columns.began_at >= bindparam("long_ago")
)
_INSERT: Final = Statement(
    "INSERT INTO catalog_incidents"
    " (id, provider, model, credential, source, began_at, seen_at, ended_at, why)",
    list(incidents.columns),
    "ON CONFLICT DO NOTHING",  # another process has begun it meanwhile
)
_change = (
    update(incidents)
    .where(_columns.id == bindparam("its_id"))
    .values(seen_at=bindparam("its_seen"), ended_at=bindparam("its_end"))
)
_end = (
    update(incidents)
    .where(
        _columns.provider == bindparam("its_provider"),
        _columns.model == bindparam("its_model"),
        _columns.source == bindparam("its_source"),
        _columns.ended_at.is_(None),
    )
    .values(
        ended_at=case(
            (_columns.began_at > bindparam("at"), _columns.began_at), else_=bindparam("at")
        )
    )
)


def record(connection: Connection, sightings: Sequence[Sighting]) -> None:
    """Keep what was seen, in this order. What overlaps an incident of the same name and source,
    or goes on with it, becomes part of it; the reason stays the first one.

    One that a process says has ended goes on where another has seen it since.
    """
    if not sightings:
        return
    rows = _known(connection, min(one.began for one in sightings))
    changed: dict[str, Incident] = {}
    new: dict[str, Incident] = {}
    for one in sightings:
        name = (one.provider, one.model, one.credential, one.source)
        found = _part_of(rows[name], one)
        if found is None:
            row = _begun(one, rows[name])
            if row is not None:
                rows[name].append(row)
                new[row.id] = row
            continue
        row = _with(found, one)
        rows[name][rows[name].index(found)] = row
        (new if row.id in new else changed)[row.id] = row
    if changed:
        connection.execute(
            _change,
            [
                {"its_id": row.id, "its_seen": row.seen, "its_end": row.ended}
                for row in changed.values()
            ],
        )
    if new:
        _INSERT.run(connection, [_values(row) for row in new.values()])


def end(
    connection: Connection, source: Source, names: Iterable[tuple[str, str]], at: float
) -> None:
    """The incidents of this source that go on for these models (provider, id) are over."""
    ends = [
        {"its_provider": provider, "its_model": model, "its_source": source, "at": int(at)}
        for provider, model in names
    ]
    if ends:
        connection.execute(_end, ends)


def going_on(connection: Connection, source: Source) -> set[tuple[str, str]]:
    """The models (provider, id) that have an incident of this source."""
    query = select(_columns.provider, _columns.model).where(
        _columns.ended_at.is_(None), _columns.source == source
    )
    return {(provider, model) for provider, model in connection.execute(query)}


def end_stale(connection: Connection, unseen_since: float) -> int:
    """Whoever saw these is gone: they ended when they were last seen. Of traffic only. Says how
    many there were."""
    return connection.execute(
        update(incidents)
        .where(
            _columns.ended_at.is_(None),
            _columns.source == "traffic",
            _columns.seen_at < int(unseen_since),
        )
        .values(ended_at=_columns.seen_at)
    ).rowcount


def listed(
    connection: Connection,
    *,
    provider: str | None = None,
    model: str | None = None,
    since: float | None = None,
    open_only: bool = False,
    before: str | None = None,
    limit: int,
) -> list[Incident]:
    """Incidents, those that began last first, `limit` at most: of a provider, of a model (with
    those of the whole provider, where that is named, too), those that went on after `since`,
    those that still do. `before` is the id of the last one told; what comes next follows it."""
    query = _all.order_by(_columns.id.desc()).limit(limit)
    if provider is not None:
        query = query.where(_columns.provider == provider)
    if model is not None:
        models = (model,) if provider is None else (model, "")
        query = query.where(_columns.model.in_(models))
    if since is not None:
        query = query.where(or_(_columns.ended_at.is_(None), _columns.ended_at >= int(since)))
    if open_only:
        query = query.where(_columns.ended_at.is_(None))
    if before is not None:
        query = query.where(_columns.id < before)
    return [Incident(**row) for row in connection.execute(query).mappings()]


def downtime(connection: Connection, since: float) -> list[Span]:
    """When models and providers were not to be had after a moment, all of their credentials. What
    traffic has found out lasts as long as it was last seen."""
    ended = case(
        (_columns.source == "traffic", func.coalesce(_columns.ended_at, _columns.seen_at)),
        else_=_columns.ended_at,
    ).label("ended")
    query = select(_columns.provider, _columns.model, _columns.began_at, ended).where(
        _columns.credential == -1,
        or_(_columns.ended_at.is_(None), _columns.ended_at > int(since)),
    )
    return [Span(*row) for row in connection.execute(query)]


def prune(connection: Connection, before: float) -> int:
    """Delete what was over before a moment. Says how many that were."""
    return connection.execute(delete(incidents).where(_columns.ended_at < int(before))).rowcount


def _known(connection: Connection, since: int) -> defaultdict[_Name, list[Incident]]:
    """By name: what goes on, and what ended since."""
    rows: defaultdict[_Name, list[Incident]] = defaultdict(list)
    closed = connection.execute(_closed, {"since": since, "long_ago": since - _LOOK_BACK})
    for found in (closed, connection.execute(_open)):
        for fields in found.mappings():
            row = Incident(**fields)
            rows[row.provider, row.model, row.credential, row.source].append(row)
    return rows


def _part_of(rows: list[Incident], one: Sighting) -> Incident | None:
    """The incident that goes on, if it is this one; else, if this one is over, one that it
    overlaps."""
    for row in rows:
        if row.ended is None and (one.ended is None or one.ended >= row.began):
            return row
    if one.ended is None:
        return None
    overlaps = (row for row in rows if row.ended is not None and row.began <= one.ended)
    return max(
        (row for row in overlaps if (row.ended or 0) >= one.began),
        key=lambda row: row.began,
        default=None,
    )


def _begun(one: Sighting, rows: list[Incident]) -> Incident | None:
    """A row of its own. What another process has ended while this one still sees it begins
    again where it ended; `None` where it was not seen beyond that."""
    ends = [row.ended for row in rows if row.ended is not None and row.began <= one.began]
    began = max([one.began, *(ended for ended in ends if ended >= one.began)])
    if one.ended is None and one.began < began and one.seen <= began:
        return None
    return Incident(
        id=new_id(began * 1_000_000_000),
        provider=one.provider,
        model=one.model,
        credential=one.credential,
        source=one.source,
        began=began,
        seen=max(one.seen, began),
        ended=one.ended,
        why=one.why,
    )


def _with(row: Incident, one: Sighting) -> Incident:
    """A row with what was seen now."""
    seen = max(row.seen, one.seen)
    ended = row.ended
    if one.ended is not None and not (row.ended is None and row.seen > one.ended + SKEW):
        ended = max(one.ended, row.ended or 0, row.began)
    return Incident(
        id=row.id,
        provider=row.provider,
        model=row.model,
        credential=row.credential,
        source=row.source,
        began=row.began,
        seen=seen,
        ended=ended,
        why=row.why,
    )


def _values(row: Incident) -> tuple[object, ...]:
    return (
        row.id,
        row.provider,
        row.model,
        row.credential,
        row.source,
        row.began,
        row.seen,
        row.ended,
        row.why,
    )
