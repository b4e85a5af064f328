"""Which line each key of a TOML document stands on. `tomllib` forgets it; operators need it."""

import re
import tomllib
from typing import Final

Path = tuple[str | int, ...]
"""`("providers", 0, "name")`: table keys, and indexes into arrays."""

_BLANK: Final = re.compile(r"[ \t]*")
_FILLER: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN_VALUE: Final = re.compile(r"[^,\]}#\n]*")
_STRINGS: Final = (
    re.compile(r'"""(?:\\.|[^\\])*?"{3,5}', re.DOTALL),
    re.compile(r"'''.*?'{3,5}", re.DOTALL),
    re.compile(r'"(?:\\.|[^"\\\n])*"'),
    re.compile(r"'[^'\n]*'"),
)


class Positions:
    """`line(path)` of every table, key and array item in `text`, which must be valid TOML."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._seen_to = 0
        self._lines_seen = 1
        self._lines: dict[Path, int] = {}
        self._arrays: dict[Path, int] = {}
        self._scan()

    def __repr__(self) -> str:
        return f"<Positions of {len(self._lines)} keys in {self._lines_seen} lines>"

    def __contains__(self, path: Path) -> bool:
        return path in self._lines

    def line(self, path: Path) -> int:
        """The line, from 1, of `path`, or of the nearest table around it that is there."""
        for length in range(len(path), 0, -1):
            if (line := self._lines.get(path[:length])) is not None:
                return line
        return 1

    def _scan(self) -> None:
        table: Path = ()
        while True:
            self._skip(_FILLER)
            if self._at >= len(self._text):
                return
            if self._text.startswith("[[", self._at):
                self._at += 2
                array = self._header(self._key())
                index = self._arrays.get(array, -1) + 1
                self._arrays[array] = index
                table = (*array, index)
                self._note(array)
                self._note(table)
                self._at += 2
            elif self._text[self._at] == "[":
                self._at += 1
                table = self._header(self._key())
                self._note(table)
                self._at += 1
            else:
                self._pair(table)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        return match.group()

    def _note(self, path: Path) -> None:
        self._lines_seen += self._text.count("\n", self._seen_to, self._at)
        self._seen_to = self._at
        for length in range(1, len(path) + 1):
            self._lines.setdefault(path[:length], self._lines_seen)

    def _header(self, key: tuple[str, ...]) -> Path:
        """A header's key as a path: below an array of tables it means the latest item."""
        path: Path = ()
        for part in key[:-1]:
            path = (*path, part)
            if path in self._arrays:
                path = (*path, self._arrays[path])
        return (*path, key[-1])

    def _key(self) -> tuple[str, ...]:
        parts = []
        while True:
            self._skip(_BLANK)
            if self._text[self._at] in "\"'":
                parts.append(self._quoted())
            else:
                parts.append(self._skip(_BARE_KEY))
            self._skip(_BLANK)
            if self._text[self._at] != ".":
                return tuple(parts)
            self._at += 1

    def _quoted(self) -> str:
        """A quoted key, unescaped by the one who knows how."""
        quoted = self._string()
        return str(tomllib.loads(f"key = {quoted}")["key"])

    def _string(self) -> str:
        for pattern in _STRINGS:
            if text := self._skip(pattern):
                return text
        raise ValueError("not TOML: a string without an end")

    def _pair(self, table: Path) -> None:
        path = (*table, *self._key())
        self._note(path)
        self._at += 1  # the equals sign
        self._skip(_BLANK)
        self._value(path)

    def _value(self, path: Path) -> None:
        first = self._text[self._at]
        if first in "\"'":
            self._string()
        elif first == "[":
            self._at += 1
            self._items(path)
        elif first == "{":
            self._at += 1
            self._inline_table(path)
        else:
            self._skip(_PLAIN_VALUE)

    def _items(self, path: Path) -> None:
        index = 0
        while True:
            self._skip(_FILLER)
            if self._text[self._at] == "]":
                self._at += 1
                return
            if self._text[self._at] == ",":
                self._at += 1
                continue
            self._note((*path, index))
            self._value((*path, index))
            index += 1

    def _inline_table(self, path: Path) -> None:
        while True:
            self._skip(_FILLER)
            if self._text[self._at] == "}":
                self._at += 1
                return
            if self._text[self._at] == ",":
                self._at += 1
                continue
            self._pair(path)
