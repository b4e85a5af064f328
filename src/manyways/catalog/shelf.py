"""What has been rendered of the catalog, kept until it changes.

A row is encoded once for as long as its model stays the same, whichever snapshot it is in. An
answer is put together from rows once for a snapshot.
"""

import hashlib
from collections.abc import Callable, Hashable, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from manyways.catalog.shapes import model_row
from manyways.types import Model

SHELF: Final = 16 * 1024 * 1024
"""How many bytes of filtered answers are kept for one snapshot; then those go that nobody has
asked for the longest."""


class Listing(Struct, frozen=True, gc=False):
    """An answer: a JSON document in UTF-8, and its entity tag, quotes included.

    The tag is strong and made from the content without `generated_at`, so that it outlives a
    restart that changes nothing.
    """

    body: bytes
    etag: str


def etag_of(*content: bytes) -> str:
    """The entity tag of a content, given in parts."""
    return f'"{hashlib.blake2b(b"".join(content), digest_size=16).hexdigest()}"'


class Rows:
    """Models as callers see them, encoded. An equal model is encoded no second time.

    Invariant: one row a model, by its provider's name and its id.
    """

    __slots__ = ("_encode", "_rows")

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], tuple[Model, Listing]] = {}
        self._encode = msgspec.json.Encoder().encode

    def __repr__(self) -> str:
        return f"<Rows of {len(self._rows)} models>"

    def of(self, model: Model) -> Listing:
        """The model's row, which is also the whole answer about it."""
        name = (model.provider, model.id)
        known = self._rows.get(name)
        if known is not None:
            if known[0] is model:
                return known[1]
            if known[0] == model:
                self._rows[name] = (model, known[1])  # next time it is the same one
                return known[1]
        body = self._encode(model_row(model))
        row = Listing(body, etag_of(body))
        self._rows[name] = (model, row)
        return row

    def keep(self, models: Sequence[Model]) -> None:
        """Forget the models that are not among these, where there are more than these."""
        if len(self._rows) > len(models):
            names = {(model.provider, model.id) for model in models}
            for name in self._rows.keys() - names:
                del self._rows[name]


class Shelf:
    """Answers of one snapshot.

    Those that are `kept` stay, whatever else is asked for: there must be few of them. Invariant:
    `_held` is what the bodies of the others add up to.
    """

    __slots__ = ("_held", "_kept", "_others")

    def __init__(self) -> None:
        self._kept: dict[Hashable, Listing] = {}
        self._others: dict[Hashable, Listing] = {}  # who was asked for last is last
        self._held = 0

    def __repr__(self) -> str:
        return f"<Shelf {len(self._kept)} kept, {len(self._others)} others of {self._held} bytes>"

    def find(self, key: Hashable, render: Callable[[], Listing], *, kept: bool) -> Listing:
        """The answer, rendered only where it is not there."""
        if kept:
            found = self._kept.get(key)
            if found is None:
                found = self._kept[key] = render()
            return found
        found = self._others.pop(key, None)
        if found is None:
            found = render()
            self._held += len(found.body)
        self._others[key] = found
        while self._held > SHELF and len(self._others) > 1:
            oldest = next(iter(self._others))
            self._held -= len(self._others.pop(oldest).body)
        return found
