"""Tables for spreadsheets: CSV as in RFC 4180, a row at a time."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

Cell = str | int | float | bool | None

_FORMULAS: Final = ("=", "+", "-", "@")


def as_csv(names: Sequence[str], rows: Iterable[Iterable[Cell]]) -> Iterator[str]:
    """The lines, their ends included; the first one has the columns' names.

    What is not known is empty. Callers could have put text there: ends of lines and what a terminal
    would obey become blanks, what a spreadsheet would take for a formula gets an apostrophe in
    front.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(names)
    for row in rows:
        yield _taken(buffer)
        writer.writerow([_harmless(cell) for cell in row])
    yield _taken(buffer)


def _harmless(cell: Cell) -> Cell:
    if isinstance(cell, str):
        if not cell.isprintable():
            cell = "".join(one if one.isprintable() else " " for one in cell)
        return f"'{cell}" if cell.lstrip().startswith(_FORMULAS) else cell
    if isinstance(cell, bool):
        return int(cell)
    return cell


def _taken(buffer: io.StringIO) -> str:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text
