"""The catalog's public answers, as bytes ready to be sent.

Every answer is a function of a snapshot and a few filters, so each is rendered once for a
snapshot and then found again.
"""

import hashlib
from collections.abc import Callable, Hashable, Sequence
from datetime import UTC, datetime
from typing import Final
from weakref import WeakKeyDictionary

import msgspec
from msgspec import Struct

from manyways.catalog import wording
from manyways.catalog.language import Language
from manyways.catalog.selection import named, not_one_of, select, unknown_provider
from manyways.catalog.shapes import ModelRow, ProviderRow, model_row, provider_row
from manyways.catalog.snapshot import Snapshot
from manyways.types import CATEGORIES

SHELF: Final = 16 * 1024 * 1024
"""How many bytes of rendered answers are kept for one snapshot; then the oldest go."""


class Listing(Struct, frozen=True):
    """An answer: a JSON document in UTF-8, and its entity tag, quotes included.

    The tag is strong and made from the content without `generated_at`, so that it outlives a
    restart that changes nothing.
    """

    body: bytes
    etag: str


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
        data = [model_row(row) for row in rows]
        return _list(snapshot, data, "total_models", filters[0], window)

    return _shelf(snapshot).find(("models", *filters), render)


def model(snapshot: Snapshot, model_id: str, provider: str | None = None) -> Listing:
    """`GET /models/{id}`: one row, of the provider that is asked first, or of `provider`.

    Also takes `provider/model`, and tells of models that are down. Raises `Refusal`:
    `model_not_found`, saying who has it, or `provider_not_found`.
    """
    row = named(snapshot, model_id, provider or None)

    def render() -> Listing:
        body = msgspec.json.encode(model_row(row))
        return Listing(body, _etag(body))

    return _shelf(snapshot).find(("model", row.provider, row.id), render)


def providers(snapshot: Snapshot, name: str | None = None) -> Listing:
    """`GET /providers`: every configured provider, or one, counted over what is not down.

    Embeddings count in `total` only. Raises `Refusal` (`provider_not_found`).
    """
    wanted = name or None
    if wanted is not None and wanted not in snapshot.provider_names:
        raise unknown_provider(snapshot, wanted, param="name")

    def render() -> Listing:
        names = snapshot.provider_names if wanted is None else (wanted,)
        data = [provider_row(name, select(snapshot, provider=name)) for name in names]
        return _list(snapshot, data, "total_providers", wanted, "active_only")

    return _shelf(snapshot).find(("providers", wanted), render)


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
        return Listing(body, _etag(body))

    return _shelf(snapshot).find(("text", title, provider, category, lang), render)


class _Shelf:
    """Rendered answers of one snapshot. Invariant: `_held` is what all bodies add up to."""

    __slots__ = ("_held", "_listings")

    def __init__(self) -> None:
        self._listings: dict[Hashable, Listing] = {}
        self._held = 0

    def find(self, key: Hashable, render: Callable[[], Listing]) -> Listing:
        found = self._listings.get(key)
        if found is None:
            found = self._listings[key] = render()
            self._held += len(found.body)
            while self._held > SHELF and len(self._listings) > 1:
                oldest = next(iter(self._listings))
                self._held -= len(self._listings.pop(oldest).body)
        return found


_shelves: WeakKeyDictionary[Snapshot, _Shelf] = WeakKeyDictionary()


def _shelf(snapshot: Snapshot) -> _Shelf:
    shelf = _shelves.get(snapshot)
    if shelf is None:
        shelf = _shelves[snapshot] = _Shelf()
    return shelf


def _list(
    snapshot: Snapshot,
    rows: Sequence[ModelRow | ProviderRow],
    total: str,
    provider: str | None,
    window: str,
) -> Listing:
    meta = {
        total: len(rows),
        "provider_filter": provider,
        "generated_at": _iso(snapshot.made_at),
        "data_window": window,
    }
    encoded = msgspec.json.encode(rows)
    body = b'{"object":"list","data":%b,"meta":%b}' % (encoded, msgspec.json.encode(meta))
    del meta["generated_at"]
    return Listing(body, _etag(encoded, msgspec.json.encode(meta)))


def _etag(*content: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in content:
        digest.update(part)
    return f'"{digest.hexdigest()}"'


def _iso(moment: float) -> str:
    """`2025-11-17T10:30:00.000Z`."""
    stated = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return stated.removesuffix("+00:00") + "Z"
