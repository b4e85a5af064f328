"""What Manyways is to reach, and whether this run says that it does."""

from typing import Final

from msgspec import Struct

from bench.figures import readable
from bench.results import Results

OURS: Final = "manyways"


class Goal(Struct, frozen=True):
    """A bound on one of our figures, or on its ratio to a peer's.

    With `than`, `bound` is the least ratio to that peer's figure; without, it is the most that
    the figure itself may be.
    """

    metric: str
    bound: float
    unit: str = ""
    than: str | None = None

    def reached(self, results: Results) -> float | None:
        """What this run found, in the goal's own terms; `None` where it was not measured."""
        ours = _median(results, OURS, self.metric)
        if self.than is None or ours is None:
            return ours
        theirs = _median(results, self.than, self.metric)
        return ours / theirs if theirs else None

    def met(self, reached: float) -> bool:
        return reached <= self.bound if self.than is None else reached >= self.bound

    def wanted(self, results: Results) -> str:
        """The bound, in words."""
        if self.than is None:
            return f"≤ {readable(self.bound)} {self.unit}"
        row = results.row(self.than)
        return f"≥ {readable(self.bound)} × {self.than if row is None else row.label}"


GOALS: Final = (
    Goal("unary", 1.1, than="tensorzero"),
    Goal("unary", 80, than="litellm"),
    Goal("paced", 1.3, than="tensorzero"),
    Goal("added_p50", 0.4, unit="ms"),
    Goal("added_p99", 2, unit="ms"),
    Goal("stream", 120, unit="kB"),
    Goal("idle", 90, unit="MB"),
    Goal("start", 1, unit="s"),
)


def _median(results: Results, name: str, metric: str) -> float | None:
    row = results.row(name)
    figure = None if row is None else row.figures.get(metric)
    return None if figure is None else figure.median
