"""From the file's plain values to typed ones, every problem noted with its place.

The types are the structs of `settings`; `rules` says what goes beyond them. Nothing here
stops at the first mistake: a wrong value is noted and left out, and reading goes on.
"""

import datetime as dt
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Self, TypeVar, cast

import msgspec
from msgspec import inspect

from manyways.config import quantities
from manyways.config.positions import Path, Positions
from manyways.config.rules import (
    CHECKS,
    LIFTABLE,
    NAMES,
    SECONDS,
    SECRETS,
    SIZES,
    Wrong,
    near,
)
from manyways.errors import ConfigError

OVERRIDE: Final = "MANYWAYS__"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TRUTH: Final = {"true": True, "yes": True, "1": True, "on": True} | {
    "false": False,
    "no": False,
    "0": False,
    "off": False,
}
_IN_FILE: Final = {"providers.*": {"api_keys": "api_key"}}
"""Fields that the file spells in its own way."""

_SHORT: Final[dict[str, Callable[[str], object]]] = {
    "server.mounts.*": lambda path: {"path": path},
    "providers.*.api_key": lambda key: [key],
}
"""Where a text may stand for a table or a list that has only it."""

_LONGEST_QUOTE: Final = 60

T = TypeVar("T")


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong. `where` is `file:line`, or the name of a variable."""

    where: str
    setting: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class ConfigProblems(ConfigError):  # noqa: N818 - the plural is the point
    """Everything that is wrong with a configuration, at once; `str()` has a line for each."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class FromVariable(str):  # noqa: SLOT000 - a text with two names beside it
    """A text that came from the environment: read leniently, and never shown.

    `override` tells a `MANYWAYS__` variable from one that the file asks for.
    """

    variable: str
    override: bool

    def __new__(cls, text: str, variable: str, *, override: bool = False) -> Self:
        """The variable's text, with the variable's name kept beside it."""
        new = super().__new__(cls, text)
        new.variable = variable
        new.override = override
        return new

    @property
    def origin(self) -> str:
        """How `origins` names it."""
        return self.variable if self.override else f"env:{self.variable}"


class _Unset:
    """Stands where a variable is missing, which has been noted already."""


class _Noted(Exception):  # noqa: N818 - not an error: it has been told already
    """This value is wrong, and the problem is on the list."""


