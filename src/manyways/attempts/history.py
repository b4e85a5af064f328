"""Attempts in words: for the caller who gets no answer, and for the log."""

import math
import time
from collections.abc import Sequence
from typing import Any

from manyways.errors import Refusal
from manyways.routing.attempt import Attempt
from manyways.routing.commands import GiveUp


def refusal_of(end: GiveUp, made: Sequence[Attempt], patience: float) -> Refusal:
    """What the caller is told when there is no answer: its own mistake, or R's 503 (504 where
    it was the time that ran out) with everything that was tried."""
    if end.refusal is not None:
        return end.refusal
    names = [f"{one.model.id} ({one.model.provider})" for one in made]
    tried = list(dict.fromkeys(names))
    details: dict[str, Any] = {
        "total_attempts": len(made),
        "tried_models": tried,
        "error_history": [_history(one) for one in made],
    }
    if not made:
        return Refusal("timeout", f"No time to ask anybody within {patience:g} s.")
    listed = "\n".join(tried)
    if end.reason == "deadline":
        return Refusal(
            "timeout",
            f"No answer within {patience:g} s.\n\nTried models:\n{listed}",
            details=details,
        )
    what = f"Service temporarily unavailable. All {len(tried)} model(s) failed to respond."
    if any(one.spoke_at is not None for one in made):
        what = "The answer broke off, and nobody could go on with it."
    return Refusal(
        "all_models_failed",
        f"{what}\n\nTried models:\n{listed}",
        retry_after=max(1, min(3600, math.ceil(end.retry_after or 1.0))),
        details=details,
    )


def _history(one: Attempt) -> dict[str, Any]:
    """A row of `error_history`."""
    now = time.monotonic()
    failure = one.failure
    return {
        "model": one.model.id,
        "provider": one.model.provider,
        "status": failure.status if failure else one.refusal.status if one.refusal else None,
        "code": one.outcome or "running",
        "message": failure.message if failure else one.refusal.message if one.refusal else "",
        "latency_ms": round(((one.ended or now) - one.began) * 1000),
        "started_at": _iso(time.time() - (now - one.began)),
    }


def told(one: Attempt) -> str:
    """An attempt in the log: `Capi/gpt-4o timeout 10003ms`."""
    ended = one.ended or time.monotonic()
    method = f" {one.method}" if one.method else ""
    name = f"{one.model.provider}/{one.model.id}"
    return f"{name}{method} {one.outcome} {round((ended - one.began) * 1000)}ms"


def _iso(moment: float) -> str:
    milliseconds = int(moment * 1000) % 1000
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f".{milliseconds:03d}Z"
