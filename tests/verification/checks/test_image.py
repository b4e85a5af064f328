import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyways.errors import AttemptFailed, Refusal
from manyways.verification.asking import Answer
from manyways.verification.check import Finding
from manyways.verification.checks import image
from manyways.verification.checks.image import STEP, applies
from manyways.verification.checks.pixels import LARGEST, MOST_SCANS, look
from manyways.verification.interview import Interview
from manyways.verification.pacing import Postponed
from tests.support import media
from tests.support.asked import Asked, Reply, interview, model

SMALL = [
    pytest.param(media.picture("PNG", (64, 64)), id="png"),
    pytest.param(media.picture("JPEG", (64, 64)), id="jpeg"),
    pytest.param(media.picture("JPEG", (64, 64), progressive=True), id="progressive jpeg"),
    pytest.param(media.picture("WEBP", (64, 64)), id="webp"),
]


def painter(asker: Asked, **fields: dict[str, float]) -> Interview:
    return interview(model("painter", category="image", **fields), asker)


async def judged(reply: Reply) -> Finding:
    return await STEP.ask(painter(Asked(lambda *_: reply)))


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (media.picture("PNG"), "PNG"),
        (media.picture("JPEG"), "JPEG"),
        (media.picture("JPEG", progressive=True), "JPEG"),
        (media.picture("WEBP"), "WebP"),
    ],
)
async def test_a_whole_picture_of_the_size_passes(data: bytes, kind: str) -> None:
    found = await judged(media.pictures(data))
    assert found.verdict == "passed"
    assert found.answer.startswith(f"a {kind} of 1024 x 1024, ")
    assert found.prompt == "A red apple on a white plate, 1024 x 1024"


async def test_one_cheap_picture_is_asked_for() -> None:
    paths: list[str] = []

    def script(path: str, fields: object) -> bytes:
        paths.append(path)
        return media.pictures(media.picture())

    asker = Asked(script)
    await STEP.ask(painter(asker))
    assert paths == ["/images/generations"]
    assert asker.requests == [
        {"model": "painter", "prompt": image.PROMPT, "n": 1, "size": "1024x1024", "quality": "low"}
    ]


async def test_it_costs_what_a_picture_costs() -> None:
    asked = painter(Asked(lambda *_: media.pictures(media.picture())), pricing={"image": 0.04})
    await STEP.ask(asked)
    assert asked.spent.cost == 0.04


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(media.picture("PNG")[:-700], "the picture is cut off", id="cut png"),
        pytest.param(media.picture("JPEG")[:-2], "the picture is cut off", id="cut jpeg"),
        pytest.param(media.picture("WEBP")[:-50], "the picture is cut off", id="cut webp"),
        pytest.param(
            media.picture("PNG", (512, 512)),
            "the picture is 512 x 512, not 1024 x 1024",
            id="another size",
        ),
        pytest.param(media.plain("PNG"), "the picture is of one single colour", id="plain png"),
        pytest.param(media.plain("JPEG"), "the picture is of one single colour", id="plain jpeg"),
        pytest.param(
            media.plain("PNG", colour=(9, 9, 9, 0)),
            "the picture is transparent all over",
            id="transparent",
        ),
        pytest.param(
            media.plain("WEBP", colour=(9, 9, 9, 128)),
            "the picture is of one single colour",
            id="half transparent",
        ),
        pytest.param(
            media.bomb(60_000, 60_000),
            "the picture is 60000 x 60000, not 1024 x 1024",
            id="bomb",
        ),
        pytest.param(
            media.bomb(1024, 1024, zeros=50_000_000),
            "the picture is of one single colour",
            id="bomb of the right size",
        ),
        pytest.param(bytes(LARGEST + 1), "the picture has 21.0 MB, too much", id="heavy"),
        pytest.param(media.picture("GIF", (64, 64)), "it sent a GIF of ", id="gif"),
        pytest.param(b"<html>Busy</html>", "it sent a web page or XML: “<html>", id="page"),
        pytest.param(b"", "its answer holds no picture", id="nothing"),
    ],
)
async def test_what_is_no_such_picture_fails_with_the_reason(data: bytes, reason: str) -> None:
    found = await judged(media.pictures(data))
    assert found.verdict == "failed"
    assert reason in found.reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<!doctype html><p>Busy", "it sent a web page or XML: “<!doctype html><p>Busy”, no"),
        (b'{"error": {"message": "no GPU"}}', "it answers 200 with an error: “no GPU”"),
        (b'{"error": "no GPU", "data": null}', "it answers 200 with an error: “no GPU”"),
        (b'{"data": []}', "its answer holds no picture"),
        (b'{"data": [{"url": "ftp://x/y.png"}]}', "holds no picture, and no address of one"),
        (b'{"data": [{"b64_json": "a"}]}', "its picture is not in base64"),
        (b'{"data": [{"b64_json": 7}]}', "its JSON is of another kind"),
        (b"[" * 100_000, "its JSON is of another kind"),
        (b'{"data": [', "no proper JSON"),
        (b"\xff\xfe", "it sent 2 bytes that begin with ff fe"),
    ],
)
async def test_an_answer_without_a_picture_fails_with_the_reason(body: bytes, reason: str) -> None:
    found = await judged(body)
    assert found.verdict == "failed"
    assert reason in found.reason


