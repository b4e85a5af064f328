"""How far a verification is, told while it goes on: a bar on a terminal, else a line now and then.

It goes to standard error, so that standard output has the outcome and nothing else.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import typer

from manyways.cli.figures import money

if TYPE_CHECKING:
    from manyways.operations.catalog import Progress as How

EVERY: Final = 5.0
"""Seconds between two lines."""
_NAMED: Final = 3

Tell = Callable[["How"], None]


@contextmanager
def telling(clock: Callable[[], float] = time.monotonic) -> Iterator[Tell]:
    """What is to be told how far it is, each time that somebody has looked."""
    if sys.stderr is not None and sys.stderr.isatty():
        with _bar() as tell:
            yield tell
    else:
        yield _Lines(clock).tell


def words(progress: How) -> str:
    """`12 of 340 models, 1 failed, $0.0120; asking Capi/gpt-4o and 3 more`."""
    if progress.models is None:
        return "waiting for its turn"
    said = f"{progress.done:,} of {_models(progress.models)}{_amounts(progress)}"
    return f"{said}; asking {_names(progress.current)}" if progress.current else said


class _Lines:
    """A line where something has changed, and not too often."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._told: str | None = None
        self._next = 0.0

    def tell(self, progress: How) -> None:
        now, said = self._clock(), words(progress)
        over = progress.status != "running"
        if said != self._told and (over or self._told is None or now >= self._next):
            self._told, self._next = said, now + EVERY
            typer.echo(said, err=True)


@contextmanager
def _bar() -> Iterator[Tell]:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    bar = Progress(
        TextColumn("Verifying"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[said]}", markup=False),
        TimeElapsedColumn(),
        console=console,
    )
    task = bar.add_task("", total=None, said="waiting for its turn")

    with Live(bar, console=console, transient=True, refresh_per_second=4) as live:

        def tell(progress: How) -> None:
            if progress.models is None:
                return
            said = f"{progress.done:,} of {_models(progress.models)}{_amounts(progress)}"
            bar.update(task, total=progress.models, completed=progress.done, said=said)
            asking = f"asking {_names(progress.current)}" if progress.current else ""
            line = Text(asking, "dim", no_wrap=True, overflow="ellipsis")
            live.update(Group(bar, line))

        yield tell


def _models(count: int) -> str:
    return "1 model" if count == 1 else f"{count:,} models"


def _amounts(progress: How) -> str:
    failed = f", {progress.failed:,} failed" if progress.failed else ""
    cost = f", {money([progress.cost])[0]}" if progress.cost else ""
    return failed + cost


def _names(names: tuple[str, ...]) -> str:
    more = len(names) - _NAMED
    named = ", ".join(names[:_NAMED])
    return f"{named} and {more} more" if more > 0 else named