class Reader:
    """Reads one document. `problems` and `origins` grow as it does."""

    def __init__(self, tree: dict[str, Any], text: str, file: str) -> None:
        self.problems: list[Problem] = []
        self.origins: dict[str, str] = {}
        self._tree = tree
        self._text = text
        self._file = file
        self._positions: Positions | None = None

    def __repr__(self) -> str:
        return f"<Reader of {self._file}, {len(self.problems)} problems>"

    def note(self, path: Path, message: str) -> None:
        """Put a problem with the setting at `path` on the list."""
        setting = dotted(path)
        value = self._find(path)
        if isinstance(value, FromVariable) and value.override:
            where = value.variable
        elif self._text:
            where = f"{self._file}:{self.line(path)}"
        else:
            where = self._file
        self.problems.append(Problem(where, setting, f"{setting} {message}"))

    def line(self, path: Path) -> int:
        """The line of the file on which `path` stands."""
        if self._positions is None:
            self._positions = Positions(self._text)
        return self._positions.line(path)

    def _find(self, path: Path) -> object:
        value: Any = self._tree
        for part in path:
            if isinstance(value, str):
                break  # written short: the text stands for all that is below
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    # The environment

    def override(self, sections: Sequence[inspect.Field], environ: Mapping[str, str]) -> None:
        """Lay every `MANYWAYS__SECTION__KEY` over the document."""
        for variable in sorted(environ):
            if not variable.startswith(OVERRIDE):
                continue
            try:
                path = self._target(sections, variable.removeprefix(OVERRIDE).split("__"))
            except Wrong as wrong:
                self.problems.append(Problem(variable, variable, str(wrong)))
            else:
                self._lay(path, FromVariable(environ[variable], variable, override=True))

    def _target(self, fields: Sequence[inspect.Field], names: list[str]) -> Path:
        """The setting that an overriding variable's name means."""
        path: Path = ()
        kind: inspect.Type | None = None
        for name in names:
            if isinstance(kind, inspect.DictType):
                key, kind = self._same_name(path, name), kind.value_type
            elif kind is None or isinstance(kind, inspect.StructType):
                known = {field.name: field.type for field in (kind.fields if kind else fields)}
                key = name.lower()
                if key not in known:
                    raise Wrong(f"is not the name of a setting{near(key, known, _listed(known))}")
                kind = known[key]
            else:
                raise Wrong(f"is not the name of a setting: {dotted(path)} is {_words(kind)}")
            path = (*path, key)
        if kind is None or not _is_scalar(kind):
            what = "a table" if kind is None else _words(kind)
            raise Wrong(f"sets nothing: {dotted(path)} is {what}, which only the file can hold")
        return path

    def _same_name(self, path: Path, name: str) -> str:
        """The key of the table at `path` that a variable's capitals mean."""
        table = self._find(path)
        keys = [str(key) for key in table] if isinstance(table, dict) else []
        return next((key for key in keys if key.upper() == name.upper()), name.lower())

    def _lay(self, path: Path, value: FromVariable) -> None:
        table: Any = self._tree
        for part in path[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                return  # the file has something else there, which will be noted
        table[path[-1]] = value

    def resolve(self, environ: Mapping[str, str]) -> None:
        """Put the variables' values where the document says `"env:NAME"`."""
        self._tree = {
            key: self._resolved(value, (key,), environ) for key, value in self._tree.items()
        }

    def _resolved(self, value: object, path: Path, environ: Mapping[str, str]) -> object:
        if isinstance(value, dict):
            return {k: self._resolved(item, (*path, k), environ) for k, item in value.items()}
        if isinstance(value, list):
            return [self._resolved(item, (*path, i), environ) for i, item in enumerate(value)]
        if not isinstance(value, str) or not value.startswith("env:"):
            return value
        variable = value.removeprefix("env:")
        if not _VARIABLE.fullmatch(variable):
            self.note(path, 'should name a variable after "env:", like "env:API_KEY"')
        elif variable not in environ:
            self.note(path, f"wants the environment variable {variable}, which is not set")
        else:
            return FromVariable(environ[variable], variable)
        return _Unset()

    # The document

    def has(self, section: str) -> bool:
        """Whether the document has the section, right or wrong."""
        return section in self._tree

    def unknown(self, known: tuple[str, ...]) -> None:
        """Note every top-level key that is not among `known`."""
        for name in self._tree:
            if name not in known:
                self.note((name,), f"is not a section{near(name, known, _listed(known))}")

    def section(self, name: str, kind: inspect.Type, base: T) -> T:
        """The section's value: `base` with what is given laid over it."""
        if name not in self._tree:
            return base
        try:
            return cast("T", self._read(kind, self._tree[name], (name,), base))
        except _Noted:
            return base

    def _read(self, kind: inspect.Type, value: object, path: Path, base: object) -> object:
        pattern = pattern_of(path)
        if isinstance(value, _Unset):
            raise _Noted
        if pattern in _SHORT and isinstance(value, str):
            value = _SHORT[pattern](value)
        try:
            read = self._typed(kind, value, path, base)
            check = CHECKS.get(pattern)
            return check(read) if check is not None and read is not None else read
        except Wrong as wrong:
            origin = ""
            if isinstance(value, FromVariable) and not value.override:
                origin = f" (this came from the variable {value.variable})"
            self.note(path, f"{wrong}{origin}")
            raise _Noted from None

    def _typed(self, kind: inspect.Type, value: object, path: Path, base: object) -> object:
        kind = _present(kind)
        if isinstance(kind, inspect.StructType):
            return self._table(kind, value, path, base)
        if isinstance(kind, inspect.DictType):
            return self._entries(kind, value, path, base)
        if isinstance(kind, inspect.VarTupleType):
            return self._items(kind, value, path)
        self.origins[dotted(path)] = (
            value.origin if isinstance(value, FromVariable) else f"line {self.line(path)}"
        )
        return _scalar(kind, value, pattern_of(path))

    def _table(
        self, kind: inspect.StructType, value: object, path: Path, base: object
    ) -> msgspec.Struct:
        if not isinstance(value, dict):
            raise Wrong(f"should be a table, not {_described(value, pattern_of(path))}")
        spelling = _IN_FILE.get(pattern_of(path), {})
        fields = {spelling.get(field.name, field.name): field for field in kind.fields}
        given: dict[str, Any] = {}
        complete = True
        for key, item in value.items():
            try:
                field = fields[key]
                given[field.name] = self._read(
                    field.type, item, (*path, key), getattr(base, field.name, None)
                )
            except KeyError:
                self.note((*path, key), f"is not a setting{near(key, fields, _listed(fields))}")
                complete = False
            except _Noted:
                complete = False
        for key, field in fields.items():
            if field.required and key not in value:
                self.note(path, f"needs {key}")
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
            raise Wrong(f"should be a table, not {_described(value, pattern_of(path))}")
        entries: dict[str, object] = dict(base) if isinstance(base, dict) else {}
        check = NAMES.get(pattern_of(path))
        complete = True
        for key, item in value.items():
            try:
                if check is not None:
                    check(key)
                entries[key] = self._read(kind.value_type, item, (*path, key), entries.get(key))
            except Wrong as wrong:
                self.note((*path, key), str(wrong))
                complete = False
            except _Noted:
                complete = False
        if not complete:
            raise _Noted
        return entries

    def _items(self, kind: inspect.VarTupleType, value: object, path: Path) -> tuple[object, ...]:
        if not isinstance(value, list):
            raise Wrong(f"should be {_words(kind)}, not {_described(value, pattern_of(path))}")
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


def dotted(path: Path) -> str:
    """A path as people say it: `providers[0].models[2].id`."""
    said = ""
    for part in path:
        if isinstance(part, int):
            said += f"[{part}]"
        else:
            said += f".{part}" if said else part
    return said


def pattern_of(path: Path) -> str:
    """A path as `rules` says it: `providers.*.models.*.id`."""
    if path[:2] == ("keys", "types") and len(path) > 2:
        path = (*path[:2], 0, *path[3:])
    elif len(path) > 1 and path[-2] in {"headers", "pricing"}:
        path = (*path[:-1], 0)
    return ".".join("*" if isinstance(part, int) else part for part in path)


def _present(kind: inspect.Type) -> inspect.Type:
    """What a value must be where one is given: `int` of `int | None`."""
    if isinstance(kind, inspect.UnionType):
        kinds = tuple(one for one in kind.types if not isinstance(one, inspect.NoneType))
        return kinds[0] if len(kinds) == 1 else inspect.UnionType(kinds)
    return kind


def _is_scalar(kind: inspect.Type) -> bool:
    return not isinstance(
        _present(kind), inspect.StructType | inspect.DictType | inspect.VarTupleType
    )


def _scalar(kind: inspect.Type, value: object, pattern: str) -> object:
    """`value` as `kind`; raises `Wrong` if it is something else."""
    if pattern in LIFTABLE and value == "none":
        return None
    if isinstance(value, str) and pattern in SECONDS | SIZES:
        quantity = (quantities.seconds if pattern in SECONDS else quantities.size)(value)
        if quantity is not None:
            return quantity
    else:
        kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
        for one in kinds:
            read = _parsed(one, str(value)) if isinstance(value, FromVariable) else value
            if _fits(one, read):
                return float(cast("float", read)) if isinstance(one, inspect.FloatType) else read
    hint = ""
    if isinstance(kind, inspect.LiteralType) and isinstance(value, str):
        if not isinstance(value, FromVariable):
            hint = near(value, [str(choice) for choice in kind.values])
    elif isinstance(value, dt.date | dt.time):
        hint = "; write it in quotes"
    raise Wrong(f"should be {_words(kind, pattern)}, not {_described(value, pattern)}{hint}")


def _parsed(kind: inspect.Type, text: str) -> object:
    """What the text of a variable means where a `kind` is wanted."""
    if isinstance(kind, inspect.BoolType):
        return _TRUTH.get(text.strip().lower(), text)
    try:
        if isinstance(kind, inspect.IntType):
            return int(text)
        if isinstance(kind, inspect.FloatType):
            return float(text)
    except ValueError:
        pass
    return text


def _fits(kind: inspect.Type, value: object) -> bool:
    match kind:
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.IntType():
            return isinstance(value, int) and not isinstance(value, bool)
        case inspect.FloatType():
            return (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and math.isfinite(value)
            )
        case inspect.StrType():
            return isinstance(value, str)
        case inspect.LiteralType():
            return isinstance(value, str) and value in kind.values
        case _:
            raise TypeError(f"no setting can be a {kind}")


def _words(kind: inspect.Type, pattern: str = "") -> str:
    """What a value of `kind` is called."""
    if pattern in SECONDS:
        return 'a duration like "5s", "500ms", "1m", "2h" or "30d" (or a number of seconds)'
    if pattern in SIZES:
        return 'a size like "32MiB" or "10MB" (or a number of bytes)'
    kind = _present(kind)
    match kind:
        case inspect.UnionType():
            return " or ".join(_words(one) for one in kind.types)
        case inspect.LiteralType():
            choices = [f'"{choice}"' for choice in kind.values]
            return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
        case inspect.VarTupleType():
            return "a list"
        case _:
            return _WORDS.get(type(kind), "a table")


_WORDS: Final[dict[type, str]] = {
    inspect.BoolType: "true or false",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.StrType: "a text in quotes",
}


def _described(value: object, pattern: str) -> str:
    """What was found instead, without giving a secret away."""
    if isinstance(value, FromVariable):
        return "what the variable holds"
    if isinstance(value, str):
        hidden = any(pattern == secret or pattern.startswith(f"{secret}.") for secret in SECRETS)
        return "a text" if hidden or len(value) > _LONGEST_QUOTE else f'the text "{value}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, list):
        return "a list"
    return "a table" if isinstance(value, dict) else "a date or time"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
