"""What the file may say already although nothing follows from it yet. A row goes when its
part is built."""

from typing import Final

from manyways.config.document import dotted
from manyways.config.positions import Path
from manyways.config.settings import Settings

_SETTINGS: Final[tuple[tuple[str, str, object, str], ...]] = (
    ("server", "public_url", None, "no answer names it yet"),
)
"""Section, key, the value that asks for what is done anyway, and what is to be said."""


def words(settings: Settings) -> tuple[str, ...]:
    """What was given without effect, a sentence each."""
    said = []

    def say(path: Path, sentence: str) -> None:
        if dotted(path) in settings.origins:
            said.append(f"{dotted(path)}: {sentence}")

    for section, key, idle, sentence in _SETTINGS:
        if getattr(getattr(settings, section), key) != idle:
            say((section, key), sentence)
    return tuple(said)
