"""What a plan knows of its attempts, and of the candidates it has tried."""

from typing import Protocol

from msgspec import Raw

from manyways.errors import AttemptFailed, Refusal
from manyways.routing.candidate import Candidate, Ticket
from manyways.routing.continuation import Method
from manyways.types import Model, Usage


class Speech(Protocol):
    """A stream, as far as it has come."""

    @property
    def usage(self) -> Raw | None:
        """What the provider has told of its usage, last."""
        ...

    @property
    def produced(self) -> str:
        """All text that the provider has produced in this attempt."""
        ...

    def feed(self, chunk: bytes) -> bytes:
        """Hear more of it."""
        ...


class Attempt(Ticket):
    """What is known of one attempt. `outcome` is `None` while it runs, `"answered"`,
    `"cancelled"`, `"refused"`, or the class of its failure. `usage` is what it came to, once
    that is known for sure; of a stream it is to be found out from its `speech`."""

    __slots__ = (
        "ended", "failure", "id", "limit", "method", "model", "outcome", "refusal", "speech",
        "spoke_at", "usage",
    )  # fmt: skip

    def __init__(
        self,
        candidate: Candidate,
        credential: int,
        began: float,
        *,
        stream: bool,
        number: int,
        method: Method | None,
        caller: str = "",
    ) -> None:
        super().__init__(candidate, credential, began, stream=stream, caller=caller)
        self.id = number
        self.model = candidate.model
        self.method = method
        self.limit = 0.0
        self.spoke_at: float | None = None
        self.ended: float | None = None
        self.outcome: str | None = None
        self.failure: AttemptFailed | None = None
        self.refusal: Refusal | None = None
        self.usage: Usage | None = None
        self.speech: Speech | None = None

    def __repr__(self) -> str:
        method = f" {self.method}" if self.method else ""
        name = f"{self.model.provider}/{self.model.id}"
        return f"<Attempt {self.id} {name}{method} {self.outcome or 'running'}>"


class Tried:
    """What one candidate did wrong in this plan."""

    __slots__ = ("again_at", "model", "over", "repeats", "silent", "useless")

    def __init__(self, model: Model) -> None:
        self.model = model
        self.repeats = 0
        self.silent = 0.0  # seconds of waiting for nothing
        self.again_at = 0.0
        self.over = False  # asking again is of no use
        self.useless = False  # nor is it, to go on from a broken answer
