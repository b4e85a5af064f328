"""`Idempotency-Key` as callers meet it: two gateways that share a database."""

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.chat_wall import ChatWall, Speech, chat_wall
from tests.support.company import Company, company
from tests.support.gateway import Answer, Gateway, provider
from tests.support.wall import Moment, Request, Script, WaitFor

pytestmark = pytest.mark.process

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
STREAM = {**CHAT, "stream": True}


@pytest.fixture(scope="module")
def wall() -> Iterator[ChatWall]:
    with chat_wall() as chats:
        yield chats


@pytest.fixture(scope="module")
def nodes(wall: ChatWall, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    with company(tmp_path_factory.mktemp("nodes"), provider(wall.wall.url, "m")) as nodes:
        yield nodes


@pytest.fixture(autouse=True)
def _answering(wall: ChatWall) -> None:
    wall.answer = Speech()
    wall.wall.requests.clear()


def ask(node: Gateway, name: str, body: object = CHAT, key: str = "") -> Answer:
    return node.chat(body, headers={"Idempotency-Key": name}, key=key)


def slowly(wall: ChatWall) -> tuple[threading.Event, Moment]:
    """From now on answers wait: when the first is asked for, and until when."""
    asked, gate = threading.Event(), Moment()
    speech = Speech()

    def answer(request: Request) -> Script:
        asked.set()
        return (WaitFor(gate), *speech(request))

    wall.answer = answer
    return asked, gate


@pytest.mark.parametrize("body", [CHAT, STREAM], ids=["whole", "streamed"])
def test_a_repeat_at_another_node_gets_the_same_answer(
    nodes: Company, wall: ChatWall, body: dict[str, object]
) -> None:
    here, there = nodes.nodes
    name = f"again {len(body)}"
    first, second = ask(here, name, body), ask(there, name, body)

    assert second.body == first.body
    assert second.headers["content-type"] == first.headers["content-type"]
    assert second.headers["x-original-request-id"] == first.headers["x-request-id"]
    assert first.text == Speech().text
    assert len(wall.requests) == 1
    assert ask(there, name, {**body, "n": 1}).status == 409


def test_of_many_at_once_on_all_nodes_one_is_asked(nodes: Company, wall: ChatWall) -> None:
    asked, gate = slowly(wall)
    with ThreadPoolExecutor(20) as callers:
        asking = [callers.submit(ask, nodes.nodes[n % 2], "crowd") for n in range(20)]
        assert asked.wait(10)
        gate.set()
        answers = [one.result() for one in asking]

    assert {one.status for one in answers} == {200}
    assert len({one.body for one in answers}) == 1
    assert len(wall.requests) == 1


def test_a_repeat_is_neither_counted_nor_recorded(nodes: Company) -> None:
    here, there = nodes.nodes
    made = here.ask("/admin/v1/keys", {"type": "full"}).json()
    first = ask(here, "paid", key=made["key"])
    repeats = [ask(node, "paid", key=made["key"]) for node in (here, there, here)]
    other = ask(there, "other", key=made["key"])

    assert [one.headers["idempotency-replayed"] for one in repeats] == ["true"] * 3
    assert first.headers["x-ratelimit-remaining"] == "29"
    assert other.headers["x-ratelimit-remaining"] == "28"
    asked = {first.headers["x-request-id"], other.headers["x-request-id"]}
    query = f"SELECT id FROM usage_stats WHERE api_key_id = '{made['id']}'"  # noqa: S608
    give_up = time.monotonic() + 15
    while (recorded := {str(row[0]) for row in nodes.rows(query)}) < asked:
        assert time.monotonic() < give_up, recorded
        time.sleep(0.1)
    assert recorded == asked


def test_who_repeats_what_a_killed_node_had_begun_asks_anew(
    nodes: Company, wall: ChatWall, tmp_path: Path
) -> None:
    with company(tmp_path, provider(wall.wall.url, "m")) as pair:
        dying, living = pair.nodes
        asked, gate = slowly(wall)
        with ThreadPoolExecutor(2) as callers:
            cut = callers.submit(ask, dying, "begun")
            assert asked.wait(10)
            dying.stop(signal.SIGKILL)
            gate.set()
            with pytest.raises(OSError, match=r"."):
                cut.result()
            again = callers.submit(ask, living, "begun")
            # As if 20 seconds had passed.
            pair.postgres.execute(
                "UPDATE idempotent_answers SET lease_until = 0", database=pair.database
            )
            assert again.result().text == Speech().text
    assert len(wall.requests) == 2
