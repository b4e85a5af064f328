"""Wrong keys, counted by the address they come from."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from typing import Final

MINUTE: Final = 60
STEP: Final = 5
"""Seconds that are counted together, and leave together."""

MAX_ADDRESSES: Final = 10_000
_LONGEST_NAME: Final = 64


def origin_of(address: str) -> str:
    """Who is meant by an address: an IPv4 address itself, the /64 of an IPv6 address, since
    whoever has one of these has all of it. Anything else stands for itself."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:_LONGEST_NAME]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            return f"{ipaddress.IPv6Address(int(parsed) >> 64 << 64)}/64"
        parsed = parsed.ipv4_mapped
    return str(parsed)


class Throttle:
    """At most `limit` failures of one origin in any minute.

    Failures are counted in steps of five seconds, which leave when the last moment of theirs is
    a minute old: it is never one over, and whoever waits as told may fail again. So an origin
    takes some dozen numbers, however large the limit.

    At most `max_origins` are remembered. Where one more fails, the one whose latest failure is
    oldest is forgotten, and begins anew: who has that many addresses gains nothing by it, as a
    fresh one of theirs may try as often.
    """

    def __init__(self, limit: int, *, max_origins: int = MAX_ADDRESSES) -> None:
        self._limit = limit
        self._max_origins = max_origins
        # By origin: how many failures in which step, in their order. Whoever failed last stands
        # last.
        self._failures: OrderedDict[str, dict[int, int]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Throttle {self._limit} a minute, {len(self._failures)} origins>"

    def wait(self, origin: str, now: float) -> int:
        """Whole seconds until this origin may fail again; 0 where it may now."""
        failures = self._failures.get(origin)
        if failures is None:
            return 0
        _drop_old(failures, now)
        if not failures:
            del self._failures[origin]
            return 0
        left = sum(failures.values()) - self._limit
        if left < 0:
            return 0
        for step, count in failures.items():
            left -= count
            if left < 0:
                return max(1, math.ceil(_leaves(step) - now))
        return 0

    def failed(self, origin: str, now: float) -> None:
        """Count a failure."""
        failures = self._failures.setdefault(origin, {})
        _drop_old(failures, now)
        step = int(now // STEP)
        failures[step] = failures.get(step, 0) + 1
        self._failures.move_to_end(origin)
        if len(self._failures) > self._max_origins:
            self._failures.popitem(last=False)


def _leaves(step: int) -> int:
    """When the last moment of a step is a minute old."""
    return (step + 1) * STEP + MINUTE


def _drop_old(failures: dict[int, int], now: float) -> None:
    """Also those of the future: a clock that was set back must not lock anybody out."""
    for step in [one for one in failures if not one * STEP <= now < _leaves(one)]:
        del failures[step]
