"""Several workers behind one address: what callers and operators see of them."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.support.chat_wall import ChatWall, Speech, chat_wall, event
from tests.support.company import Company, company
from tests.support.gateway import Gateway, provider, running_gateway
from tests.support.postgres import empty_postgres, shared_server
from tests.support.valkey import Valkey, running_valkey
from tests.support.wall import END as LAST
from tests.support.wall import Moment, Send, WaitFor

__all__ = ["empty_postgres"]

pytestmark = pytest.mark.process

SPEECH = Speech()
END = (*map(event, (*SPEECH.tokens[2:], SPEECH.finish, "[DONE]")), Send(LAST))
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(scope="module")
def wall() -> Iterator[ChatWall]:
    with chat_wall() as wall:
        wall.answer = SPEECH
        yield wall


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, wall: ChatWall) -> Iterator[Company]:
    """One node of two workers, for tests that leave it well."""
    home = tmp_path_factory.mktemp("team")
    with company(home, provider(wall.wall.url), nodes=1, workers=2) as team:
        yield team


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    with running_valkey(tmp_path) as valkey:
        yield valkey


@pytest.fixture
def settings(empty_postgres: str, valkey: Valkey, wall: ChatWall) -> str:
    meeting = f'[database]\nurl = "{empty_postgres}"\n[cluster]\nredis = "{valkey.url}"\n'
    return meeting + provider(wall.wall.url)


def children(process: int) -> list[int]:
    """The ids of a process's children."""
    return [
        int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()
    ]


