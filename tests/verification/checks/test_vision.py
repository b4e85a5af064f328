"""Vision: the picture shows a number, and only who reads it passes."""

import io
from base64 import b64encode

import pytest
from PIL import Image

from manyways.verification.checks.picture import SIDE, drawn
from manyways.verification.checks.vision import vision
from tests.support.asked import Asked, chat, interview, model
from tests.support.honest import honest_chat
from tests.support.seeing import read
from tests.verification.checks.asking import asked, distorted, honest, told


def address(picture: bytes) -> str:
    return f"data:image/png;base64,{b64encode(picture).decode()}"


def test_the_picture_is_a_small_png_with_a_margin() -> None:
    picture = drawn("888")

    with Image.open(io.BytesIO(picture)) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (SIDE, SIDE))
        left, top, right, bottom = image.convert("L").point(lambda v: 255 - v).getbbox() or (0,) * 4
    assert min(left, top, SIDE - right, SIDE - bottom) >= 8
    assert bottom - top > SIDE / 4
    assert len(picture) < 8000


@pytest.mark.parametrize("number", ["100", "123", "456", "789", "606", "999", "171"])
def test_what_is_drawn_can_be_read_again(number: str) -> None:
    assert read(address(drawn(number))) == number


async def test_the_number_stands_in_the_picture_alone() -> None:
    asker = Asked(honest)
    await vision(interview(model(), asker))

    (request,) = asker.requests
    number = honest_chat(request)["content"]
    words, picture = request["messages"][0]["content"]
    assert number not in words["text"]
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    "words",
    [
        "{}",
        " {}.\n",
        "The number is **{}**.",
        "The 3-digit number is {0}: {0}.",
        "<think>It may be 111 or 222.</think>{}",
    ],
)
async def test_who_has_read_it_may_say_so_in_many_ways(words: str) -> None:
    finding = await asked(
        vision,
        distorted(lambda message: {"content": words.format(message["content"])}),
    )

    assert finding.verdict == "passed"


async def test_who_cannot_see_fails_with_what_it_said() -> None:
    finding = await told(vision, "I'm sorry, but I cannot see images.")

    assert finding.verdict == "failed"
    assert "and said “I'm sorry, but I cannot see images.”" in finding.reason


async def test_who_guesses_fails() -> None:
    guesses = [await asked(vision, lambda *_: chat("472"), seed=seed) for seed in range(100)]

    assert sum(finding.verdict == "passed" for finding in guesses) <= 1


async def test_who_names_every_number_has_read_none() -> None:
    finding = await told(vision, " ".join(map(str, range(100, 1000))))

    assert finding.verdict == "failed"
    assert len(finding.reason) < 150


@pytest.mark.parametrize("words", ["1{}", "{}0", "{} or 100", "", "٤٧٢"])
async def test_another_number_beside_it_or_around_it_fails(words: str) -> None:
    finding = await asked(
        vision,
        distorted(lambda message: {"content": words.format(message["content"])}),
    )

    assert finding.verdict == "failed"
