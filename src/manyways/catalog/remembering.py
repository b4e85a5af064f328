"""What was claimed of models, kept over restarts, with the history of what has changed.

    listed ──▶ gone ──(`keep` seconds)──▶ left: forgotten, and what was verified of it

A model is gone when nobody claims it any more: its provider lists it no longer, it was taken out
of the configuration, or its whole provider was. One that comes back in time is the model that it
was, and what was verified of it holds. Rows that a newer program wrote, and this one does not
understand, are left alone.
"""

from collections.abc import Collection, Iterable
from typing import Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection

from manyways.catalog.catalog import Claim, Name, latest
from manyways.catalog.history import FIELDS, Change, changes, forgotten, stored
from manyways.store import catalog as store
from manyways.store import incidents, verifications
from manyways.types import Model

MOST_NOTED: Final = 2000
"""Changes that are noted when a provider tells its models once."""

_OURS: Final[tuple[incidents.Source, ...]] = ("list", "verification")
"""Incidents that last until they are ended."""
_WHY: Final = "its provider does not list it any more"


class Told(Struct, frozen=True, kw_only=True):
    """What is claimed of a provider's models. Until `asked`, its own list is not known, only
    what the configuration says: what that leaves open is as it was told last."""

    provider: str
    claims: tuple[Claim, ...]
    asked: bool = True


def remembered(connection: Connection) -> list[Claim]:
    """What was claimed when somebody last told."""
    return _known(store.remembered(connection))


def remember(connection: Connection, told: Told, now: float) -> list[Change]:
    """Keep what is claimed of a provider's models now, and what of that is new. What its provider
    does not list any more is an incident."""
    before = {one.name: one for one in _known(store.remembered(connection, told.provider))}
    after = {one.name: _whole(one) for one in told.claims}
    if not told.asked:
        after = {name: _as_told_last(one, before.get(name)) for name, one in after.items()}
    missing = [one for one in after.values() if one.gone_since is not None]
    unclaimed = {name: one for name, one in before.items() if name not in after}
    for name, one in unclaimed.items():
        since = int(now) if one.gone_since is None else one.gone_since
        after[name] = Claim(model=one.model, gone_since=float(since))
    gone = [one for one in after.values() if one.gone_since is not None]
    kept = {one.name for one in latest(gone, len(after) - len(gone))}
    dropped = [one.name for one in gone if one.name not in kept]
    for name in dropped:
        del after[name]
    found = changes(
        [one.model for one in before.values() if one.gone_since is None],
        [one.model for one in after.values() if one.gone_since is None],
        gone=[one.model for one in before.values() if one.gone_since is not None],
    )
    new = {name: one for name, one in after.items() if before.get(name) != one}
    _keep(connection, new.values(), found[:MOST_NOTED], now)
    store.forget(connection, dropped)
    verifications.forget(connection, dropped)
    incidents.end(connection, "list", dropped, now)
    incidents.end(connection, "verification", [*dropped, *unclaimed], now)  # nobody asks them
    there = [name for name, one in new.items() if one.gone_since is None]
    incidents.end(connection, "list", there, now)
    incidents.record(connection, [_incident(one, now) for one in missing if one.name in new])
    return found


def forget(
    connection: Connection,
    claimed: Collection[Name],
    providers: Collection[str],
    now: float,
    *,
    keep: float,
) -> list[Change]:
    """Forget what has been gone for `keep` seconds and is not `claimed`. What other than these
    `providers` had is gone from now on. Incidents of whom nobody knows any more are over."""
    rows = [one for one in remembered(connection) if one.name not in claimed]
    gone = [
        Claim(model=one.model, gone_since=float(int(now)))
        for one in rows
        if one.gone_since is None and one.model.provider not in providers
    ]
    left = [one for one in rows if one.gone_since is not None and now - one.gone_since >= keep]
    found = changes([one.model for one in gone], []) + forgotten([one.model for one in left])
    _keep(connection, gone, found, now)
    names = [one.name for one in left]
    store.forget(connection, names)
    verifications.forget(connection, names)
    there = {(row.provider, row.id) for row in store.remembered(connection)}.union(claimed)
    there -= {one.name for one in gone}
    for source in _OURS:
        over = incidents.going_on(connection, source) - there
        incidents.end(connection, source, sorted(over), now)
    return found


def _known(rows: Iterable[store.Remembered]) -> list[Claim]:
    found = []
    for row in rows:
        try:
            model = msgspec.json.decode(row.document, type=Model)
        except msgspec.MsgspecError:
            continue
        gone = None if row.gone_since is None else float(row.gone_since)
        found.append(Claim(model=model, gone_since=gone))
    return found


def _keep(
    connection: Connection, claims: Iterable[Claim], found: Iterable[Change], now: float
) -> None:
    rows = [
        store.Remembered(
            one.model.provider,
            one.model.id,
            int(now),
            None if one.gone_since is None else int(one.gone_since),
            msgspec.json.encode(one.model).decode(),
        )
        for one in claims
    ]
    store.remember(connection, rows)
    store.note(connection, (store.Noted(*stored(one)) for one in found), now)


def _whole(claim: Claim) -> Claim:
    """As it is kept: moments are whole seconds."""
    gone = claim.gone_since
    return claim if gone is None else Claim(model=claim.model, gone_since=float(int(gone)))


def _as_told_last(claim: Claim, before: Claim | None) -> Claim:
    if before is None:
        return claim
    known = {
        field: getattr(before.model, field)
        for field in FIELDS
        if getattr(claim.model, field) in (None, ())
    }
    return Claim(model=msgspec.structs.replace(claim.model, **known), gone_since=claim.gone_since)


def _incident(claim: Claim, now: float) -> incidents.Sighting:
    began = int(claim.gone_since or now)
    return incidents.Sighting(
        provider=claim.model.provider,
        model=claim.model.id,
        source="list",
        began=began,
        seen=began,
        why=_WHY,
    )
