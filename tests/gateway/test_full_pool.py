"""A provider whose connections are all in use: by our own bound, so it is not to blame."""

import threading
import time
from pathlib import Path

import pytest

from tests.support.chat_wall import Speech, chat_wall
from tests.support.gateway import provider, running_gateway
from tests.support.wall import Moment, WaitFor

pytestmark = pytest.mark.process

CONFIG = """
[upstream]
transport = "{transport}"
pool_size = 1
[routing]
connect_timeout = "300ms"
retries = 0
"""
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize("transport", ["native", "aiohttp"])
def test_a_full_pool_is_said_to_be_one_and_rests_nobody(tmp_path: Path, transport: str) -> None:
    speech, go_on = Speech(), Moment()
    with chat_wall() as wall:
        wall.answer = lambda request: (WaitFor(go_on), *speech(request))
        config = CONFIG.format(transport=transport) + provider(wall.wall.url)
        with running_gateway(tmp_path, config) as gateway:
            statuses: list[int] = []

            def ask() -> None:
                statuses.append(gateway.chat(CHAT).status)

            first = threading.Thread(target=ask)
            first.start()
            deadline = time.monotonic() + 10
            while not wall.requests:
                assert time.monotonic() < deadline, "the first is under way"
                time.sleep(0.01)
            refused = gateway.chat(CHAT)
            assert (refused.status, refused.json()["error"]["code"]) == (503, "all_models_failed")
            (attempt,) = refused.json()["error"]["details"]["error_history"]
            assert attempt["code"] == "crowded"
            assert "pool_size" in attempt["message"]
            (model,) = gateway.ask("/v1/models").json()["data"]
            assert model["id"] == "m"
            assert not [line for line in gateway.log if '"resting"' in line]
            go_on.set()
            first.join()
            assert statuses == [200]
            assert gateway.chat(CHAT).status == 200
