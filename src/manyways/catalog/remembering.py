"""What was claimed of models, kept over restarts, with the history of what has changed."""

from collections.abc import Iterable
from typing import Final

import msgspec
from sqlalchemy import Connection

from manyways.catalog.catalog import Claim
from manyways.catalog.history import Change, changes, forgotten, stored
from manyways.store import catalog as store
from manyways.store import incidents, verifications
from manyways.types import Model

_WHY: Final = "its provider does not list it any more"


def remembered(connection: Connection) -> list[Claim]:
    """What was claimed when somebody last told. Rows that a newer program wrote, and this one
    does not understand, are left out."""
    found = []
    for row in store.remembered(connection):
        try:
            model = msgspec.json.decode(row.document, type=Model)
        except msgspec.MsgspecError:
            continue
        gone = None if row.gone_since is None else float(row.gone_since)
        found.append(Claim(model=model, gone_since=gone))
    return found


def remember(
    connection: Connection, provider: str, claims: Iterable[Claim], now: float
) -> list[Change]:
    """Keep what is claimed of a provider's models now, and what of that is new. What is not
    listed any more is an incident; what has left is forgotten."""
    before = [one for one in remembered(connection) if one.model.provider == provider]
    after = list(claims)
    listed = [one.model for one in after if one.gone_since is None]
    found = changes(
        [one.model for one in before if one.gone_since is None],
        listed,
        gone=[one.model for one in before if one.gone_since is not None],
    )
    known = {one.name for one in after}
    left = [one.model for one in before if one.name not in known]
    found += forgotten(left)
    store.note(connection, (store.Noted(*stored(one)) for one in found), now)
    old = {one.name: one for one in before}
    store.remember(connection, [_row(one, now) for one in after if old.get(one.name) != one])
    names = [(one.provider, one.id) for one in left]
    store.forget(connection, names)
    verifications.forget(connection, names)
    there = [(one.provider, one.id) for one in (*listed, *left)]
    incidents.end(connection, "list", there, now)
    gone = [one for one in after if one.gone_since is not None and old.get(one.name) != one]
    incidents.record(connection, [_incident(one, now) for one in gone])
    return found


def _row(claim: Claim, now: float) -> store.Remembered:
    gone = claim.gone_since
    return store.Remembered(
        claim.model.provider,
        claim.model.id,
        int(now),
        None if gone is None else int(gone),
        msgspec.json.encode(claim.model).decode(),
    )


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
