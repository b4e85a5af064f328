"""Models on a terminal."""

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from manyways.cli import called
from manyways.cli.figures import Column, duration, fitting, sparkline
from manyways.cli.models_list import Known, Past
from manyways.cli.models_source import ModelRow
from manyways.cli.models_wording import ago, one_line

STYLES: Final = {"active": "green", "degraded": "yellow", "down": "red"}

_SPARKS: Final = 12
_REASONS: Final = 10
"""Models whose flags are explained below the table."""
_NOTHING: Final = Past()


def show_models(rows: Sequence[ModelRow], known: Known, *, now: float) -> None:
    """As a table, with as many columns as there is room for; flags are explained below it."""
    console = Console(highlight=False)
    pasts = [known.get((row.provider, row.id), _NOTHING) for row in rows]
    columns = [
        one
        for one in _columns(rows, pasts, now=now, unicode=_unicode(console))
        if any(one.cells) or one.name in ("Context", "Latency")
    ]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    shown = fitting(columns, console.width)
    for column in shown:
        # Ids are copied: rather broken over lines than cut.
        whole = column.name == "Model"
        table.add_column(
            column.name,
            justify="left" if column.left else "right",
            overflow="fold" if whole else "ellipsis",
            no_wrap=not whole,
        )
    for at, row in enumerate(rows):
        table.add_row(
            *(
                Text(one.cells[at], STYLES.get(row.status, "") if one.name == "Status" else "")
                for one in shown
            )
        )
    console.print(table)
    _explain(console, rows, pasts)


def _columns(
    rows: Sequence[ModelRow], pasts: Sequence[Past], *, now: float, unicode: bool
) -> list[Column]:
    contexts = [row.context_window for row in rows]
    latencies = [row.latency_ms for row in rows]
    scores = [row.quality_score for row in rows]
    pictures = [_picture(past) if unicode else "" for past in pasts]
    verified = [ago(row.last_verified, now) for row in rows]
    marks = [" ".join(past.flags) for past in pasts]
    return [
        Column("Model", [one_line(row.id) for row in rows], 0, left=True, elastic=True),
        Column("Provider", [row.provider for row in rows], 0, left=True, elastic=True),
        Column("Category", [row.category for row in rows], 5, left=True),
        Column("Context", ["" if one is None else f"{one:,}" for one in contexts], 4),
        Column("Latency", ["" if one is None else duration(one) for one in latencies], 1),
        Column("", pictures, 6, left=True),
        Column("Quality", ["" if one is None else f"{one:.1f}" for one in scores], 2),
        Column("Verified", verified, 3),
        Column("Status", [row.status for row in rows], 0, left=True),
        Column("Flags", marks, 0, left=True),
    ]


def _picture(past: Past) -> str:
    """The latest latencies; a space is a verification without an answer."""
    latest = [0 if one is None else max(1, one) for one in past.latencies[-_SPARKS:]]
    return sparkline(latest, _SPARKS) if len(latest) > 1 else ""


def _explain(console: Console, rows: Sequence[ModelRow], pasts: Sequence[Past]) -> None:
    flagged = [(row, past.flags) for row, past in zip(rows, pasts, strict=True) if past.flags]
    if flagged:
        console.print()
    for row, flags in flagged[:_REASONS]:
        for flag, reason in flags.items():
            console.print(Text(one_line(f"{flag}: {row.provider}/{row.id}: {reason}"), "yellow"))
    if len(flagged) > _REASONS:
        console.print(Text(f"and {len(flagged) - _REASONS:,} more", "yellow"))
    if not any(row.last_verified for row in rows) and not any(past.latencies for past in pasts):
        console.print(
            f"\nNone of them has been verified: {called.line('models refresh')}",
            style="dim",
            markup=False,
        )


def _unicode(console: Console) -> bool:
    return (console.encoding or "").lower().startswith("utf")
