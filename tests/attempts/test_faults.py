"""Whatever a provider does, the caller gets a complete answer or an honest error, in time.

Every fault of `tests.support.faults` is played by a wall over real sockets to gateways that
run as processes: streamed, whole, and whole but assembled from a stream; with nobody else to
ask, with a second provider that gives the same answer, and with one that says something else.
All of it happens at once, as in life: nobody's fault may touch somebody else's answer. Each
case has a model of its own, since health remembers.
"""

import json
import re
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import pytest

from tests.support.chat_wall import GOOD_WHOLE, ChatWall, Speech, Turns, chat_wall, event
from tests.support.faults import (
    CONFIG,
    ENOUGH,
    FAULTS,
    Fault,
    begun,
    error,
    second,
    status_told,
    verdict,
)
from tests.support.gateway import COUNTS, Answer, Gateway, provider, running_gateway
from tests.support.tls import Authority
from tests.support.wall import END, Close, Request, Script, Send, Stall, html, sse, wall_in_thread
from tests.support.wall import Answer as Play

pytestmark = pytest.mark.process

How = Literal["streamed", "whole", "assembled"]
Company = Literal["alone", "helped", "contradicted"]
AT_ONCE = 12
"""How many cases are played at a time."""
CONTRARY = Speech(("No", " rain", ",", " no", " snow", ",", " no", " bytes", "."))
AGAIN = frozenset({"provider_error", "rate_limited", "reset", "connect"})
"""Codes after which the same candidate is asked again where there is no other."""
NEVER_AGAIN = frozenset({"credentials", "model_gone", "timeout"})
"""Of these `timeout` is for silence before the first word: it costs its limit once."""


@dataclass(frozen=True, repr=False)
class Case:
    """A fault, how it was asked for, and who else could be asked."""

    fault: Fault
    how: How
    company: Company

    def __repr__(self) -> str:
        return f"{self.fault.name}, {self.how}, {self.company}"

    @property
    def model(self) -> str:
        return re.sub(r"\W+", "-", str(self)).lower()

    @property
    def primary(self) -> str:
        """The provider with the fault."""
        return f"Primary {self.model}" if self.fault.own else "Primary"

    @property
    def providers(self) -> list[str]:
        return [self.primary] if self.company == "alone" else [self.primary, "Fallback"]

    @property
    def plays(self) -> Sequence[Play]:
        return self.fault.whole if self.how == "whole" else self.fault.stream

    @property
    def allowed(self) -> list[str]:
        verdicts = self.fault.at_once if self.how == "whole" else self.fault.streamed
        found = verdicts.helped if self.company == "helped" else verdicts.alone
        if self.how == "assembled":  # nothing was sent before it broke: the status is open
            found = found.replace("broken all_", "503 all_").replace(
                "broken timeout", "504 timeout"
            )
        return found.split(" or ")

    @property
    def body(self) -> Any:
        wish: dict[str, Any] = {"order": [self.primary], "only": self.providers}
        if self.company == "alone":
            wish["allow_fallbacks"] = False
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": "Go on"}],
            "models": [self.model],
            "stream": self.how == "streamed",
            "provider": wish,
        }


@dataclass(frozen=True)
class Played:
    """What the caller got, and how long that took."""

    answer: Answer
    began: float
    seconds: float


def cases() -> list[Case]:
    hows: tuple[How, ...] = ("streamed", "whole", "assembled")
    companies: tuple[Company, ...] = ("alone", "helped")
    found = [Case(fault, how, company) for fault in FAULTS for how in hows for company in companies]
    # A second provider with other words cannot bring a broken answer to its end.
    found += [
        Case(fault, "streamed", "contradicted")
        for fault in FAULTS
        if all(each.startswith("broken") for each in fault.streamed.alone.split(" or "))
    ]
    return [case for case in found if case.plays]


CASES = cases()


@pytest.fixture(scope="module")
def primary() -> Iterator[ChatWall]:
    with chat_wall() as chats:
        for case in CASES:
            chats.models[case.model] = Turns(*case.plays)
        yield chats


@pytest.fixture(scope="module")
def fallback() -> Iterator[ChatWall]:
    with chat_wall() as chats:
        for case in CASES:
            same = case.company == "helped"
            chats.models[case.model] = second(case.fault.speech if same else CONTRARY)
        yield chats


