"""What an audio model is for: `audio` is a category of several kinds that are asked otherwise."""

import re
from typing import Final, Literal

from manyways.types import Model
from manyways.verification.check import Step
from manyways.verification.checks import speech, transcription

Kind = Literal["speech", "transcription"]


def _words(*alternatives: str) -> re.Pattern[str]:
    """Matches any of them where letters neither precede nor follow."""
    return re.compile(rf"(?<![a-z])(?:{'|'.join(alternatives)})(?![a-z])")


_NEITHER: Final = _words(
    r"realtime", r"native-audio", r"live", r"audio-preview", r"gpt-audio", r"music", r"musicgen",
    r"lyria", r"suno", r"audiogen", r"stable-audio", r"sfx", r"sound-effects?", r"diari[sz]ation",
    r"vad", r"speech-to-speech", r"sts",
)  # fmt: skip
_TRANSCRIPTION: Final = _words(
    r"(?:distil-|faster-)?whisper\w*", r"transcri\w+", r"speech-to-text", r"speech-recognition",
    r"stt", r"[a-z]?asr", r"parakeet", r"canary", r"scribe", r"moonshine", r"gigaam", r"sensevoice",
    r"nova-[23]", r"wav2vec2?", r"vosk",
)  # fmt: skip
_SPEECH: Final = _words(
    r"[a-z]?tts", r"text-to-speech", r"speech", r"kokoro", r"orpheus", r"elevenlabs",
    r"eleven_\w+", r"playai", r"piper", r"bark", r"chatterbox", r"styletts2?", r"parler", r"aura",
    r"sonic", r"silero", r"csm", r"dia",
)  # fmt: skip
_VOICES: Final = frozenset(
    {"alloy", "ash", "ballad", "coral", "echo", "fable"}
    | {"marin", "nova", "onyx", "sage", "shimmer", "verse"}
)
"""Voices that are offered as if they were models."""


def step(model: Model) -> Step | None:
    """The check of what it is for; `None` where there is none."""
    match kind(model):
        case "speech":
            return speech.STEP
        case "transcription":
            return transcription.STEP
    return None


def kind(model: Model) -> Kind | None:
    """What its modalities say, else what its id tells; `None` where it tells of music or
    conversations, or of nothing, and for models that are not for audio."""
    if model.category != "audio":
        return None
    said = {word.casefold() for word in model.modalities or ()} & {"speech", "transcription"}
    if said == {"speech"}:
        return "speech"
    if said == {"transcription"}:
        return "transcription"
    name = model.id.casefold()
    if _NEITHER.search(name):
        return None
    if _TRANSCRIPTION.search(name):
        return "transcription"
    return "speech" if _SPEECH.search(name) or name in _VOICES else None
