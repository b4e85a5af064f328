"""The `[routing]` section: who is asked, in which order, and how long anything may take."""

from typing import Literal

from msgspec import Struct

Order = Literal["same-provider-first", "same-model-first"]


class Settings(Struct, frozen=True, kw_only=True):
    """Time limits in seconds.

    `connect_timeout` is for a connection to stand, `first_token_timeout` for a stream's first
    event with content, `idle_timeout` for the next one, `answer_timeout` for an answer that
    comes whole, `deadline` for everything together, all attempts included.

    `retries` is how often one candidate is asked again when nothing else is left, after
    `retry_pause`, doubled each time. `rest` is how long a candidate is left alone after its
    first failure in a row, fourfold after each further one, up to `rest_limit`.
    `hedge_budget` is the share of requests that may start a second attempt beside the first.
    `content_filter` says what follows a provider's filter: the caller's refusal, or the next
    candidate.
    """

    order: Order = "same-provider-first"
    max_attempts: int = 10
    retries: int = 3
    retry_pause: float = 0.5
    rest: float = 1.0
    rest_limit: float = 10.0
    connect_timeout: float = 5.0
    first_token_timeout: float = 10.0
    idle_timeout: float = 10.0
    answer_timeout: float = 120.0
    deadline: float = 170.0
    hedge: bool = False
    hedge_budget: float = 0.05
    assemble: bool = False
    continuation: bool | Literal["best-effort"] = True
    content_filter: Literal["refuse", "next"] = "refuse"