@pytest.fixture(scope="module")
def gateways(
    primary: ChatWall, fallback: ChatWall, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[bool, Gateway]]:
    """One that asks for whole answers as such, and one that assembles them."""
    with ExitStack() as stack:
        closed = stack.enter_context(socket.socket())
        closed.bind(("127.0.0.1", 0))
        stranger = stack.enter_context(wall_in_thread(tls=Authority().server))
        addresses = {
            "": primary.wall.url,
            "refused": f"http://127.0.0.1:{closed.getsockname()[1]}",
            "nameless": "http://no-such-host.invalid",
            "stranger": stranger.url,
            "plain": primary.wall.url.replace("http:", "https:"),
        }

        def config(cases: Sequence[Case]) -> str:
            shared = [case.model for case in cases if not case.fault.own]
            text = provider(primary.wall.url, "m", *shared, name="Primary")
            text += provider(fallback.wall.url, *(c.model for c in cases), name="Fallback")
            for case in cases:
                if case.fault.own:
                    text += provider(addresses[case.fault.address], case.model, name=case.primary)
            return text

        found = {}
        for assembling in (False, True):
            mine = [case for case in CASES if (case.how == "assembled") is assembling]
            setting = f"{CONFIG}assemble = {str(assembling).lower()}\n"
            setting += provider(
                primary.wall.url, "keyed", "limited", name="Primary with keys"
            ).replace('"provider-secret"', '["key-live", "key-dead", "key-limited", "key-other"]')
            directory = tmp_path_factory.mktemp("faults")
            running = running_gateway(directory, COUNTS + setting + config(mine))
            found[assembling] = stack.enter_context(running)
        yield found


@pytest.fixture(scope="module")
def gateway(gateways: dict[bool, Gateway]) -> Gateway:
    return gateways[False]


