"""The operator's pages about keys: list, make, look at, change, replace, revoke."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, get_args

from manyways import operations
from manyways.access.keys import Settings
from manyways.edge.body import Fields, as_seconds, body_fields, wrong
from manyways.edge.clerk import Clerk, answer
from manyways.edge.exchange import Exchange
from manyways.edge.query import page_of
from manyways.errors import Refusal
from manyways.operations import CreatedKey, KeyRow, Mistake
from manyways.operations.notes import set_key_note
from manyways.operations.remainders import limits_in_effect
from manyways.operations.wording import one_line
from manyways.store.database import Database
from manyways.store.keys import Standing
from manyways.store.limits import plain
from manyways.types import Allowance

_STATES: Final = (*get_args(Standing), "all")
_NO_LIMITS: Final = Allowance()
_BATCH: Final = 1000
_BATCHES: Final = 20
"""How far one page looks for keys in a state. A page may come with fewer rows than there are."""


class KeyPages:
    """`/admin/v1/keys` and what is below. `accounts` are the limits of accounts that have none
    of their own. `clock` tells Unix seconds."""

    def __init__(
        self,
        clerk: Clerk,
        settings: Settings,
        *,
        accounts: Allowance = _NO_LIMITS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clerk = clerk
        self._settings = settings
        self._accounts = accounts
        self._clock = clock

    async def list(self, exchange: Exchange) -> None:
        """`GET /admin/v1/keys[?account=&status=&cursor=&limit=]`. Raises `Refusal`."""
        query = await self._clerk.admit(exchange, "account", "status", "cursor", "limit")
        status = query["status"] or "all"
        if status not in _STATES:
            raise wrong("status", f"must be one of {', '.join(_STATES)}")
        page = page_of(query)
        now = self._clock()

        def look(database: Database) -> dict[str, Any]:
            rows: list[KeyRow] = []
            after = page.after
            for _ in range(_BATCHES):
                batch = operations.list_keys(
                    database,
                    account=query["account"],
                    alive_at=now if status == "active" else None,
                    after=after,
                    limit=page.limit + 1 if status == "all" else _BATCH,
                )
                rows += [row for row in batch if status in {"all", row.standing(now)}]
                if len(rows) > page.limit or status == "all" or len(batch) < _BATCH:
                    return page.document([key_document(row, now) for row in rows])
                after = batch[-1].id
            return page.document([key_document(row, now) for row in rows], more_behind=after)

        await answer(exchange, await self._clerk.look(look))

    async def create(self, exchange: Exchange) -> None:
        """`POST /admin/v1/keys`: 201, and the secret, this once. Raises `Refusal`."""
        await self._clerk.admit(exchange)
        fields = await body_fields(exchange, "type", "account", "note", "limits", "expires_in")
        key_type, account, note = fields.needed("type"), fields.text("account"), fields.text("note")
        limits = limits_of(fields)
        lifetime = fields.seconds("expires_in", or_never=True)
        now = self._clock()

        def create(database: Database) -> dict[str, Any]:
            try:
                made = operations.create_key(
                    database,
                    self._settings,
                    key_type,
                    note=note,
                    account=account,
                    limits=limits,
                    lifetime=lifetime,
                    now=now,
                )
            except Mistake as mistake:
                if mistake.field != "lifetime":
                    raise
                raise Mistake("expires_in", f"expires_in: {mistake}") from None
            return _with_secret(database, made, now)

        await answer(exchange, await self._clerk.change(exchange, "key made", create), 201)

    async def show(self, exchange: Exchange, key_id: str) -> None:
        """`GET /admin/v1/keys/{id}`. Raises `Refusal`."""
        await self._clerk.admit(exchange)
        now = self._clock()

        def look(database: Database) -> dict[str, Any] | None:
            row = operations.get_key(database, key_id)
            if row is None:
                return None
            limits = limits_in_effect(
                database, row, types=self._settings.types, usual=self._accounts, now=now
            )
            return {**key_document(row, now), "in_effect": limits}

        content = await self._clerk.look(look)
        if content is None:
            raise _unknown(key_id)
        await answer(exchange, content)

    async def change(self, exchange: Exchange, key_id: str) -> None:
        """`PATCH /admin/v1/keys/{id}`: what is named is changed, `null` takes it away.

        Raises `Refusal`.
        """
        await self._clerk.admit(exchange)
        fields = await body_fields(exchange, "limits", "note")
        limits, note = limits_of(fields), noted(fields)
        now = self._clock()

        def change(database: Database) -> KeyRow | None:
            row = operations.get_key(database, key_id)
            if row is not None and "limits" in fields:
                row = operations.set_key_limits(database, key_id, limits, now=now)
            if row is not None and "note" in fields:
                row = set_key_note(database, key_id, note)
            return row

        await self._answer(
            exchange, await self._clerk.change(exchange, "key changed", change), key_id
        )

    async def revoke(self, exchange: Exchange, key_id: str) -> None:
        """`POST /admin/v1/keys/{id}/revoke`: it works no more. Raises `Refusal`."""
        await self._clerk.admit(exchange)
        reason = (await body_fields(exchange, "reason")).text("reason")
        now = self._clock()
        row = await self._clerk.change(
            exchange,
            "key revoked",
            lambda database: operations.revoke_key(database, key_id, reason=reason, now=now),
        )
        await self._answer(exchange, row, key_id)

    async def rotate(self, exchange: Exchange, key_id: str) -> None:
        """`POST /admin/v1/keys/{id}/rotate`: 201, and another secret in its place, this once.

        Raises `Refusal`.
        """
        await self._clerk.admit(exchange)
        overlap = (await body_fields(exchange, "overlap")).seconds("overlap")
        now = self._clock()

        def rotate(database: Database) -> dict[str, Any] | None:
            try:
                made = operations.rotate_key(
                    database,
                    self._settings,
                    key_id,
                    overlap=operations.OVERLAP if overlap is None else overlap,
                    now=now,
                )
            except Mistake as mistake:
                if mistake.field != "key":
                    raise
                raise Refusal("invalid_request", str(mistake)) from None  # no field is at fault
            if made is None:
                return None
            old = {"id": made.replaces, "expires_at": moment(made.replaced_until)}
            return {**_with_secret(database, made, now), "replaces": old}

        content = await self._clerk.change(exchange, "key replaced", rotate)
        if content is None:
            raise _unknown(key_id)
        await answer(exchange, content, 201)

    async def _answer(self, exchange: Exchange, row: KeyRow | None, key_id: str) -> None:
        if row is None:
            raise _unknown(key_id)
        await answer(exchange, key_document(row, self._clock()))


def key_document(row: KeyRow, now: float) -> dict[str, Any]:
    """A key as JSON has it, at a moment."""
    return {
        "id": row.id,
        "object": "key",
        "last4": row.last4,
        "type": row.type,
        "status": row.standing(now),
        "account_id": row.account_id,
        "account": row.account,
        "note": row.note,
        "limits": None if row.limits is None else plain(row.limits),
        "created_at": moment(row.created_at),
        "expires_at": moment(row.expires_at),
        "last_used_at": moment(row.last_used_at),
        "revoked_at": moment(row.revoked_at),
        "revoked_reason": row.revoked_reason,
        "line": row.line,
        "replaced_by": row.replaced_by,
    }


def limits_of(fields: Fields) -> Allowance | None:
    """The limits that came: durations may have units. Raises `Refusal`."""
    value = fields.value("limits")
    if isinstance(value, dict):
        value = dict(value)
        for name in ("window", "tokens_window"):
            if value.get(name) is not None:
                seconds = as_seconds(value[name])
                if seconds is None:
                    raise wrong(f"limits.{name}", 'must be a time such as "1m", "24h" or "30d"')
                value[name] = seconds
    try:
        return operations.as_limits(value)
    except Mistake as mistake:
        raise Refusal("invalid_request", str(mistake), param=mistake.field) from None


def noted(fields: Fields) -> str | None:
    """The note that came, on one line. Raises `Refusal`."""
    try:
        return one_line("note", fields.text("note"))
    except Mistake as mistake:
        raise Refusal("invalid_request", str(mistake), param=mistake.field) from None


def moment(seconds: int | None) -> str | None:
    """`2026-01-31T09:30:00Z`."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%FT%TZ")


def _with_secret(database: Database, made: CreatedKey, now: float) -> dict[str, Any]:
    row = operations.get_key(database, made.id)
    if row is None:
        raise RuntimeError("a key that was made is gone")
    return {"key": made.key, **key_document(row, now)}


def _unknown(key_id: str) -> Refusal:
    return Refusal("not_found", f"There is no key with the id '{key_id[:100]}'.")
