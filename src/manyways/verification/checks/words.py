"""What a model has said, as checks look at it, and as a reason may quote it."""

from typing import Final

from manyways.verification.interview import Said

QUOTED: Final = 90
"""Letters of an answer that a reason quotes."""

_LOOKED_AT: Final = 2000
"""Letters of a long text in which something to be quoted is looked for."""
_BEGIN, _END = "<think>", "</think>"


def quoted(text: str) -> str:
    """The beginning of a foreign text in quotation marks: at most `QUOTED` letters, on one line,
    all printable. `nothing` where none of it can be seen."""
    words = " ".join(text[:_LOOKED_AT].split())
    shown = "".join(letter for letter in words if letter.isprintable()).strip()
    if not shown:
        return "nothing"
    return f"“{shown}”" if len(shown) <= QUOTED else f"“{shown[: QUOTED - 1].rstrip()}…”"


def spoken(said: Said) -> str:
    """Its answer without the thoughts that some models put in front of it, between tags. Empty
    where it has not got beyond them."""
    text = said.text.strip()
    _, tag, answer = text.rpartition(_END)
    if tag:
        return answer.strip()
    return "" if text.startswith(_BEGIN) else text


def thoughts(said: Said) -> str:
    """Its thoughts, wherever it has put them."""
    before, tag, _ = said.text.rpartition(_END)
    told = before if tag else said.text if said.text.lstrip().startswith(_BEGIN) else ""
    return said.reasoning.strip() or told.replace(_BEGIN, "").strip()
