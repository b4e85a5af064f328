"""The same results, for a terminal and for the documentation."""

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.figures import Figure, advantage, readable
from bench.goals import GOALS, NATIVE, OURS
from bench.results import DIRECT, METRICS, Metric, Results

MISSING: Final = "–"
TOLERATED: Final = 0.1
"""What strangers may take of the cores before the reader is told, in cores."""


def show(results: Results, console: Console) -> None:
    """Print figures, ratios and goals, as far as they were measured."""
    metrics = _measured(results)
    _print("Figures: median, ± half the spread", _figures(results, metrics), console)
    if ratios := _ratios(results, metrics):
        _print("How many times better Manyways is than", ratios, console)
    if transports := _transports(results, metrics):
        _print("Manyways over its two transports", transports, console)
    for goal, wanted, reached, met in _goals(results):
        colour = "green" if met else "red"
        words = Text(f"{goal}: wanted {wanted}, reached {reached}: ")
        console.print(words.append("met" if met else "missed", style=colour))
    for remark in _remarks(results):
        console.print(Text(remark, style="dim"))


def page(results: Results) -> str:
    """The documentation's page, in Markdown."""
    metrics = _measured(results)
    ratios = _ratios(results, metrics)
    goals = [[*words, "met" if met else "missed"] for *words, met in _goals(results)]
    peers = [[r.label, r.version or MISSING, r.note] for r in results.rows]
    parts = [
        _INTRODUCTION,
        _where(results),
        "## Figures",
        "Median of the rounds, and half the distance between the best and the worst.",
        _markdown(_figures(results, metrics)),
        "![The same figures as bars](benchmark.svg)",
        "A bar in two pieces is longer than there is room for.",
    ]
    if ratios:
        parts += ["## In ratios", _RATIOS, _markdown(ratios)]
    if transports := _transports(results, metrics):
        parts += ["## Its two transports", _TRANSPORTS, _markdown(transports)]
    if goals:
        parts += ["## Goals", _markdown([["what", "wanted", "reached", ""], *goals])]
    parts += [_method(results), "## Who was measured"]
    parts += [_markdown([["gateway", "version", "set up as"], *peers])]
    parts += [f"- {remark}" for remark in _remarks(results)]
    return "\n\n".join(parts) + "\n"


_INTRODUCTION: Final = """\
# Benchmark

This page is written by `make bench`, which installs the peers into `bench/.peers`, measures all of
them in one run, and takes twenty minutes. `python -m bench --help` tells how to measure
less."""


_RATIOS: Final = """\
How many times better Manyways is: 2 means twice the answers, or half the time or memory; below 1,
the other one is better. Ratios of one run move far less between machines and hours than the
figures themselves do."""


_TRANSPORTS: Final = """\
The same gateway, measured in the same rounds, once over the transport of its own and once over
aiohttp's parts. `python -m bench transport` measures them without a gateway around them."""


def _where(results: Results) -> str:
    machine, settings = results.machine, results.settings
    return (
        f"Measured on {results.date}: {machine.cpu}, {machine.cores} cores, Linux"
        f" {machine.kernel}, {machine.system}, Python {machine.python};"
        f" {settings.rounds} rounds of {settings.seconds:.0f} s."
    )


def _method(results: Results) -> str:
    settings = results.settings
    return f"""\
## What is measured

Every gateway stands before the same upstream, a provider that answers from memory at once, and is
asked for the same model. The gateway has one core to itself, with all its threads and children;
the load and the upstream share the other. The gateways take turns within each round, so that a
busy moment of the machine meets all alike; those not measured are paused, and where we may, the
run goes before other programs. Before a gateway is measured, a whole and a streamed answer through
it are compared with the upstream's word by word.

- **whole answers**: {settings.unary_connections} connections, each asking again when its answer is
  there. Question and answer are 1 kB each.
- **dense streams**: {settings.dense_connections} connections; {settings.chunks} chunks, which the
  upstream sends at once.
- **paced streams**: {settings.paced_streams} at a time, {settings.chunks} chunks 10 ms apart. The
  column of the upstream shows how many that can be at most: the streams' own length bounds it.
  Whoever passes every chunk on in time reaches it and no more, with a busy core or an idle one, so
  this tells who keeps up, not who is quicker.
- **paced streams, twice as many**: {settings.crowd_streams} at a time, about as many chunks as the
  load and the upstream can have on their core (of still more, they give no more), and about as many
  as nginx can pass on one by one. A gateway that is slower than the chunks come finds several of
  them in one read and passes them on together: they are late then, but cost less. The figure is
  how many streams come through that way.
- **processor a paced chunk**: of the gateway's core, while there are {settings.paced_streams}
  paced streams. Of a gateway that does not keep up with these it is the cost of chunks that were
  joined, and alone would be more.
- **added latency**: {settings.rate} whole answers a second on a fixed schedule, measured from the
  moment each was due (so a stall counts for all it delayed), less the same percentile without a
  gateway. Of the upstream itself there is none.
- **memory**: resident, the whole process tree; idle after the first answer, and what each of
  {settings.paced_streams} streams adds while they run (chunks 40 ms apart, at the peak).
  Upstream: of that, what our transports keep, in a process without a gateway and without TLS, with
  {settings.silent_streams} streams of which headers and a chunk have come and that are waited for.
- **start to first answer**: from the start of the process to the end of its first right answer."""


