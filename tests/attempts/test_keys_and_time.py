"""Several keys, hidden second calls and races, as callers meet them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.chat_wall import ChatWall, Speech, chat_wall
from tests.support.faults import error
from tests.support.gateway import COUNTS, Answer, Gateway, provider, running_gateway
from tests.support.wall import Answer as Play
from tests.support.wall import Close, Pause, Request, Script, Stall

pytestmark = pytest.mark.process

SPEECH = Speech()
CONFIG = (
    COUNTS
    + """
[routing]
first_token_timeout = "2s"
answer_timeout = "8s"
deadline = "20s"
retries = 3
retry_pause = "50ms"
rest = "200ms"
rest_limit = "1s"
"""
)
LATE = 60
"""Seconds a limited key says to wait: longer than any request here may take."""


@pytest.fixture
def wall() -> Iterator[ChatWall]:
    with chat_wall() as chats:
        yield chats


def two_keys(wall: ChatWall) -> str:
    text = provider(wall.wall.url, "m", name="Keys")
    return CONFIG + text.replace('"provider-secret"', '["key-0", "key-1"]')


def only_key_1(refusal: Script, *before: Play) -> Callable[[Request], Script]:
    """Plays what came before, whatever the key; then one key is refused, and the other answered."""
    first = list(before)

    def play(request: Request) -> Script:
        wrong = request.headers["authorization"] == "Bearer key-0"
        now = first.pop(0) if first else refusal if wrong else SPEECH
        return now(request) if callable(now) else now

    return play


REFUSALS = {
    "not accepted": error(401, "no such key"),
    "limited": error(429, "slow down", headers=[("Retry-After", str(LATE))]),
}


def ask(gateway: Gateway, *, stream: bool) -> Answer:
    body = {
        "model": "m",
        "models": ["m"],
        "stream": stream,
        "messages": [{"role": "user", "content": "Go on"}],
    }
    return gateway.chat(body)


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("before", [(), (SPEECH,)])
def test_a_broken_answer_is_gone_on_from_with_the_key_that_is_well(
    tmp_path: Path, wall: ChatWall, refusal: str, before: tuple[Play, ...]
) -> None:
    """Whichever key's turn it was."""
    wall.models["m"] = only_key_1(REFUSALS[refusal], *before, SPEECH.begun(3, Close()))
    with running_gateway(tmp_path, two_keys(wall)) as gateway:
        for _ in range(len(before) + 1):
            answer = ask(gateway, stream=True)
            assert (answer.status, answer.text, answer.error) == (200, SPEECH.text, None)


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("stream", [False, True])
def test_one_bad_key_costs_nobody_the_answer_of_another_behind_a_failure(
    tmp_path: Path, wall: ChatWall, refusal: str, *, stream: bool
) -> None:
    wall.models["m"] = only_key_1(REFUSALS[refusal], error(500, "a moment, please"))
    with running_gateway(tmp_path, two_keys(wall)) as gateway:
        answer = ask(gateway, stream=stream)
        assert (answer.status, answer.text, answer.error) == (200, SPEECH.text, None)


def test_asking_again_without_what_a_provider_refuses_is_a_part_of_the_same_time(
    tmp_path: Path, wall: ChatWall
) -> None:
    """Its second silence is not waited for as long as the first might have been."""

    def play(request: Request) -> Script:
        if b"stream_options" in request.body:
            return (Pause(3.5), *error(400, "Unknown field stream_options"))
        return (Stall(),)

    wall.models["m"] = play
    config = CONFIG.replace('first_token_timeout = "2s"', 'first_token_timeout = "4s"')
    config = config.replace("retries = 3", "retries = 0") + provider(wall.wall.url, "m")
    with running_gateway(tmp_path, config) as gateway:
        answer = ask(gateway, stream=True)
        (tried,) = answer.error["details"]["error_history"]
        assert tried["code"] == "timeout"
        assert 3500 <= tried["latency_ms"] < 7000, "four seconds in all, and not four again"


def test_a_whole_answer_of_a_silent_provider_is_waited_for_once(
    tmp_path: Path, wall: ChatWall
) -> None:
    """Whoever looks whether it is back is answered by somebody else, in hardly more time than
    such answers take."""
    wall.models["m"] = SPEECH
    body = {"model": "Silent/m", "messages": [{"role": "user", "content": "Go on"}]}
    with chat_wall() as other:
        other.models["m"] = SPEECH
        config = CONFIG + provider(wall.wall.url, "m", name="Silent")
        config += provider(other.wall.url, "m", name="Well")
        with running_gateway(tmp_path, config) as gateway:
            assert gateway.chat(body).json()["provider"] == "Silent"
            wall.models["m"] = (Stall(),)
            assert gateway.chat(body).json()["provider"] == "Well", "eight seconds later"
            wall.wall.requests.clear()
            while not wall.wall.requests:  # until its rest is over
                assert gateway.chat(body).json()["provider"] == "Well"
            told = gateway.logged('"Silent/m cancelled ')
            milliseconds = told.partition("Silent/m cancelled ")[2].partition("ms")[0]
            assert int(milliseconds) < 6000, "the race began long before its eight seconds were up"
