"""The findings as a picture: an SVG written by hand, readable on light and on dark pages."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from bench.simulate import scenarios
from bench.simulate.play import Counts, Variant
from bench.simulate.study import Findings, probes

WIDTH: Final = 880
_MARGIN: Final = 16
_GUTTER: Final = 32
_NAMES: Final = 142
_VALUES: Final = 52
_BAR: Final = 14
_LINE: Final = 22
_TITLE: Final = 30

_STYLE: Final = """\
text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #57606a; }
.title { font-weight: 600; font-size: 13px; fill: #1f2328; }
.ours { font-weight: 600; fill: #1f2328; }
.bar { fill: #afb8c1; }
.bar.ours { fill: #0969da; }
.base { stroke: #d0d7de; }
.down { fill: #afb8c1; opacity: 0.3; }
.tick { stroke: #57606a; stroke-width: 1.5; }
.tick.ours { stroke: #0969da; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
  text { fill: #9198a1; }
  .title, .ours { fill: #f0f6fc; }
  .bar { fill: #4a525c; }
  .bar.ours { fill: #4493f8; }
  .base { stroke: #3d444d; }
  .down { fill: #4a525c; }
  .tick { stroke: #9198a1; }
  .tick.ours { stroke: #4493f8; }
}"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One setting's figure; `text` is how it is written, `ours` the default's."""

    name: str
    value: float
    text: str
    ours: bool


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure in several settings. The default's bar is the one in colour."""

    title: str
    bars: Sequence[Bar]


def panels(findings: Findings) -> list[Panel]:
    """What the text argues with."""

    def each(
        scenario: str,
        variants: Mapping[str, Variant],
        figure: Callable[[Counts], float],
        form: str,
    ) -> list[Bar]:
        found = []
        for name, variant in variants.items():
            value = figure(findings.of(scenario, variant))
            found.append(Bar(name, value, format(value, form), variant == scenarios.DEFAULT))
        return found

    def dead(counts: Counts) -> float:
        return probes(counts, scenarios.SCENARIOS["quiet hours, crash"])

    def down(counts: Counts) -> float:
        return probes(counts, scenarios.SCENARIOS["model down"])

    def fidelity(counts: Counts) -> float:
        return counts.fidelity

    rests, hedges = scenarios.RESTS, scenarios.HEDGES
    return [
        Panel(
            "Rests: attempts at the dead in a minute's outage",
            each("quiet hours, crash", rests, dead, ".1f"),
        ),
        Panel(
            "Rests: back after at worst, s",
            each("quiet hours, crash", rests, lambda counts: max(counts.back), ".1f"),
        ),
        Panel(
            "Rests, blips: answers by the asked model",
            each("blips", rests, fidelity, ".0%"),
        ),
        Panel(
            "Attempts at most, everything shaky: answered",
            each("everything shaky", scenarios.ATTEMPTS, lambda counts: counts.success, ".0%"),
        ),
        Panel(
            "Races, long tail: p99 to the first token, s",
            each("long tail", hedges, lambda counts: counts.percentile(0.99), ".1f"),
        ),
        Panel(
            "Races, long tail: further attempts a request",
            each("long tail", hedges, lambda counts: counts.load - 1, ".1%"),
        ),
        Panel(
            "Memory, model down: attempts at the dead",
            each("model down", scenarios.MEMORIES, down, ".0f"),
        ),
        Panel(
            "Memory, strays: answers by the asked model",
            each("strays", scenarios.MEMORIES, fidelity, ".0%"),
        ),
    ]


def svg(findings: Findings) -> str:
    """A line of time first, then one panel a figure, two beside each other."""
    shown = panels(findings)
    width = (WIDTH - 2 * _MARGIN - _GUTTER) / 2
    parts = [f'<g transform="translate({_MARGIN} {_MARGIN})">', *_timeline(findings), "</g>"]
    top = _MARGIN + _TITLE + 3 * _LINE + _MARGIN
    for start in range(0, len(shown), 2):
        line = shown[start : start + 2]
        for column, panel in enumerate(line):
            left = _MARGIN + column * (width + _GUTTER)
            parts += [f'<g transform="translate({left:.0f} {top})">', *bars(panel, width), "</g>"]
        top += _TITLE + _LINE * max(len(panel.bars) for panel in line) + _MARGIN
    label = "Simulated outages: " + ", ".join(panel.title for panel in shown)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" role="img"'
        f" aria-label={quoteattr(label)}>"
    )
    return "\n".join([head, f"<style>\n{_STYLE}\n</style>", *parts, "</svg>"]) + "\n"


def _timeline(findings: Findings) -> Iterator[str]:
    """When the dead provider was asked, with a memory and without: one outage of the quiet."""
    room = WIDTH - 2 * _MARGIN - _NAMES - _VALUES
    begin, end = scenarios.BEGIN, scenarios.END

    def at(moment: float) -> float:
        return _NAMES + room * (moment - begin) / (end - begin)

    yield (
        '<text class="title" y="14">A minute\'s outage at one request every 4 s:'
        " when the dead provider was asked</text>"
    )
    yield (
        f'<path class="down" d="M{_NAMES} {_TITLE - 4}H{_NAMES + room}V{_TITLE + 2 * _LINE}'
        f'H{_NAMES}z"/>'
    )
    without = scenarios.MEMORIES["no memory"]
    for row, (name, variant) in enumerate((("no memory", without), ("memory", scenarios.DEFAULT))):
        ours = " ours" if variant == scenarios.DEFAULT else ""
        moments = one_outage(findings, variant)
        y = _TITLE + _LINE * row
        words = f'class="{ours.strip()}" y="{y + 11}"'
        yield f'<text {words} x="{_NAMES - 8}" text-anchor="end">{escape(name)}</text>'
        ticks = "".join(f"M{at(moment):.1f} {y}v{_BAR}" for moment in moments)
        yield f'<path class="tick{ours}" d="{ticks}"/>'
        yield f'<text {words} x="{_NAMES + room + 6}">{len(moments)}</text>'
    yield f'<text x="{_NAMES}" y="{_TITLE + 2 * _LINE + 14}">0 s</text>'
    yield (f'<text x="{_NAMES + room}" y="{_TITLE + 2 * _LINE + 14}" text-anchor="end">60 s</text>')


def one_outage(findings: Findings, variant: Variant) -> list[float]:
    """When the dead provider was asked in the first of the outages in the quiet."""
    dead = findings.of("quiet hours, crash", variant).dead
    # All seeds follow each other: the first ends where time goes back.
    ends = next((i for i in range(1, len(dead)) if dead[i] < dead[i - 1]), len(dead))
    return dead[:ends]


def bars(panel: Panel, width: float) -> Iterator[str]:
    room = width - _NAMES - _VALUES
    scale = room / (max(bar.value for bar in panel.bars) or 1.0)
    bottom = _TITLE + _LINE * len(panel.bars) - (_LINE - _BAR)
    yield f'<text class="title" y="14">{escape(panel.title)}</text>'
    yield f'<path class="base" d="M{_NAMES} {_TITLE - 4}V{bottom + 4}"/>'
    for row, bar in enumerate(panel.bars):
        y = _TITLE + _LINE * row
        ours = " ours" if bar.ours else ""
        words = f'class="{ours.strip()}" y="{y + 11}"'
        end = _NAMES + scale * bar.value
        yield f'<text {words} x="{_NAMES - 8}" text-anchor="end">{escape(bar.name)}</text>'
        yield f'<path class="bar{ours}" d="M{_NAMES} {y}H{end:.1f}v{_BAR}H{_NAMES}z"/>'
        yield f'<text {words} x="{end + 6:.1f}">{escape(bar.text)}</text>'
