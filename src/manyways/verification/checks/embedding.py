"""Embeddings: of three sentences, the two that mean the same lie closer together."""

import array
import binascii
import math
import sys
from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct

from manyways.errors import Refusal
from manyways.types import Usage
from manyways.usage.pricing import cost
from manyways.verification.asking import Answer
from manyways.verification.check import Finding, Step, failed, passed
from manyways.verification.checks.body import decoded, described
from manyways.verification.interview import LETTERS_A_TOKEN, BadAnswer, Interview

SENTENCES: Final = (
    "The doctor looked at the sick child.",
    "A physician examined an ill kid.",
    "The tourist looked at the old castle.",
)
"""The first two mean the same and share no word; the third shares four with the first."""
CLOSER: Final = 0.85
"""The distance of the two, as a share of the first's to the third, at most. A share, because
there are models whose vectors all lie close together."""
MOST_NUMBERS: Final = 65_536
"""Of a vector."""

_PROMPT: Final = " | ".join(SENTENCES)
_TOKENS: Final = Usage(prompt_tokens=len(_PROMPT) // LETTERS_A_TOKEN)


class _Item(Struct):
    embedding: list[float] | str
    index: int | None = None


class _Items(Struct):
    data: list[_Item]


async def embedding(interview: Interview) -> Finding:
    """It sends a vector for each of three sentences, under its number, all of one length, and
    those of the two that mean the same are closer than those of the two that only look alike."""
    answer = await _embedded(interview)
    try:
        vectors = [_vector(item) for item in _in_order(decoded(answer, _Items).data)]
        shown = f"3 vectors of {len(vectors[0])} numbers"
        alike, unlike = _likenesses(vectors)
    except BadAnswer as error:
        return failed(_PROMPT, described(answer.body), str(error))
    shown += f"; likeness {alike:.2f} of the two that mean the same, {unlike:.2f} else"
    if 1 - alike <= CLOSER * (1 - unlike):
        return passed(_PROMPT, shown)
    reason = (
        f"its vectors tell nothing of what is meant: the likeness of two sentences that mean the "
        f"same is {alike:.2f}, of two that do not {unlike:.2f}"
    )
    return failed(_PROMPT, shown, reason)


STEP: Final = Step(name="embedding", ask=embedding)


async def _embedded(interview: Interview) -> Answer:
    price = cost(interview.model.pricing, _TOKENS) or 0.0
    fields: dict[str, Any] = {"input": list(SENTENCES), "encoding_format": "float"}
    try:
        return await interview.post("/embeddings", fields, price=price)
    except Refusal as refusal:
        # Some embed questions and documents differently, and want to be told.
        words = f"{refusal.param or ''} {refusal.message}"
        other = {"input_type": "query"} if "input_type" in words else {}
        return await interview.post("/embeddings", {"input": fields["input"], **other}, price=price)


def _in_order(items: Sequence[_Item]) -> list[_Item]:
    if len(items) != len(SENTENCES):
        raise BadAnswer(f"it sent {len(items)} vectors for {len(SENTENCES)} sentences")
    if all(item.index is None for item in items):
        return list(items)
    places = {item.index: item for item in items}
    if set(places) != set(range(len(SENTENCES))):
        raise BadAnswer(f"it numbers the vectors {', '.join(str(item.index) for item in items)}")
    return [places[place] for place in range(len(SENTENCES))]


def _vector(item: _Item) -> list[float]:
    if not isinstance(item.embedding, str):
        return item.embedding
    try:
        data = binascii.a2b_base64(item.embedding)
        numbers = array.array("f", data)
    except ValueError as error:
        raise BadAnswer(f"a vector is not 32-bit numbers in base64: {error}") from error
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def _likenesses(vectors: Sequence[list[float]]) -> tuple[float, float]:
    """The cosines of the first with the second, and with the third."""
    lengths = {len(vector) for vector in vectors}
    if len(lengths) > 1:
        raise BadAnswer(f"its vectors are of {' and '.join(map(str, sorted(lengths)))} numbers")
    (length,) = lengths
    if not 1 < length <= MOST_NUMBERS:
        raise BadAnswer(f"its vectors are of {length} numbers")
    if not all(math.isfinite(number) for vector in vectors for number in vector):
        raise BadAnswer("its vectors hold numbers that are none")
    sizes = [math.hypot(*vector) for vector in vectors]
    if not all(sizes):
        raise BadAnswer("a vector is zero throughout")
    if not all(map(math.isfinite, sizes)):
        raise BadAnswer("its vectors hold numbers too large to reckon with")
    first, second, third = (
        [number / size for number in vector] for vector, size in zip(vectors, sizes, strict=True)
    )
    if first in (second, third) or second == third:
        raise BadAnswer("it sends the same vector for different sentences")
    return math.fsum(map(float.__mul__, first, second)), math.fsum(map(float.__mul__, first, third))
