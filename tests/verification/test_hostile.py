"""What a hostile provider sends, or says of itself, costs others nothing."""

import asyncio
from random import Random

import pytest

from manyways.errors import AttemptFailed
from manyways.types import Model, Usage
from manyways.usage.pricing import cost
from manyways.verification.asking import JSON, Answer
from manyways.verification.interview import LARGEST, LARGEST_STREAM, Interview
from manyways.verification.pacing import MOST_SILENCES, Pace, Places, Postponed, Purse
from tests.support.asked import Asked, Reply, chat, chunks, interview, model
from tests.support.virtual_time import virtual_time

PRICES = {"prompt": 1e-6, "completion": 1e-6}


async def test_what_an_answer_is_said_to_cost_is_believed_as_far_as_was_allowed() -> None:
    bold = chat("hi").replace(b'"completion_tokens": 5', b'"completion_tokens": 1000000000')
    one = interview(model("m", pricing=PRICES), Asked(lambda *_: bold))
    await one.say("Hello", limit=16)
    allowed = cost(PRICES, Usage(prompt_tokens=200, completion_tokens=16))
    assert allowed is not None
    assert 0 < one.spent.cost <= allowed


async def test_of_several_providers_none_gets_more_than_its_share() -> None:
    purse = Purse(1.0, share=0.5)
    for provider, price, fits in (("A", 0.4, True), ("A", 0.2, False), ("B", 0.5, True)):
        async with purse.hold(price, provider) as held:
            assert held is fits
        if held:
            purse.pay(price, provider)
    assert purse.refused == 1


def test_a_provider_that_falls_silent_is_not_waited_for() -> None:
    waited: list[float] = []

    async def scene() -> None:
        pace, places = Pace(0.0), Places(4, 4)

        def silence(path: str, fields: object) -> Reply:
            waited.append(asyncio.get_running_loop().time())
            return AttemptFailed("timeout", "no answer")

        for _ in range(100):
            one = Interview(
                model("m"),
                Asked(silence),
                pace=pace,
                places=places,
                purse=Purse(1.0),
                timeout=60.0,
                chance=Random(1),
            )
            with pytest.raises((AttemptFailed, Postponed), match=r"no answer|without an answer"):
                await one.say("Hello")

    with virtual_time() as run:
        run(scene())
    assert len(waited) == MOST_SILENCES


async def test_silences_are_forgiven_by_an_answer() -> None:
    left = [AttemptFailed("timeout", "no answer")] * 3
    one = interview(model("m"), Asked(lambda *_: left.pop() if len(left) % 2 else chat("hi")))
    for _ in range(2):
        left.append(AttemptFailed("timeout", "no answer"))
        assert (await one.say("Hello")).text == "hi"


async def test_answers_are_asked_for_within_bounds() -> None:
    bounds: list[int] = []

    class Noting(Asked):
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
            bounds.append(largest)
            return await super().whole(
                model, path, body, content_type=content_type, limit=limit, largest=largest
            )

    one = interview(model("m"), Noting(lambda *_: chat("hi")))
    await one.say("Hello")
    await one.post("/embeddings", {"input": "a"}, price=0.0)
    await one.post("/images/generations", {"prompt": "a"}, price=0.0)
    assert bounds == [LARGEST, LARGEST, 32 * LARGEST]
    assert LARGEST_STREAM < 32 * LARGEST


async def test_a_call_in_many_pieces_is_put_together_once() -> None:
    def event(name: str, arguments: str) -> bytes:
        function = f'{{"name": "{name}", "arguments": "{arguments}"}}'
        call = f'{{"index": 0, "function": {function}}}'
        delta = f'{{"choices": [{{"index": 0, "delta": {{"tool_calls": [{call}]}}}}]}}'
        return f"data: {delta}\n\n".encode()

    stream = [event("order", ""), *[event("", "x")] * 5000, *chunks(finish="tool_calls")]
    said = await interview(model("m"), Asked(lambda *_: stream)).say("Hello", stream=True)
    assert said.tool_calls == ({"function": {"name": "order", "arguments": "x" * 5000}},)
