"""What was used: by one's own key, for its owner; by everybody, for operators."""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

from msgspec.structs import replace
from sqlalchemy import Connection

from manyways.dialects import json_text
from manyways.edge.body import wrong
from manyways.edge.exchange import JSON, Exchange
from manyways.edge.query import only_fields, page_of
from manyways.errors import Refusal
from manyways.operations import reports
from manyways.operations.desk import Desk, T, TooMany
from manyways.operations.remainders import limits_document
from manyways.operations.reports import BadQuestion
from manyways.operations.sheets import Cell, as_csv
from manyways.store.records import AT_MOST, COLUMNS, Wanted, page
from manyways.store.reports import Dimension, Filters, GivenUp
from manyways.types import Caller

OWN: Final[tuple[Dimension, ...]] = ("day", "hour", "model", "status")
"""What a caller may group its own usage by."""

_CSV: Final = (b"content-type", b"text/csv; charset=utf-8")
_AS_IT_IS_NOW: Final = (b"cache-control", b"no-store")
_SOON: Final = 5  # seconds
_SWITCHES: Final = {None: False, "false": False, "0": False, "true": True, "1": True}

Header = tuple[bytes, bytes]
Authenticate = Callable[[Exchange], Awaitable[Caller]]


class UsagePages:
    """Usage, added up and single. `authenticate` says whose key came with a request, `admit` the
    same of those who administer; both raise `Refusal`. `clock` tells Unix seconds. Operators ask
    at one desk, callers at another: however many these are, those do not wait for them.

    An answer is made at the desk, to its last byte: the event loop only sends it.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        callers: Desk,
        authenticate: Authenticate,
        admit: Authenticate,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._desk = desk
        self._callers = callers
        self._authenticate = authenticate
        self._admit = admit
        self._clock = clock

    async def own(self, exchange: Exchange) -> None:
        """`GET /usage[?from=&to=&last=&group_by=]`: of the key that asks, with those that it
        replaced and that replaced it; and what is left of its limits. Raises `Refusal`."""
        caller = await self._authenticate(exchange)
        query = only_fields(exchange, "from", "to", "last", "group_by")
        if query["group_by"] is not None and query["group_by"] not in OWN:
            raise wrong("group_by", f"must be one of {', '.join(OWN)}")

        line = caller.line or caller.key_id
        key = {
            "id": caller.key_id,
            "last4": caller.last4,
            "type": caller.key_type,
            "line": line,
        }

        def work(connection: Connection) -> bytes:
            question = self._question(connection, query)
            question = replace(question, filters=Filters(line=line))
            report = reports.answer(connection, question)
            limits = limits_document(connection, caller.scopes, question.now)
            return json_text.encode({**report.document(), "key": key, "limits": limits})

        await _answer(exchange, await _asked(self._callers, work, who=line))

    async def report(self, exchange: Exchange) -> None:
        """`GET /admin/v1/usage[?from=&to=&last=&group_by=&key=&user=&model=&provider=&status=]`,
        as JSON or CSV. Raises `Refusal`."""
        await self._admit(exchange)
        query = only_fields(
            exchange, "from", "to", "last", "group_by", "key", "user", "model", "provider", "status"
        )

        as_sheet = _wants_csv(exchange)

        def work(connection: Connection) -> bytes:
            report = reports.answer(connection, self._question(connection, query))
            if as_sheet:
                return _sheet(report.columns, (row.cells().values() for row in report.rows))
            return json_text.encode(report.document())

        await _answer(exchange, await _asked(self._desk, work), as_sheet=as_sheet)

    async def records(self, exchange: Exchange) -> None:
        """`GET /admin/v1/usage/records[?cursor=&limit=&order=&from=&to=&last=&key=&user=
        &model=&provider=&status=&failed=&attempts=]`, as JSON or CSV. Raises `Refusal`."""
        await self._admit(exchange)
        query = only_fields(
            exchange, "cursor", "limit", "order", "from", "to", "last", "key", "user", "model",
            "provider", "status", "failed", "attempts",
        )  # fmt: skip
        part = page_of(query)
        as_sheet = _wants_csv(exchange)
        limit = AT_MOST if as_sheet and query["limit"] is None else part.limit
        order = query["order"] or "newest"
        if order not in ("newest", "oldest"):
            raise wrong("order", "must be newest or oldest")
        failed, attempts = _switch(query, "failed"), _switch(query, "attempts")

        def work(connection: Connection) -> tuple[bytes, str | None]:
            records, cursor = page(
                connection,
                self._wanted(connection, query, failed=failed),
                cursor=part.after,
                limit=limit,
                oldest_first=order == "oldest",
                attempts=attempts and not as_sheet,
            )
            if as_sheet:
                rows = ([record[name] for name in COLUMNS] for record in records)
                return _sheet(COLUMNS, rows), cursor
            content = {"object": "list", "data": records, "has_more": cursor is not None}
            return json_text.encode({**content, "next_cursor": cursor}), cursor

        body, cursor = await _asked(self._desk, work)
        more = [(b"x-next-cursor", cursor.encode())] if as_sheet and cursor is not None else []
        await _answer(exchange, body, as_sheet=as_sheet, more=more)

    def _question(
        self, connection: Connection, query: Mapping[str, str | None]
    ) -> reports.Question:
        return reports.ask(
            connection,
            now=self._clock(),
            since=query["from"],
            until=query["to"],
            last=query["last"],
            by=query["group_by"],
            key=query.get("key"),
            account=query.get("user"),
            model=query.get("model"),
            provider=query.get("provider"),
            status=query.get("status"),
        )

    def _wanted(
        self, connection: Connection, query: Mapping[str, str | None], *, failed: bool
    ) -> Wanted:
        return reports.wanted(
            connection,
            now=self._clock(),
            since=query["from"],
            until=query["to"],
            last=query["last"],
            key=query["key"],
            account=query["user"],
            model=query["model"],
            provider=query["provider"],
            status=query["status"],
            failed=failed,
        )


async def _asked(desk: Desk, work: Callable[[Connection], T], *, who: str = "") -> T:
    try:
        return await desk.ask(work, who=who)
    except BadQuestion as bad:
        raise Refusal("invalid_request", str(bad), param=bad.field) from None
    except TooMany as many:
        raise Refusal("rate_limit_exceeded", str(many), retry_after=1) from None
    except GivenUp as late:
        raise Refusal("server_error", str(late), status=503, retry_after=_SOON) from None


async def _answer(
    exchange: Exchange, body: bytes, *, as_sheet: bool = False, more: Sequence[Header] = ()
) -> None:
    await exchange.answer(body, 200, [_CSV if as_sheet else JSON, _AS_IT_IS_NOW, *more])


def _sheet(names: Sequence[str], rows: Iterable[Iterable[Cell]]) -> bytes:
    return "".join(as_csv(names, rows)).encode()


def _wants_csv(exchange: Exchange) -> bool:
    return b"text/csv" in exchange.headers.get(b"accept", b"").lower()


def _switch(query: Mapping[str, str | None], name: str) -> bool:
    if query[name] not in _SWITCHES:
        raise wrong(name, "must be true or false")
    return _SWITCHES[query[name]]
