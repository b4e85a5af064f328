"""What is to be seen in foreign bytes: a PNG, a JPEG or a WebP, decoded to its last pixel."""

import struct
import threading
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any, Final

from manyways.verification.checks.body import described, size

LARGEST: Final = 20 * 1024 * 1024
"""Bytes of a picture."""
SHORTEST_SIDE: Final = 64
LONGEST_SIDE: Final = 4096
"""Pixels."""
MOST_SCANS: Final = 200
"""Of a JPEG: each has to be gone through, and a usual one has ten."""
ONE_COLOUR: Final = 8
"""So far, of 255, the pixels of a picture of one colour lie apart at most."""

_UNREADABLE: Final = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,
    struct.error,
    zlib.error,
)
"""What Pillow raises over foreign bytes: of each kind, some release has. Its warnings are errors
where somebody has said so."""
_DECODING = threading.Lock()
"""Pictures are decoded one after the other: each may take 70 MB."""


def look(data: bytes, asked: str | None) -> tuple[str, str]:
    """What a picture is, in words ("a PNG of 1024 x 1024, 1.2 MB"), and what is wrong with it:
    empty where nothing is. `asked` is its size ("1024x1024"). Takes any bytes."""
    if len(data) > LARGEST:
        return size(len(data)), f"the picture has {size(len(data))}, too much to look at"
    kind = _kind(data)
    if kind is None:
        return described(data), f"it sent {described(data)}, no PNG, JPEG or WebP"
    seen = f"a {kind}, {size(len(data))}"
    with _DECODING:
        try:
            return _look(kind, data, asked)
        except _UNREADABLE as error:
            if _cut(kind, data):
                return seen, "the picture is cut off"
            return seen, f"the picture cannot be decoded: {error}"[:200]


def _look(kind: str, data: bytes, asked: str | None) -> tuple[str, str]:
    from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

    # Their own classes: `Image.open` would try dozens of formats.
    classes: dict[str, Callable[[BytesIO], ImageFile.ImageFile]] = {
        "PNG": PngImagePlugin.PngImageFile,
        "JPEG": JpegImagePlugin.JpegImageFile,
        "WebP": WebPImagePlugin.WebPImageFile,
    }
    try:
        opened = classes[kind](BytesIO(data))
    except Image.DecompressionBombError:
        return f"a {kind}, {size(len(data))}", "the picture is too large to look at"
    with opened as picture:
        found = f"{picture.width}x{picture.height}"
        seen = f"a {kind} of {shown(found)}, {size(len(data))}"
        # Before anything is decoded: few bytes can be a great many pixels.
        if asked and found != asked:
            return seen, f"the picture is {shown(found)}, not {shown(asked)}"
        if not SHORTEST_SIDE <= min(picture.size) <= max(picture.size) <= LONGEST_SIDE:
            return seen, f"the picture is {shown(found)}, too small or too large"
        if kind == "JPEG" and data.count(b"\xff\xda") > MOST_SCANS:
            return seen, "the picture takes too long to decode"
        picture.load()
        if _cut(kind, data):
            return seen, "the picture is cut off"
        whole = picture.convert("RGBA") if picture.mode in {"P", "PA"} else picture
        return seen, _emptiness(whole.mode, whole.getextrema())


def _emptiness(mode: str, extrema: Any) -> str:
    """Why nothing is to be seen, by the least and the most of each band; else empty."""
    bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
    if mode in {"RGBA", "LA"} and bands[-1][1] == 0:
        return "the picture is transparent all over"
    limit = ONE_COLOUR * 256 if mode.startswith("I") else ONE_COLOUR
    if all(most - least <= limit for least, most in bands):
        return "the picture is of one single colour"
    return ""


def _kind(data: bytes) -> str | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    return "WebP" if data.startswith(b"RIFF") and data[8:12] == b"WEBP" else None


def _cut(kind: str, data: bytes) -> bool:
    """Whether the end is missing. Decoders are content with less."""
    if kind == "PNG":
        return b"IEND\xaeB`\x82" not in data
    if kind == "JPEG":
        return data.rfind(b"\xff\xd9") <= data.rfind(b"\xff\xda")
    return len(data) < int.from_bytes(data[4:8], "little") + 8


def shown(asked: str) -> str:
    """A size for people: "1024 x 1024"."""
    return asked.replace("x", " x ")
