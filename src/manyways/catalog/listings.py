"""The catalog's public answers, as bytes ready to be sent.

Every answer is a function of a snapshot and a few filters, so each is rendered once for a
snapshot and then found again. Those without filters are always kept, so that nobody can have
them rendered again and again by asking for everything else.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from weakref import WeakKeyDictionary

import msgspec

from manyways.catalog import wording
from manyways.catalog.language import Language
from manyways.catalog.selection import named, not_one_of, select, unknown_provider
from manyways.catalog.shapes import provider_row
from manyways.catalog.shelf import Listing, Rows, Shelf, etag_of
from manyways.catalog.snapshot import Snapshot
from manyways.types import CATEGORIES

_UNFILTERED = (None, None, None, "active_only")
_rows = Rows()
_shelves: WeakKeyDictionary[Snapshot, Shelf] = WeakKeyDictionary()


def models(
    snapshot: Snapshot,
    *,
    provider: str | None = None,
    category: str | None = None,
    capability: str | None = None,
    status: str | None = None,
) -> Listing:
    """`GET /models`: OpenAI's list, with more fields. An empty filter is none.

    Models that are down are left out unless `status` is `all`. Raises `Refusal`:
    `provider_not_found`, naming those there are, or `invalid_request`, listing what is valid.
    """
    window = status or "active_only"
    filters = (provider or None, category or None, capability or None, window)

    def render() -> Listing:
        rows = select(
            snapshot,
            provider=filters[0],
            category=filters[1],
            capability=filters[2],
            window=window,
        )
        data = [_rows.of(row) for row in rows]
        return _list(snapshot, data, "total_models", filters[0], window)

    kept = filters == _UNFILTERED
    return _shelf(snapshot).find(("models", *filters), render, kept=kept)


def model(snapshot: Snapshot, model_id: str, provider: str | None = None) -> Listing:
    """`GET /models/{id}`: one row, of the provider that is asked first, or of `provider`.

    Also takes `provider/model`, and tells of models that are down. Raises `Refusal`:
    `model_not_found`, saying who has it, or `provider_not_found`.
    """
    return _rows.of(named(snapshot, model_id, provider or None))


def providers(snapshot: Snapshot, name: str | None = None) -> Listing:
    """`GET /providers`: every configured provider, or one, counted over what is not down.

    Embeddings count in `total` only. Raises `Refusal` (`provider_not_found`).
    """
    wanted = name or None
    if wanted is not None and wanted not in snapshot.provider_names:
        raise unknown_provider(snapshot, wanted, param="name")

    def render() -> Listing:
        names = snapshot.provider_names if wanted is None else (wanted,)
        data = [_provider(snapshot, name) for name in names]
        return _list(snapshot, data, "total_providers", wanted, "active_only")

    return _shelf(snapshot).find(("providers", wanted), render, kept=wanted is None)


def text_list(
    snapshot: Snapshot,
    title: str,
    provider: str | None = None,
    type: str | None = None,  # noqa: A002  (it is what the query parameter is called)
    lang: Language = "ru",
) -> Listing:
    """`GET /models/list`: `{"text": ...}`, the catalog for people. `lang` is what
    `pick_language` picked.

    Raises `Refusal`: `provider_not_found`, or `invalid_request` for an unknown `type`.
    """
    provider, category = provider or None, type or None
    if category is not None and category not in CATEGORIES:
        raise not_one_of("type", category, CATEGORIES)

    def render() -> Listing:
        rows = select(snapshot, provider=provider, category=category)
        filtered = provider is not None or category is not None
        text = wording.describe(rows, title=title, language=lang, filtered=filtered)
        body = msgspec.json.encode({"text": text})
        return Listing(body, etag_of(body))

    key = ("text", title, provider, category, lang)
    return _shelf(snapshot).find(key, render, kept=provider is None and category is None)


def _provider(snapshot: Snapshot, name: str) -> Listing:
    body = msgspec.json.encode(provider_row(name, select(snapshot, provider=name)))
    return Listing(body, etag_of(body))


def _shelf(snapshot: Snapshot) -> Shelf:
    shelf = _shelves.get(snapshot)
    if shelf is None:
        shelf = _shelves[snapshot] = Shelf()
        _rows.keep(snapshot.models)
    return shelf


def _list(
    snapshot: Snapshot, rows: Sequence[Listing], total: str, provider: str | None, window: str
) -> Listing:
    meta = {
        total: len(rows),
        "provider_filter": provider,
        "generated_at": _iso(snapshot.made_at),
        "data_window": window,
    }
    end = msgspec.json.encode(meta)
    del meta["generated_at"]
    body = b'{"object":"list","data":[%b],"meta":%b}' % (b",".join([r.body for r in rows]), end)
    tags = "".join([row.etag for row in rows]).encode()
    return Listing(body, etag_of(tags, msgspec.json.encode(meta)))


def _iso(moment: float) -> str:
    """`2025-11-17T10:30:00.000Z`."""
    stated = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return stated.removesuffix("+00:00") + "Z"
