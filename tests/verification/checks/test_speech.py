import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyways.errors import Refusal
from manyways.verification.asking import Answer
from manyways.verification.check import Finding
from manyways.verification.checks import sound, speech
from manyways.verification.checks.sound import heard
from manyways.verification.checks.speech import STEP
from manyways.verification.interview import BadAnswer, Interview
from tests.support import media
from tests.support.asked import Asked, Reply, interview, model


def speaker(asker: Asked, **fields: dict[str, float]) -> Interview:
    return interview(model("tts", category="audio", **fields), asker)


async def judged(answer: Answer) -> Finding:
    return await STEP.ask(speaker(Asked(lambda *_: answer)))


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (media.sound(media.spoken("mp3")), "3.3 s of MP3, 24 kHz"),
        (media.sound(media.spoken("flac"), "audio/flac"), "3.2 s of FLAC, 8 kHz"),
        (media.sound(media.babble(), "audio/wav"), "4.0 s of WAV, 16 kHz"),
        (media.sound(media.babble(), "application/octet-stream"), "4.0 s of WAV, 16 kHz"),
        (media.sound(media.babble(rate=24_000)[44:], "audio/pcm"), "4.0 s of raw samples, 24 kHz"),
    ],
)
async def test_sound_of_a_plausible_length_passes(answer: Answer, shown: str) -> None:
    found = await judged(answer)
    assert (found.verdict, found.answer) == ("passed", shown)
    assert found.prompt == speech.SENTENCE


async def test_an_mp3_is_asked_for() -> None:
    asker = Asked(lambda *_: media.sound(media.spoken()))
    await STEP.ask(speaker(asker))
    assert asker.requests == [
        {"model": "tts", "input": speech.SENTENCE, "voice": "alloy", "response_format": "mp3"}
    ]


async def test_it_costs_what_an_answer_costs() -> None:
    asked = speaker(Asked(lambda *_: media.sound(media.spoken())), pricing={"request": 0.02})
    await STEP.ask(asked)
    assert asked.spent.cost == 0.02


def streamed(data: bytes) -> bytes:
    """A WAV written before its length was known."""
    return data[:4] + b"\xff\xff\xff\xff" + data[8:40] + b"\xff\xff\xff\xff" + data[44:]


async def test_a_wav_may_not_know_its_own_length() -> None:
    assert (await judged(media.sound(streamed(media.babble())))).verdict == "passed"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(media.sound(media.tone(loudness=0.0)), "the sound is silent", id="silence"),
        pytest.param(
            media.sound(media.tone(loudness=0.001)), "the sound is silent", id="nearly silence"
        ),
        pytest.param(
            media.sound(media.wav([0] * 60_000 + [9000, -9000] * 2400)),
            "only 0.3 s of the sound are not silent",
            id="a crack in silence",
        ),
        pytest.param(media.sound(media.tone()), "the sound is one even tone or noise", id="tone"),
        pytest.param(
            media.sound(media.babble(1.0)), "the sound ends after 1.0 s; the", id="too short"
        ),
        pytest.param(
            media.sound(media.babble(40.0)), "goes on for more than 20 s; the", id="too long"
        ),
        pytest.param(
            media.sound(media.spoken()[:5000]), "the sound ends after 1.7 s; the", id="cut mp3"
        ),
        pytest.param(
            media.sound(media.babble()[:-20_000]),
            "the sound is cut off: 108 kB of 128 kB",
            id="cut wav",
        ),
        pytest.param(media.sound(media.wav([])), "the sound cannot be played", id="no samples"),
        pytest.param(
            media.sound(b"<html><h1>Busy</h1>", "text/html"),
            "it sent a web page or XML: “<html><h1>Busy</h1>”, which is no MP3, WAV or FLAC",
            id="page",
        ),
        pytest.param(media.sound(b'{"error": "no voice"}'), 'it sent JSON: “{"error"', id="JSON"),
        pytest.param(media.sound(b"OggS" + bytes(99)), "it sent an Ogg file of 103", id="ogg"),
        pytest.param(media.sound(b""), "it sent no bytes, which is no MP3", id="nothing"),
        pytest.param(
            media.sound(b"ID3" + bytes(sound.LARGEST)), "has 8.4 MB, too much", id="heavy"
        ),
    ],
)
async def test_what_is_no_speech_fails_with_the_reason(answer: Answer, reason: str) -> None:
    found = await judged(answer)
    assert found.verdict == "failed"
    assert reason in found.reason


