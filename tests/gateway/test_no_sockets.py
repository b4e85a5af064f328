"""A gateway that is out of file descriptors: nobody else is to blame for that."""

import http.client
import json
import resource
from pathlib import Path
from typing import Any, Self

import pytest

from tests.support.chat_wall import Speech, chat_wall
from tests.support.gateway import Gateway, provider, running_gateway

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="Linux has it"),
]

CONFIG = """
[upstream]
transport = "{transport}"
keepalive = "1m"
[routing]
retries = 0
"""
UNASKED = 'models_url = "http://127.0.0.1:1/models"'
"""The provider has no connection yet: its list of models is asked for elsewhere."""


class Line:
    """A caller's connection, kept: another one could not be taken."""

    def __init__(self, gateway: Gateway) -> None:
        host, _, port = gateway.root.removeprefix("http://").partition(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=20)
        self._headers = {
            "Authorization": f"Bearer {gateway.key}",
            "Content-Type": "application/json",
        }

    def chat(self, model: str) -> tuple[int, Any]:
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
        return self.ask("/v1/chat/completions", body)

    def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body)
        self._connection.request("GET" if body is None else "POST", path, data, self._headers)
        response = self._connection.getresponse()
        return response.status, json.loads(response.read())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.close()


def opens(gateway: Gateway, count: int | None = None) -> None:
    """Let the gateway open so many files at most, whatever it has open; as many as we may."""
    _, hard = resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE)
    if count is None:
        count = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, (count, hard))


@pytest.mark.parametrize("transport", ["native", "aiohttp"])
def test_without_descriptors_nobody_is_blamed(tmp_path: Path, transport: str) -> None:
    with chat_wall() as wall:
        wall.answer = Speech()
        config = CONFIG.format(transport=transport) + provider(wall.wall.url, extra=UNASKED)
        with running_gateway(tmp_path, config) as gateway, Line(gateway) as line:
            assert line.ask("/healthz")[0] == 200
            opens(gateway, 0)
            status, refused = line.chat("m")
            assert (status, refused["error"]["code"]) == (503, "all_models_failed")
            (attempt,) = refused["error"]["details"]["error_history"]
            assert attempt["code"] == "out_of_sockets"
            assert "raise `ulimit -n` or LimitNOFILE" in attempt["message"]
            told = json.loads(gateway.logged('"attempt failed"', "out_of_sockets"))
            assert "out of file descriptors" in told["reason"]

            opens(gateway)
            assert line.chat("m")[0] == 200
            assert not [told for told in gateway.log if '"resting"' in told]


@pytest.mark.parametrize("transport", ["native", "aiohttp"])
def test_who_has_a_connection_answers_for_who_has_none(tmp_path: Path, transport: str) -> None:
    with chat_wall() as far, chat_wall() as near:
        config = CONFIG.format(transport=transport)
        near.answer = Speech()
        config += provider(far.wall.url, "m", name="Far", extra=UNASKED)
        config += provider(near.wall.url, "n", name="Near")
        with running_gateway(tmp_path, config) as gateway, Line(gateway) as line:
            assert line.chat("n")[0] == 200
            opens(gateway, 0)
            for _ in range(3):
                assert line.chat("m")[0] == 200
            assert (len(far.requests), len(near.requests)) == (0, 4)
            assert not [told for told in gateway.log if '"resting"' in told]
