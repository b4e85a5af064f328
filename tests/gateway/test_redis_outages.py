"""Redis away: who has no limits notices nothing, quotas let nobody in, rates go on by share."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manyways.store import redis_link
from tests.support.chat_wall import Speech, chat_wall
from tests.support.company import Company, company
from tests.support.gateway import Answer, Gateway, provider, run_command, running_gateway
from tests.support.postgres import empty_postgres
from tests.support.valkey import Valkey, free_port, running_valkey

__all__ = ["empty_postgres"]

pytestmark = pytest.mark.process

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
RATE, QUOTA = 4, 6
AT_ONCE = redis_link.LIMIT + 1.5
"""Seconds within which everybody is answered, whatever Redis does."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with chat_wall() as wall:
        wall.answer = Speech()
        yield provider(wall.wall.url)


@pytest.fixture(scope="module")
def firm(tmp_path_factory: pytest.TempPathFactory, upstream: str) -> Iterator[Company]:
    with company(tmp_path_factory.mktemp("redis"), upstream, nodes=1) as firm:
        yield firm


def until(holds: Callable[[], bool], what: str, limit: float = 15.0) -> None:
    deadline = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def limited(gateway: Gateway, limits: dict[str, object]) -> str:
    return str(gateway.ask("/admin/v1/keys", {"type": "full", "limits": limits}).json()["key"])


def quick(gateway: Gateway, key: str = "") -> Answer:
    began = time.monotonic()
    answer = gateway.chat(CHAT, key=key)
    assert time.monotonic() - began < AT_ONCE
    return answer


def is_told(gateway: Gateway, state: str) -> bool:
    """Whether `/readyz` and `/metrics` tell it."""
    ready = gateway.ask("/readyz", key=None)
    assert (ready.status, ready.json()["status"]) == (200, "ready"), "it serves all the same"
    page = gateway.ask("/metrics", key=None).body.decode()
    up = "manyways_redis_up 1.0" in page
    return bool(ready.json()["redis"] == state) and up == (state == "connected")


AWAY: dict[str, tuple[Callable[[Valkey], None], Callable[[Valkey], None]]] = {
    "paused": (Valkey.pause, Valkey.resume),
    "killed, and empty when it is back": (Valkey.kill, Valkey.restart),
}


@pytest.mark.parametrize("how", AWAY)
def test_away_and_back(firm: Company, how: str) -> None:
    go, come_back = AWAY[how]
    gateway = firm.nodes[0]
    rate = limited(gateway, {"requests": RATE, "window": "1h"})
    quota = limited(gateway, {"quota": [{"requests": QUOTA, "per": "day"}]})
    assert [quick(gateway, key).status for key in ("", rate, quota)] == [200, 200, 200]
    until(lambda: gateway.ask("/readyz", key=None).json()["usage"]["backlog"] == 0, "recorded")
    over = threading.Event()
    unlimited: list[int] = []

    def ask() -> None:
        while not over.wait(0.01):
            unlimited.append(quick(gateway).status)

    caller = threading.Thread(target=ask)
    caller.start()
    try:
        go(firm.valkey)
        refused = quick(gateway, quota)
        assert (refused.status, refused.error["code"]) == (503, "server_error")
        assert int(refused.headers["retry-after"]) > 0
        until(lambda: is_told(gateway, "away"), "it is told that it is away")
        statuses = [quick(gateway, rate).status for _ in range(RATE)]
        assert statuses == [200] * (RATE - 1) + [429], "what was used before counts on"
        assert quick(gateway, quota).status == 503
        come_back(firm.valkey)
        until(lambda: is_told(gateway, "connected"), "it is told that it is back")
    finally:
        over.set()
        caller.join()
    assert set(unlimited) == {200}
    statuses = [quick(gateway, quota).status for _ in range(QUOTA)]
    assert statuses == [200] * (QUOTA - 1) + [429], "counted from the records"
    row = "SELECT count(*) FROM usage_stats WHERE status_code = 503"
    until(lambda: int(str(firm.rows(row)[0][0])) >= 2, "who was refused has a row")


@pytest.mark.parametrize("how", ["nobody there", "another password"])
def test_a_start_without_redis_serves_who_needs_none_and_the_rest_when_it_is_back(
    tmp_path: Path, upstream: str, empty_postgres: str, how: str
) -> None:
    port = free_port()
    config = (
        f'[database]\nurl = "{empty_postgres}"\n'
        f'[cluster]\nredis = "redis://:hush-hush@127.0.0.1:{port}/0"\n{upstream}'
    )
    if how == "nobody there":
        with running_gateway(tmp_path, config) as gateway:
            quota = starts_away(gateway)
            server = Valkey(tmp_path / "valkey", "--save", "", port=port)
            server.start()
            try:
                server.ask("CONFIG", "SET", "requirepass", "hush-hush")
                until(lambda: is_told(gateway, "connected"), "it is there")
                assert quick(gateway, quota).status == 200
            finally:
                server.kill()
    else:
        with running_valkey(tmp_path / "valkey") as valkey:
            valkey.ask("CONFIG", "SET", "requirepass", "another")
            config = config.replace(str(port), str(valkey.port))
            with running_gateway(tmp_path, config) as gateway:
                starts_away(gateway, level="error")
                gateway.logged("redis is away", "WRONGPASS", "cluster.redis")
                assert "hush-hush" not in "".join(gateway.log)
                found = examined(gateway)
                assert "WRONGPASS" in found["redis"]["detail"]
                assert "Mend user and password" in found["redis"]["advice"]
                assert "it says that Redis is away" in found["server"]["detail"]


def examined(gateway: Gateway) -> dict[str, dict[str, str]]:
    """What `manyways doctor` finds, by name."""
    env = {"MANYWAYS__SERVER__PORT": gateway.root.rpartition(":")[2]}
    done = run_command(gateway.directory, "doctor", "--json", env=env)
    assert done.returncode == 1
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def starts_away(gateway: Gateway, *, level: str = "warning") -> str:
    """A key with a quota."""
    assert is_told(gateway, "away")
    line = json.loads(gateway.logged("redis is away"))
    assert (line["level"], bool(line["why"])) == (level, True)
    assert quick(gateway).status == 200
    quota = limited(gateway, {"quota": [{"requests": QUOTA, "per": "day"}]})
    assert quick(gateway, quota).status == 503
    rate = limited(gateway, {"requests": RATE, "window": "1h"})
    assert [quick(gateway, rate).status for _ in range(RATE + 1)] == [200] * RATE + [429]
    return quota
