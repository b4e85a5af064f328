"""What a check shows of itself: what was asked, and what came back, whatever that is."""

import json

import pytest

from manyways.catalog.verified import SHOWN, Check, Fingerprint, Verified
from manyways.errors import AttemptFailed, Refusal
from manyways.types import Model
from manyways.verification.examination import Brief, examine
from manyways.verification.fingerprint import drifted
from manyways.verification.impostor import impostor
from manyways.verification.interview import BadAnswer
from manyways.verification.quality import TASKS, step
from tests.support.asked import Asked, Reply, chat, chunks, interview, model

ODD = "smollm2-135m\x1b[2J\x07\u202e\x00 \n long " + "x" * 300
"""A name by which a terminal would be taken over."""


async def check(one: Model, reply: Reply, only: str) -> Check:
    """One check of a model that always says the same."""
    made: list[Check] = []

    async def save(found: Check) -> None:
        made.append(found)

    brief = Brief(model=one, only=frozenset({only}))
    asker = Asked(lambda *_: reply)
    await examine(brief, interview(one, asker), save, seed="s", now=lambda: 1.0)
    (found,) = made
    # A provider's failure, where nothing else was asked, proves nothing about a capability.
    assert found.verdict == ("unsure" if isinstance(reply, AttemptFailed) else "failed")
    return found


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (chunks("one", " two", finish=None, done=False), "one two"),
        ([b"data: [[", b"[[\n\n"], "data: [[[[\n\n"),
        ([b"\x00<html>" + b"x" * 9000], "\x00<html>" + "x" * (SHOWN - 7)),
        (AttemptFailed("provider_error", "HTTP 500", status=500), ""),
        (Refusal("provider_refused", "no streams\nfor you"), "no streams\nfor you"),
    ],
    ids=["breaks off", "no events", "a page", "an error", "a refusal"],
)
async def test_a_stream_that_is_none_is_shown(reply: Reply, answer: str) -> None:
    found = await check(model("m"), reply, "streaming")
    assert found.answer == answer
    assert found.prompt.startswith("Count")


async def test_an_answer_that_is_none_is_shown() -> None:
    found = await check(model("m"), b"<html>sorry</html>", "answers")
    assert (found.answer, bool(found.prompt)) == ("<html>sorry</html>", True)


async def test_what_an_earlier_request_brought_is_not_shown_for_this_one() -> None:
    left: list[Reply] = [AttemptFailed("cut", "broke off"), chat("first")]
    one = interview(model("m"), Asked(lambda *_: left.pop() if left else AttemptFailed("cut", "")))
    await one.say("Well?")
    with pytest.raises(AttemptFailed):
        await one.say("Well?")
    assert one.answered == ""


async def test_an_answer_that_was_begun_is_told_apart_from_the_question() -> None:
    found = await check(model("m"), Refusal("provider_refused", "no"), "prefill")
    assert found.prompt.startswith("Copy this line, and write nothing else: ")
    begun = found.prompt.partition(" (the answer begins: ")[2].rstrip(")")
    assert begun
    assert begun in found.prompt.partition(" (the answer begins: ")[0]


async def test_a_picture_that_is_refused_shows_what_was_asked() -> None:
    painter = model("m", category="image")
    found = await check(painter, Refusal("content_filter", "not that"), "image")
    assert (found.prompt, found.answer) == ("A red apple on a white plate", "not that")
    speaker = model("tts-1", category="audio")
    found = await check(speaker, Refusal("content_filter", "not that"), "speech")
    assert found.prompt.startswith("The lighthouse keeper")


# Foreign words


async def reported() -> str:
    """What is kept of the name that a provider tells."""
    answer = {**json.loads(chat("yes")), "model": ODD}
    one = interview(model("m"), Asked(lambda *_: json.dumps(answer).encode()))
    await one.say("Well?")
    return one.spent.reported


def is_safe(words: str) -> bool:
    return words.isprintable()


async def test_a_name_that_a_provider_tells_gives_no_orders_to_a_terminal() -> None:
    name = await reported()
    assert name.startswith("smollm2-135m[2J long xxx")
    assert is_safe(name)
    assert len(name) == 90


async def test_nor_does_a_flag_that_quotes_it() -> None:
    name = await reported()
    print_of = Fingerprint(at=1.0, version="1", samples={}, reported=name)
    before = Fingerprint(at=1.0, version="1", samples={}, reported="gpt-4o")
    big = Model(id="gpt-4o", provider="P", upstream_id="gpt-4o", created=1)
    verified = Verified(provider="P", model="gpt-4o", at=1.0, verdict="passed")
    for reason in (drifted(before, print_of), impostor(big, verified, (), None, seen=print_of)):
        assert reason is not None
        assert "smollm2-135m" in reason
        assert is_safe(reason)


@pytest.mark.parametrize(
    "reply",
    [
        chat(ODD),
        Refusal("provider_refused", ODD),
        json.dumps({"error": {"message": ODD}}).encode(),
        ODD.encode(),
    ],
)
async def test_nor_does_what_is_wrong_with_a_task(reply: Reply) -> None:
    found = await step(TASKS[0]).ask(interview(model("m"), Asked(lambda *_: reply)))
    assert found.verdict == "failed"
    assert is_safe(found.reason)
    assert len(found.reason) < 200


async def test_nor_does_why_a_model_was_not_asked() -> None:
    later = AttemptFailed("rate_limited", ODD, status=429, retry_after=1e6)
    made: list[Check] = []

    async def save(found: Check) -> None:
        made.append(found)

    one = interview(model("m"), Asked(lambda *_: later))
    found = await examine(Brief(model=one.model), one, save, seed="s", now=lambda: 1.0)
    assert (found.verdict, is_safe(found.reason)) == ("unsure", True)
    with pytest.raises(BadAnswer) as bad:
        await interview(model("m"), Asked(lambda *_: ODD.encode())).say("Well?")
    assert is_safe(str(bad.value))
