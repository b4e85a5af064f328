"""Transcription: a sentence that comes with the package is to be written down."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Final

from msgspec import Struct

from manyways.errors import Refusal
from manyways.types import Usage
from manyways.usage.pricing import cost
from manyways.verification.asking import Answer
from manyways.verification.check import Finding, Step, failed, passed
from manyways.verification.checks.body import decoded, described
from manyways.verification.checks.words import quoted
from manyways.verification.interview import BadAnswer, Interview

SENTENCE: Final = "A small yellow bird is singing in the garden tonight."
MOST_ERRORS: Final = 0.4
"""Words that may be wrong, missing or too many, as a share of the sentence's ten: the voice is
a machine's, and a word guessed from silence is never among these."""
MOST_WORDS: Final = 200
"""Of what was heard: some repeat themselves without end."""

_PROMPT: Final = f"3.2 s of speech: “{SENTENCE}”"
_TOKENS: Final = Usage(prompt_tokens=150, completion_tokens=50)
"""What it comes to at most where prices are for tokens."""
_BOUNDARY: Final = "manyways-4b1f0c52d96e"
_WORD: Final = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


class _Text(Struct):
    text: str


async def transcription(interview: Interview) -> Finding:
    """It hears the words of a sentence, but for 40 % of them. Letters' case and punctuation do
    not matter."""
    answer = await _heard(interview)
    try:
        text = _text(answer)
    except BadAnswer as error:
        return failed(_PROMPT, described(answer.body), str(error))
    errors = word_errors(_words(SENTENCE), _words(text)[:MOST_WORDS])
    if errors <= MOST_ERRORS:
        return passed(_PROMPT, text)
    if not text.strip():
        return failed(_PROMPT, text, "it heard nothing")
    return failed(_PROMPT, text, f"it heard {quoted(text)}: {errors:.0%} of the words are wrong")


STEP: Final = Step(name="transcription", ask=transcription, tries=2)


def word_errors(said: Sequence[str], heard: Sequence[str]) -> float:
    """The word error rate: the fewest words to be changed, left out or put in, as a share of
    what was said. More than 1 where much was made up."""
    row = list(range(len(heard) + 1))
    for line, word in enumerate(said, 1):
        corner, row[0] = row[0], line
        for column, other in enumerate(heard, 1):
            changed = corner + (word != other)
            corner = row[column]
            row[column] = min(changed, corner + 1, row[column - 1] + 1)
    return row[-1] / len(said)


def form(fields: Mapping[str, str], sound: bytes) -> bytes:
    """`multipart/form-data` with these fields and the sound as `file` (RFC 7578)."""
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    parts.append(
        f"--{_BOUNDARY}\r\n"
        'Content-Disposition: form-data; name="file"; filename="sentence.wav"\r\n'
        "Content-Type: audio/wav\r\n\r\n"
    )
    return "".join(parts).encode() + sound + f"\r\n--{_BOUNDARY}--\r\n".encode()


@cache
def sound() -> bytes:
    """The sentence, as a WAV."""
    return resources.files("manyways.verification").joinpath("assets/sentence.wav").read_bytes()


async def _heard(interview: Interview) -> Answer:
    needed = {"model": interview.model.upstream_id}
    try:
        return await _ask(interview, {**needed, "response_format": "json", "language": "en"})
    except Refusal:
        return await _ask(interview, needed)


async def _ask(interview: Interview, fields: Mapping[str, str]) -> Answer:
    return await interview.post(
        "/audio/transcriptions",
        form(fields, sound()),
        content_type=f"multipart/form-data; boundary={_BOUNDARY}",
        price=cost(interview.model.pricing, _TOKENS) or 0.0,
    )


def _text(answer: Answer) -> str:
    if answer.content_type == "text/plain" and not answer.body.lstrip().startswith(b"{"):
        return answer.body.decode(errors="replace")
    return decoded(answer, _Text).text


def _words(text: str) -> list[str]:
    return [word.replace("’", "'") for word in _WORD.findall(text[:20_000].casefold())]
