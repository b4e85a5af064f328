"""What Manyways is to reach, and whether this run says that it does."""

from typing import Final

from msgspec import Struct

from bench.figures import readable
from bench.results import Results

OURS: Final = "manyways"
"""As it comes."""
NATIVE: Final = "manyways-native"
"""The same gateway over the transport of its own."""


class Goal(Struct, frozen=True):
    """A bound on one of our figures, or on its ratio to a peer's.

    With `than`, `bound` is the least ratio to that peer's figure; without, it is the most that
    the figure itself may be. `of` is whose figure it is.
    """

    metric: str
    bound: float
    unit: str = ""
    than: str | None = None
    of: str = OURS

    def reached(self, results: Results) -> float | None:
        """What this run found, in the goal's own terms; `None` where it was not measured."""
        ours = _median(results, self.of, self.metric)
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
    Goal("unary", 80, than="litellm"),
    Goal("stream", 120, unit="kB"),
    Goal("idle", 90, unit="MB"),
    Goal("start", 1, unit="s"),
    # Our own transport becomes the default when all of the rest are met.
    Goal("unary", 1.8, than="tensorzero", of=NATIVE),
    Goal("dense", 2.5, than="tensorzero", of=NATIVE),
    # Where all who keep up give the same, what the upstream gives, rounds differ by a hundredth.
    Goal("paced", 0.99, than="nginx", of=NATIVE),
    Goal("crowd", 1, than="nginx", of=NATIVE),
    Goal("added_p50", 0.3, unit="ms", of=NATIVE),
    Goal("added_p99", 1, unit="ms", of=NATIVE),
    Goal("upstream_side", 60, unit="kB", of=NATIVE),
)


def _median(results: Results, name: str, metric: str) -> float | None:
    row = results.row(name)
    figure = None if row is None else row.figures.get(metric)
    return None if figure is None else figure.median
