"""Reads the picture of the vision check, as a model with eyes does: by what it shows."""

import io
from base64 import b64decode
from functools import cache

from PIL import Image

from manyways.verification.checks.picture import CELL, SIDE, drawn


def read(address: str) -> str:
    """The three digits in a picture that is given as a data URL."""
    head, _, data = address.partition(",")
    assert head == "data:image/png;base64", head
    known = _digits()
    return "".join(known[cell] for cell in _cells(b64decode(data, validate=True)))


@cache
def _digits() -> dict[bytes, str]:
    """Each digit by what its cell looks like."""
    return {_cells(drawn(digit * 3))[0]: digit for digit in "0123456789"}


def _cells(picture: bytes) -> list[bytes]:
    with Image.open(io.BytesIO(picture)) as image:
        grey = image.convert("L")
    left = (SIDE - 3 * CELL) // 2
    return [
        grey.crop((left + place * CELL, 0, left + (place + 1) * CELL, SIDE)).tobytes()
        for place in range(3)
    ]
