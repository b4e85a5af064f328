"""An answer on its way: what `transport.Response` promises."""

import asyncio
import math
from collections.abc import Iterator, Mapping
from copy import copy
from typing import Any, Self

from manyways.errors import Cut, TimedOut, TooLarge, TransportError
from manyways.upstream.native.pool import Pool
from manyways.upstream.native.wire import Headers, Wire

_DIGITS = 16  # of a length that is believed beforehand


class Answer:
    """Implements `transport.Response`. `idle` is in seconds, `ends` a moment of the loop."""

    __slots__ = ("_bell", "_due", "_ends", "_failure", "_idle", "_loop", "_pool",
                 "_whole", "_wire", "headers", "status")  # fmt: skip

    def __init__(
        self,
        wire: Wire,
        pool: Pool,
        loop: asyncio.AbstractEventLoop,
        *,
        idle: float,
        whole: float,
        ends: float,
    ) -> None:
        self.status = wire.status
        self.headers: Mapping[str, str] = Fields(wire.headers)
        self._wire: Wire | None = wire  # None once it was given back
        self._pool = pool
        self._loop = loop
        self._idle = idle
        self._whole = whole
        self._ends = ends
        self._due = 0.0
        self._bell: asyncio.TimerHandle | None = None
        # What a copy of is raised in place of an end: one that was raised knows its frames, and
        # so this answer, which only the garbage collector would part again.
        self._failure: TransportError | None = None

    def __repr__(self) -> str:
        state = self._failure or ("open" if self._wire else "complete")
        return f"<Answer {self.status} {state}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._wire is not None:
            self._give_up(Cut("the answer was left before its end"))

    async def chunk(self) -> bytes:
        """As `transport.Response.chunk` promises."""
        wire = self._wire
        if wire is None:
            if self._failure is not None:
                raise copy(self._failure)
            return b""
        while True:
            if self._ends < math.inf and self._loop.time() >= self._ends:
                wire.abort(TimedOut("whole", self._whole))  # which leaves what has come
            data = wire.read()
            if wire.complete:
                self._end(wire)
                return data
            if data:
                return data
            if wire.failure is not None:
                self._give_up(wire.failure)
                raise copy(wire.failure)
            self._watch()
            try:
                await wire.wait()
            except BaseException:
                self._give_up(Cut("waiting for the answer was given up"))
                raise
            self._due = 0.0

    async def body(self, limit: int) -> bytes:
        """As `transport.Response.body` promises."""
        claimed = self.headers.get("content-length", "")
        size = int(claimed) if claimed.isdecimal() and len(claimed) < _DIGITS else 0
        chunks = []
        if size <= limit:
            size = 0
            while data := await self.chunk():
                chunks.append(data)
                size += len(data)
                if size > limit:
                    break
            else:
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._give_up(TooLarge(f"the answer is larger than {limit} bytes"))
        raise TooLarge(f"the answer is larger than {limit} bytes")

    def _watch(self) -> None:
        """Begin to wait. The bell is hung once and looks, when it rings, what is due by then."""
        self._due = min(self._loop.time() + self._idle, self._ends)
        if self._bell is None:
            self._bell = self._loop.call_at(self._due, self._ring)

    def _ring(self) -> None:
        self._bell = None
        wire = self._wire
        if not self._due or wire is None:
            return  # nobody waits
        now = self._loop.time()
        if now < self._due:
            self._bell = self._loop.call_at(self._due, self._ring)
        elif now >= self._ends:
            wire.abort(TimedOut("whole", self._whole))
        else:
            wire.abort(TimedOut("body", self._idle))

    def _end(self, wire: Wire) -> None:
        self._wire = None
        self._pool.give_back(wire)
        if self._bell is not None:
            self._bell.cancel()
            self._bell = None

    def _give_up(self, failure: TransportError) -> None:
        """There is no more to come. Whoever reads on is told why."""
        self._failure = failure
        wire = self._wire
        if wire is not None:
            wire.abort(failure)
            self._end(wire)


class Fields(Mapping[str, str]):
    """Headers as they came, to be looked up in any case; of repeated ones the first."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Headers) -> None:
        self._raw = raw

    def __repr__(self) -> str:
        return f"<Fields {self._raw}>"

    def __getitem__(self, name: str) -> str:
        found = self._find(name)
        if found is None:
            raise KeyError(name)
        return found

    def get(self, name: str, default: Any = None) -> Any:
        """As a mapping's, which would raise an exception first."""
        found = self._find(name)
        return default if found is None else found

    def _find(self, name: str) -> str | None:
        """One pass over some ten headers costs less than a dictionary of them."""
        wanted = name.lower().encode("utf-8", "surrogateescape")
        size = len(wanted)
        for key, value in self._raw:
            if len(key) == size and key.lower() == wanted:
                return value.decode("utf-8", "surrogateescape").strip()
        return None

    def __iter__(self) -> Iterator[str]:
        yield from dict.fromkeys(name.decode("latin-1").lower() for name, _ in self._raw)

    def __len__(self) -> int:
        return len(set(self))
