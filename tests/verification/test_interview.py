"""How one model is asked: what it does not take is left out, what it wants later comes later,
and all of it is counted."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.errors import AttemptFailed, Refusal
from manyways.types import Model
from manyways.verification.asking import Answer
from manyways.verification.interview import (
    FIRST_WAIT,
    PATIENCE,
    ROOM_TO_THINK,
    TRIES,
    Interview,
)
from manyways.verification.pacing import Pace, Places, Postponed, Purse
from tests.support.asked import Asked, Reply, chat, chunks, interview, model
from tests.support.virtual_time import virtual_time

PRICES = {"prompt": 0.001, "completion": 0.01}


@pytest.fixture
def run() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    with virtual_time() as run:
        yield run


Run = Callable[[Coroutine[Any, Any, Any]], Any]


def in_turn(*replies: Reply) -> Asked:
    """Answers the first request by the first reply, and so on; the last one again and again."""
    left = list(replies)
    return Asked(lambda *_: left.pop(0) if len(left) > 1 else left[0])


def picky(*disliked: str, says: str = "{name} is not supported", code: str = "") -> Asked:
    """Refuses requests with any of these fields, and names the first that it finds."""

    def script(path: str, fields: dict[str, Any]) -> Reply:
        for name in disliked:
            if name in fields:
                return Refusal(code or "invalid_request", says.format(name=name))
        return chunks("yes", " sir") if fields.get("stream") else chat("yes")

    return Asked(script)


def limited(retry_after: float | None = None) -> AttemptFailed:
    return AttemptFailed("rate_limited", "too many", status=429, retry_after=retry_after)


def broken() -> AttemptFailed:
    return AttemptFailed("provider_error", "oops", status=500)


def now() -> float:
    return asyncio.get_running_loop().time()


class TestWhatIsSent:
    async def test_a_question_is_sent_as_cheap_and_repeatable_as_can_be(self) -> None:
        asker = Asked(lambda *_: chat("yes"))
        said = await interview(model("m"), asker).say("Well?", limit=9, tools=[])
        assert said.text == "yes"
        assert asker.requests == [
            {
                "model": "m",
                "messages": [{"role": "user", "content": "Well?"}],
                "max_tokens": 9,
                "temperature": 0,
                "seed": 1,
                "tools": [],
            }
        ]

    async def test_a_stream_asks_for_its_usage(self) -> None:
        asker = Asked(lambda *_: chunks("yes"))
        await interview(model(), asker).say("Well?", stream=True)
        assert asker.requests[0]["stream"] is True
        assert asker.requests[0]["stream_options"] == {"include_usage": True}

    async def test_what_was_asked_is_told_in_words(self) -> None:
        one = interview(model(), Asked(lambda *_: chat("yes")))
        picture = {"type": "image_url", "image_url": {"url": "data:"}}
        text = {"type": "text", "text": "What is it?"}
        await one.say([{"role": "user", "content": [text, picture]}])
        assert one.asked == "What is it?"
        one.begin()
        assert (one.asked, one.spent.requests) == ("", 0)


class TestAdaptation:
    """What a model does not take is left out, or put otherwise, from then on."""

    @pytest.mark.parametrize("field", ["temperature", "seed"])
    async def test_a_field_that_is_named_is_left_out_for_good(self, field: str) -> None:
        asker = picky(field)
        one = interview(model(), asker)
        assert [(await one.say("Well?")).text for _ in range(2)] == ["yes", "yes"]
        assert [field in request for request in asker.requests] == [True, False, False]
        other = ({"temperature", "seed"} - {field}).pop()
        assert all(other in request for request in asker.requests)

    async def test_a_param_names_a_field_as_well_as_words_do(self) -> None:
        asker = in_turn(Refusal("invalid_request", "not this", param="seed"), chat("yes"))
        await interview(model(), asker).say("Well?")
        assert ["seed" in request for request in asker.requests] == [True, False]

    async def test_stream_options_are_left_out_where_they_are_not_known(self) -> None:
        asker = picky("stream_options")
        said = await interview(model(), asker).say("Well?", stream=True)
        assert said.text == "yes sir"
        assert "stream_options" not in asker.requests[-1]

    async def test_the_limit_is_named_as_the_model_wants_it(self) -> None:
        asker = picky("max_tokens", says="use max_completion_tokens instead of {name}")
        one = interview(model(), asker)
        await one.say("Well?", limit=7)
        await one.say("Well?", limit=8)
        assert [
            (request.get("max_tokens"), request.get("max_completion_tokens"))
            for request in asker.requests
        ] == [(7, None), (None, 7), (None, 8)]

    async def test_all_at_once_is_found_out_one_after_the_other(self) -> None:
        """A model that thinks, and takes nothing of what others take."""

        def script(path: str, fields: dict[str, Any]) -> Reply:
            for name in ("max_tokens", "temperature", "seed", "stream_options"):
                if name in fields:
                    return Refusal("invalid_request", f"no {name}; try max_completion_tokens")
            if fields["max_completion_tokens"] < 1000:
                return chunks("", finish="length")
            return chunks("at ", "last")

        asker = Asked(script)
        said = await interview(model(), asker).say("Well?", stream=True)
        assert said.text == "at last"
        assert len(asker.requests) == 6

    async def test_who_does_not_say_what_is_wrong_is_asked_with_nothing_that_could_be(
        self,
    ) -> None:
        asker = picky("temperature", says="bad request")
        one = interview(model(), asker)
        assert (await one.say("Well?")).text == "yes"
        assert not {"temperature", "seed"} & set(asker.requests[-1])
        await one.say("Well?")
        assert len(asker.requests) == 3

    async def test_what_is_refused_for_good_puts_back_what_was_left_out(self) -> None:
        asker = picky("tools", says="bad request")
        one = interview(model(), asker)
        with pytest.raises(Refusal, match="bad request"):
            await one.say("Well?", tools=[])
        assert [sorted(request) for request in asker.requests] == [
            ["max_tokens", "messages", "model", "seed", "temperature", "tools"],
            ["max_tokens", "messages", "model", "tools"],
        ]
        await one.say("Well?")
        assert {"temperature", "seed"} <= set(asker.requests[-1])

    async def test_a_filter_is_no_matter_of_fields(self) -> None:
        asker = picky("seed", code="content_filter")
        with pytest.raises(Refusal):
            await interview(model(), asker).say("Well?")
        assert len(asker.requests) == 1

    @given(
        fields=st.lists(
            st.sampled_from(["temperature", "seed", "stream_options", "max_completion_tokens", ""]),
            max_size=9,
        )
    )
    async def test_whatever_is_refused_in_whatever_order_comes_to_an_end(
        self, fields: list[str]
    ) -> None:
        refusals = [Refusal("invalid_request", f"not {name}") for name in fields]
        asker = in_turn(*refusals, chunks("yes"))
        try:
            said = await interview(model(), asker).say("Well?", stream=True)
            assert said.text == "yes"
        except Refusal:
            assert refusals
        assert len(asker.requests) <= 7


class TestThinking:
    async def test_a_model_that_says_that_it_thinks_gets_room_at_once(self) -> None:
        asker = Asked(lambda *_: chat("yes"))
        one = model(capabilities=("reasoning",))
        await interview(one, asker).say("Well?", limit=10)
        assert asker.requests[0]["max_tokens"] == 10 + ROOM_TO_THINK

    @pytest.mark.parametrize("text", ["", None, "<think>well, let me"])
    async def test_one_that_got_lost_in_thought_gets_room_from_then_on(
        self, text: str | None
    ) -> None:
        asker = in_turn(chat(text, finish="length"), chat("yes"))
        one = interview(model(), asker)
        assert (await one.say("Well?", limit=10)).text == "yes"
        await one.say("Well?", limit=10)
        assert [request["max_tokens"] for request in asker.requests] == [
            10,
            10 + ROOM_TO_THINK,
            10 + ROOM_TO_THINK,
        ]

    @pytest.mark.parametrize(
        "answer",
        [
            chat("yes", finish="length"),
            chat("<think>hm</think> yes", finish="length"),
            chat("", finish="stop"),
            chat(None, finish="length", tool_calls=[{"function": {"name": "f"}}]),
        ],
    )
    async def test_whoever_has_said_something_has_not(self, answer: bytes) -> None:
        asker = Asked(lambda *_: answer)
        await interview(model(), asker).say("Well?")
        assert len(asker.requests) == 1

    async def test_one_that_thinks_without_end_is_not_asked_without_end(self) -> None:
        asker = Asked(lambda *_: chat("", finish="length"))
        assert (await interview(model(), asker).say("Well?")).text == ""
        assert len(asker.requests) == 2


class TestPatience:
    """Who wants fewer requests gets them later, or on another day."""

    def test_it_is_asked_again_when_it_says(self, run: Run) -> None:
        async def scene() -> None:
            began = now()
            asker = in_turn(limited(30.0), chat("yes"))
            one = interview(model(), asker)
            assert (await one.say("Well?")).text == "yes"
            assert now() - began == pytest.approx(30.0)
            assert one.spent.requests == 2

        run(scene())

    def test_where_it_does_not_say_when_each_wait_is_longer(self, run: Run) -> None:
        async def scene() -> None:
            began = now()
            asker = Asked(lambda *_: limited())
            with pytest.raises(Postponed, match="too many") as postponed:
                await interview(model(), asker).say("Well?")
            assert postponed.value.asked
            assert len(asker.requests) == TRIES
            assert now() - began == pytest.approx(FIRST_WAIT * (1 + 2 + 4))

        run(scene())

    def test_whoever_wants_longer_than_anybody_waits_is_not_waited_for(self, run: Run) -> None:
        async def scene() -> None:
            began = now()
            one = interview(model(), Asked(lambda *_: limited(PATIENCE + 1)))
            with pytest.raises(Postponed) as postponed:
                await one.say("Well?")
            assert postponed.value.asked
            assert now() == began

        run(scene())

    def test_its_whole_provider_rests_meanwhile(self, run: Run) -> None:
        async def scene() -> None:
            began = now()
            pace = Pace(0.0)
            first = paced(in_turn(limited(20.0), chat("yes")), pace)
            second = paced(Asked(lambda *_: chat("yes")), pace)
            asked = asyncio.create_task(first.say("Well?"))
            await asyncio.sleep(1.0)
            await second.say("Well?")
            assert now() - began >= 20.0
            await asked

        run(scene())

    def test_what_is_wanted_in_an_hour_may_be_one_models_own(self, run: Run) -> None:
        """So the others of its provider are asked soon."""

        async def scene() -> None:
            began = now()
            pace = Pace(0.0)
            with pytest.raises(Postponed):
                await paced(Asked(lambda *_: limited(3600.0)), pace).say("Well?")
            await paced(Asked(lambda *_: chat("yes")), pace).say("Well?")
            assert now() - began == pytest.approx(FIRST_WAIT)

        run(scene())

    def test_a_provider_without_quota_costs_a_run_minutes_and_not_hours(self, run: Run) -> None:
        async def scene() -> None:
            began = now()
            pace = Pace(0.5)
            askers = [Asked(lambda *_: limited(86_400.0)) for _ in range(300)]
            for asker in askers:
                with pytest.raises(Postponed):
                    await paced(asker, pace).say("Well?")
            assert now() - began < 600.0
            assert sum(len(asker.requests) for asker in askers) < 20

        run(scene())

    async def test_another_failure_may_have_been_an_accident(self) -> None:
        asker = in_turn(broken(), chat("yes"))
        assert (await interview(model(), asker).say("Well?")).text == "yes"

    async def test_two_are_none(self) -> None:
        asker = Asked(lambda *_: broken())
        with pytest.raises(AttemptFailed, match="oops"):
            await interview(model(), asker).say("Well?")
        assert len(asker.requests) == 2

    @pytest.mark.parametrize("code", ["credentials", "model_gone"])
    async def test_a_lost_cause_is_not_tried_again(self, code: str) -> None:
        asker = Asked(lambda *_: AttemptFailed(code, "no"))
        with pytest.raises(AttemptFailed):
            await interview(model(), asker).say("Well?")
        assert len(asker.requests) == 1

    def test_a_failure_behind_a_rest_still_has_its_second_try(self, run: Run) -> None:
        async def scene() -> None:
            asker = in_turn(limited(), broken(), chat("yes"))
            assert (await interview(model(), asker).say("Well?")).text == "yes"

        run(scene())

    def test_requests_end_somewhere_whatever_fails(self, run: Run) -> None:
        async def scene() -> None:
            asker = in_turn(limited(), limited(), limited(), broken(), chat("never"))
            with pytest.raises(Postponed):
                await interview(model(), asker).say("Well?")
            assert len(asker.requests) == TRIES

        run(scene())


class TestMoney:
    async def test_what_may_cost_too_much_is_not_asked(self) -> None:
        asker = Asked(lambda *_: chat("yes"))
        with pytest.raises(Postponed, match="budget") as postponed:
            await interview(model(pricing=PRICES), asker, budget=0.5).say("Well?", limit=100)
        assert not postponed.value.asked
        assert asker.requests == []

    async def test_what_it_came_to_is_taken_from_the_budget(self) -> None:
        one = interview(model(pricing=PRICES), Asked(lambda *_: chat("yes")), budget=1.0)
        await one.say("Well?", limit=64)  # 64 tokens and a prompt: 0.7 USD at most
        assert one.spent.cost == pytest.approx(10 * 0.001 + 5 * 0.01)
        for _ in range(5):
            await one.say("Well?", limit=64)
        with pytest.raises(Postponed, match="budget"):
            await one.say("Well?", limit=64)

    async def test_free_models_are_asked_without_a_budget(self) -> None:
        one = interview(model(), Asked(lambda *_: chat("yes")), budget=0.0)
        assert (await one.say("Well?")).text == "yes"

    async def test_several_at_once_do_not_keep_each_other_from_what_is_left(self) -> None:
        """Each may cost most of the budget, and costs little."""
        purse = Purse(1.0)
        ones = [
            paced(Asked(lambda *_: chat("yes")), Pace(0.0), purse, model(pricing=PRICES))
            for _ in range(8)
        ]
        await asyncio.gather(*(one.say("Well?", limit=50) for one in ones))
        assert purse.spent == pytest.approx(8 * 0.06)

    async def test_a_post_costs_its_price_and_only_where_it_is_answered(self) -> None:
        asker = in_turn(Refusal("invalid_request", "no"), b"{}")
        one = interview(model(), asker, budget=0.1)
        with pytest.raises(Refusal):
            await one.post("/images", {"prompt": "a cat"}, price=0.1)
        assert one.spent.cost == 0.0
        await one.post("/images", {"prompt": "a cat"}, price=0.1)
        assert one.spent.cost == 0.1
        with pytest.raises(Postponed):
            await one.post("/images", {"prompt": "a cat"}, price=0.1)
        assert asker.requests == [{"model": "m", "prompt": "a cat"}] * 2


class TestAccounts:
    async def test_every_request_and_token_is_counted(self) -> None:
        asker = in_turn(
            Refusal("invalid_request", "no seed"), broken(), chat("a"), chat("b"), chat("c")
        )
        one = interview(model(), asker)
        await one.say("Well?")
        await one.say("Well?")
        spent = one.spent
        assert spent.requests == len(asker.requests) == 4
        assert (spent.usage.prompt_tokens, spent.usage.completion_tokens) == (20, 10)
        assert spent.usage.source == "upstream"
        assert spent.reported == "m"
        one.begin()
        await one.say("Well?")
        assert one.spent.requests == 1

    async def test_times_are_those_of_the_last_request(self) -> None:
        ticks = iter(range(100))
        one = clocked(Asked(lambda *_: chat("yes")), lambda: next(ticks) / 10)
        await one.say("Well?")
        assert one.spent.ms == 100
        assert one.spent.first_token_ms is None

    async def test_of_a_stream_the_first_token_and_the_speed_are_told(self) -> None:
        asker = Ticking(chunks("one", " two", " three"), seconds=0.5)
        one = clocked(asker, asker.clock)
        await one.say("Well?", stream=True)
        assert one.spent.first_token_ms == 500
        assert one.spent.tokens_per_second == pytest.approx(2.0)

    async def test_a_clock_that_begins_at_zero_is_a_clock(self) -> None:
        asker = Ticking(chunks("one", " two"), seconds=0.0)
        one = clocked(asker, asker.clock)
        await one.say("Well?", stream=True)
        assert one.spent.first_token_ms == 0

    async def test_the_name_that_a_provider_tells_is_kept_within_bounds(self) -> None:
        answer = json.loads(chat("yes"))
        answer["model"] = "x" * 10_000
        one = interview(model(), Asked(lambda *_: json.dumps(answer).encode()))
        await one.say("Well?")
        assert one.spent.reported == "x" * 90


class TestFetching:
    async def test_what_lies_at_an_address(self) -> None:
        asker = Asked(lambda *_: b"", files=lambda url: Answer(body=url.encode()))
        one = interview(model(), asker)
        assert (await one.fetch("https://x.example/1")).body == b"https://x.example/1"
        assert one.spent.requests == 0

    @pytest.mark.parametrize(("status", "kind"), [(404, AttemptFailed), (502, Postponed)])
    async def test_only_nothing_there_is_the_models_fault(
        self, status: int, kind: type[Exception]
    ) -> None:
        def failing(url: str) -> Answer:
            raise AttemptFailed("provider_error", "no", status=status)

        one = interview(model(), Asked(lambda *_: b"", files=failing))
        with pytest.raises(kind):
            await one.fetch("https://x.example/1")


def paced(asker: Asked, pace: Pace, purse: Purse | None = None, one: Model | None = None) -> Any:
    return Interview(
        one or model(),
        asker,
        pace=pace,
        places=Places(16, 16),
        purse=purse or Purse(1.0),
        timeout=5.0,
        chance=Random(1),
    )


class Ticking(Asked):
    """Streams its pieces, each so many seconds later by its own clock."""

    def __init__(self, pieces: list[bytes], *, seconds: float) -> None:
        super().__init__(lambda *_: pieces)
        self._pieces = pieces
        self._seconds = seconds
        self._now = 0.0

    def clock(self) -> float:
        return self._now

    async def stream(
        self, model: Model, path: str, body: bytes, *, limit: float, largest: int
    ) -> AsyncGenerator[bytes, None]:
        for piece in self._pieces:
            self._now += self._seconds
            yield piece


def clocked(asker: Asked, clock: Callable[[], float]) -> Interview:
    return Interview(
        model(),
        asker,
        pace=Pace(0.0),
        places=Places(1, 1),
        purse=Purse(1.0),
        timeout=5.0,
        chance=Random(1),
        clock=clock,
    )