def _measured(results: Results) -> Sequence[Metric]:
    return [m for m in METRICS if any(m.name in row.figures for row in results.rows)]


def _figures(results: Results, metrics: Sequence[Metric]) -> list[list[str]]:
    """Cells, the heading first: a line a metric, a column a row of the results."""
    cells = [["", *(row.label for row in results.rows)]]
    for metric in metrics:
        figures = (row.figures.get(metric.name) for row in results.rows)
        cells.append([f"{metric.title}, {metric.unit}", *map(_cell, figures)])
    return cells


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return MISSING
    median = readable(figure.median)
    return median if len(figure.rounds) == 1 else f"{median} ±{readable(figure.spread)}"


def _ratios(results: Results, metrics: Sequence[Metric]) -> list[list[str]]:
    """Cells as in `_figures`; none where there is nobody to compare with."""
    ours = results.row(OURS)
    others = [row for row in results.rows if row.name not in {OURS, NATIVE, DIRECT}]
    if ours is None or not others:
        return []
    cells = [["", *(row.label for row in others)]]
    for metric in metrics:
        figure = ours.figures.get(metric.name)
        ratios = [
            advantage(figure, row.figures.get(metric.name), more_is_better=metric.more_is_better)
            for row in others
        ]
        if any(ratio is not None for ratio in ratios):
            cells.append([metric.title, *(MISSING if r is None else readable(r) for r in ratios)])
    return cells


def _transports(results: Results, metrics: Sequence[Metric]) -> list[list[str]]:
    """Cells as in `_figures`: both ways we reach the upstream; none where one was not measured."""
    ours, other = results.row(NATIVE), results.row(OURS)
    if ours is None or other is None:
        return []
    cells = [["", "its own", "aiohttp", "times better"]]
    for metric in metrics:
        figure, theirs = ours.figures.get(metric.name), other.figures.get(metric.name)
        ratio = advantage(figure, theirs, more_is_better=metric.more_is_better)
        times = MISSING if ratio is None else readable(ratio)
        cells.append([f"{metric.title}, {metric.unit}", _cell(figure), _cell(theirs), times])
    return cells


def _goals(results: Results) -> Iterator[tuple[str, str, str, bool]]:
    titles = {metric.name: metric.title for metric in METRICS}
    for goal in GOALS:
        reached = goal.reached(results)
        if reached is not None:
            unit = goal.unit or "×"
            wanted = goal.wanted(results)
            whose = titles[goal.metric] + (", own transport" if goal.of == NATIVE else "")
            yield whose, wanted, f"{readable(reached)} {unit}", goal.met(reached)


def _remarks(results: Results) -> list[str]:
    remarks = [f"{row.label}: {remark}" for row in results.rows for remark in row.remarks]
    remarks += [f"{label} was left out: {why}" for label, why in results.absent.items()]
    if results.disturbance > TOLERATED:
        remarks.append(
            f"Other programs took up to {results.disturbance:.2f} of the two cores meanwhile:"
            " figures are lower than they could be, and spread more."
        )
    return remarks


def _print(title: str, cells: Sequence[Sequence[str]], console: Console) -> None:
    table = Table(cells[0][0], title=title, title_justify="left")
    for label in cells[0][1:]:
        table.add_column(label, justify="right")
    for line in cells[1:]:
        table.add_row(*line)
    console.print(table)


def _markdown(cells: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in cells[0][1:])]
    return "\n".join("| " + " | ".join(line) + " |" for line in (cells[0], rule, *cells[1:]))
