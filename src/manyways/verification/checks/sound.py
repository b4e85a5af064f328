"""What is to be heard in foreign bytes: how long it is, and how much of it is not silence.

MP3, WAV and FLAC are decoded, and raw samples where their type says that they are. Nothing else
is: nobody has asked for it, and decoders are no place for the bytes of strangers.
"""

import array
import contextlib
import math
import sys
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct

from manyways.verification.asking import Answer
from manyways.verification.checks.body import described, size
from manyways.verification.interview import BadAnswer

LARGEST: Final = 8 * 1024 * 1024
"""Bytes: 20 s of stereo at 48 kHz and 32 bit are less."""
WINDOW: Final = 0.05
"""Seconds over which loudness is taken."""
SILENCE: Final = 0.003
"""Loudness, of 1, below which nothing is to be heard: -50 dB."""

_RAW: Final = frozenset({"audio/pcm", "audio/l16", "audio/raw", "audio/x-raw", "audio/x-pcm"})
_RAW_RATE: Final = 24_000
"""Of raw samples, which are 16 bit, little-endian, mono."""
_RATES: Final = range(4_000, 200_001)
_FULL: Final = 32768.0
_ENDLESS: Final = 64 * 1024 * 1024
"""A WAV that claims more was written as a stream, before its length was known."""


class Sound(Struct, frozen=True, kw_only=True):
    """What was decoded. `seconds` ends at the limit. `audible` are those that are not silent;
    `swing` is how many times as loud as the most quiet window the loudest is."""

    kind: str
    rate: int
    seconds: float
    audible: float
    swing: float


def heard(answer: Answer, *, longest: float) -> Sound:
    """Listens to `longest` seconds at most. Takes any bytes; raises `BadAnswer` where they are
    no sound."""
    data = answer.body
    if len(data) > LARGEST:
        raise BadAnswer(f"the sound has {size(len(data))}, too much to listen to")
    kind = _kind(data)
    if kind is None and answer.content_type in _RAW and data:
        samples = _native(data[: int(longest * _RAW_RATE) * 2])
        step = int(_RAW_RATE * WINDOW)
        windows = (samples[at : at + step] for at in range(0, len(samples), step))
        return _measured("raw samples", _RAW_RATE, windows, longest)
    if kind is None:
        raise BadAnswer(f"it sent {described(data)}, which is no MP3, WAV or FLAC")
    claimed = int.from_bytes(data[4:8], "little") + 8
    if kind == "WAV" and len(data) < claimed <= _ENDLESS:
        raise BadAnswer(f"the sound is cut off: {size(len(data))} of {size(claimed)}")
    return _decoded(kind, data, longest)


def _decoded(kind: str, data: bytes, longest: float) -> Sound:
    import miniaudio

    information = {
        "MP3": miniaudio.mp3_get_info,
        "WAV": miniaudio.wav_get_info,
        "FLAC": miniaudio.flac_get_info,
    }[kind]
    try:
        rate = information(data).sample_rate
        if rate not in _RATES:
            raise BadAnswer(f"the sound has {rate} samples a second")
        stream = miniaudio.stream_memory(
            data, nchannels=1, sample_rate=rate, frames_to_read=int(rate * WINDOW)
        )
        with contextlib.closing(stream):
            return _measured(kind, rate, stream, longest)
    except (miniaudio.MiniaudioError, ArithmeticError, MemoryError, ValueError) as error:
        words = f"the sound cannot be decoded: {error}"[:200]
        raise BadAnswer(words) from error


def _measured(kind: str, rate: int, windows: Iterable[Sequence[int]], longest: float) -> Sound:
    count = 0
    levels: list[float] = []
    for window in windows:
        if not window:
            break
        count += len(window)
        levels.append(math.sqrt(sum(map(int.__mul__, window, window)) / len(window)) / _FULL)
        if count >= longest * rate:
            break
    loud = [level for level in levels if level >= SILENCE]
    return Sound(
        kind=kind,
        rate=rate,
        seconds=count / rate,
        audible=len(loud) * WINDOW,
        swing=max(levels, default=0.0) / max(min(levels, default=0.0), 1 / _FULL),
    )


def _kind(data: bytes) -> str | None:
    if data.startswith((b"RIFF", b"RIFX")) and data[8:12] == b"WAVE":
        return "WAV"
    if data.startswith(b"fLaC"):
        return "FLAC"
    # A tag in front, or eleven bits that begin a frame, of layer III.
    if data.startswith(b"ID3") or (len(data) > 2 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2):
        return "MP3"
    return None


def _native(data: bytes) -> Sequence[int]:
    samples = array.array("h")
    samples.frombytes(data[: len(data) // 2 * 2])
    if sys.byteorder == "big":
        samples.byteswap()
    return samples
