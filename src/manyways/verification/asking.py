"""How verification reaches models: handed in, so that nothing here knows the network."""

from collections.abc import AsyncGenerator
from typing import Protocol

from msgspec import Struct

from manyways.types import Model

JSON = "application/json"


class Answer(Struct, frozen=True, kw_only=True):
    """A whole answer with status 200. `content_type` is without parameters, in lower case."""

    body: bytes
    content_type: str = JSON


class Asker(Protocol):
    """Asks models at their providers, one attempt a call. Everything raises `AttemptFailed`, and
    `Refusal` where the provider says that the request is wrong. `limit` is in seconds, and
    binds the whole call, and `largest` in bytes what comes back."""

    async def whole(
        self,
        model: Model,
        path: str,
        body: bytes,
        *,
        content_type: str = JSON,
        limit: float,
        largest: int,
    ) -> Answer:
        """`POST` below the provider's `base_url`: `path` begins with a slash."""
        ...

    def stream(
        self, model: Model, path: str, body: bytes, *, limit: float, largest: int
    ) -> AsyncGenerator[bytes, None]:
        """The same for an answer that is a stream of events: its bytes, as they come."""
        ...

    async def fetch(self, model: Model, url: str, *, limit: float) -> Answer:
        """`GET` of an address that the model has named in its answer. `Refusal` where it leads
        to where nobody should be sent."""
        ...
