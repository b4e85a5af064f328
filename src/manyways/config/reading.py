"""From a document's plain values to typed ones, every problem noted with its place.

The types are the structs of `settings`; `rules` says what goes beyond them. Nothing here
stops at the first mistake: a wrong value is noted and left out, and reading goes on.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import msgspec
from msgspec import inspect

from manyways.config.document import Document, FromVariable, Unset, dotted, pattern_of
from manyways.config.positions import Path
from manyways.config.rules import CHECKS, NAMES, Wrong, near
from manyways.config.scalars import described, present, scalar, words

_IN_FILE: Final = {"providers.*": {"api_keys": "api_key"}}
"""Fields that the file spells in its own way."""

_SHORT: Final[dict[str, tuple[type | tuple[type, ...], Callable[[Any], object]]]] = {
    "server.mounts.*": (str, lambda path: {"path": path}),
    "providers.*.api_key": (str, lambda key: [key]),
    **dict.fromkeys(
        ("keys.types.*.quota", "accounts.quota"),
        ((dict, int, str), lambda quota: [] if quota == "none" else [quota]),
    ),
    **dict.fromkeys(
        ("keys.types.*.quota.*", "accounts.quota.*"), (int, lambda tokens: {"tokens": tokens})
    ),
}
"""Where a single value may stand for a table or a list that has only it."""

T = TypeVar("T")


class _Noted(Exception):
    """This value is wrong, and the problem is on the list."""


class Reader:
    """Reads one document. `origins` says of every setting it met where that came from."""

    def __init__(self, document: Document) -> None:
        self.origins: dict[str, str] = {}
        self._document = document

    def __repr__(self) -> str:
        return f"<Reader of {self._document!r}, {len(self.origins)} settings>"

    def section(self, name: str, kind: inspect.Type, base: T) -> T:
        """The section's value: `base` with what is given laid over it."""
        tree = self._document.tree
        if name not in tree:
            return base
        try:
            return cast("T", self._read(kind, tree[name], (name,), base))
        except _Noted:
            return base

    def _read(self, kind: inspect.Type, value: object, path: Path, base: object) -> object:
        pattern = pattern_of(path)
        if isinstance(value, Unset):
            raise _Noted
        if pattern in _SHORT and isinstance(value, _SHORT[pattern][0]):
            value = _SHORT[pattern][1](value)
        try:
            read = self._typed(kind, value, path, base)
            check = CHECKS.get(pattern)
            return check(read) if check is not None and read is not None else read
        except Wrong as wrong:
            origin = ""
            if isinstance(value, FromVariable) and not value.override:
                origin = f" (this came from the variable {value.variable})"
            self._document.note(path, f"{wrong}{origin}")
            raise _Noted from None

    def _typed(self, kind: inspect.Type, value: object, path: Path, base: object) -> object:
        kind = present(kind)
        if isinstance(kind, inspect.StructType):
            return self._table(kind, value, path, base)
        if isinstance(kind, inspect.DictType):
            return self._entries(kind, value, path, base)
        if isinstance(kind, inspect.VarTupleType):
            return self._items(kind, value, path)
        self.origins[dotted(path)] = (
            value.origin if isinstance(value, FromVariable) else f"line {self._document.line(path)}"
        )
        return scalar(kind, value, pattern_of(path))

    def _table(
        self, kind: inspect.StructType, value: object, path: Path, base: object
    ) -> msgspec.Struct:
        if not isinstance(value, dict):
            raise Wrong(f"should be a table, not {described(value, pattern_of(path))}")
        spelling = _IN_FILE.get(pattern_of(path), {})
        fields = {spelling.get(field.name, field.name): field for field in kind.fields}
        given: dict[str, Any] = {}
        complete = True
        for key, item in value.items():
            field = fields.get(key)
            if field is None:
                known = ", ".join(fields)
                self._document.note((*path, key), f"is not a setting{near(key, fields, known)}")
                complete = False
                continue
            try:
                given[field.name] = self._read(
                    field.type, item, (*path, key), getattr(base, field.name, None)
                )
            except _Noted:
                complete = False
        for key, field in fields.items():
            if field.required and key not in value:
                self._document.note(path, f"needs {key}")
                complete = False
        if not complete:
            raise _Noted
        if isinstance(base, msgspec.Struct):
            return msgspec.structs.replace(base, **given)
        return kind.cls(**given)

    def _entries(
        self, kind: inspect.DictType, value: object, path: Path, base: object
    ) -> dict[str, object]:
        """A table whose keys are the operator's: laid over `base`, entry by entry."""
        if not isinstance(value, dict):
            raise Wrong(f"should be a table, not {described(value, pattern_of(path))}")
        entries: dict[str, object] = dict(base) if isinstance(base, dict) else {}
        check = NAMES.get(pattern_of(path))
        complete = True
        for key, item in value.items():
            try:
                if check is not None:
                    check(key)
                entries[key] = self._read(kind.value_type, item, (*path, key), entries.get(key))
            except Wrong as wrong:
                self._document.note((*path, key), str(wrong))
                complete = False
            except _Noted:
                complete = False
        if not complete:
            raise _Noted
        return entries

    def _items(self, kind: inspect.VarTupleType, value: object, path: Path) -> tuple[object, ...]:
        if not isinstance(value, list):
            raise Wrong(f"should be {words(kind)}, not {described(value, pattern_of(path))}")
        self.origins[dotted(path)] = f"line {self._document.line(path)}"  # only files hold lists
        items = []
        complete = True
        for index, item in enumerate(value):
            try:
                items.append(self._read(kind.item_type, item, (*path, index), None))
            except _Noted:
                complete = False
        if not complete:
            raise _Noted
        return tuple(items)
