"""The document as it was parsed: what it says, where it says so, and what is wrong with it."""

import re
from typing import Any, Final, Self

import msgspec

from manyways.config.positions import Path, Positions
from manyways.errors import ConfigError

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong. `where` is `file:line`, or the name of a variable."""

    where: str
    setting: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class ConfigProblems(ConfigError):
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


class Unset:
    """Stands where a variable is missing, which has been noted already."""


class Document:
    """One file's tables with the environment laid over them. `problems` grows as it is read."""

    def __init__(self, tree: dict[str, Any], text: str, file: str) -> None:
        self.tree = tree
        self.problems: list[Problem] = []
        self._text = text
        self._file = file
        self._positions: Positions | None = None

    def __repr__(self) -> str:
        return f"<Document {self._file}, {len(self.problems)} problems>"

    def note(self, path: Path, message: str) -> None:
        """Put a problem with the setting at `path` on the list; `message` follows its name."""
        setting = dotted(path)
        if variable := _variable(self.find(path)):
            where = variable
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

    def find(self, path: Path) -> object:
        """The value at `path`, `None` where there is none."""
        value: Any = self.tree
        for part in path:
            if isinstance(value, str):
                break  # written short: the text stands for all that is below
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return value


def _variable(value: object) -> str:
    """The variable that alone laid `value` over the document, a table or not; else nothing."""
    while isinstance(value, dict) and value:
        first, *others = value.values()
        if not all(map(_variable, others)):
            return ""
        value = first
    return value.variable if isinstance(value, FromVariable) and value.override else ""


def dotted(path: Path) -> str:
    """A path as the file would say it: `providers[0].models[2].id`."""
    said = ""
    for part in path:
        if isinstance(part, int):
            said += f"[{part}]"
        else:
            said += f".{bare(part)}" if said else bare(part)
    return said


def bare(key: str) -> str:
    """A key as it stands in a file: in quotes only where it needs them."""
    return key if _BARE_KEY.fullmatch(key) else quoted(key)


def quoted(text: str) -> str:
    """A TOML string: JSON's escapes, and one for the only other character TOML forbids."""
    return msgspec.json.encode(text).decode().replace("\x7f", "\\u007f")


def pattern_of(path: Path) -> str:
    """A path as `rules` says it: `providers.*.models.*.id`."""
    if path[:2] == ("keys", "types") and len(path) > 2:
        path = (*path[:2], 0, *path[3:])
    elif len(path) > 1 and path[-2] in {"headers", "pricing"}:
        path = (*path[:-1], 0)
    return ".".join("*" if isinstance(part, int) else part for part in path)
