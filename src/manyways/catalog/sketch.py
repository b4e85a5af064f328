"""A sketch of many values that tells their quantiles, in little room.

Values are counted in buckets, each 4 % wider than the one below it: so a quantile is told within
2 %, whatever the values are, and sketches add up without loss (Masson, Rim and Lee: "DDSketch",
2019). There are no more than `BUCKETS` of them, and few in use where values are alike.
"""

import math
from collections.abc import Mapping
from typing import Final

ERROR: Final = 0.02
"""What a quantile may be off by, as a share of it."""
LEAST: Final = 0.01
MOST: Final = 1e7
"""Values beyond these are counted as these."""

_WIDTH: Final = (1 + ERROR) / (1 - ERROR)
_SCALE: Final = 1 / math.log(_WIDTH)
_FIRST: Final = math.ceil(math.log(LEAST) * _SCALE)
_LAST: Final = math.ceil(math.log(MOST) * _SCALE)
BUCKETS: Final = _LAST - _FIRST + 1

_log = math.log
_ceil = math.ceil


class Sketch:
    """Counts by bucket. `counts` is its JSON form as well: the weight of each bucket by its
    number, whole numbers as long as nothing was scaled."""

    __slots__ = ("counts",)

    def __init__(self, counts: Mapping[int, float] | None = None) -> None:
        self.counts: dict[int, float] = {} if counts is None else dict(counts)

    def __repr__(self) -> str:
        return f"<Sketch of {self.weight:g} in {len(self.counts)} buckets>"

    @property
    def weight(self) -> float:
        """How many values there are; after scaling, what they weigh."""
        return math.fsum(self.counts.values())

    def add(self, value: float) -> None:
        """One more value."""
        if value > LEAST:
            bucket = _ceil(_log(value) * _SCALE) if value < MOST else _LAST
        else:
            bucket = _FIRST
        counts = self.counts
        if bucket in counts:
            counts[bucket] += 1
        else:
            counts[bucket] = 1

    def merge(self, other: "Sketch", weight: float = 1) -> None:
        """All of another's values, each for `weight` of its own."""
        counts = self.counts
        for bucket, count in other.counts.items():
            counts[bucket] = counts.get(bucket, 0) + count * weight

    def quantile(self, share: float) -> float | None:
        """The least value that `share` (0 to 1) of all are not above, within `ERROR`; `None`
        where there are none. Equal counts tell equal quantiles, however they were put together."""
        buckets = sorted(self.counts)
        if not buckets:
            return None
        rank = share * self.weight * (1 - 1e-12)  # what adds up to it is not missed by rounding
        below = 0.0
        found = buckets[-1]
        for bucket in buckets:
            below += self.counts[bucket]
            if below >= rank and below > 0:
                found = bucket
                break
        return 2 * _WIDTH**found / (_WIDTH + 1)
