"""A model that was not asked has not failed: its provider has."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from manyways.catalog import history
from manyways.catalog.settings import Settings
from manyways.catalog.verified import Verified
from manyways.errors import AttemptFailed
from manyways.types import Model
from manyways.verification.examination import Brief, examine
from manyways.verification.pacing import MOST_SILENCES, Manners, Pace, Postponed
from manyways.verification.run import EACH, Run, in_turn
from tests.support.asked import Asked, Reply, chat, interview, model
from tests.support.virtual_time import virtual_time
from tests.verification.test_run import Memory, Providers

Virtually = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def virtually() -> Iterator[Virtually]:
    with virtual_time() as run:
        yield run


class Hanging(Providers):
    """Models whose ids begin with `slow` never answer."""

    async def _late(self, model: Model, body: bytes) -> None:
        if model.id.startswith("slow"):
            self.bodies_of[model.provider, model.id].append(body)
            await asyncio.sleep(60.0)
            raise AttemptFailed("timeout", "no whole answer within 60 s")
        await super()._late(model, body)


def verified(memory: Memory) -> dict[str, list[str]]:
    """Models by verdict."""
    found: dict[str, list[str]] = {}
    for one in memory.found.values():
        found.setdefault(one.verdict, []).append(one.model)
    return found


def test_only_those_are_down_that_were_asked_and_did_not_answer(virtually: Virtually) -> None:
    async def scene() -> None:
        memory, providers = Memory(), Hanging()
        every = [model(f"slow-{n}") for n in range(4)] + [model(f"good-{n}") for n in range(20)]
        run = Run(Settings(probe_pause=0.0), providers, memory, seed="r")
        with capture_logs() as log:
            await run.run(every)
        found = verified(memory)
        assert set(found["failed"]) == {f"slow-{n}" for n in range(4)}
        assert len(found["skipped"]) == 20
        assert {name for _, name in providers.bodies_of} == set(found["failed"])
        one = memory.found["Test", "good-7"]
        assert one.reason == f"its provider left {MOST_SILENCES} in a row without an answer"
        assert (one.requests, one.failures, one.postponed) == (0, 0, 1)
        (told,) = [line for line in log if line["event"].endswith("leaves a provider alone")]
        assert (told["provider"], told["reason"]) == ("Test", one.reason)

    virtually(scene())


def test_those_that_hang_side_by_side_keep_nobody_from_being_asked(virtually: Virtually) -> None:
    async def scene() -> None:
        every = [model(f"slow-{n}") for n in range(8)] + [model(f"good-{n}") for n in range(40)]
        passed = 0
        for seed in range(10):
            memory = Memory()
            run = Run(Settings(probe_pause=0.0), Hanging(), memory, seed=str(seed))
            await run.run(in_turn(every, str(seed)))
            passed += len(verified(memory)["passed"])
        assert passed > 0.9 * 10 * 40

    virtually(scene())


def test_the_order_of_one_run_is_the_same_each_time() -> None:
    every = [model(f"m{n}") for n in range(30)]
    assert in_turn(every, "a") == in_turn(reversed(every), "a")
    assert in_turn(every, "a") != in_turn(every, "b")


def test_those_that_did_not_answer_come_last() -> None:
    when = "2027-01-01 00:00:00"
    new, down = model("new"), model("down", last_verified=when, asked_last=True)
    well = [model(f"m{n}", last_verified=when) for n in range(20)]
    assert in_turn([down, *well, new], "a")[0] is new
    assert in_turn([down, *well, new], "a")[-1] is down


async def test_a_model_that_hung_once_and_had_no_second_try_has_not_failed() -> None:
    one = interview(model("m"), Asked(lambda *_: AttemptFailed("timeout", "no answer")))
    for _ in range(MOST_SILENCES - 1):
        one._pace.silent()
    with pytest.raises(Postponed) as postponed:
        await one.say("Hello")
    assert (postponed.value.asked, postponed.value.soon) == (True, True)


async def test_what_could_not_be_asked_is_counted_until_it_is_asked() -> None:
    async def found(before: Verified | None, *, silent: bool) -> Verified:
        one = interview(model("m", category="embedding"), Asked(lambda *_: b"{}"))
        for _ in range(MOST_SILENCES if silent else 0):
            one._pace.silent()

        async def save(_: object) -> None: ...

        brief = Brief(model=one.model, before=before)
        return await examine(brief, one, save, seed="s", now=lambda: 1.0)

    first = await found(None, silent=True)
    second = await found(first, silent=True)
    third = await found(second, silent=False)
    told = [(one.verdict, one.postponed, one.failures) for one in (first, second, third)]
    assert told == [("skipped", 1, 0), ("skipped", 2, 0), ("failed", 0, 1)]


async def test_who_begins_asks_a_provider_that_others_have_given_up() -> None:
    manners = Manners(count=4, each=EACH, pause=0.0)
    for _ in range(MOST_SILENCES):
        manners.pace("Test").silent()
    memory = Memory()

    def vectors(path: str, fields: dict[str, Any]) -> Reply:
        return chat("hello")

    run = Run(Settings(), Asked(vectors), memory, seed="r", manners=manners, briefly=True)
    memory.has_passed = True
    await run.run([model("m")])
    assert verified(memory) == {"passed": ["m"]}


def test_the_first_answer_of_a_model_that_was_not_asked_before_is_no_news() -> None:
    before = Verified(provider="P", model="m", at=1.0, verdict="skipped", postponed=1)
    after = msgspec.structs.replace(before, verdict="passed", postponed=0, proven=("tools",))
    assert history.verification_changes(before, after) == []


async def test_a_pace_says_why_its_provider_is_left_alone() -> None:
    pace = Pace(0.0)
    assert pace.trouble is None
    for _ in range(MOST_SILENCES):
        pace.silent()
    assert pace.trouble == f"its provider left {MOST_SILENCES} in a row without an answer"
    pace.trust()
    assert pace.trouble is None
