import base64
import json
import re
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.errors import Refusal
from manyways.verification.check import Finding
from manyways.verification.checks.embedding import SENTENCES, STEP
from manyways.verification.interview import Interview
from tests.support.asked import Asked, Reply, interview, model
from tests.support.media import vectors

GOOD = ([0.9, 0.1, 0.2], [0.8, 0.2, 0.3], [0.1, 0.9, 0.1])


def embedder(asker: Asked, **fields: dict[str, float]) -> Interview:
    return interview(model("e", category="embedding", **fields), asker)


async def judged(reply: Reply) -> Finding:
    return await STEP.ask(embedder(Asked(lambda *_: reply)))


def items(*values: dict[str, Any]) -> bytes:
    return json.dumps({"data": list(values)}).encode()


async def test_vectors_that_tell_what_is_meant_pass() -> None:
    found = await judged(vectors(*GOOD))
    assert found.verdict == "passed"
    assert found.answer == (
        "3 vectors of 3 numbers; likeness 0.98 of the two that mean the same, 0.24 else"
    )
    assert all(sentence in found.prompt for sentence in SENTENCES)


async def test_vectors_that_all_lie_close_together_pass_where_the_order_is_right() -> None:
    assert (
        await judged(vectors([10.0, 1.0, 0.0], [10.0, 0.8, 0.1], [10.0, 0.0, 1.5]))
    ).verdict == "passed"


async def test_three_sentences_are_asked_for_as_numbers() -> None:
    asker = Asked(lambda *_: vectors(*GOOD))
    asked = embedder(asker, pricing={"request": 0.001})
    await STEP.ask(asked)
    assert asker.requests == [{"model": "e", "input": list(SENTENCES), "encoding_format": "float"}]
    assert asked.spent.cost == 0.001


async def test_base64_is_an_answer_as_well() -> None:
    packed = [base64.b64encode(struct.pack("<3f", *row)).decode() for row in GOOD]
    found = await judged(items(*({"index": n, "embedding": v} for n, v in enumerate(packed))))
    assert found.verdict == "passed"


async def test_vectors_belong_where_their_numbers_say() -> None:
    first, second, third = GOOD
    body = items(
        {"index": 2, "embedding": third},
        {"index": 0, "embedding": first},
        {"index": 1, "embedding": second},
    )
    assert (await judged(body)).verdict == "passed"


async def test_vectors_without_numbers_are_taken_as_they_come() -> None:
    assert (await judged(items(*({"embedding": row} for row in GOOD)))).verdict == "passed"


def one_hot(words: list[str], size: int = 512) -> list[float]:
    found = [0.0] * size
    for word in words:
        found[zlib.crc32(word.encode()) % size] += 1.0
    return found


def bag_of_words(text: str) -> list[float]:
    return one_hot(re.findall(r"\w+", text.casefold()))


def bag_of_letters(text: str) -> list[float]:
    return one_hot([text[at : at + 3] for at in range(len(text))])


def noise(text: str) -> list[float]:
    return [zlib.crc32(f"{text}{n}".encode()) / 2**31 - 1 for n in range(384)]


@pytest.mark.parametrize("fake", [bag_of_words, bag_of_letters, noise])
async def test_what_only_looks_at_the_letters_fails(fake: Any) -> None:
    found = await judged(vectors(*(fake(sentence) for sentence in SENTENCES)))
    assert found.verdict == "failed"
    assert "its vectors tell nothing of what is meant: the likeness of two" in found.reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (vectors(*GOOD[:2]), "it sent 2 vectors for 3 sentences"),
        (vectors(*GOOD[:2], [1.0, 2.0]), "its vectors are of 2 and 3 numbers"),
        (vectors([1.0], [2.0], [3.0]), "its vectors are of 1 numbers"),
        (vectors([], [], []), "its vectors are of 0 numbers"),
        (vectors([0.0] * 3, *GOOD[1:]), "a vector is zero throughout"),
        (vectors(GOOD[0], GOOD[0], GOOD[2]), "the same vector for different sentences"),
        (vectors(GOOD[0], GOOD[1], GOOD[1]), "the same vector for different sentences"),
        (vectors([1e308] * 4, [1e308] * 4, [1.0] * 4), "numbers too large to reckon with"),
        (items(*({"index": 0, "embedding": row} for row in GOOD)), "numbers the vectors 0, 0, 0"),
        (items(*({"embedding": "AAAA"} for _ in GOOD)), "is not 32-bit numbers in base64"),
        (items(*({"embedding": "AADAfwAAgD8="} for _ in GOOD)), "hold numbers that are none"),
        (b'{"data": [{"embedding": [1, NaN]}]}', "no proper JSON"),
        (b'{"data": [{"embedding": [1e999]}]}', "Number out of range"),
        (b'{"data": [{"embedding": {}}]}', "its JSON is of another kind"),
        (b'{"error": "asleep"}', "it answers 200 with an error: “asleep”"),
        (b"<html>", "it sent a web page or XML"),
    ],
)
async def test_vectors_that_are_none_fail_with_the_reason(body: bytes, reason: str) -> None:
    found = await judged(body)
    assert found.verdict == "failed"
    assert reason in found.reason


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("encoding_format is unknown", {}),
        ("'input_type' parameter is required", {"input_type": "query"}),
    ],
)
async def test_who_wants_to_be_asked_otherwise_is(words: str, fields: dict[str, str]) -> None:
    replies: list[Reply] = [Refusal("invalid_request", words), vectors(*GOOD)]
    asker = Asked(lambda *_: replies.pop(0))
    assert (await STEP.ask(embedder(asker))).verdict == "passed"
    assert asker.requests[1] == {"model": "e", "input": list(SENTENCES), **fields}


async def test_a_second_refusal_stands() -> None:
    with pytest.raises(Refusal, match="no"):
        await judged(Refusal("invalid_request", "no"))


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers()


@given(
    st.lists(
        st.fixed_dictionaries(
            {"embedding": st.lists(numbers, max_size=4) | st.text() | st.none()},
            optional={"index": st.integers() | st.none() | st.text(max_size=2)},
        ),
        min_size=2,
        max_size=4,
    )
)
async def test_any_vectors_are_judged(data: list[dict[str, Any]]) -> None:
    assert (await judged(items(*data))).verdict in {"passed", "failed"}


@given(st.binary(max_size=60))
async def test_any_answer_is_judged(body: bytes) -> None:
    assert (await judged(body)).verdict == "failed"
