"""PostgreSQL away under load: callers notice nothing, and everything is recorded in the end."""

import contextlib
import json
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.chat_wall import Speech, chat_wall
from tests.support.gateway import Gateway, provider, run_command, running_gateway
from tests.support.postgres import PostgresProcess, own_postgres
from tests.support.valkey import free_port, running_valkey

__all__ = ["own_postgres"]

pytestmark = pytest.mark.process

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
SPEECH = Speech()
SECONDS = 3.0
"""So long something is away, at least."""
SOON = 7.0
"""Seconds within which even a caller gets its answer for whom the database must be asked."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with chat_wall() as wall:
        wall.answer = SPEECH
        yield provider(wall.wall.url)


class Load:
    """One caller that asks again and again; what it was answered, in its order."""

    def __init__(self, gateway: Gateway) -> None:
        self.answered: list[str] = []
        self.seconds: list[float] = []
        self.failed: list[str] = []
        self._gateway = gateway
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def more(self, count: int = 20) -> None:
        """Wait for so many further answers."""
        wanted = len(self.answered) + count
        until(lambda: len(self.answered) >= wanted, "answers go on")

    def _ask(self) -> None:
        while not self._over.wait(0.005):
            began = time.monotonic()
            answer = self._gateway.chat(CHAT)
            self.seconds.append(time.monotonic() - began)
            if answer.status == 200:
                self.answered.append(answer.headers["x-request-id"])
            else:
                self.failed.append(f"{answer.status} {answer.body!r}")


def until(holds: Callable[[], bool], what: str, limit: float = 20.0) -> None:
    deadline = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def readiness(gateway: Gateway) -> tuple[int, dict[str, object]]:
    answer = gateway.ask("/readyz", key=None)
    return answer.status, answer.json()


def backlog(gateway: Gateway) -> int:
    return int(gateway.ask("/readyz", key=None).json()["usage"]["backlog"])


def metric(gateway: Gateway, name: str) -> float:
    page = gateway.ask("/metrics", key=None).body.decode()
    (value,) = [
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name
    ]
    return value


def new_key(gateway: Gateway, **how: object) -> str:
    return str(gateway.ask("/admin/v1/keys", {"type": "full", **how}).json()["key"])


GONE: dict[str, tuple[Callable[[PostgresProcess], None], Callable[[PostgresProcess], None]]] = {
    "paused": (PostgresProcess.pause, PostgresProcess.resume),
    "killed": (PostgresProcess.kill, PostgresProcess.start),
}


@pytest.mark.parametrize("how", GONE)
def test_postgresql_away_is_noticed_by_nobody_who_is_known(
    tmp_path: Path, upstream: str, own_postgres: PostgresProcess, how: str
) -> None:
    go, come_back = GONE[how]
    name = own_postgres.create_database()
    config = f'[database]\nurl = "{own_postgres.url(name)}"\n{upstream}'

    def stored() -> list[str]:
        rows = own_postgres.execute("SELECT id FROM usage_stats ORDER BY id", database=name)
        return [str(row[0]) for row in rows]

    with running_gateway(tmp_path, config) as gateway, Load(gateway) as load:
        unknown = new_key(gateway)
        load.more()
        until(lambda: len(stored()) > 0, "it is recorded")
        calm = len(load.seconds)
        go(own_postgres)
        began = time.monotonic()
        refused = gateway.chat(CHAT, key=unknown)
        assert time.monotonic() - began < SOON
        assert (refused.status, refused.error["code"]) == (503, "server_error")
        assert int(refused.headers["retry-after"]) > 0
        load.more(100)
        until(lambda: time.monotonic() - began > SECONDS, "it stays away")
        status, told = readiness(gateway)
        assert (status, told["status"]) == (200, "ready")
        assert told["usage"]["backlog"] > 50  # type: ignore[index]
        assert told["usage"]["oldest_s"] > 0.5  # type: ignore[index]
        assert metric(gateway, "manyways_usage_backlog_records") > 50
        assert metric(gateway, "manyways_usage_backlog_bytes") > 50 * 200
        assert metric(gateway, "manyways_usage_backlog_age_seconds") > 0.5
        away = load.seconds[calm:]
        come_back(own_postgres)
        until(lambda: len(stored()) > 50, "it heals")
        assert load.failed == []
        assert statistics.median(away) < 3 * statistics.median(load.seconds[:calm]) + 0.05
        assert max(away) < SOON

        until(lambda: gateway.chat(CHAT, key=unknown).status == 200, "the unknown key is known")
        load.more()
        load.__exit__()
        seen = stored()
        until(lambda: backlog(gateway) == 0, "it drains")
        assert metric(gateway, "manyways_usage_backlog_records") == 0
        rows = stored()
        drained = {*seen} & {*load.answered}
        assert drained == {*load.answered[: len(drained)]}, "the oldest first, none left out"
        others = set(rows) - set(load.answered)
        assert set(load.answered) <= set(rows)
        assert len(others) <= 2, "and the unknown key's"
        assert gateway.stop() == 0


def test_a_stop_while_it_is_paused_ends_in_time_and_loses_nothing(
    tmp_path: Path, upstream: str, own_postgres: PostgresProcess
) -> None:
    name = own_postgres.create_database()
    config = f'[server]\ndrain = "1s"\n[database]\nurl = "{own_postgres.url(name)}"\n{upstream}'
    with running_gateway(tmp_path, config) as gateway:
        assert gateway.chat(CHAT).status == 200
        own_postgres.pause()
        answered = {gateway.chat(CHAT).headers["x-request-id"] for _ in range(50)}
        began = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - began < 1 + 10 + 2
        own_postgres.resume()
    with running_gateway(tmp_path, config) as gateway:
        rows: list[tuple[object, ...]] = []

        def moved() -> bool:
            rows[:] = own_postgres.execute("SELECT id FROM usage_stats", database=name)
            return len(rows) == 51

        until(moved, "usually before anybody is served")
        assert answered <= {str(row[0]) for row in rows}


@pytest.mark.parametrize("how", ["nobody there", "paused"])
def test_a_start_without_postgresql_ends_in_words_within_the_limit(
    tmp_path: Path, upstream: str, request: pytest.FixtureRequest, how: str
) -> None:
    url = f"postgresql://ann:secret@127.0.0.1:{free_port()}/manyways"
    if how == "paused":
        server: PostgresProcess = request.getfixturevalue("own_postgres")
        url = server.url(server.create_database()) + "?connect_timeout=2"
        server.pause()
    (tmp_path / "manyways.toml").write_text(f'[database]\nurl = "{url}"\n{upstream}')
    began = time.monotonic()
    done = run_command(tmp_path, "serve", "--port", "0")
    assert time.monotonic() - began < 15
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


def test_two_nodes_that_start_at_once_on_an_empty_postgresql_both_serve(
    tmp_path: Path, upstream: str, own_postgres: PostgresProcess
) -> None:
    name = own_postgres.create_database()
    with running_valkey(tmp_path / "valkey") as valkey, contextlib.ExitStack() as stack:
        config = (
            f'[database]\nurl = "{own_postgres.url(name)}"\n'
            f'[cluster]\nredis = "{valkey.url}"\n{upstream}'
        )
        nodes: list[Gateway] = []

        def shown() -> list[str]:
            lines = "".join(node.welcome for node in nodes).splitlines()
            return [line for line in lines if line.startswith("rvf_")]

        def start(number: int) -> None:
            home = tmp_path / str(number)
            home.mkdir()
            (home / "key").write_text("unknown")  # whichever of them shows it
            nodes.append(stack.enter_context(running_gateway(home, config)))

        starts = [threading.Thread(target=start, args=(number,)) for number in range(2)]
        for one in starts:
            one.start()
        for one in starts:
            one.join()
        assert len(nodes) == 2
        until(lambda: len(shown()) == 1, "one admin key is made, by one of them")
        assert {node.chat(CHAT, key=shown()[0]).status for node in nodes} == {200}


def test_sqlite_locked_by_another_program_for_a_while(tmp_path: Path, upstream: str) -> None:
    with running_gateway(tmp_path, upstream) as gateway, Load(gateway) as load:
        unknown = new_key(gateway)
        load.more()
        other = sqlite3.connect(tmp_path / "manyways.db", isolation_level=None)
        with contextlib.closing(other):
            other.execute("BEGIN IMMEDIATE")
            assert gateway.chat(CHAT, key=unknown).status == 200, "to read, nobody waits"
            gateway.logged("usage is not moved to the database", "is locked", limit=15)
            load.more(100)
            assert readiness(gateway)[0] == 200
            assert backlog(gateway) > 50
            other.execute("ROLLBACK")
            gateway.logged("is moved to the database again", limit=20)
            load.__exit__()
            until(lambda: backlog(gateway) == 0, "it drains")
            rows = {str(row[0]) for row in other.execute("SELECT id FROM usage_stats")}
        assert load.failed == []
        assert max(load.seconds) < 1.0
        assert set(load.answered) <= rows
        assert json.loads(gateway.command("keys", "list", "--json").stdout)
