"""Pictures and sounds as providers send them, good ones and those that are a lie."""

import base64
import io
import json
import math
import struct
import wave
import zlib
from functools import cache
from pathlib import Path
from typing import Literal

from manyways.verification.asking import Answer

_SOUNDS = Path(__file__).parent / "sounds"


@cache
def picture(
    kind: Literal["PNG", "JPEG", "WEBP", "GIF"] = "PNG",
    size: tuple[int, int] = (1024, 1024),
    *,
    progressive: bool = False,
) -> bytes:
    """Something to be seen: brighter from one corner to the other."""
    from PIL import Image

    across = Image.linear_gradient("L").resize(size)
    down = Image.linear_gradient("L").rotate(90).resize(size)
    return _saved(Image.merge("RGB", (across, down, across)), kind, progressive=progressive)


@cache
def plain(
    kind: Literal["PNG", "JPEG", "WEBP"] = "PNG",
    size: tuple[int, int] = (1024, 1024),
    colour: tuple[int, ...] = (90, 120, 200),
) -> bytes:
    """One colour all over; with four numbers, as transparent as the last one says."""
    from PIL import Image

    return _saved(Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour), kind)


def bomb(width: int, height: int, *, zeros: int = 10_000_000) -> bytes:
    """A small PNG that says it is so large, and unpacks to so many zeros."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(zeros), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in parts)


def pictures(data: bytes) -> bytes:
    """The answer of an image model with this picture in it."""
    return json.dumps(
        {"created": 1, "data": [{"b64_json": base64.b64encode(data).decode()}]}
    ).encode()


def linked(url: str) -> bytes:
    """The answer of an image model whose picture lies elsewhere."""
    return json.dumps({"created": 1, "data": [{"url": url}]}).encode()


@cache
def spoken(kind: Literal["mp3", "flac"] = "mp3") -> bytes:
    """A sentence of 3.3 s."""
    return (_SOUNDS / f"sentence.{kind}").read_bytes()


@cache
def babble(seconds: float = 4.0, rate: int = 16_000) -> bytes:
    """A WAV that is as loud, and as often quiet, as speech."""
    return wav(
        [
            int(12_000 * max(0.0, math.sin(8 * at / rate)) * math.sin(900 * at / rate))
            for at in range(int(seconds * rate))
        ],
        rate,
    )


@cache
def tone(seconds: float = 4.0, rate: int = 16_000, loudness: float = 0.4) -> bytes:
    """A WAV of one even tone; silence with a loudness of zero."""
    return wav(
        [
            int(32_767 * loudness * math.sin(2 * math.pi * 440 * at / rate))
            for at in range(int(seconds * rate))
        ],
        rate,
    )


def wav(samples: list[int], rate: int = 16_000) -> bytes:
    """These samples, 16 bit, mono."""
    out = io.BytesIO()
    with wave.open(out, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    return out.getvalue()


def sound(data: bytes, content_type: str = "audio/mpeg") -> Answer:
    """The answer of a speech model."""
    return Answer(body=data, content_type=content_type)


def vectors(*rows: list[float]) -> bytes:
    """The answer of an embedding model."""
    data = [{"object": "embedding", "index": at, "embedding": row} for at, row in enumerate(rows)]
    return json.dumps({"object": "list", "data": data, "model": "m"}).encode()


def _saved(image: object, kind: str, **how: bool) -> bytes:
    from PIL import Image

    assert isinstance(image, Image.Image)
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
