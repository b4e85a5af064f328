"""Many rows in few statements, on both databases.

What counts is our own time, and how often Python's lock changes hands: `executemany` hands it
over with each row, and a busy event loop takes long to give it back. So SQLite gets statements
of many rows, and PostgreSQL one JSON text that it takes apart itself: a tenth of the work for
us that its parameters are.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Final

from msgspec import json
from sqlalchemy import Column, Connection, Dialect

Row = Sequence[object]

_SIZES: Final = (256, 64, 16, 4, 1)
"""Rows in a statement: few different ones, which SQLite then keeps prepared."""
_PARAMETERS: Final = 32_766
"""Parameters in a statement, as SQLite is built by default."""


def at_once() -> None:
    """No pause."""


class Statement:
    """`before`, a source of rows with these columns, `after`: `INSERT INTO t (a, b)`, ... ,
    `ON CONFLICT DO NOTHING`.

    Texts hold no NUL and no half of a surrogate pair: PostgreSQL takes neither.
    """

    def __init__(self, before: str, columns: Sequence[Column[object]], after: str) -> None:
        self._before = before
        self._columns = tuple(columns)
        self._after = after
        self._sizes = tuple(size for size in _SIZES if size * len(columns) <= _PARAMETERS)
        self._texts: dict[int, str] = {}

    def __repr__(self) -> str:
        return f"<Statement {self._before} ... {self._after}>"

    def run(
        self, connection: Connection, rows: Sequence[Row], pause: Callable[[], None] = at_once
    ) -> int:
        """How many rows of the table were written. `pause` is called between statements.
        Nothing is done where there are no rows."""
        if not rows:
            return 0
        dialect = connection.dialect
        if dialect.name == "postgresql":
            text = json.encode(rows).decode()
            pause()
            return connection.exec_driver_sql(self._text(0, dialect), (text,)).rowcount
        written = 0
        for part in self._parts(rows):
            parameters = tuple(chain.from_iterable(part))
            written += connection.exec_driver_sql(
                self._text(len(part), dialect), parameters
            ).rowcount
            pause()
        return written

    def _parts(self, rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
        start = 0
        for size in self._sizes:
            while len(rows) - start >= size:
                yield rows[start : start + size]
                start += size

    def _text(self, size: int, dialect: Dialect) -> str:
        """For so many rows; 0: for a JSON text of them."""
        text = self._texts.get(size)
        if text is None:
            source = self._values(size) if size else self._json(dialect)
            self._texts[size] = text = f"{self._before} {source} {self._after}"
        return text

    def _values(self, size: int) -> str:
        row = f"({', '.join('?' * len(self._columns))})"
        return f"VALUES {', '.join([row] * size)}"

    def _json(self, dialect: Dialect) -> str:
        fields = ", ".join(
            f"CAST(fields ->> {i} AS {column.type.compile(dialect)})"
            for i, column in enumerate(self._columns)
        )
        source = "FROM jsonb_array_elements(CAST(%s AS jsonb)) AS fields"
        return f"SELECT {fields} {source}"
