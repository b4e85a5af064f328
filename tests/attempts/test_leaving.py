"""Callers that leave, and callers that dawdle: whoever works for them hears of it.

`Primary` and `Fallback` are left at once; `Billing` bills what was begun anyway, and its
answers are read to their end (`drain = true`).
"""

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.chat_wall import JSON_TYPE, ChatWall, Speech, chat_wall, event
from tests.support.faults import error
from tests.support.gateway import COUNTS, Gateway, provider, running_gateway
from tests.support.wall import (
    END,
    Close,
    Moment,
    Pause,
    Request,
    Script,
    Send,
    Stall,
    WaitFor,
    head,
)
from tests.support.wall import Answer as Play

pytestmark = pytest.mark.process

CONFIG = """
[server]
send_timeout = "3s"
[routing]
order = "same-model-first"
first_token_timeout = "2s"
idle_timeout = "1s"
answer_timeout = "5s"
deadline = "20s"
"""
PROVIDERS = ("Primary", "Fallback", "Billing")
MODELS = [f"m{n}" for n in range(50)]
AT_ONCE = 1.0
"""Seconds in which a provider must have heard that its caller left."""
SPEECH = Speech()
HALF = SPEECH.whole[: len(SPEECH.whole) // 2]
PADDING = event(json.dumps({**json.loads(SPEECH.tokens[0]), "padding": "x" * 60_000}))
"""A word that weighs 60 kB."""


@dataclass
class Stage:
    gateway: Gateway
    walls: dict[str, ChatWall]
    models: Iterator[str]
    model: str = ""

    def begin(self, *, stream: bool = True, **plays: Play) -> socket.socket:
        """A request to these providers, sent; `model` is new, since health remembers."""
        self.model = next(self.models)
        for name, play in plays.items():
            self.walls[name].models[self.model] = play
        return self.gateway.begin(self.body(stream=stream, names=list(plays)))

    def body(self, *, stream: bool, names: list[str]) -> dict[str, Any]:
        messages = [{"role": "user", "content": "Go on"}]
        wish = {"order": names, "only": names}
        asked = {"model": self.model, "models": [self.model], "messages": messages}
        return {**asked, "stream": stream, "provider": wish}

    def request(self, name: str, number: int = 0) -> Request:
        """The request that this provider got, once it has come."""
        wall, model = self.walls[name], self.model
        eventually(lambda: len(wall.asked(model)) > number, f"request {number} at {name}")
        return wall.asked(model)[number]


def eventually(holds: Callable[[], bool], what: str, limit: float = 5.0) -> None:
    deadline = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with ExitStack() as stack:
        walls = {name: stack.enter_context(chat_wall()) for name in PROVIDERS}
        config = CONFIG
        for name, wall in walls.items():
            extra = "drain = true\n" if name == "Billing" else ""
            config += provider(wall.wall.url, *MODELS, name=name, extra=extra)
        gateway = running_gateway(tmp_path_factory.mktemp("leaving"), COUNTS + config)
        yield Stage(stack.enter_context(gateway), walls, iter(MODELS))


# Callers that leave


@pytest.mark.parametrize(
    ("stream", "play"),
    [
        (True, (Stall(),)),
        (False, (Stall(),)),
        (True, (Send(b"HTTP/1.1 200 OK\r\nCont"), Stall())),
        (True, SPEECH.begun(0, Stall())),
        (True, SPEECH.begun(3, Stall())),
        (False, (Send(head(200, JSON_TYPE, length=len(SPEECH.whole)) + HALF), Stall())),
    ],
    ids=["before headers", "whole, before headers", "inside headers", "before the first word",
         "inside the words", "whole, inside the body"],
)  # fmt: skip
def test_a_provider_hears_at_once_that_its_caller_left(
    stage: Stage, stream: bool, play: Script
) -> None:
    with stage.begin(stream=stream, Primary=play, Fallback=SPEECH):
        asked = stage.request("Primary")
        assert not asked.left.is_set()
    asked.left.block(AT_ONCE)
    assert stage.walls["Fallback"].asked(stage.model) == [], "nobody is asked for nobody"


def test_the_second_provider_hears_it_too(stage: Stage) -> None:
    with stage.begin(Primary=error(500), Fallback=(Stall(),)):
        asked = stage.request("Fallback")
    asked.left.block(AT_ONCE)


def test_who_is_asked_to_go_on_hears_it_too(stage: Stage) -> None:
    with stage.begin(Primary=SPEECH.begun(3, Close()), Fallback=SPEECH.begun(1, Stall())) as caller:
        received(caller, SPEECH.tokens[2])
        asked = stage.request("Fallback")
    asked.left.block(AT_ONCE)
    assert len(stage.walls["Primary"].asked(stage.model)) == 1, "nobody is asked for nobody"


def test_between_two_attempts_a_caller_that_leaves_ends_the_wait(stage: Stage) -> None:
    logged = len(stage.gateway.log)
    with stage.begin(Primary=error(429, headers=[("Retry-After", "4")])):
        stage.request("Primary")
    stage.gateway.logged('"status":499', since=logged, limit=2.0)
    assert len(stage.walls["Primary"].asked(stage.model)) == 1


def test_fifty_callers_that_leave_leave_nothing_behind(stage: Stage) -> None:
    logged = len(stage.gateway.log)
    callers = [stage.begin(Primary=SPEECH.begun(2, Stall()))]
    body = stage.body(stream=True, names=["Primary"])
    callers += [stage.gateway.begin(body) for _ in range(49)]
    stage.request("Primary", 49)
    with ThreadPoolExecutor(10) as leaving:
        list(leaving.map(socket.socket.close, callers))
    for asked in stage.walls["Primary"].asked(stage.model):
        asked.left.block(AT_ONCE * 2)

    def gone() -> int:
        return sum('"status":499' in line for line in stage.gateway.log[logged:])

    eventually(lambda: gone() == 50, "each of them is in the log")
    stage.walls["Primary"].models[stage.model] = SPEECH
    assert stage.gateway.chat(body).text == SPEECH.text


# Providers that bill anyway


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("begun", [0, 3], ids=["before the answer", "inside the answer"])
def test_with_drain_an_answer_is_read_to_its_end(stage: Stage, stream: bool, begun: int) -> None:
    go_on = Moment()
    if stream:
        rest = [*map(event, (*SPEECH.tokens[3:], SPEECH.finish, SPEECH.tail, "[DONE]")), Send(END)]
        script = SPEECH.begun(3, WaitFor(go_on), *[PADDING] * 100, *rest)
        script = script if begun else (WaitFor(go_on), *script)
    else:
        padded = SPEECH.whole[:-1] + b', "padding": "' + b"x" * 6_000_000 + b'"}'
        start = Send(head(200, JSON_TYPE, length=len(padded)) + padded[:9])
        script = (start, WaitFor(go_on), Send(padded[9:]))
        script = script if begun else (WaitFor(go_on), *script)
    size = sum(len(step.data) for step in script if isinstance(step, Send))
    logged = len(stage.gateway.log)
    with stage.begin(stream=stream, Billing=script) as caller:
        asked = stage.request("Billing")
        if stream and begun:
            received(caller, SPEECH.tokens[2])
    stage.gateway.logged('"status":499', since=logged, limit=AT_ONCE)
    go_on.set()
    eventually(lambda: asked.sent == size, "all of it is taken")
    stage.gateway.logged('"event":"drained"', since=logged, limit=AT_ONCE)
    assert not asked.left.is_set()
    # What was read to its end leaves a connection that can be used again.
    connections = stage.walls["Billing"].wall.connections
    stage.walls["Billing"].models[stage.model] = SPEECH
    assert stage.gateway.chat(stage.body(stream=True, names=["Billing"])).text == SPEECH.text
    assert stage.walls["Billing"].wall.connections == connections


def test_with_drain_silence_is_not_waited_for_for_ever(stage: Stage) -> None:
    with stage.begin(Billing=SPEECH.begun(3, Stall())) as caller:
        received(caller, SPEECH.tokens[2])
        asked = stage.request("Billing")
    asked.left.block(4.0)
    assert len(stage.walls["Billing"].asked(stage.model)) == 1, "nor is it asked again"


# Callers that dawdle


def received(caller: socket.socket, until: str) -> bytes:
    """What came so far, up to and with the words of the chunk `until`."""
    word = json.loads(until)["choices"][0]["delta"]["content"]
    return read_until(caller, json.dumps(word).encode())


def read_until(caller: socket.socket, mark: bytes, pause: float = 0.0) -> bytes:
    found = bytearray()
    while mark not in found[-200_000:]:
        data = caller.recv(65536)
        assert data, "the answer ended before"
        found += data
        time.sleep(pause)
    return bytes(found)


def heavy(request: Request) -> Script:
    """An answer of 12 MB."""
    rest = map(event, (*SPEECH.tokens[1:], SPEECH.finish, "[DONE]"))
    return SPEECH.begun(1, *[PADDING] * 200, *rest, Send(END))


def test_a_caller_that_pauses_makes_the_provider_wait_and_loses_nothing(stage: Stage) -> None:
    with stage.begin(Primary=heavy, Fallback=SPEECH) as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        asked = stage.request("Primary")
        found = read_until(caller, b'"padding"')
        # Longer than a provider may be silent, shorter than a caller may.
        caller.settimeout(10)
        time.sleep(1.6)
        found += read_until(caller, b"data: [DONE]")
    assert found.count(b'"padding"') == 200
    assert b'"error"' not in found
    assert not asked.left.is_set(), "nobody took the pause for the provider's silence"
    assert stage.walls["Fallback"].asked(stage.model) == []


def test_a_caller_that_reads_slowly_but_steadily_is_served_to_the_end(stage: Stage) -> None:
    with stage.begin(Primary=heavy) as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        found = read_until(caller, b"data: [DONE]", pause=0.01)
    assert found.count(b'"padding"') == 200


def test_a_caller_that_reads_nothing_is_given_up_and_the_provider_hears_of_it(
    stage: Stage,
) -> None:
    logged = len(stage.gateway.log)
    play = SPEECH.begun(1, *[PADDING] * 2000, Pause(10))
    with stage.begin(Primary=play, Fallback=SPEECH) as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        assert b" 200 " in caller.recv(1024)
        asked = stage.request("Primary")
        asked.left.block(10.0)
        assert asked.sent < 64 * 1024 * 1024, "the provider was made to wait"
        stage.gateway.logged('"status":499', since=logged)
    assert stage.walls["Fallback"].asked(stage.model) == []
