"""Markdown that grows on a terminal.

Blocks that no later text can change are printed for good, where they can be scrolled back to
and copied; only the last one is drawn anew as it grows.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment
from rich.spinner import Spinner
from rich.text import Text

FRAME: Final = 1 / 15
"""Seconds between two drawings."""

CODE_THEME: Final = "ansi_dark"
"""The terminal's own colours, so that code is readable on light and on dark."""

# Everything by which a model's text could take hold of the terminal.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """`text` without control characters; lines and tabs are kept."""
    return _CONTROLS.sub("", text)


def blocks(text: str) -> list[str]:
    """The text cut where its top-level blocks begin; joined, the pieces are the text."""
    tokens = Markdown(text).parsed
    starts = [token.map[0] for token in tokens if token.level == 0 and token.map is not None]
    lines = text.split("\n")
    edges = [0, *starts[1:], len(lines)]
    pieces = ["\n".join(lines[start:end]) for start, end in itertools.pairwise(edges)]
    return [*(f"{piece}\n" for piece in pieces[:-1]), pieces[-1]]


def settled(text: str) -> int:
    """How many letters of a growing Markdown text belong to blocks that are over."""
    whole_lines = text[: text.rfind("\n") + 1]
    return sum(map(len, blocks(whole_lines)[:-1]))


class LiveMarkdown:
    """`with LiveMarkdown(console, "waiting") as shown:` shows a spinner beside `waiting` until
    the first text is fed, then the text as it grows. Leaving it prints what is left.

    Invariant: `_pending` is what has been fed and not yet printed for good.
    """

    def __init__(self, console: Console, waiting: str) -> None:
        self._console = console
        self._spinner = Spinner("dots", Text(printable(waiting), style="dim"), style="cyan")
        self._pending = ""
        self._printed = False
        self._live = Live(
            console=console,
            auto_refresh=False,
            transient=True,
            vertical_overflow="visible",
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __repr__(self) -> str:
        return f"<LiveMarkdown {len(self._pending)} letters pending>"

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()
        self._print(len(self._pending))

    def feed(self, text: str) -> None:
        """More of it; drawn in the next frame."""
        self._pending += printable(text)

    async def draw(self) -> None:
        """Draw frame after frame until cancelled, more seldom where drawing is slow."""
        while True:
            begun = time.monotonic()
            self.frame()
            await asyncio.sleep(max(FRAME, 3 * (time.monotonic() - begun)))

    def frame(self) -> None:
        """Draw what there is now."""
        over = settled(self._pending)
        shown: RenderableType = self._spinner
        if rest := self._pending[over:].strip("\n"):
            shown = _Drawn(rest, growing=True, space_above=self._printed or over > 0)
        elif self._printed or over:
            shown = Text("")
        if over:
            self._live.update(Text(""), refresh=True)
            self._print(over)
        self._live.update(shown, refresh=True)

    def _print(self, size: int) -> None:
        text, self._pending = self._pending[:size], self._pending[size:]
        for block in blocks(text):
            if block.strip():
                if self._printed:
                    self._console.print()
                self._console.print(_Drawn(block))
                self._printed = True


class _Drawn:
    """Markdown without the spaces that fill its lines up, so that it can be copied and the
    window narrowed; of a growing text only as much of its end as fits on the screen."""

    def __init__(self, text: str, *, growing: bool = False, space_above: bool = False) -> None:
        self._markdown = Markdown(text, CODE_THEME)
        self._growing = growing
        self._space_above = space_above

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        drawn = console.render_lines(self._markdown, options.update(height=None), pad=False)
        lines = [_trimmed(line) for line in drawn]
        while lines and not lines[0]:
            del lines[0]
        while lines and not lines[-1]:
            del lines[-1]
        if self._space_above:
            lines.insert(0, [])
        if self._growing:
            del lines[: -max(1, console.height - 1)]
        for line in lines:
            yield from line
            yield Segment.line()


def _trimmed(line: list[Segment]) -> list[Segment]:
    """The line without the blank at its end, unless that has a colour."""
    line = list(line)
    while line:
        text, style, _ = line.pop()
        if style is not None and style.bgcolor is not None:
            return [*line, Segment(text, style)]
        if kept := text.rstrip(" "):
            return [*line, Segment(kept, style)]
    return []
