"""The operator's pages: a key of a type with `admin = true` opens them."""

import time
from collections.abc import Awaitable, Callable, Container, Sequence

from manyways.catalog.catalog import Catalog
from manyways.catalog.selection import unknown_provider
from manyways.dialects import json_text
from manyways.edge.exchange import JSON, Exchange
from manyways.edge.query import only_fields
from manyways.edge.wellbeing import Failures, Label, Proxied, provider_rows
from manyways.errors import Refusal
from manyways.routing.standing import Standing
from manyways.types import Caller, Provider

_AS_IT_IS_NOW = (b"cache-control", b"no-store")


class AdminPages:
    """`GET /admin/v1/providers`.

    `authenticate` says whose key came with a request, or raises `Refusal`; `admin_types` are
    the types of keys that may administer. `clock` tells Unix seconds.
    """

    def __init__(
        self,
        *,
        authenticate: Callable[[Exchange], Awaitable[Caller]],
        admin_types: Container[str],
        catalog: Catalog,
        providers: Sequence[Provider],
        standings: Callable[[], Sequence[Standing]],
        label: Label,
        failed: Failures,
        proxied: Proxied,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authenticate = authenticate
        self._admin_types = admin_types
        self._catalog = catalog
        self._providers = providers
        self._standings = standings
        self._label = label
        self._failed = failed
        self._proxied = proxied
        self._clock = clock

    async def providers(self, exchange: Exchange) -> None:
        """`GET /admin/v1/providers[?name=]`: how each provider does, and why. Raises `Refusal`."""
        await self.admit(exchange)
        name = only_fields(exchange, "name")["name"]
        shown = [one for one in self._providers if name is None or one.name == name]
        snapshot, troubles = self._catalog.snapshot, self._catalog.troubles
        if name is not None and not shown:
            raise unknown_provider(snapshot, name, param="name")
        rows = provider_rows(
            shown,
            snapshot.of_provider,
            self._standings(),
            self._label,
            self._clock(),
            untold={one: troubles[one] for one in snapshot.untold if one in troubles},
            failed=self._failed,
            proxied=self._proxied,
        )
        body = json_text.encode({"object": "list", "data": rows})
        await exchange.answer(body, 200, [JSON, _AS_IT_IS_NOW])

    async def admit(self, exchange: Exchange) -> Caller:
        """Who administers. Raises `Refusal` for everybody else."""
        caller = await self._authenticate(exchange)
        if caller.key_type not in self._admin_types:
            raise Refusal(
                "admin_required",
                f"The API key ending in {caller.last4} is of type '{caller.key_type}'; this needs"
                " a key that may administer, like those of type 'admin'.",
            )
        return caller
