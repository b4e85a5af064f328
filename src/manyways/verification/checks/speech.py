"""Speech: a sentence is spoken, and listened to."""

import asyncio
import re
from collections.abc import Mapping
from typing import Final

from manyways.errors import Refusal
from manyways.types import Usage
from manyways.usage.pricing import cost
from manyways.verification.asking import Answer
from manyways.verification.check import Finding, Step, failed, passed
from manyways.verification.checks.body import described
from manyways.verification.checks.sound import Sound, heard
from manyways.verification.interview import BadAnswer, Interview

SENTENCE: Final = "The lighthouse keeper counted nine ships before the morning fog came in."
SHORTEST: Final = 2.0
"""Seconds in which hardly anybody could say it."""
LONGEST: Final = 20.0
"""Seconds that nobody would take."""
AUDIBLE: Final = 1.0
"""Seconds of it that are not silent, at least."""
SWING: Final = 1.5
"""How many times as loud as its most quiet moment the loudest is, at least: a tone or a noise
stays as it is, and nobody speaks that evenly."""
TRIES: Final = 4
"""Ways to ask for it."""

_TOKENS: Final = Usage(prompt_tokens=30, completion_tokens=600)
"""What it comes to at most where prices are for tokens."""
_PATH: Final = "/audio/speech"
_FORMAT = re.compile(r"(?<![a-z])(?:response_)?format|mp3")
_QUOTED = re.compile(r"""(?<!\w)['"`‘“](\w[\w.:-]{0,60}(?: \w+)?)['"`’”]""")
_LISTED = re.compile(r"(?:\[|\bone of:?|\bvoices?(?: are)?:)\s*[\[(]?\s*(\w[\w-]{1,60})")
_NO_VOICES: Final = frozenset({"alloy", "voice", "voices", "input", "string", "one", "body"})


async def speech(interview: Interview) -> Finding:
    """It sends sound that can be played, is as long as the sentence may take, and is neither
    silent nor one even tone.

    A provider that refuses the voice is asked for the first that it names; one that has no MP3,
    for a WAV.
    """
    answer = await _spoken(interview)
    try:
        sound = await asyncio.to_thread(heard, answer, longest=LONGEST + 1)
    except BadAnswer as error:
        return failed(SENTENCE, described(answer.body), str(error))
    seen = _shown(sound)
    wrong = _wrong(sound)
    return failed(SENTENCE, seen, wrong) if wrong else passed(SENTENCE, seen)


STEP: Final = Step(name="speech", ask=speech, tries=2)


def _shown(sound: Sound) -> str:
    length = f"{sound.seconds:.1f} s" if sound.seconds <= LONGEST else f"more than {LONGEST:g} s"
    return f"{length} of {sound.kind}, {sound.rate / 1000:g} kHz"


def _wrong(sound: Sound) -> str:
    """Why it is not the sentence; else empty."""
    if sound.seconds == 0:
        return "the sound cannot be played"
    if sound.audible == 0:
        return "the sound is silent"
    if sound.seconds < SHORTEST:
        return f"the sound ends after {sound.seconds:.1f} s; the sentence takes {SHORTEST:g} s"
    if sound.seconds > LONGEST:
        return f"the sound goes on for more than {LONGEST:g} s; the sentence takes 5 s"
    if sound.audible < AUDIBLE:
        return f"only {sound.audible:.1f} s of the sound are not silent"
    return "" if sound.swing >= SWING else "the sound is one even tone or noise, no speech"


async def _spoken(interview: Interview) -> Answer:
    price = cost(interview.model.pricing, _TOKENS) or 0.0
    fields = {"input": SENTENCE, "voice": "alloy", "response_format": "mp3"}
    for _ in range(TRIES - 1):
        try:
            return await interview.post(_PATH, fields, price=price)
        except Refusal as refusal:
            other = _otherwise(fields, refusal)
            if other is None:
                raise
            fields = other
    return await interview.post(_PATH, fields, price=price)


def _otherwise(fields: Mapping[str, str], refusal: Refusal) -> dict[str, str] | None:
    """The fields with which it may be asked again; `None`: it says no to the thing itself."""
    words = f"{refusal.param or ''} {refusal.message}"
    folded = words.casefold()
    if refusal.param != "voice" and _FORMAT.search(folded) and "response_format" in fields:
        if fields["response_format"] == "mp3":
            return {**fields, "response_format": "wav"}
        return {name: value for name, value in fields.items() if name != "response_format"}
    if ("voice" in folded or "alloy" in folded) and fields["voice"] == "alloy":
        named = (*_QUOTED.findall(words), *_LISTED.findall(words))
        voice = next((name for name in named if name.casefold() not in _NO_VOICES), None)
        return {**fields, "voice": voice} if voice else None
    return None
