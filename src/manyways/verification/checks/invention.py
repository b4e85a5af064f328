"""Words that nobody can know beforehand."""

from random import Random
from typing import Final

_CONSONANTS: Final = "bdfgklmnprstvz"
_VOWELS: Final = "aeiou"


def word(chance: Random, syllables: int = 3) -> str:
    """A word that is easily said and means nothing: one of 343,000, of three syllables."""
    return "".join(chance.choice(_CONSONANTS) + chance.choice(_VOWELS) for _ in range(syllables))
