"""How what is known of models is put into words: moments, spans, and what others have written."""

from datetime import datetime
from typing import Final

_UNITS: Final = (("d", 86400), ("h", 3600), ("min", 60))


def ago(moment: str | None, now: float) -> str:
    """`3 h ago` for a moment as JSON has it; nothing where it is none."""
    try:
        since = now - datetime.fromisoformat(moment or "").timestamp()
    except ValueError:
        return ""
    for unit, length in _UNITS:
        if since >= length:
            return f"{int(since // length)} {unit} ago"
    return "just now"


def lasted(began: str, ended: str | None, now: float) -> str:
    """`3.5 min` between two moments as JSON has them; `3.5 min…` of what is not over."""
    end = now if ended is None else datetime.fromisoformat(ended).timestamp()
    seconds = max(0.0, end - datetime.fromisoformat(began).timestamp())
    words = f"{seconds:.0f} s"
    for unit, length in _UNITS:
        if seconds >= length:
            words = f"{seconds / length:.1f} {unit}"
            break
    return f"{words}…" if ended is None else words


def printable(text: str) -> str:
    """Lines without anything that a terminal obeys: providers and models write what they like."""
    return "".join(one if one.isprintable() or one == "\n" else " " for one in text)


def one_line(text: str) -> str:
    """The same on one line."""
    return " ".join(printable(text).split())
