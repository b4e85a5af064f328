"""The operator's pages about accounts: list, make, look at, change, suspend, resume."""

import time
from collections.abc import Callable
from typing import Any, Final

from manyways import operations
from manyways.edge.admin_keys import limits_of, moment, noted
from manyways.edge.body import body_fields
from manyways.edge.clerk import Clerk, answer
from manyways.edge.exchange import Exchange
from manyways.edge.query import page_of
from manyways.errors import Refusal
from manyways.operations import AccountRow
from manyways.operations.accounts import near_accounts
from manyways.operations.notes import set_account_note
from manyways.operations.remainders import account_scope, limits_document
from manyways.store.database import Database
from manyways.store.limits import plain
from manyways.types import Allowance

_NO_LIMITS: Final = Allowance()


class AccountPages:
    """`/admin/v1/accounts` and what is below. An account is named by its id or its name.

    `usual` limits hold for accounts that have none of their own. `clock` tells Unix seconds.
    """

    def __init__(
        self,
        clerk: Clerk,
        *,
        usual: Allowance = _NO_LIMITS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clerk = clerk
        self._usual = usual
        self._clock = clock

    async def list(self, exchange: Exchange) -> None:
        """`GET /admin/v1/accounts[?cursor=&limit=]`. Raises `Refusal`."""
        page = page_of(await self._clerk.admit(exchange, "cursor", "limit"))
        rows = await self._clerk.look(
            lambda database: operations.list_accounts(
                database, after=page.after, limit=page.limit + 1
            )
        )
        await answer(exchange, page.document([account_document(row) for row in rows]))

    async def create(self, exchange: Exchange) -> None:
        """`POST /admin/v1/accounts`: 201. Raises `Refusal`."""
        await self._clerk.admit(exchange)
        fields = await body_fields(exchange, "name", "note", "limits")
        name, note, limits = fields.needed("name"), fields.text("note"), limits_of(fields)
        now = self._clock()
        row = await self._clerk.change(
            exchange,
            "account made",
            lambda database: operations.create_account(
                database, name=name, note=note, limits=limits, now=now
            ),
        )
        await answer(exchange, account_document(row), 201)

    async def show(self, exchange: Exchange, account: str) -> None:
        """`GET /admin/v1/accounts/{id}`. Raises `Refusal`."""
        await self._clerk.admit(exchange)
        now = self._clock()

        def look(database: Database) -> dict[str, Any]:
            row = _found(database, account)
            scope = account_scope(row.id, row.limits, self._usual)
            limits = database.run(lambda one: limits_document(one, [scope], now))
            return {**account_document(row), "in_effect": limits}

        await answer(exchange, await self._clerk.look(look))

    async def change(self, exchange: Exchange, account: str) -> None:
        """`PATCH /admin/v1/accounts/{id}`: what is named is changed, `null` takes it away.

        Raises `Refusal`.
        """
        await self._clerk.admit(exchange)
        fields = await body_fields(exchange, "limits", "note")
        limits, note = limits_of(fields), noted(fields)
        now = self._clock()

        def change(database: Database) -> AccountRow:
            row = _found(database, account)
            if "limits" in fields:
                row = operations.set_account_limits(database, row.id, limits, now=now) or row
            if "note" in fields:
                row = set_account_note(database, row.id, note) or row
            return row

        row = await self._clerk.change(exchange, "account changed", change)
        await answer(exchange, account_document(row))

    async def suspend(self, exchange: Exchange, account: str) -> None:
        """`POST /admin/v1/accounts/{id}/suspend`: none of its keys works. Raises `Refusal`."""
        await self._clerk.admit(exchange)
        reason = (await body_fields(exchange, "reason")).text("reason")
        now = self._clock()

        def suspend(database: Database) -> AccountRow:
            row = _found(database, account)
            return operations.suspend_account(database, row.id, reason=reason, now=now) or row

        row = await self._clerk.change(exchange, "account suspended", suspend)
        await answer(exchange, account_document(row))

    async def resume(self, exchange: Exchange, account: str) -> None:
        """`POST /admin/v1/accounts/{id}/resume`: its keys work again. Raises `Refusal`."""
        await self._clerk.admit(exchange)
        await body_fields(exchange)
        now = self._clock()

        def resume(database: Database) -> AccountRow:
            row = _found(database, account)
            return operations.resume_account(database, row.id, now=now) or row

        row = await self._clerk.change(exchange, "account resumed", resume)
        await answer(exchange, account_document(row))


def account_document(row: AccountRow) -> dict[str, Any]:
    """An account as JSON has it."""
    return {
        "id": row.id,
        "object": "account",
        "name": row.name,
        "status": "active" if row.active else "suspended",
        "note": row.note,
        "limits": None if row.limits is None else plain(row.limits),
        "created_at": moment(row.created_at),
        "suspended_at": moment(row.suspended_at),
        "suspended_reason": row.suspended_reason,
    }


def _found(database: Database, account: str) -> AccountRow:
    row = operations.get_account(database, account)
    if row is None:
        near = database.run(lambda connection: near_accounts(connection, account[:200]))
        words = f"There is no account with the id or name '{account[:200]}'. {near}"
        raise Refusal("not_found", words.rstrip())
    return row
