"""The arithmetic of the benchmark: percentiles, medians, spreads, ratios."""

import math
import statistics
from collections.abc import Sequence

import msgspec


class Figure(msgspec.Struct, frozen=True):
    """A quantity measured in several rounds, in their order."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def spread(self) -> float:
        """Half the distance between the best and the worst round."""
        return (max(self.rounds) - min(self.rounds)) / 2


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` (0 to 1) of them do not exceed.

    Raises `ValueError` when there are none.
    """
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def advantage(ours: Figure | None, theirs: Figure | None, *, more_is_better: bool) -> float | None:
    """How many times better `ours` is than `theirs`, by the medians: 2 is twice as good.

    `None` where one is missing, or where a median that is not positive allows no ratio.
    """
    if ours is None or theirs is None or ours.median <= 0 or theirs.median <= 0:
        return None
    ratio = ours.median / theirs.median
    return ratio if more_is_better else 1 / ratio


def readable(value: float) -> str:
    """A number with as many digits as it deserves: 12,300; 431; 23.1; 9.14; 0.325."""
    if abs(value) >= 1000:
        digits = len(str(int(abs(value)))) - 3
        return f"{round(value, -digits):,.0f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"
