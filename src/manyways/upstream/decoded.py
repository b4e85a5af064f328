"""An answer whose body was compressed, whichever transport brought it."""

import asyncio
from collections.abc import Iterator, Mapping
from copy import copy
from typing import Final, Self

from manyways.errors import Cut, TooLarge, TransportError
from manyways.upstream.decoding import Decoder, decoder_of
from manyways.upstream.transport import Response

_OF_THE_CODING: Final = frozenset({"content-encoding", "content-length"})


def decoded(answer: Response) -> Response:
    """An answer as its server meant it: decoded, if it came in a coding that we know."""
    coding = answer.headers.get("content-encoding")
    decoder = None if coding is None else decoder_of(coding)
    return answer if decoder is None else Decoded(answer, decoder)


class Decoded:
    """Implements `transport.Response`, and owns the answer that it decodes."""

    __slots__ = ("_answer", "_decoder", "_failure", "_over", "headers", "status")

    def __init__(self, answer: Response, decoder: Decoder) -> None:
        self.status = answer.status
        self.headers: Mapping[str, str] = _Fields(answer.headers)
        self._answer = answer
        self._decoder = decoder
        self._over = False  # the end was told
        # What a copy of is raised in place of it: one that was raised knows its frames, and so
        # this answer, which only the garbage collector would part again.
        self._failure: TransportError | None = None

    def __repr__(self) -> str:
        return f"<Decoded {self._failure or repr(self._answer)}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if not self._over and self._failure is None:
            self._failure = Cut("the answer was left before its end")
        await self._answer.__aexit__(*exc)

    async def chunk(self) -> bytes:
        """As `transport.Response.chunk` promises."""
        if self._failure is not None:
            raise copy(self._failure)
        decoder = self._decoder
        try:
            data = decoder.take()
            if data:
                await asyncio.sleep(0)  # one read may hold gigabytes: others have their turn
            while not data:
                if came := await self._answer.chunk():
                    decoder.feed(came)
                    data = decoder.take()
                else:
                    decoder.close()
                    self._over = True
                    break
        except BaseException as error:
            given_up = Cut("waiting for the answer was given up")
            await self._give_up(copy(error) if isinstance(error, TransportError) else given_up)
            raise
        return data

    async def body(self, limit: int) -> bytes:
        """As `transport.Response.body` promises; the limit is for what was decoded."""
        chunks, size = [], 0
        while data := await self.chunk():
            chunks.append(data)
            size += len(data)
            if size > limit:
                await self._give_up(TooLarge(f"the answer is larger than {limit} bytes"))
                raise TooLarge(f"the answer is larger than {limit} bytes")
        return b"".join(chunks)

    async def _give_up(self, failure: TransportError) -> None:
        """There is no more to come. Whoever reads on is told why."""
        self._failure = failure
        await self._answer.__aexit__(None, None, None)


class _Fields(Mapping[str, str]):
    """An answer's headers without those that were about its coding."""

    def __init__(self, inner: Mapping[str, str]) -> None:
        self._inner = inner

    def __getitem__(self, name: str) -> str:
        if name.lower() in _OF_THE_CODING:
            raise KeyError(name)
        return self._inner[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._inner if name.lower() not in _OF_THE_CODING)

    def __len__(self) -> int:
        return sum(1 for _ in self)
