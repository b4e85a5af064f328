"""Many callers at once: none gets what is another's."""

import json
import threading
from pathlib import Path

import pytest

from tests.support.chat_wall import ANSWER, JSON_TYPE, chat_wall
from tests.support.gateway import provider, running_gateway
from tests.support.wall import Request, Script, whole

pytestmark = pytest.mark.process


def echo(request: Request) -> Script:
    word = json.loads(request.body)["messages"][0]["content"]
    return whole(ANSWER.replace(b"Neither", word.encode()), 200, JSON_TYPE)


@pytest.mark.parametrize("transport", ["native", "aiohttp"])
def test_a_hundred_callers_at_once_each_get_their_own_answer(
    tmp_path: Path, transport: str
) -> None:
    wrong: list[object] = []
    with chat_wall() as wall:
        wall.answer = echo
        config = f'[upstream]\ntransport = "{transport}"\n' + provider(wall.wall.url)
        with running_gateway(tmp_path, config) as gateway:

            def ask(number: int) -> None:
                word = f"number-{number}."
                body = {"model": "m", "messages": [{"role": "user", "content": word}]}
                answer = gateway.chat(body)
                if answer.status != 200 or word.encode() not in answer.body:
                    wrong.append((number, answer))

            threads = [threading.Thread(target=ask, args=(number,)) for number in range(100)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert wrong == []
