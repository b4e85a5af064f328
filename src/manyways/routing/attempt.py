"""What a plan knows of its attempts, and of the candidates it has tried."""

from manyways.errors import AttemptFailed, Refusal
from manyways.routing.continuation import Method
from manyways.routing.health import Candidate, Ticket
from manyways.types import Model


class Attempt(Ticket):
    """What is known of one attempt. `outcome` is `None` while it runs, `"answered"`,
    `"cancelled"`, `"refused"`, or the class of its failure."""

    __slots__ = (
        "ended", "failure", "id", "limit", "method", "model", "outcome", "refusal", "spoke_at",
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
    ) -> None:
        super().__init__(candidate, credential, began, stream=stream)
        self.id = number
        self.model = candidate.model
        self.method = method
        self.limit = 0.0
        self.spoke_at: float | None = None
        self.ended: float | None = None
        self.outcome: str | None = None
        self.failure: AttemptFailed | None = None
        self.refusal: Refusal | None = None

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