def until(holds: Callable[[], bool], what: str, limit: float = 15.0) -> None:
    deadline = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def gone(process: int) -> bool:
    """Whether a process that is not ours has ended."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def samples(gateway: Gateway) -> list[Sample]:
    answer = gateway.ask("/metrics", key=None)
    assert answer.status == 200
    families = list(text_string_to_metric_families(answer.body.decode()))
    names = [family.name for family in families]
    assert len(names) == len(set(names)), "each family is told once"
    return [sample for family in families for sample in family.samples]


def served(gateway: Gateway) -> dict[str, float]:
    """Chat requests that each worker has answered."""
    return {
        sample.labels["worker"]: sample.value
        for sample in samples(gateway)
        if sample.name == "manyways_requests_total"
        and (sample.labels["endpoint"], sample.labels["status"]) == ("/chat/completions", "200")
    }


def stored(team: Company) -> int:
    ((number,),) = team.rows("SELECT count(*) FROM usage_stats")
    return int(str(number))


# A team that is well


def test_the_welcome_is_said_once(team: Company) -> None:
    assert team.nodes[0].welcome.count("Manyways is listening on") == 1
    assert team.nodes[0].welcome.count("Your admin key") == 1


def test_all_of_them_serve_and_their_metrics_are_one_page(team: Company) -> None:
    gateway = team.nodes[0]
    before = sum(served(gateway).values())
    for _ in range(40):
        assert gateway.chat(CHAT).text == SPEECH.text
    shares: dict[str, float] = {}

    def counted() -> bool:  # a request is counted a moment after its answer; pages are seconds old
        shares.update(served(gateway))
        return sum(shares.values()) == before + 40

    until(counted, "all are counted")
    assert set(shares) == {"1", "2"}
    assert min(shares.values()) >= 5, "connections are dealt out"


def test_every_sample_says_whose_it_is(team: Company) -> None:
    gateway = team.nodes[0]

    def told() -> dict[str, int]:
        counts: dict[str, int] = {}
        for sample in samples(gateway):
            counts[sample.name] = counts.get(sample.name, 0) + 1
            assert sample.labels["worker"] in {"1", "2"}
        return counts

    until(lambda: told()["manyways_leader"] == 2, "both tell how they do")
    leaders = [each.value for each in samples(gateway) if each.name == "manyways_leader"]
    assert sum(leaders) <= 1
    assert told()["process_resident_memory_bytes"] == 2
    page = samples(gateway)
    seen = {(each.name, *sorted(each.labels.items())) for each in page}
    assert len(seen) == len(page), "no sample is told twice"


def test_the_log_says_which_worker_it_was(team: Company) -> None:
    gateway = team.nodes[0]
    until(
        lambda: (
            {json.loads(line).get("worker") for line in gateway.log if '"request"' in line}
            >= {1, 2}
        ),
        "lines of requests of both",
    )


def test_a_key_that_one_worker_made_and_ended_is_so_for_all(team: Company) -> None:
    gateway = team.nodes[0]
    made = gateway.ask("/admin/v1/keys", {"type": "full"}, method="POST").json()
    for _ in range(6):
        assert gateway.chat(CHAT, key=made["key"]).status == 200
    gateway.ask(f"/admin/v1/keys/{made['id']}/revoke", {"reason": "lost"}, method="POST")
    time.sleep(1.0)  # what is promised
    statuses = {gateway.chat(CHAT, key=made["key"]).status for _ in range(6)}
    assert statuses == {403}


def test_another_manyways_without_redis_may_not_serve_beside_them(
    team: Company, tmp_path: Path, wall: ChatWall
) -> None:
    config = f'[database]\nurl = "{team.postgres.url(team.database)}"\n' + provider(wall.wall.url)
    with (
        pytest.raises(RuntimeError, match=r"Another Manyways .* only by cluster\.redis"),
        running_gateway(tmp_path, config),
    ):
        pass


def test_a_worker_that_is_killed_is_replaced_and_nobody_is_turned_away(team: Company) -> None:
    gateway = team.nodes[0]
    parent = gateway.process.pid
    first = children(parent)
    victim = first[0]
    over = threading.Event()
    refused: list[urllib.error.URLError] = []
    broken: list[OSError] = []
    answers: list[int] = []

    def ask() -> None:
        while not over.is_set():
            try:
                answers.append(gateway.chat(CHAT, timeout=30).status)
            except urllib.error.URLError as error:  # before the connection stood
                refused.append(error)
            except OSError as error:  # on one that the worker had
                broken.append(error)

    callers = [threading.Thread(target=ask) for _ in range(3)]
    for caller in callers:
        caller.start()
    try:
        until(lambda: len(answers) > 20, "it is busy")
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(children(parent)) == 2 and victim not in children(parent), "its heir")
        gateway.logged('"worker died"')
        count = len(answers)
        until(lambda: len(answers) > count + 20, "all goes on", limit=30)
        fresh = (set(children(parent)) - set(first)).pop()
        until(lambda: served(gateway).get("1", 0) > 0, "the heir serves", limit=30)
        assert not gone(fresh)
    finally:
        over.set()
        for caller in callers:
            caller.join()
    assert [error for error in refused if isinstance(error.reason, ConnectionRefusedError)] == []
    assert len(broken) + len(refused) <= 3, "only what the killed one was answering is lost"
    assert set(answers) == {200}
    until(lambda: stored(team) >= len(answers), "and all of it is recorded, by whoever is left")


# Ends


def test_sigterm_lets_all_of_them_finish_and_ends_with_0(
    tmp_path: Path, settings: str, wall: ChatWall
) -> None:
    go_on = Moment()
    try:
        with running_gateway(tmp_path, settings, "--workers", "2") as gateway:
            wall.models["m"] = SPEECH.begun(2, WaitFor(go_on), *END)
            before = len(wall.requests)
            callers = [gateway.begin({**CHAT, "stream": True}) for _ in range(6)]
            until(lambda: len(wall.requests) == before + 6, "all are being answered")
            workers = children(gateway.process.pid)
            gateway.process.send_signal(signal.SIGTERM)
            gateway.logged("waiting for running requests")
            go_on.set()
            answers = [read(caller) for caller in callers]
            assert gateway.process.wait(20) == 0
            assert all(map(gone, workers))
            assert [b"data: [DONE]" in answer for answer in answers] == [True] * 6, answers
            assert not [line for line in gateway.log if '"error"' in line or "Fatal" in line]
    finally:
        wall.models.pop("m", None)
        go_on.set()


def test_ctrl_c_is_heard_once_by_all(tmp_path: Path, settings: str) -> None:
    with running_gateway(tmp_path, settings, "--workers", "2") as gateway:
        workers = children(gateway.process.pid)
        assert {os.getpgid(worker) for worker in workers} == set(workers), "the terminal's is not"
        assert gateway.stop(signal.SIGINT) == 0
        assert all(map(gone, workers))
        assert not [line for line in gateway.log if "Traceback" in line or '"error"' in line]


def test_nothing_is_lost_by_kill_9_of_the_parent_nor_of_all(
    tmp_path: Path, settings: str, empty_postgres: str
) -> None:
    def stored() -> set[str]:
        rows = shared_server().execute(
            "SELECT id FROM usage_stats", database=empty_postgres.rpartition("/")[2]
        )
        assert len(rows) == len(set(rows))
        return {str(row[0]) for row in rows}

    def some(gateway: Gateway) -> set[str]:
        return {gateway.chat(CHAT).headers["x-request-id"] for _ in range(20)}

    with running_gateway(tmp_path, settings, "--workers", "2") as gateway:
        workers = children(gateway.process.pid)
        answered = some(gateway)
        gateway.process.kill()
        gateway.process.wait()
        until(lambda: all(map(gone, workers)), "they follow it")
        gateway.logged('"stopped"', '"worker":1')
        gateway.logged('"stopped"', '"worker":2')
    with running_gateway(tmp_path, settings, "--workers", "2") as gateway:
        assert stored() == answered
        answered |= some(gateway)
        for one in (*children(gateway.process.pid), gateway.process.pid):
            os.kill(one, signal.SIGKILL)
        gateway.process.wait()
    with running_gateway(tmp_path, settings, "--workers", "2"):
        assert stored() == answered


# Starts that fail


def test_workers_that_cannot_start_say_why(tmp_path: Path, settings: str) -> None:
    (tmp_path / "journal").write_text("in the way")
    (tmp_path / "manyways.toml").write_text(settings + '[usage]\njournal = "journal"\n')
    done = subprocess.run(
        [sys.executable, "-m", "manyways", "serve", "--port", "0", "--workers", "2"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "The journal of usage cannot be written in journal" in done.stderr
    assert "did not start; what it said stands above" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("", "--workers: several processes share their limits in Redis"),
        ('[cluster]\nredis = "redis://127.0.0.1:1/0"\n', "database.url names an SQLite file"),
        ('[database]\nurl = "postgresql://a:b@127.0.0.1:1/c"\n', "share their limits in Redis"),
    ],
    ids=["neither", "without PostgreSQL", "without Redis"],
)
def test_several_need_a_place_to_meet(tmp_path: Path, config: str, words: str) -> None:
    (tmp_path / "manyways.toml").write_text(config)
    done = subprocess.run(
        [sys.executable, "-m", "manyways", "serve", "--workers", "2"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr


def read(caller: socket.socket) -> bytes:
    with caller:
        found = b""
        while data := caller.recv(65536):
            found += data
        return found
