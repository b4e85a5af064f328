"""What a plan wants done. Every command names an attempt by its id."""

from typing import Literal

from msgspec import Struct

from manyways.errors import Refusal
from manyways.routing.continuation import Method
from manyways.types import Model


class Start(Struct, frozen=True):
    """Ask a candidate. `limit` is in seconds: for the first token of a stream, for the whole of
    a whole answer. `method` is how it goes on from what the caller already has, if it does."""

    attempt: int
    model: Model
    credential: int
    limit: float
    method: Method | None = None


class Cancel(Struct, frozen=True):
    """Give an attempt up; nothing more is to be told about it."""

    attempt: int


class Wait(Struct, frozen=True):
    """Tell `rang` at this moment, unless something else happens before."""

    until: float


class GiveUp(Struct, frozen=True):
    """There will be no answer. `refusal` is what the caller caused, if that is the reason;
    `retry_after` is in seconds."""

    reason: Literal["refused", "exhausted", "deadline"]
    refusal: Refusal | None = None
    retry_after: float | None = None


Command = Start | Cancel | Wait | GiveUp
Commands = tuple[Command, ...]
