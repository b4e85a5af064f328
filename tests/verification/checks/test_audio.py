import pytest

from manyways.verification.checks import audio, speech, transcription
from tests.support.asked import model


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tts-1-hd", "speech"),
        ("gpt-4o-mini-tts", "speech"),
        ("hexgrad/Kokoro-82M", "speech"),
        ("canopylabs/orpheus-v1-english", "speech"),
        ("eleven_multilingual_v2", "speech"),
        ("minimax/speech-02-hd", "speech"),
        ("coral", "speech"),
        ("xtts-v2", "speech"),
        ("whisper-1", "transcription"),
        ("distil-whisper-large-v3-en", "transcription"),
        ("gpt-4o-transcribe", "transcription"),
        ("gpt-4o-mini-transcribe-2025-12-15", "transcription"),
        ("nvidia/parakeet-tdt-0.6b-v3", "transcription"),
        ("google/speech-to-text", "transcription"),
        ("qwen3-asr-flash", "transcription"),
        ("gpt-4o-realtime-preview", None),
        ("gpt-4o-audio-preview", None),
        ("gpt-realtime-whisper", None),
        ("musicgen-large", None),
        ("suno-v5", None),
        ("lyria-2", None),
        ("mystery", None),
    ],
)
def test_what_an_audio_model_is_for_is_told_by_its_id(name: str, kind: str | None) -> None:
    one = model(name, category="audio")
    assert audio.kind(one) == kind
    steps = {"speech": speech.STEP, "transcription": transcription.STEP}
    assert audio.step(one) is (steps[kind] if kind else None)


def test_what_its_provider_says_wins() -> None:
    one = model("whisper-1", category="audio", modalities=("text", "speech"))
    assert audio.kind(one) == "speech"


def test_modalities_that_say_nothing_leave_it_to_the_id() -> None:
    one = model("whisper-1", category="audio", modalities=("text", "audio"))
    assert audio.kind(one) == "transcription"


def test_models_of_other_categories_are_for_neither() -> None:
    assert audio.kind(model("tts-1", category="text")) is None
    assert audio.step(model("tts-1", category="text")) is None
