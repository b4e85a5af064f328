"""Answers that a repeated request gets again: who answers it, and what was answered.

Moments are Unix seconds. One row a key of a caller: first a claim, held by a lease that whoever
answers renews, then the answer.
"""

import zlib
from typing import Final, Literal

import msgspec
from msgspec import Struct
from sqlalchemy import (
    Connection,
    and_,
    bindparam,
    delete,
    select,
    text,
    tuple_,
    update,
)

from manyways.store.tables import idempotent_answers as answers

Pairs = tuple[tuple[str, str], ...]

LIFE: Final = 24 * 3600.0
"""Seconds for which an answer is kept."""


class Request(Struct, frozen=True, kw_only=True):
    """A request that came with a key. `owner` is who may repeat it, `fingerprint` the SHA-256
    of what was asked, `id` the request's own."""

    owner: str
    key: str
    fingerprint: bytes
    id: str


class Answer(Struct, frozen=True, kw_only=True):
    """An answer as it went out. `body` is `None` where it was too long to be kept."""

    request_id: str
    status: int
    headers: Pairs
    body: bytes | None


Found = Answer | Literal["claimed", "running", "conflict"]
"""What became of a claim: the answer is there; it is for the one who claims to answer; somebody
else is at it; the key was used for another request."""

_columns = answers.c
_mine = and_(
    _columns.owner == bindparam("its_owner"),
    _columns.key == bindparam("its_key"),
    _columns.request_id == bindparam("its_id"),
    _columns.lease_until.is_not(None),
)
# Both databases understand this as it stands. What has expired, or whose lease has lapsed, is
# taken over; the row of anybody else is left as it is.
_CLAIM = text(
    """
    INSERT INTO idempotent_answers
        (owner, key, fingerprint, request_id, lease_until, created_at, expires_at)
    VALUES (:owner, :key, :fingerprint, :id, :lease_until, :now, :expires_at)
    ON CONFLICT (owner, key) DO UPDATE SET
        fingerprint = excluded.fingerprint,
        request_id = excluded.request_id,
        lease_until = excluded.lease_until,
        status = NULL,
        headers = NULL,
        body = NULL,
        created_at = excluded.created_at,
        expires_at = excluded.expires_at
    WHERE idempotent_answers.expires_at <= :now
        OR idempotent_answers.lease_until <= :moment
    RETURNING request_id
    """
)
_find = select(
    _columns.fingerprint, _columns.request_id, _columns.status, _columns.headers, _columns.body
).where(_columns.owner == bindparam("owner"), _columns.key == bindparam("key"))
_renew = update(answers).where(_mine).values(lease_until=bindparam("until"))
_keep = (
    update(answers)
    .where(_mine)
    .values(
        lease_until=None,
        status=bindparam("its_status"),
        headers=bindparam("its_headers"),
        body=bindparam("its_body"),
        expires_at=bindparam("its_end"),
    )
)
_free = delete(answers).where(_mine)


def claim(connection: Connection, request: Request, now: float, lease: float) -> Found:
    """The right to answer the request for `lease` seconds, or why there is none."""
    mine = connection.execute(
        _CLAIM,
        {
            "owner": request.owner,
            "key": request.key,
            "fingerprint": request.fingerprint,
            "id": request.id,
            "lease_until": now + lease,
            "now": int(now),
            "moment": now,
            "expires_at": int(now + LIFE),
        },
    ).first()
    if mine is not None:
        return "claimed"
    found = connection.execute(_find, {"owner": request.owner, "key": request.key}).one_or_none()
    if found is None:  # given up a moment ago
        return "running"
    if bytes(found.fingerprint) != request.fingerprint:
        return "conflict"
    if found.status is None:
        return "running"
    return Answer(
        request_id=found.request_id,
        status=found.status,
        headers=msgspec.json.decode(found.headers, type=Pairs),
        body=None if found.body is None else zlib.decompress(found.body),
    )


def renew(connection: Connection, requests: tuple[Request, ...], until: float) -> None:
    """Leases that are still held last until then."""
    if requests:
        connection.execute(_renew, [{**_of(request), "until": until} for request in requests])


def packed(answer: Answer) -> bytes | None:
    """The body as it is kept. Takes some 10 ms a MiB: nothing for an event loop."""
    return None if answer.body is None else zlib.compress(answer.body, 1)


def keep(
    connection: Connection, request: Request, answer: Answer, body: bytes | None, now: float
) -> bool:
    """Keep the answer, its body as `packed`, from now on for `LIFE` seconds. Says whether the
    claim was still held."""
    kept = connection.execute(
        _keep,
        {
            **_of(request),
            "its_status": answer.status,
            "its_headers": msgspec.json.encode(answer.headers).decode(),
            "its_body": body,
            "its_end": int(now + LIFE),
        },
    )
    return kept.rowcount == 1


def free(connection: Connection, request: Request) -> None:
    """Give the claim up: the next one to ask may answer. Nothing where it is not held."""
    connection.execute(_free, _of(request))


def expire(connection: Connection, now: float, limit: int) -> int:
    """Delete rows whose time is over, the oldest first, `limit` at most. Says how many."""
    over = (
        select(_columns.owner, _columns.key)
        .where(_columns.expires_at <= int(now))
        .order_by(_columns.expires_at)
        .limit(limit)
    )
    gone = connection.execute(delete(answers).where(tuple_(_columns.owner, _columns.key).in_(over)))
    return gone.rowcount


def _of(request: Request) -> dict[str, object]:
    return {"its_owner": request.owner, "its_key": request.key, "its_id": request.id}
