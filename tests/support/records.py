"""Records of usage, made up."""

import itertools
from typing import Any

from manyways.store.ids import new_id
from manyways.types import Usage
from manyways.usage.record import AttemptRecord, UsageRecord

NOON = 1_770_034_200.25
"""2026-02-02 12:10:00.250 UTC."""

_numbers = itertools.count()


def attempt(**fields: Any) -> AttemptRecord:
    """One that answered."""
    return AttemptRecord(
        **{
            "model": "gpt-4o",
            "provider": "Capi",
            "upstream_model": "gpt-4o-2024-08-06",
            "outcome": "answered",
            "started_at": NOON,
            "latency_ms": 90,
            **fields,
        }
    )


def record(**fields: Any) -> UsageRecord:
    """A request of the key `k` that went well, with an id of its own."""
    return UsageRecord(
        **{
            "id": new_id(int(NOON * 1e9) + next(_numbers) * 1_000_000),
            "created_at": NOON,
            "api_key_id": "k",
            "endpoint": "/chat/completions",
            "status_code": 200,
            "response_time_ms": 100,
            "model": "gpt-4o",
            "provider": "Capi",
            "attempts": (attempt(),),
            "usage": Usage(prompt_tokens=10, completion_tokens=5, source="upstream"),
            "cost": 0.5,
            **fields,
        }
    )
