"""A second candidate starts where the first takes longer than it usually does.

Primary has shown what is usual: its first tokens took some 30 ms. Then it is late, and
Fallback may be asked beside it: the first to speak wins, the other one is left.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.support.chat_wall import ChatWall, Speech, Turns, chat_wall
from tests.support.faults import error, whole_stream
from tests.support.gateway import COUNTS, Answer, Gateway, provider, running_gateway
from tests.support.wall import Answer as Play
from tests.support.wall import Close, Pause, Request, Script, Stall

pytestmark = pytest.mark.process

FIRST_TOKEN = 2.0
"""Seconds that a first token may take: long after a hedge should have answered."""
SOON = 1.2
CONFIG = f"""
[routing]
order = "same-model-first"
first_token_timeout = {FIRST_TOKEN}
idle_timeout = "1s"
deadline = "8s"
retries = 1
retry_pause = "20ms"
rest = "50ms"
"""
ALWAYS = "hedge = true\nhedge_budget = 1.0\n"
PROVIDERS = ("Primary", "Fallback")
MODELS = [f"m{n}" for n in range(30)]
USUAL = 25
"""Requests that show what is usual."""
SPEECH = Speech()
SECOND = replace(SPEECH.recut(5), id="chatcmpl-second", words=("The", " second", " speaks."))


@dataclass(frozen=True)
class Asked:
    answer: Answer
    seconds: float


@dataclass
class Stage:
    primary: ChatWall
    fallback: ChatWall
    start: Callable[[str], Gateway]
    models: Iterator[str]
    model: str = ""
    usual: int = 0
    """How often Fallback was asked while Primary was as it usually is."""

    def warm(self, setting: str) -> Gateway:
        """A gateway that knows a new model's usual time until its first token."""
        self.model = next(self.models)
        gateway = self.start(setting)
        self.primary.models[self.model] = after(0.03)
        for _ in range(USUAL):
            assert self.ask(gateway).answer.text == SPEECH.text
        self.usual = len(self.fallback.asked(self.model))
        return gateway

    def beside(self) -> list[Request]:
        """What Fallback was asked since then."""
        return self.fallback.asked(self.model)[self.usual :]

    def body(self, *names: str) -> dict[str, Any]:
        return {
            "model": self.model,
            "models": [self.model],
            "messages": [{"role": "user", "content": "Go on"}],
            "stream": True,
            "provider": {"order": names, "only": names},
        }

    def ask(self, gateway: Gateway, *names: str) -> Asked:
        began = time.monotonic()
        answer = gateway.chat(self.body(*(names or PROVIDERS)))
        return Asked(answer, time.monotonic() - began)

    def late(self, setting: str, primary: Play, fallback: Play) -> Asked:
        """What a caller gets when Primary is not as it usually is."""
        gateway = self.warm(setting)
        self.primary.models[self.model] = primary
        self.fallback.models[self.model] = fallback
        return self.ask(gateway)


def after(seconds: float, speech: Speech = SPEECH) -> Callable[[Request], Script]:
    """The answer, some time later."""
    return lambda request: (Pause(seconds), *speech(request))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with ExitStack() as stack:
        primary, fallback = (stack.enter_context(chat_wall()) for _ in range(2))
        running: dict[str, Gateway] = {}

        def start(setting: str) -> Gateway:
            if setting not in running:
                config = CONFIG + setting
                config += provider(primary.wall.url, *MODELS, name="Primary")
                config += provider(fallback.wall.url, *MODELS, name="Fallback")
                directory = tmp_path_factory.mktemp("hedging")
                running[setting] = stack.enter_context(running_gateway(directory, COUNTS + config))
            return running[setting]

        yield Stage(primary, fallback, start, iter(MODELS))


def test_where_the_first_is_silent_the_second_answers_and_the_first_is_left(stage: Stage) -> None:
    found = stage.late(ALWAYS, (Stall(),), SECOND)
    answer = found.answer
    assert answer.text == SECOND.text
    assert found.seconds < SOON
    whole_stream(answer)
    assert {chunk["provider"] for chunk in answer.chunks()} == {"Fallback"}
    assert answer.headers["x-manyways-provider"] == "Fallback"
    assert answer.headers["x-manyways-attempts"] == "2"
    assert answer.metadata["original_provider"] == "Primary"
    stage.primary.asked(stage.model)[-1].left.block(1.0)


