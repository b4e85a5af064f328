"""Durations and sizes as people write them: `"5s"`, `"500ms"`, `"30d"`, `"32MiB"`."""

import re
from typing import Final

_WRITTEN: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")

SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BYTES: Final = {
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
}
_BYTE_NAMES: Final = {"GiB": 1024**3, "MiB": 1024**2, "KiB": 1024, "GB": 10**9, "MB": 10**6}


def seconds(written: str) -> float | None:
    """A duration in seconds; a bare number is seconds. `None` if it is no duration."""
    number, unit = _split(written)
    if number is None:
        return None
    factor = SECONDS.get(unit or "s")
    return None if factor is None else float(number) * factor


def size(written: str) -> int | None:
    """A size in bytes; a bare number is bytes. `None` if it is no whole number of bytes."""
    number, unit = _split(written)
    if number is None:
        return None
    factor = BYTES.get(unit.lower() or "b")
    if factor is None:
        return None
    exact = float(number) * factor
    return int(exact) if exact.is_integer() else None


def _split(written: str) -> tuple[str | None, str]:
    match = _WRITTEN.fullmatch(written)
    return (match[1], match[2]) if match else (None, "")


def write_seconds(duration: float) -> str:
    """The shortest way to write a duration that reads back as the same number."""
    if duration == 0:
        return "0s"
    for unit in ("d", "h", "m"):
        count = duration / SECONDS[unit]
        if count.is_integer():
            return f"{int(count)}{unit}"
    milliseconds = duration * 1000
    if duration < 1 and milliseconds.is_integer():
        return f"{int(milliseconds)}ms"
    return f"{duration:.6f}".rstrip("0").rstrip(".") + "s"


def write_size(count: int) -> str:
    """The shortest way to write a size that reads back as the same number."""
    for unit, factor in _BYTE_NAMES.items():
        if count and count % factor == 0:
            return f"{count // factor}{unit}"
    return f"{count}B"
