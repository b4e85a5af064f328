"""How models do with callers, from all that they are asked: figures of the last hour.

Each process counts its own attempts (`Traffic`), in slices of five minutes. What it has counted
in slices that are over goes to the database; every process reads what all have counted and puts
it together (`Gathered`). A slice that is over does not change any more: so all of them tell the
same.
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from msgspec import Struct

from manyways.catalog.sketch import Sketch
from manyways.catalog.verified import Live
from manyways.store.figures import Row

SLICE: Final = 300
"""Seconds, from a whole multiple of them on: the same slices everywhere."""
SLICES: Final = 12
AT_ONCE: Final = 500
MODELS: Final = 20_000
"""So many models are counted at once; for one more, the least used go."""
HALF_LIFE: Final = 1200.0
"""Seconds in which a measurement counts half as much."""
GRACE: Final = 45.0
"""Seconds after which all processes have told what they counted in a slice."""
ENOUGH_ATTEMPTS: Final = 5
ENOUGH_TIMES: Final = 3
"""A rate, a median of fewer would say nothing."""
SHORTEST: Final = 50
"""Milliseconds that an answer must have taken behind its first token: what comes in one piece
has no speed."""


class _Slice(Struct, array_like=True):
    """Five minutes. Sketches are their counts; `answered_at` is Unix seconds, 0 for never."""

    attempts: int = 0
    answered: int = 0
    answered_at: int = 0
    latency: dict[int, int] = {}
    first_token: dict[int, int] = {}
    speed: dict[int, int] = {}


class _Counts:
    """A slice of one model that is not over yet. Sketches are made when they are needed: most
    models are hardly ever asked."""

    __slots__ = ("answered", "answered_at", "attempts", "first_token", "latency", "speed")

    def __init__(self) -> None:
        self.attempts = 0
        self.answered = 0
        self.answered_at = 0.0
        self.latency: Sketch | None = None
        self.first_token: Sketch | None = None
        self.speed: Sketch | None = None

    @property
    def empty(self) -> bool:
        return not self.attempts and self.first_token is None

    def packed(self) -> msgspec.Raw:
        sketches = (self.latency, self.first_token, self.speed)
        fields = [self.attempts, self.answered, int(self.answered_at)]
        told = [{} if sketch is None else sketch.counts for sketch in sketches]
        return msgspec.Raw(_encode([*fields, *told]))


class _Seen:
    """What was seen of one model: the slice under way, and those before it, packed."""

    __slots__ = ("attempts", "counts", "number", "past", "told")

    def __init__(self, number: int) -> None:
        self.number = number
        self.counts = _Counts()
        self.past: dict[int, msgspec.Raw] = {}
        self.attempts = 0
        self.told = number - 1  # the latest slice that was told of

    def turn(self, number: int) -> None:
        """The slice under way is over; another one begins. Where a clock was put back, what was
        counted under its wrong time is forgotten."""
        if not self.counts.empty:
            self.past[self.number] = self.counts.packed()
            self.counts = _Counts()
        for one in [one for one in self.past if not number - SLICES <= one < number]:
            del self.past[one]
        self.number = number
        self.told = min(self.told, number - 1)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[int, _Slice]).decode


def settled(now: float) -> int:
    """The end of the latest slice that all processes have told of by now."""
    return int(now - GRACE) // SLICE * SLICE


class Traffic:
    """The attempts of this process."""

    def __init__(self, *, models: int = MODELS) -> None:
        self._most = models
        self._models: dict[tuple[str, str], _Seen] = {}

    def __repr__(self) -> str:
        return f"<Traffic of {len(self._models)} models>"

    def saw(
        self,
        provider: str,
        model: str,
        *,
        ok: bool | None,
        ms: float,
        first_token_ms: float | None,
        completion_tokens: int,
        ended: float,
    ) -> None:
        """An attempt has ended, at a moment (Unix seconds). `ok` is `None` where that says
        nothing about the model: it was cancelled, or refused through the caller's fault. Its
        first token, if it came, counts all the same."""
        number = int(ended) // SLICE
        seen = self._models.get((provider, model))
        if seen is None:
            seen = self._begin((provider, model), number)
        if number > seen.number or number < seen.number - 1:  # what is a little late is not
            seen.turn(number)
        counts = seen.counts
        if first_token_ms is not None:
            if counts.first_token is None:
                counts.first_token = Sketch()
            counts.first_token.add(first_token_ms)
        if ok is None:
            return
        seen.attempts += 1
        counts.attempts += 1
        if not ok:
            return
        counts.answered += 1
        counts.answered_at = ended
        if counts.latency is None:
            counts.latency = Sketch()
        counts.latency.add(ms)
        if first_token_ms is None or completion_tokens < 2:
            return
        took = ms - first_token_ms
        if took >= SHORTEST:
            if counts.speed is None:
                counts.speed = Sketch()
            counts.speed.add((completion_tokens - 1) * 1000 / took)

    def finished(self, now: float, most: int = AT_ONCE) -> list[tuple[str, str, int, str]]:
        """What is to be stored: of each model with a slice that is over by `now` and was not
        told of yet, its provider, its id, the end of its latest such slice (Unix seconds), and
        the JSON of all those of the last hour. What was not asked for an hour is forgotten.

        `most` models at once, some 10 µs each: to be called until there are none left.
        """
        current = int(now) // SLICE
        rows: list[tuple[str, str, int, str]] = []
        for (provider, model), seen in list(self._models.items()):
            if len(rows) >= most:
                break
            if seen.number < current:
                seen.turn(current)
            latest = max(seen.past, default=0)
            if latest > seen.told:
                seen.told = latest
                document = _encode(seen.past).decode()
                rows.append((provider, model, (latest + 1) * SLICE, document))
            elif not latest and seen.counts.empty:
                del self._models[provider, model]
        return rows

    def _begin(self, name: tuple[str, str], number: int) -> _Seen:
        if len(self._models) >= self._most:
            self._forget()
        seen = self._models[name] = _Seen(number)
        return seen

    def _forget(self) -> None:
        """Many at once: to look for the least used takes long."""
        count = max(1, self._most // 16)
        least = heapq.nsmallest(
            count, self._models.items(), key=lambda item: (item[1].number, item[1].attempts)
        )
        for name, _ in least:
            del self._models[name]


class Gathered:
    """What all processes have told. Equal rows and an equal `now` make equal figures."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], dict[str, Row]] = {}
        self._newest = 0

    def __repr__(self) -> str:
        return f"<Gathered figures of {len(self._rows)} models>"

    def take(self, rows: Iterable[Row]) -> None:
        """Rows that are new or have changed, in any order, again or not. Those more than an hour
        older than the newest are dropped."""
        for row in rows:
            of_model = self._rows.setdefault((row.provider, row.model), {})
            known = of_model.get(row.node)
            if known is None or known.at <= row.at:
                of_model[row.node] = row
            self._newest = max(self._newest, row.at)
        oldest = self._newest - SLICES * SLICE
        for name, of_model in list(self._rows.items()):
            for node in [node for node, row in of_model.items() if row.at <= oldest]:
                del of_model[node]
            if not of_model:
                del self._rows[name]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """The models of which something was told: provider and id."""
        return iter(self._rows)

    def live(self, provider: str, model: str, now: float) -> Live | None:
        """How a model has done in the hour before `now`, of which the slices that are over by
        then count; `None` where nothing is known. Its uptime is left out.

        Takes some 20 µs for each process and slice with traffic.
        """
        last = int(now) // SLICE - 1
        slices: dict[int, list[_Slice]] = defaultdict(list)
        for row in self._rows.get((provider, model), {}).values():
            for number, one in _slices(row).items():
                if last - SLICES < number <= last:
                    slices[number].append(one)
        if not slices:
            return None
        attempts = answered = answered_at = 0
        latency, first_token, speed = _Times(), _Times(), _Times()
        # In order: sums of fractions depend on it.
        for number in sorted(slices):
            weight = 0.5 ** ((last - number) * SLICE / HALF_LIFE)
            same = slices[number]
            attempts += sum(one.attempts for one in same)
            answered += sum(one.answered for one in same)
            answered_at = max(answered_at, *(one.answered_at for one in same))
            latency.add([one.latency for one in same], weight)
            first_token.add([one.first_token for one in same], weight)
            speed.add([one.speed for one in same], weight)
        return Live(
            attempts=attempts,
            success_rate=answered / attempts if attempts >= ENOUGH_ATTEMPTS else None,
            first_token_ms=first_token.whole(0.5),
            first_token_p95_ms=first_token.whole(0.95),
            latency_ms=latency.whole(0.5),
            latency_p95_ms=latency.whole(0.95),
            tokens_per_second=speed.one_digit(0.5),
            answered_at=float(answered_at) if answered_at else None,
        )


class _Times:
    """Values of all processes, the older ones for less."""

    def __init__(self) -> None:
        self._count = 0
        self._sketch = Sketch()

    def add(self, parts: list[dict[int, int]], weight: float) -> None:
        together = Sketch()
        for counts in parts:
            together.merge(Sketch(counts))
        self._count += round(together.weight)
        self._sketch.merge(together, weight)

    def whole(self, share: float) -> int | None:
        found = self._quantile(share)
        return None if found is None else math.floor(found + 0.5)

    def one_digit(self, share: float) -> float | None:
        found = self._quantile(share)
        return None if found is None else round(found, 1)

    def _quantile(self, share: float) -> float | None:
        return self._sketch.quantile(share) if self._count >= ENOUGH_TIMES else None


def _slices(row: Row) -> dict[int, _Slice]:
    """Nothing where another version wrote what this one does not understand."""
    try:
        return _decode(row.document)
    except msgspec.MsgspecError:
        return {}
