"""What is kept of a request: a line of the journal first, rows of the database then.

Moments are Unix seconds, durations milliseconds, costs USD (`None`: a price is not known).
"""

from typing import Final

from msgspec import Struct

from manyways.types import NO_USAGE, Usage

OURS: Final = frozenset(
    {"all_models_failed", "model_error", "timeout", "shutting_down", "server_error"}
)
"""Errors that are no fault of the caller: such a request counts against no limit."""


class AttemptRecord(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A row of `usage_attempts`. `outcome` is as in `routing.attempt`."""

    model: str
    provider: str
    upstream_model: str
    outcome: str
    started_at: float
    latency_ms: int
    method: str | None = None
    status_code: int | None = None
    error_message: str | None = None
    first_token_ms: int | None = None
    usage: Usage = NO_USAGE
    cost: float | None = None


class UsageRecord(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="request", gc=False):
    """A row of `usage_stats`, with its attempts in the order they began.

    One that `corrects` was written before, and tells what answers that were read on behind it
    have come to: its tokens and costs, in all and of each attempt, take the place of those.
    """

    id: str
    created_at: float
    api_key_id: str
    endpoint: str
    status_code: int
    response_time_ms: int
    user_id: str | None = None
    requested_model: str | None = None
    requested_provider: str | None = None
    model: str | None = None
    provider: str | None = None
    attempts: tuple[AttemptRecord, ...] = ()
    stream: bool = False
    usage: Usage = NO_USAGE
    first_token_ms: int | None = None
    error_code: str | None = None
    error_message: str | None = None
    cost: float | None = None
    client_request_id: str | None = None
    corrects: bool = False

    @property
    def counted(self) -> bool:
        """Whether it counts against limits on requests: somebody was asked, and it was not us
        or the providers who failed."""
        return bool(self.attempts) and self.status_code < 500 and self.error_code not in OURS


class RefusalRecord(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="refused"):
    """A row of `usage_refusals`: so many requests of a key, refused by a limit in a minute.
    `minute` is the minute's first second."""

    id: str
    minute: int
    api_key_id: str
    code: str
    count: int
    user_id: str | None = None


Record = UsageRecord | RefusalRecord
