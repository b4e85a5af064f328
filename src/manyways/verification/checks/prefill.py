"""Prefill: an answer that has been begun is gone on with, from the very letter."""

import re
from typing import Final

from manyways.verification.check import Finding, failed, passed
from manyways.verification.checks.words import quoted
from manyways.verification.interview import Interview

_COLOURS: Final = ("black", "white", "red", "blue", "green", "yellow", "brown", "grey", "pink")
_THINGS: Final = ("cup", "lamp", "door", "hat", "boat", "key", "tree", "ring", "bell", "book")
_PAIRS: Final = 6


async def prefill(interview: Interview) -> Finding:
    """It completes the pair of words in whose middle its answer stops. Who begins a message of
    its own begins with a whole pair. It is asked for as a stream, because broken streams are
    what this is needed for, and some servers repeat in whole answers what was begun.
    """
    chance = interview.chance
    pairs = [
        f"{colour}-{thing}"
        for colour, thing in zip(
            chance.sample(_COLOURS, _PAIRS), chance.sample(_THINGS, _PAIRS), strict=True
        )
    ]
    line = ", ".join(pairs)
    at = chance.randint(2, _PAIRS - 3)
    half, word = pairs[at].split("-")
    begun = line[: line.index(pairs[at])] + f"{half}-"
    prompt = f"Copy this line, and write nothing else: {line}"
    said = await interview.say(
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": begun}],
        limit=24,
        stream=True,
    )
    asked = f"{prompt} (the answer begins: {begun})"
    told = said.text
    # The word is enough: a small model goes on, too, but may well get lost in the line.
    if re.match(rf"{word}(?![\w-])", told):
        return passed(asked, told)
    if told.startswith(begun):
        reason = f"it repeats what the answer began with: {quoted(told)}"
    elif not told.strip():
        reason = "it adds nothing to an answer that was begun"
    else:
        reason = f"it does not go on in the middle of {half}-{word}: {quoted(told)}"
    return failed(asked, told, reason)
