"""The sixteen public scenarios of gateways with a failing provider: all of them pass.

All are streamed, with two providers, a faulty Primary and a healthy Fallback, once with the
same model at both and once with a model each. An answer passes when it is complete to the
letter; where the caller is at fault, when it is the right error.

Time is scaled: ten seconds of a scenario take one here, of the gateway's limits too. Only
`Retry-After` is in whole seconds, and stays as it is.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest

from tests.support.chat_wall import ChatWall, Speech, Turns, chat_wall, event
from tests.support.faults import TOO_LONG, error, whole_stream
from tests.support.gateway import COUNTS, Answer, Gateway, provider, running_gateway
from tests.support.wall import (
    END,
    Close,
    Moment,
    Pause,
    Request,
    Reset,
    Script,
    Send,
    Stall,
    WaitFor,
)
from tests.support.wall import Answer as Play

pytestmark = pytest.mark.process

SCALE = 10
CONFIG = """
[routing]
connect_timeout = "500ms"
first_token_timeout = "1s"
idle_timeout = "1s"
answer_timeout = "12s"
deadline = "17s"
retry_pause = "50ms"
rest = "200ms"
rest_limit = "1s"
"""
"""The defaults, ten times shorter."""
LONG_ENOUGH = 5.0
"""Seconds after which no scenario may still be waiting: 50 s in life."""

SPEECH = Speech(tuple(f" word{n}" if n else "word0" for n in range(60)))
SECOND = replace(SPEECH.recut(7), id="chatcmpl-second", model="second-name")
"""The same prompt gives the same text: in other pieces, under another id."""
PROMPT = [{"role": "user", "content": "Say sixty words."}]

Models = Literal["the same model", "a model each"]
MODELS: tuple[Models, ...] = ("the same model", "a model each")


def no_prefill(request: Request) -> Script:
    """A server that wants the last message to be the user's."""
    if b'"assistant"' in request.body:
        return error(400, "Cannot have 2 or more assistant messages at the end of the list.")
    return SECOND(request)


