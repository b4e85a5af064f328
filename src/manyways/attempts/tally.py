"""What attempts came to, counted since the start of the process."""

from collections import Counter


class Tally:
    """Plain counters, read by the page of metrics.

    `fallbacks` are answers that did not come from the first attempt. `hedges` are attempts
    started beside a slow one, `hedges_won` those that spoke first. `continuations` counts, by
    method, the joints that were made; `cut` the answers that had begun and ended in an error.
    `left` are callers that went before their answer was complete, `drained` the answers that
    were read on although nobody wanted the rest, and have told their usage.
    """

    __slots__ = ("continuations", "cut", "drained", "fallbacks", "hedges", "hedges_won", "left")

    def __init__(self) -> None:
        self.fallbacks = 0
        self.hedges = 0
        self.hedges_won = 0
        self.continuations: Counter[str] = Counter()
        self.cut = 0
        self.left = 0
        self.drained = 0

    def __repr__(self) -> str:
        return f"<Tally fallbacks={self.fallbacks} hedges={self.hedges} cut={self.cut}>"
