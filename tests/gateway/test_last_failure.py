"""Operators read what went wrong last on the way to a provider, and by which way it was."""

import socket
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Gateway, provider, running_gateway
from tests.support.wall import Close, wall_in_thread, whole

pytestmark = pytest.mark.process

PROXY = "http://someone:hunter2@127.0.0.1:{port}"


def last_failure(gateway: Gateway, name: str) -> Any:
    (row,) = gateway.ask(f"/admin/v1/providers?name={name}").json()["data"]
    return row["last_failure"]


@pytest.mark.parametrize("transport", ["native", "aiohttp"])
def test_the_last_failure_is_told_with_its_words_and_its_way(
    tmp_path: Path, transport: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    listed, cut = whole(b'{"data": []}'), (*whole(b'{"id": "x"', claims=1000), Close())
    with wall_in_thread(lambda request: listed if request.method == "GET" else cut) as wall:
        config = (
            f'[upstream]\ntransport = "{transport}"\n[routing]\nretries = 0\nmax_attempts = 1\n'
            + provider(wall.url, "torn", name="Torn")
            + provider(
                "http://p.test:1", "far", name="Far", extra=f'proxy = "{PROXY.format(port=port)}"'
            )
        )
        with running_gateway(tmp_path, config) as gateway:
            assert last_failure(gateway, "Torn") is None
            for model in ("torn", "far"):
                chat = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
                assert gateway.chat(chat).status == 503
            torn, far = (last_failure(gateway, name) for name in ("Torn", "Far"))
    assert (torn["code"], torn["proxy"]) == ("cut", None)
    assert (far["code"], far["proxy"]) == ("connect", f"127.0.0.1:{port}")
    assert f"127.0.0.1:{port}" in far["words"]
    assert "refused" in far["words"].lower()
    assert "hunter2" not in str(far)
    assert all(one["words"] and one["at"].endswith("Z") for one in (torn, far))