def choosy(*complaints: Refusal) -> Asked:
    left = list(complaints)

    def script(path: str, fields: object) -> Reply:
        return left.pop(0) if left else media.sound(media.babble(), "audio/wav")

    return Asked(script)


@pytest.mark.parametrize(
    ("words", "voice"),
    [
        ("Input should be 'tara', 'leo' or 'zoe', but it can't be 'alloy'", "tara"),
        ("voice 'alloy' is unknown, must be one of [Fritz-PlayAI, Celeste-PlayAI]", "Fritz-PlayAI"),
        ("Voice alloy not found. Available voices: af_heart, af_bella", "af_heart"),
    ],
)
async def test_a_voice_that_is_refused_gives_way_to_one_that_is_named(
    words: str, voice: str
) -> None:
    asker = choosy(Refusal("invalid_request", words, param="voice"))
    assert (await STEP.ask(speaker(asker))).verdict == "passed"
    assert [request["voice"] for request in asker.requests] == ["alloy", voice]


async def test_who_has_no_mp3_is_asked_for_a_wav_and_then_for_anything() -> None:
    no = Refusal("invalid_request", "not supported", param="response_format")
    asker = choosy(no, no)
    assert (await STEP.ask(speaker(asker))).verdict == "passed"
    formats = [request.get("response_format") for request in asker.requests]
    assert formats == ["mp3", "wav", None]


@pytest.mark.parametrize(
    "words", ["no", "that voice is not for you", "for more information, see our pages"]
)
async def test_a_refusal_that_names_no_way_out_stands(words: str) -> None:
    asker = choosy(Refusal("invalid_request", words))
    with pytest.raises(Refusal, match=words):
        await STEP.ask(speaker(asker))
    assert len(asker.requests) == 1


async def test_who_refuses_everything_is_not_asked_for_ever() -> None:
    complaints = [Refusal("invalid_request", f"no format, no voice '{n}'") for n in range(9)]
    asker = choosy(*complaints)
    with pytest.raises(Refusal):
        await STEP.ask(speaker(asker))
    assert len(asker.requests) == speech.TRIES


def listened(data: bytes, content_type: str = "audio/mpeg") -> sound.Sound | None:
    try:
        return heard(Answer(body=data, content_type=content_type), longest=21.0)
    except BadAnswer:
        return None


BEGINNINGS = [
    b"",
    b"ID3\x04\x00\x00\x00\x00\x00\x00",
    b"\xff\xfb\x90\x00",
    b'fLaC\x00\x00\x00"',
    b"RIFF\xff\xff\xff\xffWAVEfmt \x10\x00\x00\x00",
]


@given(st.sampled_from(BEGINNINGS), st.binary(max_size=4000))
def test_random_bytes_are_no_speech(begin: bytes, rest: bytes) -> None:
    found = listened(begin + rest)
    assert found is None or found.seconds < speech.SHORTEST


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([media.spoken("mp3"), media.spoken("flac"), media.babble()]),
    st.data(),
)
def test_any_bytes_in_a_sound_are_survived(data: bytes, draw: st.DataObject) -> None:
    at = draw.draw(st.integers(0, 200) | st.integers(0, len(data) - 1))
    put = draw.draw(st.binary(min_size=1, max_size=30))
    found = listened(data[:at] + put + data[at + len(put) :])
    assert found is None or found.seconds <= 21.1


@pytest.mark.parametrize(
    ("data", "step"),
    [(media.spoken("mp3"), 29), (media.spoken("flac"), 41), (media.wav([5, -5] * 500), 1)],
    ids=["mp3", "flac", "wav"],
)
def test_a_sound_may_end_anywhere(data: bytes, step: int) -> None:
    whole = listened(data)
    assert whole is not None
    for end in range(0, len(data), step):
        found = listened(data[:end])
        assert found is None or found.seconds <= whole.seconds


@pytest.mark.parametrize(
    ("channels", "rate", "bits"),
    [(65_535, 16_000, 16), (1, 4_294_967_295, 16), (1, 1, 16), (0, 0, 0), (2, 48_000, 65_528)],
)
def test_headers_that_cannot_be_are_survived(channels: int, rate: int, bits: int) -> None:
    data = media.babble()
    header = struct.pack("<HHIIHH", 1, channels, rate, rate * 2 % 2**32, 2, bits)
    found = listened(data[:20] + header + data[36:])
    assert found is None or found.seconds <= 21.1


def test_hours_in_few_bytes_are_not_listened_to_the_end() -> None:
    data = media.spoken("mp3")
    found = listened(data * (sound.LARGEST // len(data)))
    assert found is not None
    assert found.seconds == pytest.approx(21.0, abs=0.1)
