"""The same results, for a terminal and for the documentation."""

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.figures import Figure, advantage, readable
from bench.goals import GOALS, OURS
from bench.results import DIRECT, METRICS, Metric, Results, Row

MISSING: Final = "–"


def show(results: Results, console: Console) -> None:
    """Print figures, ratios and goals, as far as they were measured."""
    metrics = _measured(results)
    figures = Table("median ± half the spread", *map(_heading, metrics), title="Figures")
    ratios = Table("× better than", *(m.title for m in metrics), title="Manyways in ratios")
    for table in (figures, ratios):
        for column in table.columns[1:]:
            column.justify = "right"
    for row in results.rows:
        figures.add_row(row.label, *_cells(row, metrics), style="bold" if row.name == OURS else "")
    for label, cells in _ratios(results, metrics):
        ratios.add_row(label, *cells)
    console.print(figures)
    if ratios.row_count:
        console.print(ratios)
    for goal, wanted, reached, met in _goals(results):
        colour = "green" if met else "red"
        words = Text(f"{goal}: wanted {wanted}, reached {reached}: ")
        console.print(words.append("met" if met else "missed", style=colour))
    for remark in _remarks(results):
        console.print(Text(remark, style="dim"))


def page(results: Results) -> str:
    """The documentation's page, in Markdown."""
    metrics = _measured(results)
    figures = [[f"**{r.label}**" if r.name == OURS else r.label, *_cells(r, metrics)]
               for r in results.rows]  # fmt: skip
    ratios = [[label, *cells] for label, cells in _ratios(results, metrics)]
    goals = [[goal, wanted, reached, "met" if met else "missed"]
             for goal, wanted, reached, met in _goals(results)]  # fmt: skip
    peers = [[r.label, r.version or MISSING, r.note] for r in results.rows]
    parts = [
        _INTRODUCTION,
        _where(results),
        "## Figures",
        "Median of the rounds, and half the distance between the best and the worst.",
        _markdown(["gateway", *map(_heading, metrics)], figures),
        "![The same figures as bars](benchmark.svg)",
    ]
    if ratios:
        parts += ["## In ratios", _RATIOS]
        parts += [_markdown(["better than", *(m.title for m in metrics)], ratios)]
    if goals:
        parts += ["## Goals", _markdown(["what", "wanted", "reached", ""], goals)]
    parts += [_method(results), "## Who was measured"]
    parts += [_markdown(["gateway", "version", "set up as"], peers)]
    parts += [f"- {remark}" for remark in _remarks(results)]
    return "\n\n".join(parts) + "\n"


_INTRODUCTION: Final = """\
# Benchmark

This page is written by `make bench`, which installs the peers into `bench/.peers`, measures all of
them in one run, and takes some ten minutes. `python -m bench --help` tells how to measure less."""


_RATIOS: Final = """\
How many times better Manyways is: 2 means twice the answers, or half the time or memory; below 1,
the other one is better. Ratios of one run move far less between machines and hours than the
figures themselves do."""


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
busy moment of the machine meets all alike; those not measured are paused. Before a gateway is
measured, a whole and a streamed answer through it are compared with the upstream's word by word.

- **whole answers**: {settings.unary_connections} connections, each asking again when its answer is
  there. Question and answer are 1 kB each.
- **dense streams**: {settings.dense_connections} connections; {settings.chunks} chunks, which the
  upstream sends at once.
- **paced streams**: {settings.paced_streams} at a time, {settings.chunks} chunks 10 ms apart. The
  row of the upstream shows how many that can be at most.
- **added latency**: {settings.rate} whole answers a second on a fixed schedule, measured from the
  moment each was due (so a stall counts for all it delayed), less the same percentile without a
  gateway. Of the upstream itself there is none.
- **memory**: resident, the whole process tree; idle after the first answer, and what each of
  {settings.paced_streams} streams adds while they run (chunks 40 ms apart, at the peak).
- **start to first answer**: from the start of the process to the end of its first right answer."""


def _heading(metric: Metric) -> str:
    return f"{metric.title}, {metric.unit}"


def _measured(results: Results) -> Sequence[Metric]:
    return [m for m in METRICS if any(m.name in row.figures for row in results.rows)]


def _cells(row: Row, metrics: Sequence[Metric]) -> list[str]:
    return [_cell(row.figures.get(metric.name)) for metric in metrics]


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return MISSING
    return f"{readable(figure.median)} ± {readable(figure.spread)}"


def _ratios(results: Results, metrics: Sequence[Metric]) -> Iterator[tuple[str, list[str]]]:
    ours = results.row(OURS)
    if ours is None:
        return
    for row in results.rows:
        if row.name in {OURS, DIRECT}:
            continue
        pairs = (
            advantage(
                ours.figures.get(m.name), row.figures.get(m.name), more_is_better=m.more_is_better
            )
            for m in metrics
        )
        yield row.label, [MISSING if pair is None else readable(pair) for pair in pairs]


def _goals(results: Results) -> Iterator[tuple[str, str, str, bool]]:
    titles = {metric.name: metric.title for metric in METRICS}
    for goal in GOALS:
        reached = goal.reached(results)
        if reached is not None:
            unit = goal.unit or "×"
            wanted = goal.wanted(results)
            yield titles[goal.metric], wanted, f"{readable(reached)} {unit}", goal.met(reached)


def _remarks(results: Results) -> list[str]:
    remarks = [f"{row.label}: {remark}" for row in results.rows for remark in row.remarks]
    return remarks + [f"{label} was left out: {why}" for label, why in results.absent.items()]


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))
