import importlib
import io
import json
import wave
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.errors import Refusal
from manyways.types import Model
from manyways.verification.asking import JSON, Answer
from manyways.verification.check import Finding
from manyways.verification.checks import transcription
from manyways.verification.checks.transcription import SENTENCE, STEP, form, sound, word_errors
from tests.support.asked import Asked, Reply, interview, model

ROOT = Path(__file__).parents[3]


class Listener(Asked):
    """Notes what type each request says it is of."""

    def __init__(self, *replies: Reply) -> None:
        self.types: list[str] = []
        left = list(replies)
        super().__init__(lambda *_: left.pop(0))

    async def whole(
        self,
        model: Model,
        path: str,
        body: bytes,
        *,
        content_type: str = JSON,
        limit: float,
        largest: int,
    ) -> Answer:
        assert path == "/audio/transcriptions"
        self.types.append(content_type)
        return await super().whole(
            model, path, body, content_type=content_type, limit=limit, largest=largest
        )

    def parts(self, at: int) -> dict[str, bytes]:
        """The form of one request, as the standard library reads it."""
        message = message_from_bytes(
            f"Content-Type: {self.types[at]}\r\n\r\n".encode() + self.bodies[at]
        )
        found = {}
        for part in message.walk():
            if not part.is_multipart():
                name = part.get_param("name", header="Content-Disposition")
                data = part.get_payload(decode=True)
                assert isinstance(name, str)
                assert isinstance(data, bytes)
                found[name] = data
        return found


async def judged(reply: Reply) -> Finding:
    asked = interview(model("whisper", category="audio"), Listener(reply))
    return await STEP.ask(asked)


def text(words: str) -> bytes:
    return json.dumps({"text": words}).encode()


@pytest.mark.parametrize(
    "words",
    [
        SENTENCE,
        "a small yellow bird is singing in the garden, tonight",
        " A SMALL YELLOW BIRD — is singing\nin the garden tonight!",
        "The small yellow birds is singing in a garden tonight.",
    ],
)
async def test_the_words_of_the_sentence_pass(words: str) -> None:
    found = await judged(text(words))
    assert (found.verdict, found.answer) == ("passed", words)
    assert SENTENCE in found.prompt


async def test_plain_text_is_an_answer_as_well() -> None:
    reply = Answer(body=SENTENCE.encode(), content_type="text/plain")
    assert (await judged(reply)).verdict == "passed"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            text("Thank you for watching."),
            "it heard “Thank you for watching.”: 100% of the words are wrong",
        ),
        (text("A small yellow bird."), "60% of the words are wrong"),
        (text(f"{SENTENCE} " * 3), "200% of the words are wrong"),
        (text("bird " * 100_000), "of the words are wrong"),
        (text(" "), "it heard nothing"),
        (b'{"text": null}', "its JSON is of another kind"),
        (b'{"error": {"message": "too loud"}}', "it answers 200 with an error: “too loud”"),
        (b"<html>", "it sent a web page or XML"),
        (b"", "it sent no bytes, no proper JSON"),
    ],
)
async def test_other_words_fail_and_are_shown(body: bytes, reason: str) -> None:
    found = await judged(body)
    assert found.verdict == "failed"
    assert reason in found.reason


async def test_the_sound_is_sent_as_a_form() -> None:
    asker = Listener(text(SENTENCE))
    await STEP.ask(interview(model("whisper", category="audio"), asker))
    assert asker.parts(0) == {
        "model": b"whisper",
        "response_format": b"json",
        "language": b"en",
        "file": sound(),
    }


async def test_who_refuses_the_extras_gets_what_is_needed() -> None:
    asker = Listener(Refusal("invalid_request", "unknown field language"), text(SENTENCE))
    found = await STEP.ask(interview(model("whisper", category="audio"), asker))
    assert found.verdict == "passed"
    assert set(asker.parts(1)) == {"model", "file"}


async def test_who_refuses_it_all_has_refused() -> None:
    no = Refusal("invalid_request", "no ears")
    with pytest.raises(Refusal, match="no ears"):
        await STEP.ask(interview(model("whisper", category="audio"), Listener(no, no)))


async def test_it_costs_what_an_answer_costs() -> None:
    one = model("whisper", category="audio", pricing={"request": 0.006})
    asked = interview(one, Listener(text(SENTENCE)))
    await STEP.ask(asked)
    assert asked.spent.cost == 0.006


def test_the_boundary_is_nowhere_in_the_sound() -> None:
    assert form({}, sound()).count(b"manyways-") == 2


def test_the_sentence_is_small_and_of_the_kind_that_everybody_takes() -> None:
    assert len(sound()) < 150_000
    with wave.open(io.BytesIO(sound())) as spoken:
        assert (spoken.getframerate(), spoken.getnchannels(), spoken.getsampwidth()) == (
            16_000,
            1,
            2,
        )
        assert spoken.getnframes() / spoken.getframerate() == pytest.approx(3.2, abs=0.1)


def test_the_sentence_is_shipped_with_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    builder = importlib.import_module("flit_core.buildapi")  # without types
    wheel = builder.build_wheel(str(tmp_path))
    with zipfile.ZipFile(tmp_path / wheel) as files:
        assert files.read("manyways/verification/assets/sentence.wav") == sound()


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=8), st.lists(st.sampled_from("abc")))
def test_word_errors_are_none_for_the_same_and_no_more_than_everything(
    said: list[str], heard: list[str]
) -> None:
    errors = word_errors(said, heard)
    assert (errors == 0) == (said == heard)
    assert abs(len(said) - len(heard)) <= round(errors * len(said)) <= max(len(said), len(heard))


@pytest.mark.parametrize(
    ("heard", "errors"), [("a b c d", 0), ("a c d", 0.25), ("a x c d", 0.25), ("a b c d e", 0.25)]
)
def test_a_word_lost_changed_or_made_up_is_one_error(heard: str, errors: float) -> None:
    assert word_errors(["a", "b", "c", "d"], heard.split()) == errors


@given(
    st.binary(max_size=60)
    | st.recursive(st.text(), st.lists).map(lambda v: json.dumps({"text": v}).encode())
)
async def test_any_answer_is_judged(body: bytes) -> None:
    assert (await judged(body)).verdict in {"passed", "failed"}


def test_the_bound_is_four_words_of_ten() -> None:
    assert len(SENTENCE.split()) == 10
    assert transcription.MOST_ERRORS == 0.4