async def test_a_picture_may_lie_at_an_address() -> None:
    asker = Asked(
        lambda *_: media.linked("https://pictures.example/1.png"),
        files=lambda _: Answer(body=media.picture(), content_type="image/png"),
    )
    assert (await STEP.ask(painter(asker))).verdict == "passed"
    assert asker.fetched == ["https://pictures.example/1.png"]


async def test_a_picture_may_be_in_its_address() -> None:
    data = media.pictures(media.picture("JPEG")).decode()
    body = data.replace('"b64_json": "', '"url": "data:image/jpeg;base64,').encode()
    assert (await judged(body)).verdict == "passed"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (AttemptFailed("model_gone", "gone", status=404), "there is no picture where it says"),
        (Refusal("invalid_request", "a private address"), "nobody is sent to: a private address"),
    ],
)
async def test_an_address_without_a_picture_fails(error: Exception, reason: str) -> None:
    def missing(url: str) -> Answer:
        raise error

    asker = Asked(lambda *_: media.linked("https://pictures.example/1.png"), files=missing)
    found = await STEP.ask(painter(asker))
    assert found.verdict == "failed"
    assert reason in found.reason


async def test_an_address_that_cannot_be_reached_says_nothing_about_the_model() -> None:
    def broken(url: str) -> Answer:
        raise AttemptFailed("timeout", "silence")

    asker = Asked(lambda *_: media.linked("https://pictures.example/1.png"), files=broken)
    with pytest.raises(Postponed, match="silence"):
        await STEP.ask(painter(asker))


def choosy(size: tuple[int, int], *complaints: str) -> Asked:
    """Complains so often, and then draws a picture of this size."""
    left = list(complaints)

    def script(path: str, fields: object) -> Reply:
        if left:
            return Refusal("invalid_request", left.pop(0))
        return media.pictures(media.picture(size=size))

    return Asked(script)


async def test_a_size_that_is_refused_gives_way_to_the_smallest_that_is_named() -> None:
    asker = choosy((256, 512), "size must be one of 512x512, '256x512' or 1024 × 1024")
    found = await STEP.ask(painter(asker))
    assert [request["size"] for request in asker.requests] == ["1024x1024", "256x512"]
    assert found.verdict == "passed"
    assert found.prompt.endswith("256 x 512")


async def test_who_takes_no_size_may_draw_any() -> None:
    asker = choosy((640, 480), "unknown field: size")
    found = await STEP.ask(painter(asker))
    assert "size" not in asker.requests[-1]
    assert found.verdict == "passed"
    assert found.prompt.endswith("of any size")


async def test_who_takes_no_quality_is_asked_without() -> None:
    asker = choosy((1024, 1024), "unknown field: quality")
    assert (await STEP.ask(painter(asker))).verdict == "passed"
    assert "quality" not in asker.requests[-1]
    assert asker.requests[-1]["size"] == "1024x1024"


@pytest.mark.parametrize(
    ("complaint", "asked"), [("no", 2), ("the size has to be 640x480", image.TRIES)]
)
async def test_who_refuses_everything_is_not_asked_for_ever(complaint: str, asked: int) -> None:
    asker = choosy((1024, 1024), *[complaint] * 9)
    with pytest.raises(Refusal, match=complaint):
        await STEP.ask(painter(asker))
    assert len(asker.requests) == asked


async def test_a_filter_is_not_argued_with() -> None:
    asker = Asked(lambda *_: Refusal("content_filter", "apples are forbidden"))
    with pytest.raises(Refusal, match="apples"):
        await STEP.ask(painter(asker))
    assert len(asker.requests) == 1


@pytest.mark.parametrize("data", SMALL)
def test_a_picture_that_lacks_any_bytes_at_its_end_is_found_out(data: bytes) -> None:
    assert look(data, "64x64")[1] == ""
    assert [end for end in range(len(data)) if not look(data[:end], "64x64")[1]] == []


@pytest.mark.parametrize("data", SMALL)
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_bytes_in_a_picture_are_survived(data: bytes, draw: st.DataObject) -> None:
    at = draw.draw(st.integers(0, len(data) - 1))
    put = draw.draw(st.binary(min_size=1, max_size=40))
    seen, wrong = look(data[:at] + put + data[at + len(put) :], None)
    assert seen
    assert len(wrong) < 400


@given(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF0000WEBP"]), st.binary())
def test_random_bytes_are_no_picture(begin: bytes, rest: bytes) -> None:
    assert look(begin + rest, None)[1]


def test_a_size_is_known_before_memory_is_asked_for() -> None:
    data = bytearray(media.picture("WEBP", (64, 64)))
    data[26:30] = b"\xff\x3f\xff\x3f"
    seen, wrong = look(bytes(data), "1024x1024")
    assert seen.startswith("a WebP")
    assert wrong


def test_a_jpeg_of_very_many_scans_is_not_decoded() -> None:
    data = media.picture("JPEG", (64, 64))
    scan = data[data.rindex(b"\xff\xda") : -2]
    many = data[:-2] + scan * MOST_SCANS + data[-2:]
    assert look(many, "64x64")[1] == "the picture takes too long to decode"


@pytest.mark.parametrize(
    ("name", "category", "draws"),
    [
        ("dall-e-3", "image", True),
        ("flux-schnell", "image", True),
        ("qwen-image-edit", "image", False),
        ("recraft-remove-background", "image", False),
        ("gpt-4o", "text", False),
    ],
)
def test_models_that_draw_are_told_from_those_that_edit(
    name: str, category: str, draws: bool
) -> None:
    assert applies(model(name, category=category)) is draws
