"""From points to a score, and from two scores to a difference.

Each category weighs the same, whatever the number of its tasks. The interval says what other
tasks of the same kinds might have given; its size comes from how many there are.

A score's interval is Wilson's, of the weighted mean, on the effective number of tasks: as many
equally weighing ones as would tell as much, 1 / (the sum of the squared weights). A bootstrap
would be narrower, and wrong where it matters: a model that has all tasks right, or none, would
get an interval without width. Wilson's never does. It leaves out that tasks were drawn by
category, and that points may be parts, both of which only make the truth nearer: it rather
covers too much.

A difference is one of pairs, task by task, as Bonett and Price do it: with one gain and one
loss more than there were, so that it, too, always has width.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from manyways.catalog.verified import Quality
from manyways.verification.quality.tasks import CATEGORIES, category

FEWEST: Final = 24
"""Tasks that must have been answered for a score."""
FEWEST_EACH: Final = 2
"""Of them in each category."""
FULL: Final = 10.0
_Z: Final = 1.959964
"""Of the normal distribution, 95 % lies within so many standard deviations."""


class Difference(Struct, frozen=True, kw_only=True):
    """By how much the second of two scores is the better one, over the `tasks` that both have,
    by id; it surely enough lies between `low` and `high` (95 %)."""

    tasks: tuple[str, ...]
    difference: float
    low: float
    high: float

    @property
    def proven(self) -> bool:
        """Whether one of the two is better beyond chance."""
        return self.low > 0 or self.high < 0


def score(points: Mapping[str, float], version: str, at: float) -> Quality | None:
    """The score of the points, 0 to 1 each, that tasks have brought, by their ids; `None` where
    these are too few. `version` is that of the set, `at` when it was asked, in Unix seconds.

    Raises `ValueError` for points that are none.
    """
    wrong = [name for name, value in points.items() if not 0 <= value <= 1]
    if wrong:
        raise ValueError(f"points must be from 0 to 1: {', '.join(wrong)}")
    counts = {name: len(found) for name, found in _by_category(points).items()}
    if len(points) < FEWEST or any(counts.get(name, 0) < FEWEST_EACH for name in CATEGORIES):
        return None
    weights = _weights(points)
    mean = math.fsum(weight * points[name] for name, weight in weights.items())
    low, high = _wilson(min(1.0, mean), _effective(weights.values()))
    return Quality(
        score=_rounded(mean),
        low=_rounded(low),
        high=_rounded(high),
        version=version,
        at=at,
        tasks=dict(points),
    )


def comparable(first: Quality, second: Quality) -> Difference:
    """What is between two scores, also of different versions of the set: only the tasks that
    both have are looked at. Where there are none, nothing is known: from -10 to 10."""
    common = sorted(first.tasks.keys() & second.tasks.keys())
    if not common:
        return Difference(tasks=(), difference=0.0, low=-FULL, high=FULL)
    weights = _weights(common)
    changes = [(weight, second.tasks[name] - first.tasks[name]) for name, weight in weights.items()]
    gains = math.fsum(weight * change for weight, change in changes if change > 0)
    losses = -math.fsum(weight * change for weight, change in changes if change < 0)
    number = _effective(weights.values())
    gained, lost = (number * gains + 1) / (number + 2), (number * losses + 1) / (number + 2)
    middle = gained - lost
    reach = _Z * math.sqrt((gained + lost - middle * middle) / (number + 2))
    change = gains - losses
    return Difference(
        tasks=tuple(common),
        difference=_rounded(change),
        low=_rounded(max(-1.0, min(change, middle - reach))),
        high=_rounded(min(1.0, max(change, middle + reach))),
    )


def overlap(first: Quality, second: Quality) -> bool:
    """Whether the intervals have a point in common. Where they have not, the scores differ; where
    they have, `comparable` may still tell them apart, for it looks at each task."""
    return first.low <= second.high and second.low <= first.high


def differ(first: Quality, second: Quality) -> bool:
    """Whether a model has become better or worse beyond chance: by the intervals of the same set
    of tasks; of different versions, by the tasks that are in both."""
    if first.version != second.version:
        return comparable(first, second).proven
    return not overlap(first, second)


def _by_category(ids: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for one in ids:
        found[category(one)].append(one)
    return found


def _weights(ids: Iterable[str]) -> dict[str, float]:
    """What each task counts; 1 in all."""
    groups = _by_category(ids).values()
    return {one: 1 / (len(groups) * len(group)) for group in groups for one in group}


def _effective(weights: Iterable[float]) -> float:
    return 1 / math.fsum(weight * weight for weight in weights)


def _wilson(mean: float, number: float) -> tuple[float, float]:
    z2 = _Z * _Z
    middle = (mean + z2 / (2 * number)) / (1 + z2 / number)
    reach = (
        _Z / (1 + z2 / number) * math.sqrt(mean * (1 - mean) / number + z2 / (4 * number * number))
    )
    return max(0.0, min(mean, middle - reach)), min(1.0, max(mean, middle + reach))


def _rounded(share: float) -> float:
    return round(FULL * share, 2) + 0.0  # no minus zero
