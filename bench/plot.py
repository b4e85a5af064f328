"""The results as bars: an SVG written by hand, readable on light and on dark pages."""

from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from bench.figures import Figure, readable
from bench.goals import OURS
from bench.results import DIRECT, METRICS, Metric, Results, Row

WIDTH: Final = 880
COLUMNS: Final = 2
CUT: Final = 10
"""How many times our bar another may be, before it is cut."""
_MARGIN: Final = 16
_GUTTER: Final = 32
_NAMES: Final = 124
_VALUES: Final = 64
_BAR: Final = 14
_LINE: Final = 22
_TITLE: Final = 30

_STYLE: Final = """\
text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #57606a; }
.title { font-weight: 600; font-size: 13px; fill: #1f2328; }
.ours { font-weight: 600; fill: #1f2328; }
.bar { fill: #afb8c1; }
.bar.ours { fill: #0969da; }
.spread { stroke: #57606a; stroke-width: 1.5; }
.base { stroke: #d0d7de; }
@media (prefers-color-scheme: dark) {
  text { fill: #9198a1; }
  .title, .ours { fill: #f0f6fc; }
  .bar { fill: #4a525c; }
  .bar.ours { fill: #4493f8; }
  .spread { stroke: #9198a1; }
  .base { stroke: #3d444d; }
}"""


def svg(results: Results) -> str:
    """One panel a metric, one bar a gateway that has it, the spread as a line across its end."""
    panels = [(metric, _bars(results, metric)) for metric in METRICS]
    panels = [(metric, bars) for metric, bars in panels if bars]
    width = (WIDTH - 2 * _MARGIN - (COLUMNS - 1) * _GUTTER) / COLUMNS
    parts: list[str] = []
    top = float(_MARGIN)
    for start in range(0, len(panels), COLUMNS):
        line = panels[start : start + COLUMNS]
        for column, (metric, bars) in enumerate(line):
            left = _MARGIN + column * (width + _GUTTER)
            parts.append(f'<g transform="translate({left:.0f} {top:.0f})">')
            parts += [*_panel(metric, bars, width), "</g>"]
        top += _TITLE + _LINE * max(len(bars) for _, bars in line) + _MARGIN
    label = f"Benchmark of {results.date}: " + ", ".join(metric.title for metric, _ in panels)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top:.0f}" role="img"'
        f" aria-label={quoteattr(label)}>"
    )
    return "\n".join([head, f"<style>\n{_STYLE}\n</style>", *parts, "</svg>"]) + "\n"


def _bars(results: Results, metric: Metric) -> list[tuple[Row, Figure]]:
    gateways = (row for row in results.rows if row.name != DIRECT)
    return [(row, row.figures[metric.name]) for row in gateways if metric.name in row.figures]


def _panel(metric: Metric, bars: Sequence[tuple[Row, Figure]], width: float) -> list[str]:
    better = "more is better" if metric.more_is_better else "less is better"
    title = f"{metric.title}, {metric.unit} ({better})"
    room = width - _NAMES - _VALUES
    scale = room / _most(bars)
    bottom = _TITLE + _LINE * len(bars) - (_LINE - _BAR)
    parts = [
        f'<text class="title" y="14">{escape(title)}</text>',
        f'<path class="base" d="M{_NAMES} {_TITLE - 4}V{bottom + 4}"/>',
    ]
    for index, (row, figure) in enumerate(bars):
        top = _TITLE + _LINE * index
        ours = " ours" if row.name == OURS else ""
        least, median, most = (
            _NAMES + scale * max(0.0, figure.median + sign * figure.spread) for sign in (-1, 0, 1)
        )
        name, value = escape(_short(row)), escape(readable(figure.median))
        words = f'class="{ours.strip()}" y="{top + 11}"'
        end = min(most, _NAMES + room)
        parts += [
            f'<text {words} x="{_NAMES - 8}" text-anchor="end">{name}</text>',
            f'<path class="bar{ours}" d="{_bar(median, top, _NAMES + room)}"/>',
            f'<text {words} x="{end + 6:.1f}">{value}</text>',
        ]
        if least < most and median <= _NAMES + room:
            line = f"M{least:.1f} {top + _BAR / 2}H{end:.1f}"
            parts.append(f'<path class="spread" d="{line}"/>')
    return parts


def _most(bars: Sequence[tuple[Row, Figure]]) -> float:
    """What a bar of full length stands for: the longest, but not so much that ours vanishes."""
    reaches = (figure.median + min(figure.spread, figure.median) for _, figure in bars)
    longest = max(0.0, *reaches) or 1.0
    ours = [figure.median for row, figure in bars if row.name == OURS and figure.median > 0]
    return min(longest, CUT * ours[0]) if ours else longest


def _bar(right: float, top: int, limit: float) -> str:
    """The outline of a bar; in two pieces if it does not fit."""
    if right <= limit:
        return f"M{_NAMES} {top}H{right:.1f}v{_BAR}H{_NAMES}z"
    gap, slant = limit - 20, 4
    return (
        f"M{_NAMES} {top}H{gap:.1f}l{-slant} {_BAR}H{_NAMES}z"
        f"M{gap + 5:.1f} {top}H{limit:.1f}v{_BAR}H{gap + 5 - slant:.1f}z"
    )


def _short(row: Row) -> str:
    return row.label.partition(",")[0]