def garbled(_request: Request) -> Script:
    broken = SPEECH.tokens[30][: len(SPEECH.tokens[30]) // 2]
    rest = [*SPEECH.tokens[31:], SPEECH.finish, "[DONE]"]
    return SPEECH.begun(30, event(broken), *map(event, rest), Send(END))


def late_first_token(request: Request) -> Script:
    return (Pause(20 / SCALE), *SPEECH(request))


def stalled(_request: Request) -> Script:
    rest = [*SPEECH.tokens[20:], SPEECH.finish, "[DONE]"]
    return SPEECH.begun(20, Pause(30 / SCALE), *map(event, rest), Send(END))


def without_done(_request: Request) -> Script:
    return SPEECH.begun(60, event(SPEECH.finish), Send(END))


@dataclass(frozen=True, repr=False)
class Scenario:
    """What Primary does; who answers, or which error the caller gets.

    `begun` is how many words have come before it goes wrong.
    """

    name: str
    primary: Callable[[], Play]
    answered: Literal["Primary", "Fallback"] | int = "Fallback"
    begun: int = 0
    fallback: Play = SECOND
    window: str = ""

    def __repr__(self) -> str:
        return self.name


SCENARIOS = [
    Scenario(
        "429 with Retry-After 2",
        lambda: Turns(error(429, headers=[("Retry-After", "2")]), SPEECH),
    ),
    Scenario("429 always", lambda: error(429)),
    Scenario("500 once", lambda: Turns(error(500), SPEECH)),
    Scenario("503 always", lambda: error(503)),
    Scenario("reset before headers", lambda: (Reset(),)),
    Scenario("silence for 120 s", lambda: (Pause(120 / SCALE), Close())),
    Scenario("first token after 20 s", lambda: late_first_token),
    Scenario("cut at 40 of 60 words", lambda: SPEECH.begun(40, Close()), begun=40),
    Scenario("stall of 30 s after 20", lambda: stalled, begun=20),
    Scenario("a garbled event in the middle", lambda: garbled, begun=30),
    Scenario("no [DONE]", lambda: without_done, "Primary"),
    Scenario("context length", lambda: TOO_LONG, window="context_window = 8192"),
    Scenario("content filter", lambda: error(400, "flagged", code="content_filter"), 400),
    Scenario(
        "cut at 40 of 60 with a fallback that rejects prefill",
        lambda: SPEECH.begun(40, Close()),
        begun=40,
        fallback=no_prefill,
    ),
    Scenario("the model name of the one that answered", lambda: error(502)),
]
"""The sixteenth is the outage, which has a test of its own."""


@dataclass(frozen=True, repr=False)
class Case:
    scenario: Scenario
    models: Models

    def __repr__(self) -> str:
        return f"{self.scenario}, {self.models}"

    @property
    def asked(self) -> str:
        return f"model-{CASES.index(self)}"

    @property
    def second(self) -> str:
        """What the model is called at the second provider."""
        return self.asked if self.models == "the same model" else f"other-{self.asked}"

    @property
    def names(self) -> tuple[str, str]:
        return f"Primary {CASES.index(self)}", f"Fallback {CASES.index(self)}"


CASES = [Case(scenario, models) for scenario in SCENARIOS for models in MODELS]


class Outage:
    """A provider that is down for `seconds` from its first request on."""

    def __init__(self, down: Script, seconds: float) -> None:
        self._down = down
        self._seconds = seconds
        self._begins = 0.0
        self.asked: list[float] = []

    def __call__(self, request: Request) -> Script:
        now = time.monotonic()
        self.asked.append(now)
        self._begins = self._begins or now
        return SPEECH(request) if self.over(now) else self._down

    @property
    def ends(self) -> float:
        return self._begins + self._seconds

    def over(self, moment: float) -> bool:
        return moment >= self.ends

    def probes(self) -> int:
        """How often it was asked while it was down.

        What comes within 10 ms is one: a kept connection that is reset is made anew.
        """
        down = sorted(moment for moment in self.asked if not self.over(moment))
        return sum(b - a > 0.01 for a, b in itertools.pairwise([0.0, *down]))


@dataclass(frozen=True)
class Down:
    """An outage of 60 s under 20 requests, one every 4 s.

    A provider that fails at once is to be back in use within 15 s. Where it is silent, a probe
    that began before its recovery takes ten of them.
    """

    name: str
    models: Models
    outage: Outage = field(compare=False)
    fails_at_once: bool = True

    def __str__(self) -> str:
        return f"{self.name}, {self.models}"


OUTAGES = [
    Down(name, models, Outage(script, 60 / SCALE), fails_at_once)
    for name, script, fails_at_once in (
        ("503", error(503), True),
        ("reset", (Reset(),), True),
        ("silence", (Stall(),), False),
    )
    for models in MODELS
]


@pytest.fixture(scope="module")
def walls() -> Iterator[dict[str, ChatWall]]:
    with chat_wall() as primary, chat_wall() as fallback:
        yield {"Primary": primary, "Fallback": fallback}


@pytest.fixture(scope="module")
def gateway(
    walls: dict[str, ChatWall], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    primary, fallback = walls["Primary"], walls["Fallback"]
    config = CONFIG + _two(primary, fallback, ("Probed", "probed"), ("Probed too", "probed"))
    for case in CASES:
        first, second = case.names
        primary.models[case.asked] = case.scenario.primary()
        fallback.models[case.second] = case.scenario.fallback
        config += _two(primary, fallback, (first, case.asked), (second, case.second), case)
    for i, down in enumerate(OUTAGES):
        asked = f"outage-{i}"
        second = asked if down.models == "the same model" else f"other-{asked}"
        primary.models[asked] = down.outage
        fallback.models[second] = SECOND
        config += _two(primary, fallback, (f"Down {i}", asked), (f"Up {i}", second))
    with running_gateway(tmp_path_factory.mktemp("scenarios"), COUNTS + config) as running:
        yield running


def _two(
    primary: ChatWall,
    fallback: ChatWall,
    first: tuple[str, str],
    second: tuple[str, str],
    case: Case | None = None,
) -> str:
    config = provider(primary.wall.url, first[1], name=first[0])
    if case and case.scenario.window:
        config += f"{case.scenario.window}\n"
    config += provider(fallback.wall.url, second[1], name=second[0])
    if case and case.scenario.window:
        config += "context_window = 128000\n"
    return config


@dataclass(frozen=True)
class Asked:
    """An answer, and when it was asked for and over."""

    answer: Answer
    began: float
    ended: float


def ask(gateway: Gateway, model: str, first: str, second: str) -> Asked:
    body: dict[str, Any] = {"model": model, "messages": PROMPT, "stream": True}
    began = time.monotonic()
    answer = gateway.chat({**body, "provider": {"order": [first], "only": [first, second]}})
    return Asked(answer, began, time.monotonic())


def under_load(gateway: Gateway, number: int) -> list[Asked]:
    """Twenty requests, one every 4 s, whether the one before is answered or not."""
    begin = time.monotonic()

    def in_its_time(i: int) -> Asked:
        time.sleep(max(0.0, begin + i * 4 / SCALE - time.monotonic()))
        return ask(gateway, f"outage-{number}", f"Down {number}", f"Up {number}")

    with ThreadPoolExecutor(20) as callers:
        return list(callers.map(in_its_time, range(20)))


@dataclass(frozen=True)
class Runs:
    """All that was asked for, under way at once."""

    answers: dict[str, Future[Asked]]
    outages: dict[str, Future[list[Asked]]]


@pytest.fixture(scope="module")
def runs(gateway: Gateway) -> Iterator[Runs]:
    with ThreadPoolExecutor(16) as callers:
        yield Runs(
            outages={
                str(down): callers.submit(under_load, gateway, number)
                for number, down in enumerate(OUTAGES)
            },
            answers={
                str(case): callers.submit(ask, gateway, case.asked, *case.names) for case in CASES
            },
        )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_public_scenario_passes(runs: Runs, case: Case) -> None:
    found = runs.answers[str(case)].result()
    answer, scenario = found.answer, case.scenario
    assert found.ended - found.began < LONG_ENOUGH
    if isinstance(scenario.answered, int):
        assert (answer.status, answer.error["code"]) == (scenario.answered, "content_filter")
        assert answer.error["type"] == "invalid_request_error"
        return
    complete(answer)
    chunks = answer.chunks()
    first, second = case.names
    if scenario.answered == "Primary":
        assert {(each["model"], each["provider"]) for each in chunks} == {(case.asked, first)}
    elif scenario.begun:
        assert (chunks[0]["model"], chunks[0]["provider"]) == (case.asked, first)
        assert answer.metadata["continuations"]
    else:
        assert {(each["model"], each["provider"]) for each in chunks} == {(case.second, second)}
        assert answer.headers["x-manyways-model"] == case.second
        assert answer.headers["x-manyways-provider"] == second
        told = {"original_model": case.asked, "original_provider": first, "fallback_attempts": 1}
        assert told.items() <= answer.metadata.items()


@pytest.mark.parametrize("down", OUTAGES, ids=str)
def test_an_outage_of_60_s_under_20_requests_passes(runs: Runs, down: Down) -> None:
    found = runs.outages[str(down)].result()
    outage = down.outage
    for each in found:
        complete(each.answer)
        assert each.ended - each.began < LONG_ENOUGH
    while_down = [each for each in found if not outage.over(each.began)]
    assert len(while_down) >= 10, "an outage that says something"
    assert 2 <= outage.probes() <= 0.6 * len(while_down), "probes, not one request each time"
    if down.fails_at_once:
        after = found[len(while_down) :]
        by_primary = [each.answer.headers["x-manyways-provider"][:4] == "Down" for each in after]
        back = by_primary.index(True)
        assert after[back].ended - outage.ends <= 15 / SCALE, "back in use within 15 s"
        assert all(by_primary[back:]), "and stays in use"


def test_after_a_rest_one_request_probes_and_nobody_waits_for_it(
    gateway: Gateway, walls: dict[str, ChatWall]
) -> None:
    answering = Moment()
    slowly = (WaitFor(answering), *SPEECH.begun(60, event(SPEECH.finish), Send(END)))
    walls["Primary"].models["probed"] = Turns(error(503), slowly)
    walls["Fallback"].models["probed"] = SECOND

    def asked(_number: int = 0) -> str:
        found = ask(gateway, "probed", "Probed", "Probed too").answer
        complete(found)
        return str(found.chunks()[-1]["provider"])

    assert asked() == "Probed too"
    with ThreadPoolExecutor(20) as callers:
        probes: list[Future[str]] = []
        deadline = time.monotonic() + 5
        while len(walls["Primary"].asked("probed")) < 2:  # until its rest is over
            assert time.monotonic() < deadline
            probes.append(callers.submit(asked))
            time.sleep(0.02)
        others = list(callers.map(asked, range(15)))
        assert others == ["Probed too"] * 15
        assert len(walls["Primary"].asked("probed")) == 2, "one probe at a time"
        answering.set()
        assert [each.result() for each in probes].count("Probed") == 1
    assert asked() == "Probed", "at once, once it has answered"


def complete(answer: Answer) -> None:
    """Complete to the letter, as a client sees it."""
    assert answer.error is None
    assert answer.text == SPEECH.text
    whole_stream(answer)
