"""A whole answer made of a stream, for providers that are asked for one in its place."""

from typing import Protocol

from manyways.attempts.whole import ANSWER_LIMIT
from manyways.dialects.openai_chat.assemble import Assembly
from manyways.errors import AttemptFailed


class WholeReply(Protocol):
    """Who gets the answer."""

    async def answer(self, body: bytes) -> None:
        """A whole answer. Raises `CallerLeft`."""
        ...


class AssembledReply:
    """A `Reply` that keeps the events of a stream, and answers whole at its end."""

    __slots__ = ("_assembly", "_reply", "started")

    def __init__(self, reply: WholeReply) -> None:
        self._reply = reply
        self._assembly = Assembly()
        self.started = False

    async def start(self) -> None:
        self.started = True

    async def write(self, data: bytes) -> None:
        """Raises `AttemptFailed` where the answer gets too long to be held."""
        self._assembly.feed(data)
        if self._assembly.size > ANSWER_LIMIT:
            self._assembly = Assembly()
            raise AttemptFailed("too_large", f"its answer is over {ANSWER_LIMIT:,} bytes long")

    async def end(self, data: bytes) -> None:
        self._assembly.feed(data)
        await self._reply.answer(self._assembly.answer())
