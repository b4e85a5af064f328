"""Requests that leave `max_tokens` out, from outside: only the length of the answer stays open,
the prompt is held to every limit as it is with `max_tokens`."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.chat_provider import reply
from tests.support.chat_wall import ChatWall, chat_wall
from tests.support.company import company
from tests.support.crowd import crowd
from tests.support.gateway import Answer, Gateway, provider, running_gateway
from tests.support.wall import Request, Script

pytestmark = pytest.mark.process

AROUND = 8
"""Tokens that the gateway counts beside the words of a prompt, an answer of one token among
them."""
CHEAP, DEAR = 0.001, 0.1
"""USD for a token of a prompt."""

Limits = Mapping[str, Any]

LIMITS: dict[str, Limits] = {
    "window": {"tokens": 2000, "tokens_window": "1h"},
    "quota of tokens": {"quota": [{"tokens": 2000, "per": "ever"}]},
    "quota of cost": {"quota": [{"cost": 2, "per": "ever"}]},
}
"""Each has room for 2000 tokens of the cheap model's prompts."""

CONFIG = "[keys.types.open]\n[keys.types.counted]\nquota = 1\n[routing]\nretries = 0\n"


class Place:
    """Gateways that count together."""

    def __init__(self, nodes: list[Gateway]) -> None:
        self.desk = nodes[0]
        self.nodes = nodes
        self.urls = [node.root for node in nodes]

    def key(self, limits: Limits) -> str:
        answer = self.desk.ask("/admin/v1/keys", {"type": "open", "limits": limits})
        assert answer.status == 201, answer.body
        return str(answer.json()["key"])


def prompt(words: int, **fields: object) -> dict[str, Any]:
    return {
        "model": "cheap",
        "messages": [{"role": "user", "content": " ".join(["word"] * words)}],
        **fields,
    }


def answer(request: Request) -> Script:
    """One word, and the usage that is true of the prompt."""
    (message,) = json.loads(request.body)["messages"]
    tokens = message["content"].count("word") + AROUND - 1
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "ok"},
        "finish_reason": "stop",
    }
    usage = {"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1}
    return reply({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage})


@pytest.fixture(scope="module")
def chats() -> Iterator[ChatWall]:
    with chat_wall() as wall:
        wall.answer = answer
        yield wall


@pytest.fixture(autouse=True)
def _nothing_asked(chats: ChatWall) -> None:
    chats.wall.requests.clear()


@pytest.fixture(scope="module", params=["one process", "two nodes"])
def place(
    request: pytest.FixtureRequest, chats: ChatWall, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("place")
    config = CONFIG
    for name, price in (("cheap", CHEAP), ("dear", DEAR)):
        config += provider(chats.wall.url, name, name=name.title())
        config += f"pricing = {{ prompt = {price}, completion = 0.0 }}\n"
    with contextlib.ExitStack() as stack:
        if request.param == "one process":
            yield Place([stack.enter_context(running_gateway(home, config))])
        else:
            yield Place(list(stack.enter_context(company(home, config)).nodes))


@pytest.mark.parametrize("name", LIMITS)
def test_a_prompt_that_can_never_fit_is_refused_with_what_helps(
    place: Place, chats: ChatWall, name: str
) -> None:
    key = place.key(LIMITS[name])
    alone = {"provider": {"allow_fallbacks": False}}
    for more in ({}, {"max_tokens": 10}, {"max_tokens": 1}, {"stream": True}):
        told = place.desk.chat(prompt(2000, **alone, **more), key=key)
        assert (told.status, told.error["code"]) == (400, "invalid_request"), told.body
        assert told.error["param"] == "messages"
        assert "Shorten the prompt" in told.error["message"]
        assert "max_tokens" not in told.error["message"]
    assert chats.requests == []

    fits = place.desk.chat(prompt(2000 - AROUND, **alone), key=key)
    assert fits.status == 200, fits.body


@pytest.mark.parametrize("name", LIMITS)
def test_crowds_of_prompts_never_come_to_more_than_a_limit(
    place: Place, chats: ChatWall, name: str
) -> None:
    """Until nobody is let in any more."""
    key = place.key(LIMITS[name])
    body = prompt(400, provider={"allow_fallbacks": False})
    while True:
        heard = crowd(place.urls, 20, body, key)
        refused = [one for one in heard if one.status != 200]
        assert {one.status for one in refused} <= {429}
        assert all(one.retry_after > 0 for one in refused)
        if len(refused) == len(heard):
            break
    let_in = len(chats.requests)
    assert 1 <= let_in <= 2000 // (400 + AROUND)
    if name != "window":  # which waits until it is empty, as the answer may need all of it
        assert let_in == 2000 // (400 + AROUND)


def test_what_is_left_has_to_do_for_the_prompt(place: Place) -> None:
    key = place.key(LIMITS["quota of tokens"])
    assert ask(place, 1500, key).status == 200
    refused = ask(place, 500, key)
    assert (refused.status, refused.error["code"]) == (429, "quota_exceeded")
    assert (
        "this request may take 508 tokens even with the shortest answer"
        in (refused.error["message"])
    )
    assert ask(place, 400, key).status == 200


def test_money_has_to_do_for_the_dearest_who_may_be_asked(place: Place, chats: ChatWall) -> None:
    """As it has with `max_tokens`: where the cheap one fails, the prompt is the dear one's."""
    key = place.key(LIMITS["quota of cost"])
    both = {"models": ["cheap", "dear"]}
    for more in ({}, {"max_tokens": 1}):
        told = place.desk.chat(prompt(100, **both, **more), key=key)
        assert (told.status, told.error["param"]) == (400, "messages"), told.body
        assert told.error["message"].startswith(
            "Even with the shortest answer, this request may take $10.70, and the API key"
        )
        assert "list only cheaper models in models" in told.error["message"]
    assert chats.requests == []
    assert place.desk.chat(prompt(100, models=["cheap"]), key=key).status == 200
    assert place.desk.chat(prompt(10, **both), key=key).status == 200


def test_a_default_of_the_operator_is_no_max_tokens_of_the_caller(
    chats: ChatWall, tmp_path: Path
) -> None:
    """It bounds what is reserved, and what nobody asked for is not held against the caller."""
    config = CONFIG + "[defaults]\nmax_tokens = 5000\n" + provider(chats.wall.url, "cheap")
    with running_gateway(tmp_path, config) as gateway:
        for name in ("window", "quota of tokens"):
            key = Place([gateway]).key(LIMITS[name])
            assert gateway.chat(prompt(10), key=key).status == 200
            (sent,) = chats.requests
            assert json.loads(sent.body)["max_tokens"] == 5000
            chats.wall.requests.clear()

            refused = gateway.chat(prompt(10, max_tokens=5000), key=key)
            assert (refused.status, refused.error["param"]) == (400, "max_tokens")
            assert "Lower max_tokens" in refused.error["message"]
            refused = gateway.chat(prompt(2000), key=key)
            assert (refused.status, refused.error["param"]) == (400, "messages")


def ask(place: Place, words: int, key: str) -> Answer:
    return place.nodes[-1].chat(prompt(words, provider={"allow_fallbacks": False}), key=key)
