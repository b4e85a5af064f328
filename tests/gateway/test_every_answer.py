"""What holds for every answer to a key, whatever it asked for: headers, a record, its last use."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.chat_wall import GOOD_WHOLE, chat_wall
from tests.support.company import Company, company
from tests.support.gateway import Answer, Gateway, provider
from tests.support.valkey import until

pytestmark = pytest.mark.process

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
PATIENCE = 30.0


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    with chat_wall() as chats:
        chats.answer = GOOD_WHOLE
        config = provider(chats.wall.url, "m")
        with company(tmp_path_factory.mktemp("node"), config, nodes=1) as nodes:
            yield nodes


@pytest.fixture
def node(nodes: Company) -> Gateway:
    return nodes.nodes[0]


def made(node: Gateway, **fields: Any) -> dict[str, Any]:
    answer = node.ask("/admin/v1/keys", {"type": "full", **fields})
    assert answer.status == 201, answer.body
    return dict(answer.json())


def repeat(node: Gateway, key: str, name: str, body: object = CHAT) -> Answer:
    return node.chat(body, key=key, headers={"Idempotency-Key": name})


def test_all_answers_to_a_limited_key_say_how_its_limit_stands(node: Gateway) -> None:
    key = made(node, limits={"requests": 9, "window": "1h"})["key"]
    assert node.chat(CHAT, key=key).headers["x-ratelimit-remaining"] == "8"
    answers = {
        "no body": node.chat(b"{", key=key),
        "no such model": node.chat({**CHAT, "model": "none"}, key=key),
        "no key for a repeat": repeat(node, key, ""),
        "its usage": node.ask("/v1/usage", key=key),
        "no such period": node.ask("/v1/usage?from=never", key=key),
        "not served yet": node.ask("/v1/embeddings", {"model": "m", "input": "x"}, key=key),
        "not its page": node.ask("/admin/v1/keys", key=key),
    }
    statuses = {what: answer.status for what, answer in answers.items()}
    assert list(statuses.values()) == [400, 404, 400, 200, 400, 400, 403], statuses
    for what, answer in answers.items():
        told = {name: answer.headers.get(f"x-ratelimit-{name}") for name in ("limit", "remaining")}
        assert told == {"limit": "9", "remaining": "8"}, what


def test_what_is_refused_before_a_repeat_is_found_has_its_record(
    nodes: Company, node: Gateway
) -> None:
    key = made(node)
    first = repeat(node, key["key"], "one")
    refused = [
        repeat(node, key["key"], "one", {**CHAT, "temperature": 1}),
        repeat(node, key["key"], ""),
        repeat(node, key["key"], "two", b"{"),
    ]
    assert repeat(node, key["key"], "one").headers["idempotency-replayed"] == "true"
    assert [one.status for one in refused] == [409, 400, 400]
    ids = {one.headers["x-request-id"] for one in (first, *refused)}

    def recorded() -> dict[object, tuple[Any, ...]]:
        query = "SELECT id, status_code, error_code, attempts FROM usage_stats"
        rows = nodes.rows(f"{query} WHERE api_key_id = '{key['id']}'")
        return {row[0]: tuple(row[1:]) for row in rows}

    until(lambda: recorded().keys() >= ids, PATIENCE, "some are not recorded")
    assert recorded() == {
        first.headers["x-request-id"]: (200, None, 1),
        **{one.headers["x-request-id"]: (one.status, one.error["code"], 0) for one in refused},
    }


@pytest.mark.parametrize("asks", ["operators' pages", "its usage", "too much"])
def test_a_key_that_no_model_was_asked_for_tells_its_last_use(node: Gateway, asks: str) -> None:
    key: dict[str, Any]
    if asks == "operators' pages":
        key = made(node, type="admin")
        assert node.ask("/admin/v1/keys", key=key["key"]).status == 200
    elif asks == "its usage":
        key = made(node)
        assert node.ask("/v1/usage", key=key["key"]).status == 200
    else:
        limits = {"requests": 1, "window": "1h"}
        node.ask("/admin/v1/accounts", {"name": "Ada", "limits": limits})
        assert node.chat(CHAT, key=made(node, account="Ada")["key"]).status == 200
        key = made(node, account="Ada")
        assert node.chat(CHAT, key=key["key"]).status == 429

    def is_told() -> bool:
        return node.ask(f"/admin/v1/keys/{key['id']}").json()["last_used_at"] is not None

    until(is_told, PATIENCE, f"a key that asked for {asks} was never used")
