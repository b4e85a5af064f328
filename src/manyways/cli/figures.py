"""Figures as people read them, and tables of them that fit the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

NOTHING: Final = "–"
GAP: Final = 2
"""Spaces between two columns."""

_STEPS: Final = "▁▂▃▄▅▆▇█"
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


class Column(NamedTuple):
    """A column of a table. One with a lower `rank` stays longer where there is little room; 0
    stays always. `left` is for words; a column that is `elastic` is cut rather than left out."""

    name: str
    cells: Sequence[str]
    rank: int
    left: bool = False
    elastic: bool = False

    @property
    def width(self) -> int:
        return max(map(len, (self.name, *self.cells)))


def show(console: Console, columns: Sequence[Column], *, total: bool) -> None:
    """Those columns that there is room for. The last row is set off where it is the `total`."""
    shown = fitting(columns, console.width)
    widths = _widths(shown, console.width)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column, width in zip(shown, widths, strict=True):
        table.add_column(
            column.name,
            justify="left" if column.left else "right",
            no_wrap=True,
            overflow="ellipsis",
            width=width,
        )
    rows = list(zip(*(column.cells for column in shown), strict=True))
    for number, row in enumerate(rows):
        last = total and number == len(rows) - 1
        if last:
            table.add_row(*(Text("─" * width, style="dim") for width in widths))
        # Text, as a note in square brackets is no markup.
        table.add_row(
            *(Text(cell, style="dim" if cell == NOTHING else "") for cell in row),
            style="bold" if last else "",
        )
    console.print(table)


def fitting(columns: Sequence[Column], width: int) -> list[Column]:
    """The columns without those that are left out, the highest rank first, while there is not
    room for all."""
    shown = list(columns)
    while _needed(shown, width) > width and (highest := max(one.rank for one in shown)):
        shown = [one for one in shown if one.rank != highest]
    return shown


def _needed(columns: Sequence[Column], width: int) -> int:
    return sum(_least(one, width) for one in columns) + GAP * (len(columns) - 1)


def _least(column: Column, width: int) -> int:
    """How far a column is cut rather than that others are left out."""
    return min(column.width, width // 4) if column.elastic else column.width


def _widths(columns: Sequence[Column], width: int) -> list[int]:
    """What is left over goes to the elastic columns, the first one first."""
    left = max(0, width - _needed(columns, width))
    found = []
    for one in columns:
        own = _least(one, width)
        more = min(left, one.width - own)
        left -= more
        found.append(own + more)
    return found


def count(number: int | None) -> str:
    """`12,345`."""
    return NOTHING if not number else f"{number:,}"


def share(part: int, whole: int) -> str:
    """`1.2 %`."""
    if not part or not whole:
        return NOTHING
    percent = 100 * part / whole
    return f"{percent:.0f} %" if percent >= 99.95 else f"{max(percent, 0.1):.1f} %"


def money(dollars: Sequence[float | None]) -> list[str]:
    """US dollars: cents, and parts of cents where none of them is large."""
    places = 2 if any(one and one >= 10 for one in dollars) else 4
    least = 0.5 / 10**places
    return [
        NOTHING
        if not one
        else f"${one:,.{places}f}"
        if one >= least
        else f"<${2 * least:.{places}f}"
        for one in dollars
    ]


def duration(milliseconds: float | None) -> str:
    """`950 ms`, `1.2 s`, `2.5 min`."""
    if milliseconds is None:
        return NOTHING
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1000
    return f"{seconds:.1f} s" if seconds < 99.95 else f"{seconds / 60:.1f} min"


def sparkline(figures: Sequence[int], width: int) -> str:
    """A small picture of figures over time; nothing at all is a space. Where there are more than
    `width`, each step of it stands for as many of them."""
    together = -(-len(figures) // width) or 1
    first = -(-len(figures) // together) * together - len(figures)
    even = [*[0] * first, *figures]
    steps = [sum(even[at : at + together]) for at in range(0, len(even), together)]
    most = max(steps, default=0)
    return "".join(
        _STEPS[min(len(_STEPS) - 1, one * len(_STEPS) // most)] if one else " " for one in steps
    )


def bar(figure: int, most: int, width: int) -> str:
    """A bar as long as its figure is large."""
    eighths = figure * width * 8 // most if most else 0
    if figure and not eighths:
        eighths = 1
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()
