"""What the environment adds to a document: overrides, and values it is asked for."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import inspect

from manyways.config.document import Document, FromVariable, Problem, Unset, dotted
from manyways.config.positions import Path
from manyways.config.rules import Wrong, near
from manyways.config.scalars import is_scalar, words

OVERRIDE: Final = "MANYWAYS__"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def override(
    document: Document, sections: Sequence[inspect.Field], environ: Mapping[str, str]
) -> None:
    """Lay every `MANYWAYS__SECTION__KEY` over the document; note those that name nothing."""
    for variable in sorted(environ):
        if not variable.startswith(OVERRIDE):
            continue
        try:
            path = _target(document, sections, variable.removeprefix(OVERRIDE).split("__"))
        except Wrong as wrong:
            document.problems.append(Problem(variable, variable, str(wrong)))
        else:
            _lay(document, path, FromVariable(environ[variable], variable, override=True))


def resolve(document: Document, environ: Mapping[str, str]) -> None:
    """Put the variables' values where the document says `"env:NAME"`; note missing ones."""
    document.tree = {
        key: _resolved(document, value, (key,), environ) for key, value in document.tree.items()
    }


def _target(document: Document, sections: Sequence[inspect.Field], names: list[str]) -> Path:
    """The setting that an overriding variable's name means."""
    path: Path = ()
    kind: inspect.Type | None = None
    for name in names:
        if isinstance(kind, inspect.DictType):
            key, kind = _same_key(document.find(path), name), kind.value_type
        elif kind is None or isinstance(kind, inspect.StructType):
            known = {field.name: field.type for field in (kind.fields if kind else sections)}
            key = name.lower()
            if key not in known:
                raise Wrong(f"is not the name of a setting{near(key, known, ', '.join(known))}")
            kind = known[key]
        else:
            raise Wrong(f"is not the name of a setting: {dotted(path)} is {words(kind)}")
        path = (*path, key)
    if kind is None or not is_scalar(kind):
        what = "a table" if kind is None else words(kind)
        raise Wrong(f"sets nothing: {dotted(path)} is {what}, which only the file can hold")
    return path


def _same_key(table: object, name: str) -> str:
    """The key of `table` that a variable's capitals mean."""
    keys = [str(key) for key in table] if isinstance(table, dict) else []
    return next((key for key in keys if key.upper() == name.upper()), name.lower())


def _lay(document: Document, path: Path, value: FromVariable) -> None:
    table: Any = document.tree
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            return  # the file has something else there, which will be noted
    table[path[-1]] = value


def _resolved(document: Document, value: object, path: Path, environ: Mapping[str, str]) -> object:
    if isinstance(value, dict):
        return {k: _resolved(document, v, (*path, k), environ) for k, v in value.items()}
    if isinstance(value, list):
        return [_resolved(document, v, (*path, i), environ) for i, v in enumerate(value)]
    if not isinstance(value, str) or not value.startswith("env:"):
        return value
    variable = value.removeprefix("env:")
    if not _VARIABLE.fullmatch(variable):
        document.note(path, 'should name a variable after "env:", like "env:API_KEY"')
    elif variable not in environ:
        document.note(path, f"wants the environment variable {variable}, which is not set")
    else:
        return FromVariable(environ[variable], variable)
    return Unset()
