"""What a model is for, where nobody says so: well-known words in its id."""

import re
from typing import Final

from manyways.types import Category

TYPES: Final[dict[str, Category | None]] = {
    **dict.fromkeys(
        (
            "text",
            "chat",
            "chat-completion",
            "language",
            "code",
            "completion",
            "llm",
            "vlm",
            "moderation",
            "text-generation",
            "image-to-text",
            "image-text-to-text",
        ),
        "text",
    ),
    **dict.fromkeys(("image", "image-generation", "text-to-image"), "image"),
    **dict.fromkeys(
        (
            "audio",
            "speech",
            "tts",
            "stt",
            "transcribe",
            "transcription",
            "text-to-speech",
            "speech-to-text",
            "automatic-speech-recognition",
        ),
        "audio",
    ),
    **dict.fromkeys(("video", "text-to-video", "image-to-video"), "video"),
    **dict.fromkeys(
        ("embedding", "embeddings", "text-embedding", "text-embeddings", "feature-extraction"),
        "embedding",
    ),
    **dict.fromkeys(
        (
            "rerank",
            "reranker",
            "reranking",
            "classification",
            "image-classification",
            "object-detection",
            "summarization",
            "text-classification",
            "translation",
            "voice-activity-detection",
            "dumb-pipe",
        ),
        None,
    ),
}
"""What providers write into `type`, `category` or `task`; `None`: it fits no category of ours.
Words that are not here (`model`, `base`) say nothing about it."""


def _words(*alternatives: str) -> re.Pattern[str]:
    """Matches any of them where letters neither precede nor follow."""
    return re.compile(rf"(?<![a-z])(?:{'|'.join(alternatives)})(?![a-z])")


_VOICES: Final = frozenset(
    {"alloy", "ash", "ballad", "coral", "echo", "fable"}
    | {"marin", "nova", "onyx", "sage", "shimmer", "verse"}
)
"""Voices that speech providers offer as if they were models. Only as a whole id."""

_RERANK: Final = re.compile(r"rerank")

_PATTERNS: Final[tuple[tuple[Category, re.Pattern[str]], ...]] = (
    (
        "embedding",
        re.compile(
            r"embed|(?<![a-z])(?:bge|gte|e5|all-minilm|m2-bert|voyage|multilingual-e5)(?=[-_.:\d])"
        ),
    ),
    (
        "audio",
        _words(
            r"[a-z]?tts",
            r"(?:distil-)?whisper",
            r"transcri(?:be|ption)",
            r"audio",
            r"realtime",
            r"speech",
            r"kokoro",
            r"orpheus",
            r"parakeet",
            r"musicgen",
            r"lyria",
            r"elevenlabs",
            r"eleven_\w+",
        ),
    ),
    (
        "video",
        _words(
            r"sora",
            r"veo",
            r"videos?",
            r"[a-z]+video",
            r"cogvideox?",
            r"runway(?:ml)?",
            r"kling",
            r"hailuo",
            r"pika",
            r"mochi",
            r"[ti]2v",
            r"(?:wan-?|ray-)(?=\d)",
        ),
    ),
    (
        "image",
        _words(
            r"dall-?e",
            r"flux",
            r"stable-?diffusion",
            r"sdxl",
            r"sd(?=-?[\d]|-turbo)",
            r"image",
            r"images",
            r"imagen",
            r"midjourney",
            r"kandinsky",
            r"ideogram",
            r"recraft",
            r"seedream",
            r"hidream",
            r"pixart",
            r"nano-banana",
        ),
    ),
)


def of_id(model_id: str) -> Category | None:
    """The category that a model's id tells of; `text` if it tells of nothing else.

    `None` where it tells of something that no category of ours holds, such as a reranker.
    """
    folded = model_id.casefold()
    if _RERANK.search(folded):
        return None
    if folded in _VOICES:
        return "audio"
    return next((name for name, pattern in _PATTERNS if pattern.search(folded)), "text")
