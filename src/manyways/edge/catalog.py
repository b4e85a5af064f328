"""The public answers about models and providers: no key needed, cached by callers."""

from collections.abc import Callable

from manyways.catalog import listings
from manyways.catalog.catalog import Catalog
from manyways.catalog.language import learn, pick_language
from manyways.catalog.shelf import Listing
from manyways.edge.exchange import JSON, Exchange, Headers
from manyways.edge.query import query_fields

_CACHE = (b"cache-control", b"public, max-age=600")
_BY_LANGUAGE = (b"vary", b"accept-language")


class CatalogPages:
    """`GET /models`, `/models/{id}`, `/models/list` and `/providers`."""

    def __init__(self, catalog: Catalog, title: str) -> None:
        self._catalog = catalog
        self._title = title

    async def models(self, exchange: Exchange) -> None:
        """`GET /models[?provider=&category=&capability=&status=]`."""
        query = query_fields(exchange, "provider", "category", "capability", "status")
        await self._answer(exchange, lambda: listings.models(self._catalog.snapshot, **query))

    async def model(self, exchange: Exchange, model_id: str) -> None:
        """`GET /models/{id}[?provider=]`."""
        query = query_fields(exchange, "provider")
        await self._answer(
            exchange, lambda: listings.model(self._catalog.snapshot, model_id, **query)
        )

    async def providers(self, exchange: Exchange) -> None:
        """`GET /providers[?name=]`."""
        query = query_fields(exchange, "name")
        await self._answer(exchange, lambda: listings.providers(self._catalog.snapshot, **query))

    async def text(self, exchange: Exchange) -> None:
        """`GET /models/list[?provider=&type=&lang=]`."""
        query = query_fields(exchange, "provider", "type", "lang")
        accept = exchange.headers.get(b"accept-language", b"").decode("latin-1")
        lang = pick_language(query.pop("lang"), accept)
        await learn(lang)
        await self._answer(
            exchange,
            lambda: listings.text_list(
                self._catalog.snapshot, title=self._title, lang=lang, **query
            ),
            [_BY_LANGUAGE],
        )

    async def _answer(
        self,
        exchange: Exchange,
        listing: Callable[[], Listing],
        more: Headers | None = None,
    ) -> None:
        found = listing()
        etag = found.etag.encode()
        headers = [(b"etag", etag), _CACHE, *(more or ())]
        if _matches(exchange.headers.get(b"if-none-match"), etag):
            await exchange.answer(b"", 304, headers)
        else:
            await exchange.answer(found.body, 200, [JSON, *headers])


def _matches(header: bytes | None, etag: bytes) -> bool:
    if header is None:
        return False
    tags = [tag.strip().removeprefix(b"W/") for tag in header.split(b",")]
    return etag in tags or b"*" in tags
