"""The picture of the vision check: a number, drawn large."""

import io
from typing import Final

SIDE: Final = 256
"""Pixels: square, and with a margin, for models that see a square in the middle only."""
CELL: Final = 72
"""Pixels from one digit to the next."""
_LETTER: Final = 118


def drawn(digits: str) -> bytes:
    """A PNG of three digits, each in the middle of a cell of its own."""
    # They take 30 ms and some megabytes that most of the time nobody needs.
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (SIDE, SIDE), "white")
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(_LETTER)
    left = SIDE / 2 - CELL * (len(digits) - 1) / 2
    for place, digit in enumerate(digits):
        pen.text((left + place * CELL, SIDE / 2), digit, fill="black", font=font, anchor="mm")
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
