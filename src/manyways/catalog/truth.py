"""A model as it is told of: what is claimed, corrected by what was found out.

claimed (configuration, provider, table) + verified (asked) + live (seen with callers)
"""

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, get_args

import msgspec

from manyways.catalog.verified import Live, Verified
from manyways.types import Capability, Model, Status

DEGRADED: Final = 0.1
"""The share of failures in the last hour from which on a model is degraded."""
ENOUGH: Final = 10
"""Attempts in an hour; a share of fewer says too little."""
PRIOR: Final = 5
"""What was verified weighs as much as so many attempts of callers."""

_CAPABILITIES: Final[tuple[str, ...]] = get_args(Capability)


def told(
    claim: Model,
    verified: Verified | None,
    live: Live | None,
    *,
    gone: bool = False,
    resting: bool = False,
) -> Model:
    """The row of the catalog. `gone`: its provider lists it no more. `resting`: requests leave
    it alone now."""
    failed = verified is not None and verified.verdict == "failed" and not _answered(verified, live)
    return msgspec.structs.replace(
        claim,
        capabilities=claim.capabilities
        if verified is None
        else _capabilities(claim.capabilities, verified),
        status=_status(verified, live, down=gone or resting or failed),
        latency_ms=_latency(verified, live),
        quality_score=None
        if verified is None or verified.quality is None
        else round(verified.quality.score, 1),
        last_verified=None if verified is None else _moment(verified),
        uptime_24h=None if live is None or live.uptime_24h is None else round(live.uptime_24h, 3),
        asked_last=gone or failed,
    )


def _answered(verified: Verified, live: Live | None) -> bool:
    """Whether callers have had an answer since. How many failed before says nothing; how many do
    now makes it `degraded`."""
    return (
        live is not None
        and live.answered_at is not None
        and live.answered_at > int(verified.at)  # which has no fractions
    )


def _status(verified: Verified | None, live: Live | None, *, down: bool) -> Status:
    if down:
        return "down"
    failing = (
        live is not None
        and live.attempts >= ENOUGH
        and live.success_rate is not None
        and live.success_rate < 1 - DEGRADED
    )
    withdrawn = verified is not None and bool(verified.withdrawn)
    return "degraded" if failing or withdrawn else "active"


def _capabilities(claimed: Iterable[str], verified: Verified) -> tuple[str, ...]:
    """Those that were claimed and not refuted, and those that were shown."""
    known = {*claimed, *verified.proven} - verified.withdrawn.keys()
    return tuple(name for name in _CAPABILITIES if name in known)


def _latency(verified: Verified | None, live: Live | None) -> int | None:
    """Until it begins to speak, in milliseconds; where that is not known, until it is done. To
    two digits: a list that changes all the time is no use to those who keep a copy."""
    asked = None if verified is None else verified.latency_ms
    seen = None if live is None else live.first_token_ms
    if seen is None or live is None:
        whole = None if live is None else live.latency_ms
        found = whole if asked is None else asked
    elif asked is None:
        found = seen
    else:
        found = round((seen * live.attempts + asked * PRIOR) / (live.attempts + PRIOR))
    if not found:
        return found
    digits = 1 - math.floor(math.log10(found))
    return round(found, min(digits, 0))


def _moment(verified: Verified) -> str | None:
    """UTC, as `2025-11-15 08:23:28`."""
    if verified.verdict not in ("passed", "failed"):
        return None
    return datetime.fromtimestamp(verified.at, UTC).strftime("%Y-%m-%d %H:%M:%S")
