"""The `[routing]` section: who is asked, in which order, and how long anything may take."""

from typing import Literal

from msgspec import Struct

Order = Literal["same-provider-first", "same-model-first"]


class Settings(Struct, frozen=True, kw_only=True):
    """Time limits in seconds.

    `connect_timeout` is for a connection to stand, `first_token_timeout` for a stream's first
    event with content, `idle_timeout` for the next one, `answer_timeout` for an answer that
    comes whole, `deadline` for everything together, all attempts included.
    """

    order: Order = "same-provider-first"
    max_attempts: int = 10
    connect_timeout: float = 5.0
    first_token_timeout: float = 10.0
    idle_timeout: float = 10.0
    answer_timeout: float = 120.0
    deadline: float = 170.0
    hedge: bool = False
    assemble: bool = False
    continuation: bool | Literal["best-effort"] = True
