"""Verification over workers and nodes, while processes, the database and Redis come and go."""

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.gateway.test_workers import children, until
from tests.support.company import Company, company
from tests.support.gateway import Gateway, run_command, running_gateway
from tests.support.postgres import PostgresProcess
from tests.support.wall import Moment, Pause, Request, Script, WaitFor, Wall, wall_in_thread, whole

pytestmark = pytest.mark.process

VECTORS = json.dumps(
    {"data": [{"index": i, "embedding": v} for i, v in enumerate(([1, 0], [1, 0.1], [0, 1]))]}
).encode()
_CHAT = json.dumps(
    {"id": "1", "object": "chat.completion", "created": 1, "model": "m",
     "choices": [{"index": 0, "finish_reason": "stop",
                  "message": {"role": "assistant", "content": "Hi"}}]}
).encode()  # fmt: skip
CHAT = {"model": "chat", "messages": [{"role": "user", "content": "Hi"}]}
MODELS = 40
AT_ONCE = 4
"""Models that are verified at one provider at a time."""


@dataclass
class House:
    """A provider of embedding models that takes its time over each answer. `asked` are the models
    that were verified, in order, `models` those that it lists. Where something is `held`, it
    answers when that has come."""

    wall: Wall
    models: list[str]
    takes: float = 0.4
    held: Moment | None = None
    asked: list[str] = field(default_factory=list)

    def answer(self, request: Request) -> Script:
        if request.path.endswith("/models"):
            entries = [{"id": model, "type": "embedding"} for model in self.models]
            return whole(json.dumps({"data": [*entries, {"id": "chat"}]}).encode())
        if request.path.endswith("/chat/completions"):
            return whole(_CHAT)
        self.asked.append(json.loads(request.body)["model"])
        step = Pause(self.takes) if self.held is None else WaitFor(self.held)
        return [step, *whole(VECTORS)]

    @property
    def config(self) -> str:
        return (
            '[catalog]\nprobe_pause = 0.0\n[[providers]]\nname = "House"\nprotocol = "openai"\n'
            f'base_url = "{self.wall.url}/v1"\n'
        )

    @property
    def again(self) -> int:
        """How many questions were asked that had been asked before."""
        return sum(count - 1 for count in Counter(self.asked).values())

    def half_way(self) -> None:
        """Returns in the middle of a run."""
        self.begun(MODELS // 3)

    def begun(self, count: int) -> None:
        """Returns when so many have been asked."""
        until(lambda: len(self.asked) >= count, "it begins", limit=30)


@pytest.fixture
def house() -> Iterator[House]:
    with wall_in_thread() as wall:
        made = House(wall, [f"m{number:02}" for number in range(MODELS)])
        wall.answer = made.answer
        yield made


def runs(team: Company) -> list[tuple[object, ...]]:
    return team.rows("SELECT status, reason FROM catalog_runs ORDER BY id")


def over(team: Company, asked: int = 0, limit: float = 60.0) -> None:
    """Returns when all runs are done, so many among them that were asked for."""

    def all_done() -> bool:
        found = runs(team)
        return {row[0] for row in found} == {"done"} and asked == sum(
            row[1] == "asked" for row in found
        )

    until(all_done, "they end", limit=limit)


def verified(team: Company) -> list[tuple[object, ...]]:
    """How often each model was verified by how many runs."""
    return team.rows(
        "SELECT DISTINCT count(*), count(DISTINCT run_id) FROM catalog_verifications"
        " WHERE model LIKE 'm%' GROUP BY model"
    )


def etags(team: Company) -> set[str]:
    """Of every process: connections are dealt out to all."""
    return {
        node.ask("/v1/models?status=all").headers["etag"] for node in team.nodes for _ in range(12)
    }


def leader(team: Company) -> tuple[Gateway, int]:
    """The node that leads, and the id of the worker that does."""
    found = [
        (line["timestamp"], line["event"], node, line.get("worker", 0))
        for node in team.nodes
        for line in map(json.loads, [one for one in node.log if '"leading' in one])
    ]
    _, event, node, worker = max(found, key=lambda one: str(one[0]))
    assert event == "leading"
    return node, children(node.process.pid)[worker - 1] if worker else node.process.pid


def test_what_one_worker_finds_out_all_tell_and_a_killed_leader_has_an_heir(
    tmp_path: Path, house: House
) -> None:
    with company(tmp_path, house.config, nodes=2, workers=2) as team:
        house.half_way()
        _, process = leader(team)
        os.kill(process, signal.SIGKILL)
        over(team)
        assert set(house.asked) == set(house.models)
        assert house.again <= AT_ONCE, "only what was under way"
        assert verified(team) == [(1, 1)]
        # A look at what others remember of new models is due every few seconds.
        until(lambda: len(etags(team)) == 1, "all tell the same", limit=20)
        before = len(house.asked)
        # Each of the four processes is asked, those that do not lead among them.
        for number in range(8):
            node = team.nodes[number % 2]
            scope = {"provider": "House", "model": f"m{number:02}"}
            asked = node.ask("/admin/v1/catalog/refresh", scope, method="POST")
            assert asked.status == 202
        over(team, 8)
        assert sorted(house.asked[before:]) == [f"m{number:02}" for number in range(8)]
        until(lambda: len(etags(team)) == 1, "all tell the same", limit=10)


def test_without_redis_the_run_stops_and_goes_on_with_it(tmp_path: Path, house: House) -> None:
    house.takes = 2.0
    with company(tmp_path, house.config) as team:
        house.begun(AT_ONCE + 1)
        first, _ = leader(team)
        team.valkey.pause()
        first.logged('"leading no more"', limit=20)
        stopped = len(house.asked)
        time.sleep(3.0)  # in which nothing may happen
        assert len(house.asked) == stopped
        assert "running" in {row[0] for row in runs(team)}
        house.takes = 0.1
        team.valkey.resume()
        over(team)
        assert set(house.asked) == set(house.models)
        assert house.again <= AT_ONCE
        assert verified(team) == [(1, 1)]


@pytest.mark.parametrize("how", ["paused", "killed"] if "RUNS" in os.environ else ["paused"])
def test_without_the_database_callers_notice_nothing_and_the_run_goes_on_behind_it(
    tmp_path: Path, house: House, how: str
) -> None:
    with PostgresProcess() as server, company(tmp_path, house.config, postgres=server) as team:
        for node in team.nodes:
            assert node.chat(CHAT).status == 200, "its key is known from now on"
        house.half_way()
        lines = [len(node.log) for node in team.nodes]
        if how == "paused":
            server.pause()
        else:
            server.kill()
        away = 20.0
        end = time.monotonic() + away
        while time.monotonic() < end:
            for node in team.nodes:
                began = time.monotonic()
                assert node.chat(CHAT).status == 200
                assert node.ask("/v1/models", key=None).status == 200
                assert time.monotonic() - began < 2.0
            time.sleep(0.2)
        if how == "paused":
            server.resume()
        else:
            server.start()
        told = [
            line
            for node, since in zip(team.nodes, lines, strict=True)
            for line in node.log[since:]
            if '"request"' not in line
        ]
        assert len(told) < 4 * away, "the log is calm"
        over(team, limit=90)
        assert set(house.asked) == set(house.models)
        assert house.again <= AT_ONCE
        assert verified(team) == [(1, 1)]


def test_beside_a_server_on_a_file_a_command_asks_and_the_server_does_it(
    tmp_path: Path, house: House
) -> None:
    with running_gateway(tmp_path, house.config) as gateway:
        house.half_way()
        done = gateway.command("models", "refresh")
        assert done.returncode == 0, done.stderr
        assert house.again == 0, "it is the run that was under way"
        assert len(house.asked) == MODELS
        done = gateway.command("models", "refresh", "--model", "m01")
        assert (done.returncode, house.asked[MODELS:]) == (0, ["m01"]), done.stderr


def test_while_a_command_verifies_nobody_else_does(tmp_path: Path, house: House) -> None:
    (tmp_path / "manyways.toml").write_text(house.config)
    first = threading.Thread(target=run_command, args=(tmp_path, "models", "refresh"))
    first.start()
    try:
        house.half_way()
        house.held = Moment()
        other = run_command(tmp_path, "models", "refresh")
        assert other.returncode == 1
        assert "Traceback" not in other.stderr
        with (
            pytest.raises(RuntimeError, match="Another Manyways serves this database"),
            running_gateway(tmp_path, house.config),
        ):
            pass
    finally:
        if house.held is not None:
            house.held.set()
        first.join()
    assert sorted(house.asked) == house.models, "each once"
