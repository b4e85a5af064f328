"""What Manyways is to reach, and whether this run says that it does."""

from typing import Final

from msgspec import Struct

from bench.figures import readable
from bench.results import Results

OURS: Final = "manyways"
OURS_TOO: Final = "manyways-aiohttp"
"""The same gateway over the other transport."""


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
    Goal("unary", 1.8, than="tensorzero"),
    Goal("unary", 80, than="litellm"),
    Goal("dense", 2.5, than="tensorzero"),
    # Where all who keep up give the same, what the upstream gives, rounds differ by a hundredth.
    Goal("paced", 0.99, than="nginx"),
    Goal("crowd", 1, than="nginx"),
    Goal("added_p50", 0.3, unit="ms"),
    Goal("added_p99", 1, unit="ms"),
    Goal("stream", 120, unit="kB"),
    Goal("upstream_side", 60, unit="kB"),
    Goal("idle", 90, unit="MB"),
    Goal("start", 1, unit="s"),
)


def _median(results: Results, name: str, metric: str) -> float | None:
    row = results.row(name)
    figure = None if row is None else row.figures.get(metric)
    return None if figure is None else figure.median
