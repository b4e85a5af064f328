"""What an operator does holds at once where it is done, and within a second everywhere else."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from tests.support.chat_wall import GOOD_WHOLE, ChatWall, chat_wall
from tests.support.company import company
from tests.support.crowd import crowd
from tests.support.gateway import Gateway, provider, running_gateway

pytestmark = pytest.mark.process

SECOND = 1.0
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}

Json = dict[str, Any]


@pytest.fixture(scope="module")
def wall() -> Iterator[ChatWall]:
    with chat_wall() as chats:
        chats.answer = GOOD_WHOLE
        yield chats


@pytest.fixture(scope="module", params=["one process", "two nodes"])
def nodes(
    request: pytest.FixtureRequest, wall: ChatWall, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Gateway]]:
    home = tmp_path_factory.mktemp("nodes")
    config = provider(wall.wall.url, "m")
    with contextlib.ExitStack() as stack:
        if request.param == "one process":
            yield [stack.enter_context(running_gateway(home, config))]
        else:
            yield list(stack.enter_context(company(home, config)).nodes)


@dataclass(frozen=True)
class Change:
    """By the admin API's path and body, and by the command line; and what it makes of a key."""

    path: str
    body: Json
    command: tuple[str, ...]
    verdict: str


CHANGES = {
    "revoked": Change(
        "/admin/v1/keys/{id}/revoke",
        {"reason": "refund"},
        ("keys", "revoke", "{id}", "--reason", "refund"),
        "revoked_api_key",
    ),
    "suspended": Change(
        "/admin/v1/accounts/{account}/suspend",
        {"reason": "not paid"},
        ("accounts", "suspend", "{account}", "--reason", "not paid"),
        "account_not_active",
    ),
    "rotated": Change(
        "/admin/v1/keys/{id}/rotate",
        {"overlap": "0s"},
        ("keys", "rotate", "{id}", "--overlap", "0s", "--json"),
        "expired_api_key",
    ),
}


def made(desk: Gateway, path: str, body: Json) -> Json:
    answer = desk.ask(path, body)
    assert answer.status in {200, 201}, answer.body
    found: Json = answer.json()
    return found


def verdict(node: Gateway, key: str) -> str:
    """`""` where the key is good. An empty request is refused, but only behind the key."""
    code = str(node.chat({}, key=key).error["code"])
    return "" if code == "invalid_request" else code


def soon(what: Callable[[], str], wanted: str, since: float) -> None:
    """Within a second."""
    while (found := what()) != wanted:
        assert time.monotonic() - since < SECOND, f"{found!r}, and not {wanted!r}"
        time.sleep(0.01)


@pytest.mark.parametrize("by", ["HTTP", "command line"])
@pytest.mark.parametrize("how", CHANGES)
def test_a_change_of_a_key_is_known_everywhere_within_a_second(
    nodes: list[Gateway], how: str, by: str
) -> None:
    change, desk = CHANGES[how], nodes[0]
    account = f"{how} by {by}"
    made(desk, "/admin/v1/accounts", {"name": account})
    key = made(desk, "/admin/v1/keys", {"type": "full", "account": account})
    names = {"id": key["id"], "account": account.replace(" ", "%20")}
    assert [verdict(node, key["key"]) for node in nodes] == [""] * len(nodes)
    if by == "HTTP":
        made(desk, change.path.format(**names), change.body)
        since = time.monotonic()
        assert verdict(desk, key["key"]) == change.verdict, "at once where it was done"
    else:
        names["account"] = account
        done = desk.command(*(word.format(**names) for word in change.command))
        since = time.monotonic()
        assert done.returncode == 0, done.stderr
    for node in nodes:
        soon(partial(verdict, node, key["key"]), change.verdict, since)


def test_a_resumed_account_is_served_within_a_second(nodes: list[Gateway]) -> None:
    desk = nodes[0]
    made(desk, "/admin/v1/accounts", {"name": "back again"})
    key = made(desk, "/admin/v1/keys", {"type": "full", "account": "back again"})["key"]
    for what, wanted in (("suspend", "account_not_active"), ("resume", "")):
        made(desk, f"/admin/v1/accounts/back%20again/{what}", {})
        since = time.monotonic()
        assert verdict(desk, key) == wanted
        for node in nodes:
            soon(partial(verdict, node, key), wanted, since)


def test_a_key_works_until_it_expires_and_not_longer(nodes: list[Gateway]) -> None:
    before = time.time()
    key = made(nodes[0], "/admin/v1/keys", {"type": "full", "expires_in": "2s"})["key"]
    latest = time.time() + 2.0
    ended: set[int] = set()
    while len(ended) < len(nodes):
        for number, node in enumerate(nodes):
            asked = time.time()
            found = verdict(node, key)
            if found:
                assert found == "expired_api_key"
                assert time.time() >= int(before) + 2.0, "too early"
                ended.add(number)
            else:
                assert asked < latest + 1.0, "too late"
        time.sleep(0.01)


def test_a_key_and_the_one_that_replaces_it_are_counted_together(nodes: list[Gateway]) -> None:
    desk, far = nodes[0], nodes[-1]
    limits = {"requests": 30, "window": "1h"}
    old = made(desk, "/admin/v1/keys", {"type": "full", "limits": limits})
    assert [each.status for each in crowd([desk.root], 20, CHAT, old["key"])] == [200] * 20
    new = made(desk, f"/admin/v1/keys/{old['id']}/rotate", {"overlap": "1h"})
    statuses = sorted(each.status for each in crowd([far.root], 20, CHAT, new["key"]))
    assert statuses == [200] * 10 + [429] * 10
    assert desk.chat(CHAT, key=old["key"]).status == 429


def test_the_command_line_makes_keys_that_work_at_once_everywhere(nodes: list[Gateway]) -> None:
    done = nodes[0].command("keys", "create", "--type", "test", "--json")
    key = json.loads(done.stdout)["key"]
    assert [verdict(node, key) for node in nodes] == [""] * len(nodes)
