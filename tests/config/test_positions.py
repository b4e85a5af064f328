"""Positions finds what `tomllib` finds, and the line it stands on."""

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.config.positions import Path, Positions

DOCUMENT = '''\
# a comment with [brackets] and "quotes
title = "x"            # 2

[server]               # 4
host = """
several = lines
[not.a.table]
"""
port = 1               # 9
"odd key".sub = [      # 10
  1, # ] not the end
  "]",                 # 12
  { a = 1, b = "}" },  # 13
]
when = 1979-05-27 07:32:00Z # 15
raw = \'\'\'# not a comment
key = 'value' \'\'\'\'\'
after = 1              # 18

[[providers]]          # 20
name = "a"
  [[providers.models]] # 22
  id = "m0"
  [[providers.models]] # 24
  id = "m1"
[providers.headers]    # 26
'a.b' = "c"

[[ providers ]]        # 29
name = "b"
models = [{ id = "m2" }, # 31
  { id = "m3" }]       # 32
[a . "b c" . d]        # 33
x.y.z = { p.q = 1 }
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 2),
        (("server",), 4),
        (("server", "host"), 5),
        (("server", "port"), 9),
        (("server", "odd key", "sub"), 10),
        (("server", "odd key", "sub", 0), 11),
        (("server", "odd key", "sub", 1), 12),
        (("server", "odd key", "sub", 2, "b"), 13),
        (("server", "when"), 15),
        (("server", "after"), 18),
        (("providers",), 20),
        (("providers", 0), 20),
        (("providers", 0, "models", 0), 22),
        (("providers", 0, "models", 1, "id"), 25),
        (("providers", 0, "headers", "a.b"), 27),
        (("providers", 1), 29),
        (("providers", 1, "models", 1, "id"), 32),
        (("a", "b c", "d"), 33),
        (("a", "b c", "d", "x", "y", "z", "p", "q"), 34),
    ],
)
def test_every_way_to_write_a_key_has_its_line(path: Path, line: int) -> None:
    positions = Positions(DOCUMENT)

    assert path in positions
    assert positions.line(path) == line


def test_what_is_not_there_has_the_line_of_what_is_around_it() -> None:
    positions = Positions(DOCUMENT)

    assert positions.line(("providers", 1, "base_url")) == 29
    assert positions.line(("nothing", "here")) == 1


def test_line_ends_of_windows_count_once() -> None:
    assert Positions("[server]\r\n\r\nport = 1\r\n").line(("server", "port")) == 3


def test_an_empty_document_has_one_line() -> None:
    assert repr(Positions("")) == "<Positions of 0 keys in 1 lines>"
    assert Positions("").line(("server",)) == 1


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8)
scalars = (
    st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(
    texts, values | st.lists(st.dictionaries(texts, values, max_size=3), min_size=1, max_size=3)
)


class Writer:
    """Writes TOML in any of its ways, noting the line of each key as it goes."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self.text = ""
        self.lines: dict[Path, int] = {}

    def document(self, tree: dict[str, Any]) -> None:
        """Plain values first, as TOML wants it; then tables, with headers or inline."""
        tables = []
        for key, value in tree.items():
            wide = isinstance(value, dict) or (
                isinstance(value, list) and value and all(isinstance(v, dict) for v in value)
            )
            if wide and self._draw(st.booleans()):
                tables.append((key, value))
            else:
                self.blank()
                self.pair(key, value, ())
                self.text += self._draw(st.sampled_from(["\n", " # x = [\n", "\r\n"]))
        for key, value in tables:
            if isinstance(value, dict):
                self.table(f"[{self.key(key)}]", value, (key,))
            else:
                self.mark((key,))
                for index, item in enumerate(value):
                    self.blank()
                    if index == 0:
                        self.mark((key,))
                    self.table(f"[[ {self.key(key)} ]]", item, (key, index))

    def table(self, header: str, entries: dict[str, Any], path: Path) -> None:
        self.blank()
        self.mark(path)
        if path[-1] == 0:
            self.mark(path[:-1])
        self.text += header + "\n"
        for key, value in entries.items():
            self.blank()
            self.pair(key, value, path)
            self.text += "\n"

    def mark(self, path: Path) -> None:
        self.lines[path] = self.text.count("\n") + 1

    def blank(self) -> None:
        self.text += self._draw(st.sampled_from(["", "", "\n", "# [no]\n", "  "]))

    def key(self, key: str) -> str:
        plain = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
        return key if plain and self._draw(st.booleans()) else json.dumps(key, ensure_ascii=False)

    def pair(self, key: str, value: object, path: Path) -> None:
        self.mark((*path, key))
        self.text += self.key(key) + self._draw(st.sampled_from([" = ", "=", "\t= "]))
        self.value(value, (*path, key))

    def value(self, value: object, path: Path) -> None:
        if isinstance(value, dict):
            self.text += "{"
            for index, (key, item) in enumerate(value.items()):
                self.text += ", " if index else " "
                self.pair(key, item, path)
            self.text += " }"
        elif isinstance(value, list):
            self.text += "["
            for index, item in enumerate(value):
                self.text += ", " if index else ""
                self.text += self._draw(st.sampled_from(["", "\n", " # ]\n"]))
                self.mark((*path, index))
                self.value(item, (*path, index))
            self.text += self._draw(st.sampled_from(["]", "\n]", " # [\n ]"]))
        elif isinstance(value, str):
            self.text += self.string(value)
        else:
            self.text += json.dumps(value)

    def string(self, value: str) -> str:
        basic = json.dumps(value, ensure_ascii=False)
        ways = [basic, f'"""\n{basic[1:-1]}"""']
        if "'" not in value:
            ways += [f"'{value}'", f"'''\n{value}'''"]
        return self._draw(st.sampled_from(ways))


@st.composite
def written(draw: st.DrawFn) -> tuple[dict[str, Any], Writer]:
    tree = draw(documents)
    writer = Writer(draw)
    writer.document(tree)
    return tree, writer


@given(written())
def test_whatever_is_written_every_key_and_item_has_its_line(
    case: tuple[dict[str, Any], Writer],
) -> None:
    tree, writer = case
    assert tomllib.loads(writer.text) == tree

    positions = Positions(writer.text)

    assert {path: positions.line(path) for path in writer.lines} == writer.lines
    assert all(path in positions for path in writer.lines)
