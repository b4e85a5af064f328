"""The budget of hedging: what keeps second attempts from doubling the load in an outage."""

from typing import Final

SAVED_AT_MOST: Final = 10.0
"""Hedges that may be saved up in quiet times, and then happen at once."""


class HedgeBudget:
    """Every request earns a share of a hedge; a hedge spends a whole one."""

    __slots__ = ("saved",)

    def __init__(self) -> None:
        self.saved = 0.0

    def __repr__(self) -> str:
        return f"<HedgeBudget {self.saved:.2f}>"

    def earn(self, share: float) -> None:
        """A request has come."""
        self.saved = min(SAVED_AT_MOST, self.saved + share)

    def covers(self) -> bool:
        """Whether a hedge may start now."""
        return self.saved >= 1.0

    def spend(self) -> None:
        """A hedge starts."""
        self.saved -= 1.0
