"""What an answer costs where its provider does not say what it came to."""

import json
from typing import Any

import pytest

from manyways import tokens
from manyways.catalog.settings import Settings
from manyways.errors import AttemptFailed, Refusal, TimedOut
from manyways.types import Usage
from manyways.usage.pricing import cost
from manyways.verification.interview import ROOM_TO_THINK, BadAnswer
from manyways.verification.pacing import Postponed
from manyways.verification.run import Run
from tests.support.asked import Asked, Reply, chat, chunks, interview, model
from tests.verification.test_run import Memory

DEAR = {"prompt": 1e-3, "completion": 1e-3}
PRICES = {"prompt": 1e-6, "completion": 1e-3}


def untold(text: str, **message: Any) -> bytes:
    """An answer without usage."""
    fields = json.loads(chat(text, **message))
    del fields["usage"]
    return json.dumps(fields).encode()


async def test_a_budget_is_a_budget_where_no_usage_is_told() -> None:
    def silent(path: str, fields: dict[str, Any]) -> Reply:
        return chunks("some ", "words") if fields.get("stream") else untold("some words " * 10)

    asker = Asked(silent)
    run = Run(Settings(probe_budget=0.5, probe_pause=0.0), asker, Memory(), seed="r")
    await run.run([model(f"m{n}", pricing=DEAR) for n in range(50)])
    at_least = sum(len(tokens_of(request)) * 1e-3 for request in asker.requests)
    assert 0.25 < run.progress.cost <= 0.5
    assert at_least <= run.progress.cost


def tokens_of(request: dict[str, Any]) -> list[str]:
    """Words: there are no fewer tokens."""
    return str(request["messages"][-1]["content"]).split()


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_not_told_is_counted(stream: bool) -> None:
    text = "Nine ships came in before the fog did. " * 3
    one = interview(
        model("m", pricing=PRICES), Asked(lambda *_: chunks(text) if stream else untold(text))
    )
    await one.say("How many?", limit=64, stream=stream)
    usage = one.spent.usage
    assert usage.completion_tokens == tokens.count(text)
    assert usage.prompt_tokens == pytest.approx(tokens.count("How many?"), abs=10)
    assert usage.source == "estimated"
    assert one.spent.cost == pytest.approx(cost(PRICES, usage))


async def test_thoughts_and_calls_are_counted_as_words_are() -> None:
    call = {"id": "1", "function": {"name": "order", "arguments": '{"place": "Lund"}' * 3}}
    answer = untold("yes", reasoning="well, let me see " * 3, tool_calls=[call])
    one = interview(model("m", pricing=PRICES), Asked(lambda *_: answer))
    await one.say("Well?")
    assert one.spent.usage.completion_tokens > tokens.count("well, let me see " * 3 + "Lund" * 3)


async def test_thoughts_that_nobody_sees_are_as_long_as_they_may_be() -> None:
    thinker = model("m", pricing=PRICES, capabilities=("reasoning",))
    one = interview(thinker, Asked(lambda *_: untold("yes")), budget=10.0)
    await one.say("Well?", limit=16)
    assert one.spent.usage.completion_tokens == 16 + ROOM_TO_THINK


async def test_an_estimate_is_never_more_than_was_asked_for() -> None:
    one = interview(model("m", pricing=PRICES), Asked(lambda *_: untold("word " * 5000)))
    await one.say("Well?", limit=16)
    assert one.spent.cost <= 16 * 1e-3 + 1e-3


async def test_what_a_provider_tells_is_not_estimated() -> None:
    one = interview(model("m", pricing=PRICES), Asked(lambda *_: chat("a" * 2000)))
    await one.say("Well?")
    assert one.spent.usage == Usage(prompt_tokens=10, completion_tokens=5, source="upstream")


async def test_of_a_model_without_prices_nothing_is_estimated() -> None:
    one = interview(model("m"), Asked(lambda *_: untold("yes")))
    await one.say("Well?")
    assert (one.spent.usage, one.spent.cost) == (Usage(), 0.0)


BOUND = 16 * 1e-3


@pytest.mark.parametrize(
    "answer",
    [b"<html>", [b"data: nonsense\n\n"], chunks("yes", finish=None, done=False)],
    ids=["a page", "no events", "cut off"],
)
async def test_an_answer_that_is_none_costs_what_was_allowed(answer: Reply) -> None:
    one = interview(model("m", pricing=PRICES), Asked(lambda *_: answer))
    with pytest.raises(BadAnswer):
        await one.say("Well?", limit=16, stream=isinstance(answer, list))
    assert one.spent.cost == pytest.approx(BOUND, abs=1e-3)


def timed_out(phase: Any) -> AttemptFailed:
    failure = AttemptFailed("timeout", "no answer")
    failure.__cause__ = TimedOut(phase, 5.0)
    return failure


@pytest.mark.parametrize(
    ("failure", "times"),
    [
        (AttemptFailed("timeout", "no whole answer"), 2),
        (timed_out("headers"), 2),
        (AttemptFailed("cut", "broke its answer off"), 2),
        (timed_out("connect"), 0),
        (AttemptFailed("connect", "nobody is there"), 0),
        (AttemptFailed("provider_error", "HTTP 500", status=500), 0),
        (AttemptFailed("credentials", "who are you", status=401), 0),
        (Refusal("invalid_request", "no"), 0),
    ],
)
async def test_who_had_the_request_may_bill_it(failure: Exception, times: int) -> None:
    one = interview(model("m", pricing=PRICES), Asked(lambda *_: failure))
    with pytest.raises((AttemptFailed, Refusal)):
        await one.say("Well?", limit=16)
    assert one.spent.cost == pytest.approx(times * BOUND, abs=1e-3)


async def test_a_second_try_that_there_is_no_money_for_is_not_made() -> None:
    asker = Asked(lambda *_: AttemptFailed("timeout", "no answer"))
    one = interview(model("m", pricing=PRICES), asker, budget=1.5 * BOUND)
    with pytest.raises(Postponed, match="budget") as postponed:
        await one.say("Well?", limit=16)
    assert (postponed.value.asked, postponed.value.soon) == (True, False)
    assert len(asker.requests) == 1


async def test_a_picture_whose_provider_fell_silent_is_paid_for() -> None:
    one = interview(model("m"), Asked(lambda *_: AttemptFailed("cut", "broke off")))
    with pytest.raises(AttemptFailed):
        await one.post("/images/generations", {"prompt": "a cat"}, price=0.04)
    assert one.spent.cost == pytest.approx(0.08)
