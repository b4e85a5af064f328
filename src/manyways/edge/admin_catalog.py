"""The operator's pages about the catalog: have it verified, and see what has become of models."""

import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from msgspec import structs

from manyways.catalog.catalog import Catalog
from manyways.catalog.selection import named, unknown_provider
from manyways.catalog.verified import Live
from manyways.dialects import json_text
from manyways.edge.body import body_fields, wrong
from manyways.edge.clerk import Clerk, answer
from manyways.edge.exchange import JSON, Exchange
from manyways.edge.query import page_of
from manyways.errors import Refusal
from manyways.operations import catalog_history as history
from manyways.operations.catalog import Scope, refresh, refresh_status, refreshes
from manyways.operations.reports import iso
from manyways.store.database import Database

PATH: Final = "/admin/v1/catalog"

_RUNS: Final = 20
_RUNS_AT_MOST: Final = 100
_AS_IT_IS_NOW: Final = (b"cache-control", b"no-store")
_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Of a row, as `store.ids` makes them."""
_FILTERS: Final = ("provider", "model", "since", "cursor", "limit")

LiveFigures = Callable[[str, str], Live | None]
"""How a provider's model does with callers; `None` where nothing is known of that."""


class CatalogAdminPages:
    """`/admin/v1/catalog/...`.

    `nudge` is called behind a run that was asked for, so that this process looks for it at once.
    `clock` tells Unix seconds.
    """

    def __init__(
        self,
        clerk: Clerk,
        catalog: Catalog,
        *,
        nudge: Callable[[], object],
        live: LiveFigures = lambda _provider, _model: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clerk = clerk
        self._catalog = catalog
        self._nudge = nudge
        self._live = live
        self._clock = clock

    async def refresh(self, exchange: Exchange) -> None:
        """`POST /admin/v1/catalog/refresh`: 202, and where to look. Raises `Refusal`."""
        await self._clerk.admit(exchange)
        fields = await body_fields(exchange, "provider", "model")
        scope = self._scope(fields.text("provider"), fields.text("model"))
        now = self._clock()
        run = await self._clerk.change(
            exchange,
            "verification asked for",
            lambda database: refresh(database, scope, now=now),
        )
        self._nudge()
        body = json_text.encode({"id": run.id, "status": run.status})
        where = (b"location", f"{PATH}/refresh/{run.id}".encode())
        await exchange.answer(body, 202, [JSON, _AS_IT_IS_NOW, where])

    async def status(self, exchange: Exchange, run_id: str) -> None:
        """`GET /admin/v1/catalog/refresh/{id}`. Raises `Refusal`."""
        await self._clerk.admit(exchange)
        found = None
        if run_id.isascii() and run_id.isprintable():  # nothing that PostgreSQL takes for no text
            found = await self._clerk.look(lambda database: refresh_status(database, run_id))
        if found is None:
            words = f"There is no verification with the id '{run_id[:100]}'."
            raise Refusal("not_found", words)
        await answer(exchange, found)

    async def runs(self, exchange: Exchange) -> None:
        """`GET /admin/v1/catalog/refresh[?limit=]`: the latest runs. Raises `Refusal`."""
        limit = (await self._clerk.admit(exchange, "limit"))["limit"] or str(_RUNS)
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= _RUNS_AT_MOST):
            raise wrong("limit", f"must be between 1 and {_RUNS_AT_MOST}")
        rows = await self._clerk.look(lambda database: refreshes(database, limit=int(limit)))
        await answer(exchange, {"object": "list", "data": rows})

    async def changes(self, exchange: Exchange) -> None:
        """`GET /admin/v1/catalog/changes[?provider=&model=&since=&cursor=&limit=]`.

        Raises `Refusal`.
        """
        query = await self._clerk.admit(exchange, *_FILTERS)
        await self._list(exchange, query, history.changes)

    async def incidents(self, exchange: Exchange) -> None:
        """`GET /admin/v1/catalog/incidents[?provider=&model=&since=&open=&cursor=&limit=]`.

        Raises `Refusal`.
        """
        query = await self._clerk.admit(exchange, *_FILTERS, "open")
        if query["open"] not in (None, "true", "false"):
            raise wrong("open", "must be true or false")
        await self._list(
            exchange, query, partial(history.listed_incidents, open_only=query["open"] == "true")
        )

    async def verifications(self, exchange: Exchange) -> None:
        """`GET /admin/v1/catalog/verifications[?provider=&model=]`. Raises `Refusal`."""
        query = await self._clerk.admit(exchange, "provider", "model")
        scope = self._split(query["provider"], query["model"])

        def look(database: Database) -> list[dict[str, Any]]:
            return database.run(
                lambda connection: history.latest_verifications(
                    connection, provider=scope.provider, model=scope.model
                )
            )

        rows = await self._clerk.look(look)
        if not rows:
            self._see_that_it_is_known(scope)
        if scope.provider is not None and scope.model is not None:
            live = self._live(scope.provider, scope.model)
            for row in rows:
                row["live"] = None if live is None else _live_document(live)
        await answer(exchange, {"object": "list", "data": rows})

    async def _list(
        self,
        exchange: Exchange,
        query: dict[str, str | None],
        listed: Callable[..., list[dict[str, Any]]],
    ) -> None:
        page = page_of(query)
        if page.after is not None and not _ID.fullmatch(page.after):
            raise wrong("cursor", "must be the 'next_cursor' of the page before")
        scope = self._split(query["provider"], query["model"])
        now = self._clock()

        def look(database: Database) -> list[dict[str, Any]]:
            words = query["since"]
            since = None if words is None else history.since_when(words, now)
            return database.run(
                lambda connection: listed(
                    connection,
                    provider=scope.provider,
                    model=scope.model,
                    since=since,
                    before=page.after,
                    limit=page.limit + 1,
                )
            )

        rows = await self._clerk.look(look)
        if not rows and page.after is None:
            self._see_that_it_is_known(scope)
        await answer(exchange, page.document(rows))

    def _scope(self, provider: str | None, model: str | None) -> Scope:
        """What is to be verified. Raises `Refusal` where there is no such thing."""
        scope = self._split(provider or None, model or None)
        self._see_that_it_is_known(scope)
        return scope

    def _split(self, provider: str | None, model: str | None) -> Scope:
        """With `Capi/gpt-4o` taken apart. Raises `Refusal`."""
        for field, name in (("provider", provider), ("model", model)):
            if name is not None and not name.isprintable():
                raise wrong(field, "has characters in it that cannot be printed")
        if model is not None:
            before, rest = self._catalog.snapshot.split_name(model)
            if before is not None and provider in (None, before):
                provider, model = before, rest
        return Scope(provider=provider, model=model)

    def _see_that_it_is_known(self, scope: Scope) -> None:
        """Raises `Refusal` for a provider or a model that the catalog does not have."""
        snapshot = self._catalog.snapshot
        if scope.provider is not None and scope.provider not in snapshot.provider_names:
            raise unknown_provider(snapshot, scope.provider, param="provider")
        if scope.model is not None:
            named(snapshot, scope.model, scope.provider)


def _live_document(live: Live) -> dict[str, Any]:
    answered = None if live.answered_at is None else iso(live.answered_at)
    return {**structs.asdict(live), "answered_at": answered}
