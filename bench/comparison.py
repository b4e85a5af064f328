"""Figures of several subjects that were measured in turn, and their ratios to the first one's."""

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from bench.figures import Figure, readable
from bench.results import Metric

MISSING = "–"


class Comparison:
    """Columns are metrics, lines are subjects. Ratios are taken within each round, so that an
    hour in which the machine is slow counts on both sides."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics
        self._rounds: dict[tuple[str, str], list[float]] = {}

    def __repr__(self) -> str:
        return f"<Comparison {self.subjects}>"

    @property
    def subjects(self) -> list[str]:
        """In the order in which they were first kept."""
        return list(dict.fromkeys(subject for subject, _ in self._rounds))

    def keep(self, subject: str, figures: Mapping[str, float]) -> None:
        """Figures of one more round, by metric."""
        for metric, value in figures.items():
            self._rounds.setdefault((subject, metric), []).append(value)

    def figure(self, subject: str, metric: str) -> Figure | None:
        """What was measured, if it was."""
        rounds = self._rounds.get((subject, metric))
        return None if rounds is None else Figure(tuple(rounds))

    def ratio(self, subject: str, base: str, metric: str) -> float | None:
        """The median of its rounds' figures divided by those of `base`: 0.9 is a tenth less.

        `None` where one is missing, or nothing can be divided by it.
        """
        pairs = list(self._pairs(subject, base, metric))
        if not pairs or any(theirs <= 0 for _, theirs in pairs):
            return None
        return Figure(tuple(ours / theirs for ours, theirs in pairs)).median

    def difference(self, subject: str, base: str, metric: str) -> float | None:
        """The median of its rounds' figures less those of `base`; `None` where one is missing."""
        pairs = list(self._pairs(subject, base, metric))
        return Figure(tuple(ours - theirs for ours, theirs in pairs)).median if pairs else None

    def show(self, console: Console, *, title: str, differ: Iterable[str] = ()) -> None:
        """Print all figures, then what they are compared with the first subject's: ratios, and
        differences of the metrics that `differ` names."""
        first, *others = self.subjects
        table = self._table(title)
        for subject in self.subjects:
            figures = (self.figure(subject, metric.name) for metric in self._metrics)
            table.add_row(subject, *map(_cell, figures))
        console.print(table)
        if not others:
            return
        table = self._table(f"Compared with {first}: × as much, or + so much")
        named = set(differ)
        for subject in others:
            table.add_row(
                subject, *(self._compared(subject, first, m, named) for m in self._metrics)
            )
        console.print(table)

    def _pairs(self, subject: str, base: str, metric: str) -> Iterable[tuple[float, float]]:
        ours = self._rounds.get((subject, metric), [])
        theirs = self._rounds.get((base, metric), [])
        return zip(ours, theirs, strict=False)

    def _table(self, title: str) -> Table:
        table = Table("", title=title, title_justify="left")
        for metric in self._metrics:
            table.add_column(f"{metric.title}, {metric.unit}", justify="right")
        return table

    def _compared(self, subject: str, base: str, metric: Metric, differ: set[str]) -> str:
        if metric.name in differ:
            more = self.difference(subject, base, metric.name)
            return MISSING if more is None else f"{more:+.3f} {metric.unit}"
        ratio = self.ratio(subject, base, metric.name)
        return MISSING if ratio is None else f"× {ratio:.2f}"


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return MISSING
    median = readable(figure.median)
    return median if len(figure.rounds) == 1 else f"{median} ±{readable(figure.spread)}"
