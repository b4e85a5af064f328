"""One caller whose requests break a model, and everybody else's that do not: from outside."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.support.chat_wall import GOOD_WHOLE, ChatWall, chat_wall
from tests.support.company import company
from tests.support.gateway import Answer, Gateway, provider, running_gateway
from tests.support.wall import Request, Script, whole

pytestmark = pytest.mark.process

POISON = "poison"
CONFIG = "[keys.types.open]\n[routing]\nretries = 0\nrest = '60s'\nrest_limit = '60s'\n"
"""Once a model rests, nobody sees it again in a test."""


def breaks(request: Request) -> Script:
    """A model that falls over one kind of prompt."""
    return whole(b"{}", 500) if POISON.encode() in request.body else GOOD_WHOLE


@pytest.fixture
def wall() -> Iterator[ChatWall]:
    with chat_wall() as chats:
        chats.models["m"] = breaks
        chats.answer = GOOD_WHOLE
        yield chats


@pytest.fixture(params=["one process", "two nodes"])
def nodes(
    request: pytest.FixtureRequest, wall: ChatWall, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Gateway]]:
    home = tmp_path_factory.mktemp("nodes")
    config = CONFIG + provider(wall.wall.url, "m", "spare")
    with contextlib.ExitStack() as stack:
        if request.param == "one process":
            yield [stack.enter_context(running_gateway(home, config))]
        else:
            yield list(stack.enter_context(company(home, config)).nodes)


def ask(node: Gateway, key: str, content: str) -> Answer:
    messages = [{"role": "user", "content": content}]
    return replace(node, key=key).chat({"model": "m", "messages": messages})


def who(answer: Answer) -> tuple[int, str, str]:
    told = answer.headers
    return answer.status, told["x-manyways-model"], told["x-manyways-attempts"]


def keys(node: Gateway, count: int) -> list[str]:
    made = [node.ask("/admin/v1/keys", {"type": "open"}) for _ in range(count)]
    return [str(answer.json()["key"]) for answer in made]


def test_a_request_that_no_model_survives_takes_the_model_from_nobody_else(
    nodes: list[Gateway],
) -> None:
    eve, ann, bob = keys(nodes[0], 3)
    for number in range(6):
        for _ in range(3):
            assert ask(nodes[number % len(nodes)], eve, POISON).status == 200, "the spare answers"
        for caller in (ann, bob):
            for node in nodes:
                assert who(ask(node, caller, "hi")) == (200, "m", "1"), number


def test_a_model_that_breaks_for_everybody_rests_for_everybody(
    nodes: list[Gateway], wall: ChatWall
) -> None:
    eve, ann, bob = keys(nodes[0], 3)
    wall.models["m"] = whole(b"{}", 500)
    for caller in (eve, eve, ann, bob):
        assert ask(nodes[0], caller, "hi").status == 200
    wall.wall.requests.clear()
    for caller in (eve, ann, bob):
        assert who(ask(nodes[0], caller, "hi")) == (200, "spare", "1")
    assert len(wall.wall.requests) == 3
