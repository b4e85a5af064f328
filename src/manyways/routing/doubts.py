"""Callers who are not believed when a model fails for them, because it does not for others.

A request that no model can answer, sent again and again, looks like a model that is broken. It is
told from one by others: where a model was put to rest on the word of one caller alone, and the
first other one is answered, that word was wrong. Once may be chance, an outage that was just
over. Who was wrong `MOST` times is not believed for `LASTS` seconds: its failures are
counted, and let nobody rest. Everybody else's still do.
"""

from typing import Final

MOST: Final = 3
LASTS: Final = 300.0
CALLERS: Final = 1000
"""So many are remembered of each model; of more, those that were wrong first are forgotten."""


class Doubts:
    """Of one model. Nothing is kept of callers who were never wrong."""

    __slots__ = ("_wrong",)

    def __init__(self) -> None:
        self._wrong: dict[str, tuple[int, float]] = {}  # how often, and until when that counts

    def __repr__(self) -> str:
        return f"<Doubts {self._wrong}>"

    def add(self, caller: str, now: float) -> None:
        """Somebody else was answered where this one had failed."""
        count, until = self._wrong.pop(caller, (0, 0.0))
        # Who was not believed any more is so again at the first word that is wrong.
        count = min(count, MOST - 1) if count >= MOST else count * (now < until)
        self._wrong[caller] = count + 1, now + LASTS
        if len(self._wrong) > CALLERS:
            del self._wrong[next(iter(self._wrong))]

    def hold(self, caller: str, now: float) -> bool:
        """Whether a caller is not believed now."""
        count, until = self._wrong.get(caller, (0, 0.0))
        return count >= MOST and now < until
