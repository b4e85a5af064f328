"""Identifiers: UUIDs of version 7 (RFC 9562, section 5.7) as text, which sort by age."""

import os
import time
from threading import Lock

_TAIL = (1 << 62) - 1

_lock = Lock()
# The latest millisecond an id was made in, and the last tail used in it. Together they only grow.
_moment = 0
_tail = 0


def new_id(now_ns: int | None = None) -> str:
    """An id of this moment, greater than every id this process made before.

    Within one millisecond the random tail is counted up, not drawn anew: the order holds, and
    a busy process asks the system for randomness once a millisecond. Given a moment (Unix
    nanoseconds), an id of that moment, in no order among others of the same millisecond.
    """
    global _moment, _tail  # noqa: PLW0603 - the order of ids belongs to the process
    if now_ns is not None:
        moment = now_ns // 1_000_000
        tail = int.from_bytes(os.urandom(9), "big")
    else:
        with _lock:
            moment = time.time_ns() // 1_000_000
            if moment > _moment:
                _moment = moment
                # 72 random bits where 74 fit: counting up cannot run over.
                _tail = tail = int.from_bytes(os.urandom(9), "big")
            else:
                moment = _moment
                _tail = tail = _tail + 1
    number = moment << 80 | 7 << 76 | (tail >> 62) << 64 | 2 << 62 | tail & _TAIL
    digits = number.to_bytes(16, "big").hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _forget() -> None:
    global _moment  # noqa: PLW0603 - a forked child must not count on from its parent's tail
    _moment = 0


os.register_at_fork(after_in_child=_forget)
