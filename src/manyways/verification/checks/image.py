"""Images: a picture is asked for, fetched, and decoded to its last pixel."""

import asyncio
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from manyways.errors import AttemptFailed, Refusal
from manyways.types import Model, Usage
from manyways.usage.pricing import cost
from manyways.verification.asking import Answer
from manyways.verification.check import Finding, Step, failed, passed
from manyways.verification.checks.body import decoded, described
from manyways.verification.checks.pixels import LONGEST_SIDE, SHORTEST_SIDE, look, shown
from manyways.verification.interview import BadAnswer, Interview

PROMPT: Final = "A red apple on a white plate"
SIZE: Final = "1024x1024"
TRIES: Final = 4
"""Ways to ask for one picture."""

_PATH: Final = "/images/generations"
_MOST_TOKENS: Final = Usage(prompt_tokens=32, completion_tokens=4160)
"""What the largest square pictures cost where prices are for tokens."""
_NAMED = re.compile(r"(?<!\d)(\d{2,4})\s?[xX×*]\s?(\d{2,4})(?!\d)")
_ELSEWHERE = re.compile(
    r"(?<![a-z])(?:edit|inpaint|outpaint|upscal|remov|erase|background|controlnet|canny|depth)"
)


class _Picture(Struct):
    b64_json: str | None = None
    url: str | None = None


class _Pictures(Struct):
    data: list[_Picture]


def applies(model: Model) -> bool:
    """Whether it draws what it is told. Those that work on a given picture do not."""
    return model.category == "image" and not _ELSEWHERE.search(model.id.casefold())


async def image(interview: Interview) -> Finding:
    """It draws a picture of the size that was asked for, whole, and of more than one colour.

    A provider that refuses the size is asked for the smallest that it names, and for a picture
    of any size where it takes none.
    """
    answer, asked = await _drawn(interview)
    prompt = f"{PROMPT}, {shown(asked) if asked else 'of any size'}"
    try:
        data = await _bytes(interview, decoded(answer, _Pictures))
    except BadAnswer as error:
        return failed(prompt, described(answer.body), str(error))
    seen, wrong = await asyncio.to_thread(look, data, asked)
    return failed(prompt, seen, wrong) if wrong else passed(prompt, seen)


STEP: Final = Step(name="image", ask=image, tries=2)


async def _drawn(interview: Interview) -> tuple[Answer, str | None]:
    """The answer, and the size that was asked for in the end."""
    prices = interview.model.pricing or {}
    price = prices.get("image") or cost(prices, _MOST_TOKENS) or 0.0
    # The lowest quality is the cheapest; who has no qualities says so for nothing.
    fields: dict[str, Any] = {"prompt": PROMPT, "n": 1, "size": SIZE, "quality": "low"}
    refused: set[str] = set()
    for _ in range(TRIES - 1):
        try:
            answer = await interview.post(_PATH, fields, price=price)
        except Refusal as refusal:
            refused.add(fields.get("size", ""))
            other = _otherwise(fields, refusal, refused)
            if other is None:
                raise
            fields = other
        else:
            return answer, fields.get("size")
    return await interview.post(_PATH, fields, price=price), fields.get("size")


def _otherwise(
    fields: Mapping[str, Any], refusal: Refusal, refused: set[str]
) -> dict[str, Any] | None:
    """The fields with which it may be asked again; `None`: it says no to the thing itself."""
    if refusal.code == "content_filter":
        return None
    words = f"{refusal.param or ''} {refusal.message}".casefold()
    bare = {name: value for name, value in fields.items() if name != "quality"}
    if "quality" in words and "quality" in fields:
        return bare
    if "size" in fields:
        sizes = [(int(width), int(height)) for width, height in _NAMED.findall(words)]
        others = sorted(
            (width * height, f"{width}x{height}")
            for width, height in sizes
            if f"{width}x{height}" not in refused
            and min(width, height) >= SHORTEST_SIDE
            and max(width, height) <= LONGEST_SIDE
        )
        if others:
            return {**fields, "size": others[0][1]}
        if "size" in words or "width" in words:
            return {name: value for name, value in fields.items() if name != "size"}
    return bare if "quality" in fields else None


async def _bytes(interview: Interview, answer: _Pictures) -> bytes:
    """The picture's own bytes, from wherever the answer has them."""
    if not answer.data:
        raise BadAnswer("its answer holds no picture")
    first = answer.data[0]
    url = first.url or ""
    text = first.b64_json or (url if url.startswith("data:") else "")
    if text:
        try:
            return binascii.a2b_base64(text.rpartition(",")[2])
        except ValueError as error:
            raise BadAnswer(f"its picture is not in base64: {error}") from error
    if not url.startswith(("http://", "https://")):
        raise BadAnswer("its answer holds no picture, and no address of one")
    try:
        return (await interview.fetch(url)).body
    except Refusal as refusal:
        raise BadAnswer(f"it names an address nobody is sent to: {refusal.message}") from refusal
    except AttemptFailed as failure:
        if failure.status not in {400, 403, 404, 410}:
            raise
        raise BadAnswer(f"there is no picture where it says: status {failure.status}") from failure