@pytest.fixture(scope="module")
def played(
    request: pytest.FixtureRequest, gateways: dict[bool, Gateway]
) -> Iterator[dict[Case, Future[Played]]]:
    """Every case that a chosen test asks for, under way at once."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    params = [item.callspec.params for item in items if hasattr(item, "callspec")]
    chosen = {case for each in params if isinstance(case := each.get("case"), Case)}

    def play(case: Case) -> Played:
        began = time.time()
        start = time.monotonic()
        answer = gateways[case.how == "assembled"].chat(case.body, timeout=30)
        return Played(answer, began, time.monotonic() - start)

    with ThreadPoolExecutor(AT_ONCE) as callers:
        yield {case: callers.submit(play, case) for case in CASES if case in chosen}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_answer_is_complete_or_an_honest_error(
    played: dict[Case, Future[Played]], case: Case
) -> None:
    found = played[case].result()
    got, allowed = verdict(found.answer, case.fault.speech.text), case.allowed
    assert got in allowed
    assert found.seconds < ENOUGH, "in time"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_told_about_the_attempts_is_true(
    played: dict[Case, Future[Played]], case: Case, primary: ChatWall, fallback: ChatWall
) -> None:
    found = played[case].result()
    if found.answer.error is None:
        check_answer(case, found.answer)
    elif "details" in found.answer.error:
        check_history(case, found, primary)
    asked = len(fallback.asked(case.model))
    if case.company == "alone" or found.answer.status in (400, 404, 413, 422):
        assert asked == 0, "nobody else was to be asked"


def check_answer(case: Case, answer: Answer) -> None:
    """Who answered, and after how many attempts: in the headers, the chunks and `_metadata`."""
    chunks = answer.chunks() if answer.streamed else [answer.json()]
    assert {chunk["model"] for chunk in chunks} == {case.model}
    names = [chunk["provider"] for chunk in chunks]
    headers = answer.headers
    assert headers["x-manyways-model"] == case.model
    assert headers["x-manyways-provider"] == names[0]
    attempts = int(headers["x-manyways-attempts"])
    metadata = answer.metadata
    match verdict(answer, case.fault.speech.text):
        case "complete":
            assert (attempts, set(names)) == (1, {case.primary})
            assert all("_metadata" not in chunk for chunk in chunks)
        case "repeated":
            assert (attempts, set(names)) == (2, {case.primary})
        case "by fallback":
            assert set(names) == {"Fallback"}
            told = {"original_model": case.model, "original_provider": case.primary}
            assert told.items() <= metadata.items()
            assert metadata["fallback_attempts"] == attempts - 1 >= 1
            assert not metadata.get("continuations")
            assert chunks[0]["_metadata"] == metadata, "in the first chunk and in the last"
        case "continued":
            assert set(names) <= set(case.providers)
            if answer.streamed:
                assert (attempts, names[0]) == (1, case.primary), "as known when the headers left"
                assert "_metadata" not in chunks[0], "nothing had gone wrong yet"
            assert metadata["original_model"] == case.model
            assert metadata["original_provider"] == case.primary
            assert metadata["fallback_attempts"] >= (case.company == "helped")


def check_history(case: Case, found: Played, wall: ChatWall) -> None:
    """Every attempt is told, as it was, and none that was not made."""
    details = found.answer.error["details"]
    history = details["error_history"]
    tried = [f"{entry['model']} ({entry['provider']})" for entry in history]
    assert details["total_attempts"] == len(history) >= 1
    assert set(details["tried_models"]) == set(tried)
    assert details["tried_models"][0] == f"{case.model} ({case.primary})"
    for entry in history:
        assert {"status", "code", "message", "latency_ms", "started_at"} <= entry.keys()
        assert entry["model"] == case.model
        assert entry["provider"] in case.providers
        assert entry["message"]
        assert 0 <= entry["latency_ms"] <= found.seconds * 1000 + 1
        started = datetime.fromisoformat(entry["started_at"]).timestamp()
        assert found.began - 0.01 <= started <= found.began + found.seconds
    starts = [entry["started_at"] for entry in history]
    assert starts == sorted(starts)
    mine = [entry for entry in history if entry["provider"] == case.primary]
    codes = {word for each in case.allowed for word in each.split()[-1:]}
    assert {entry["code"] for entry in mine} <= codes, "the same fault each time"
    told = status_told(case.plays[0])
    assert mine[0]["status"] in ({told} if told else {None, 200})
    if not case.fault.address:
        # A kept connection that turns out closed is made anew, once, within one attempt.
        assert len(mine) <= len(wall.asked(case.model)) <= 2 * len(mine)
    if found.answer.status == 503 and case.company == "alone":
        wait = int(found.answer.headers["retry-after"])
        assert wait >= 1
        if wait == 60:
            assert len(mine) == 1, "what ends after the deadline is not waited for"
        elif codes <= AGAIN:
            assert len(mine) == 2, "retries = 1"
        elif codes <= NEVER_AGAIN and not case.fault.streamed.alone.startswith("broken"):
            assert len(mine) == 1


def test_a_repeat_waits_as_long_as_it_was_told(played: dict[Case, Future[Played]]) -> None:
    by_name = {str(case): case for case in CASES}
    case = by_name["429 once, with Retry-After, streamed, alone"]
    if case not in played:
        pytest.skip("not among the chosen cases")
    assert played[case].result().seconds >= 1
    hopeless = by_name["429 until long after the deadline, whole, alone"]
    found = played[hopeless].result()
    assert found.seconds < 1, "no wait that cannot help"
    assert found.answer.headers["retry-after"] == "60"


def ask(gateway: Gateway, *, stream: bool, **how: Any) -> Answer:
    body = {"model": "m", "messages": [{"role": "user", "content": "Go on"}], "stream": stream}
    wish = {"only": ["Primary"], "allow_fallbacks": False}
    return gateway.chat({**body, "provider": wish}, **how)


@pytest.mark.parametrize("script", [(Stall(),), begun(Stall())], ids=["silence", "some words"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_caller_in_a_hurry_is_told_in_its_own_time(
    gateway: Gateway, primary: ChatWall, script: Script, stream: bool
) -> None:
    primary.models["m"] = script
    began = time.monotonic()
    answer = ask(gateway, stream=stream, headers={"X-Request-Timeout": "0.3"})
    assert 0.3 <= time.monotonic() - began < 0.3 + 1
    assert answer.error["code"] == "timeout"
    assert answer.streamed or answer.status == 504
    assert [each["code"] for each in answer.error["details"]["error_history"]] == ["timeout"]


def test_a_dead_key_is_rested_and_the_next_one_used(gateway: Gateway, primary: ChatWall) -> None:
    used = []

    def keyed(request: Request) -> Script:
        used.append(request.headers["authorization"].removeprefix("Bearer "))
        return error(401, "no such key") if used[-1] == "key-dead" else Speech()(request)

    primary.models["keyed"] = keyed
    body = {"model": "keyed", "messages": [{"role": "user", "content": "Go on"}]}
    body |= {"models": ["keyed"]}
    for _ in range(6):
        assert gateway.chat(body).text == Speech().text
    assert used.count("key-dead") <= 2, "found out once, and rested"
    assert {"key-live", "key-other"} <= set(used), "the others take turns"


def test_a_key_that_asks_too_often_is_rested_and_the_next_one_used(
    gateway: Gateway, primary: ChatWall
) -> None:
    used = []

    def keyed(request: Request) -> Script:
        used.append(request.headers["authorization"].removeprefix("Bearer "))
        limit = error(429, headers=[("Retry-After", "30")])
        return limit if used[-1] == "key-limited" else Speech()(request)

    primary.models["limited"] = keyed
    body = {"model": "limited", "messages": [{"role": "user", "content": "Go on"}]}
    body |= {"models": ["limited"]}
    for _ in range(9):
        assert gateway.chat(body).text == Speech().text
    assert used.count("key-limited") == 1, "it said for how long"


def test_the_attempts_before_an_answer_are_counted_in_it(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    plays: dict[str, Play] = {
        "gpt-4o": error(500),
        "gemini": error(503),
        "claude": html(),
        "gpt-4": Speech(),
    }
    with chat_wall() as wall:
        wall.models.update(plays)
        config = provider(wall.wall.url, "gpt-4o", "gemini", "claude", name="Capi")
        config += provider(wall.wall.url, "gpt-4", name="HuggingSpace")
        with running_gateway(tmp_path_factory.mktemp("counted"), config) as gateway:
            body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Go on"}]}
            answer = gateway.chat(body)
    found = answer.json()
    assert (found["model"], found["provider"]) == ("gpt-4", "HuggingSpace")
    told = {"original_model": "gpt-4o", "original_provider": "Capi", "fallback_attempts": 3}
    assert told.items() <= found["_metadata"].items()
    assert answer.headers["x-manyways-attempts"] == "4"


def test_a_filter_may_be_passed_by_where_that_is_set(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with chat_wall() as strict, chat_wall() as lenient:
        strict.answer = error(400, "flagged", code="content_filter")
        lenient.answer = Speech()
        config = f'{CONFIG}content_filter = "next"\n'
        config += provider(strict.wall.url, name="Primary") + provider(
            lenient.wall.url, name="Fallback"
        )
        with running_gateway(tmp_path_factory.mktemp("filter"), config) as gateway:
            body = {"model": "m", "messages": [{"role": "user", "content": "Go on"}]}
            answer = gateway.chat({**body, "provider": "Primary"})
            assert verdict(answer, Speech().text) == "by fallback"
            lenient.answer = strict.answer
            answer = gateway.chat({**body, "provider": "Primary"})
            assert verdict(answer, Speech().text) == "400 content_filter"


@pytest.mark.parametrize("order", ["same-provider-first", "same-model-first"])
def test_ten_attempts_are_made_in_order_and_told(
    tmp_path_factory: pytest.TempPathFactory, order: str
) -> None:
    with chat_wall() as wall:
        wall.answer = error(503)
        config = f'[routing]\norder = "{order}"\n'
        config += provider(wall.wall.url, "gpt-4o", "gemini", "claude", name="Capi")
        for name in ("One", "Two", "Three"):
            config += provider(wall.wall.url, "gpt-4o", f"a-{name}", f"b-{name}", name=name)
        with running_gateway(tmp_path_factory.mktemp("order"), config) as gateway:
            body = {"model": "Capi/gpt-4o", "messages": [{"role": "user", "content": "Go on"}]}
            answer = gateway.chat(body)
        asked = [json.loads(each.body)["model"] for each in wall.requests]
    details = answer.error["details"]
    tried = details["tried_models"]
    assert (answer.status, details["total_attempts"], len(asked)) == (503, 10, 10)
    assert [name.partition(" ")[0] for name in tried] == asked
    assert len(set(tried)) == 10, "nothing twice while something else is left"
    assert "All 10 model(s) failed to respond." in answer.error["message"]
    assert all(name in answer.error["message"] for name in tried)
    assert tried[0] == "gpt-4o (Capi)"
    if order == "same-provider-first":
        assert set(tried[1:3]) == {"gemini (Capi)", "claude (Capi)"}
    else:
        assert asked[:4] == ["gpt-4o"] * 4


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "script",
    [
        error(500, "no luck with provider-secret"),
        error(429, "provider-secret asks too often"),
        error(422, "provider-secret"),
        error(200, "provider-secret is overloaded"),
        sse(json.dumps({"error": {"message": "provider-secret"}})),
        begun(event(json.dumps({"error": "provider-secret"})), Send(END)),
        error(401, "Incorrect API key provided: provider-secret"),
    ],
)
def test_our_key_at_the_provider_stays_with_us(
    gateway: Gateway, primary: ChatWall, script: Script, stream: bool
) -> None:
    primary.models["m"] = script
    assert b"provider-secret" not in ask(gateway, stream=stream).body
    assert not any("provider-secret" in line for line in gateway.log)


def test_the_callers_fault_keeps_the_providers_param(gateway: Gateway, primary: ChatWall) -> None:
    primary.models["m"] = error(400, "bad tools", code="bad_tools", param="tools[0]")
    found = ask(gateway, stream=True).json()["error"]
    assert (found["param"], found["message"]) == ("tools[0]", "bad tools")
    assert found["type"] == "invalid_request_error"


def test_after_all_of_this_nothing_is_left_behind(
    played: dict[Case, Future[Played]], gateway: Gateway, primary: ChatWall
) -> None:
    for future in played.values():
        future.result()
    primary.models["m"] = GOOD_WHOLE
    assert ask(gateway, stream=False).text == Speech().text
    for case in played:
        play = case.plays[0]
        if not callable(play) and play and isinstance(play[-1], (Stall, Close)):
            for each in primary.asked(case.model):
                each.left.block()  # the connection of an answer that never ends is closed
    assert primary.wall.open_connections <= AT_ONCE, "kept for the next request, no more"