@pytest.mark.parametrize("second", [(Stall(),), error(500)], ids=["silent", "500"])
def test_where_the_first_speaks_first_the_second_does_not_matter(
    stage: Stage, second: Script
) -> None:
    found = stage.late(ALWAYS, after(0.5), second)
    answer = found.answer
    assert answer.text == SPEECH.text
    whole_stream(answer)
    assert {chunk["provider"] for chunk in answer.chunks()} == {"Primary"}
    asked = stage.beside()
    assert len(asked) == 1, "it had been asked"
    if isinstance(second[0], Stall):
        asked[0].left.block(1.0)


def test_a_first_that_fails_leaves_the_second_running(stage: Stage) -> None:
    found = stage.late(ALWAYS, (Pause(0.4), Close()), after(0.6, SECOND))
    assert found.answer.text == SECOND.text
    assert len(stage.beside()) == 1, "not asked twice"


def test_where_both_fail_the_error_tells_of_both(stage: Stage) -> None:
    found = stage.late(ALWAYS, (Pause(0.4), *error(500)), (Pause(0.1), *error(503)))
    failure = found.answer.error
    assert (found.answer.status, failure["code"]) == (503, "all_models_failed")
    history = failure["details"]["error_history"]
    assert {(entry["provider"], entry["status"]) for entry in history} == {
        ("Primary", 500),
        ("Fallback", 503),
    }
    assert failure["details"]["total_attempts"] == len(history)


def test_a_winner_that_breaks_is_continued_like_any_other(stage: Stage) -> None:
    once = Turns(SECOND.begun(2, Close()), SECOND)
    found = stage.late(ALWAYS, (Stall(),), once)
    assert found.answer.text == SECOND.text
    assert found.answer.metadata["continuations"]
    whole_stream(found.answer)


def test_a_caller_that_leaves_a_race_ends_both(stage: Stage) -> None:
    gateway = stage.warm(ALWAYS)
    stage.primary.models[stage.model] = (Stall(),)
    stage.fallback.models[stage.model] = (Stall(),)
    with gateway.begin(stage.body(*PROVIDERS)):
        deadline = time.monotonic() + 5
        while not stage.beside():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    stage.primary.asked(stage.model)[-1].left.block(1.0)
    stage.beside()[0].left.block(1.0)


def test_nobody_races_itself(stage: Stage) -> None:
    gateway = stage.warm(ALWAYS)
    stage.primary.models[stage.model] = after(0.5)
    asked = len(stage.primary.asked(stage.model))
    assert stage.ask(gateway, "Primary").answer.text == SPEECH.text
    assert len(stage.primary.asked(stage.model)) == asked + 1


def test_an_answer_as_quick_as_usual_is_nobodys_race(stage: Stage) -> None:
    stage.warm(ALWAYS)
    assert stage.usual <= USUAL * 0.2, "a p95 is exceeded now and then"


@pytest.mark.parametrize(
    "setting", ["hedge = false\n", "hedge = true\nhedge_budget = 0\n"], ids=["off", "no budget"]
)
def test_without_hedging_a_silent_provider_costs_its_limit(stage: Stage, setting: str) -> None:
    found = stage.late(setting, (Stall(),), SECOND)
    assert found.answer.text == SECOND.text
    assert FIRST_TOKEN <= found.seconds < FIRST_TOKEN + 1


def test_nobody_is_hurried_whose_usual_time_is_not_known(stage: Stage) -> None:
    stage.model = next(stage.models)
    stage.primary.models[stage.model] = (Stall(),)
    stage.fallback.models[stage.model] = SECOND
    found = stage.ask(stage.start(ALWAYS))
    assert found.answer.text == SECOND.text
    assert found.seconds >= FIRST_TOKEN


def test_the_budget_keeps_an_outage_from_doubling_the_load(stage: Stage) -> None:
    gateway = stage.warm("hedge = true\nhedge_budget = 0.1\n")
    stage.primary.models[stage.model] = (Stall(),)
    stage.fallback.models[stage.model] = SECOND
    with ThreadPoolExecutor(30) as callers:
        found = list(callers.map(lambda _: stage.ask(gateway), range(30)))
    assert all(each.answer.text == SECOND.text for each in found)
    hedged = sum(each.seconds < SOON for each in found)
    assert 1 <= hedged <= 0.1 * (USUAL + 30) + 1
