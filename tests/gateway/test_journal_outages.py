"""The journal's disk is full: new requests are refused or served as configured, and whatever can
be kept is kept."""

import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.chat_wall import Speech, chat_wall
from tests.support.gateway import Gateway, provider, run_command, running_gateway

pytestmark = pytest.mark.process

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with chat_wall() as wall:
        wall.answer = Speech()
        yield provider(wall.wall.url)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def until(holds: Callable[[], bool], what: str, limit: float = 15.0) -> None:
    deadline = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(b"x" * 512)
        except OSError:
            pass


def config(disk: Path, when_full: str, upstream: str) -> str:
    return f'[usage]\njournal = "{disk}/journal"\nwhen_full = "{when_full}"\n{upstream}'


def answered(gateway: Gateway) -> str:
    answer = gateway.chat(CHAT)
    assert answer.status == 200
    return answer.headers["x-request-id"]


def ready(gateway: Gateway) -> tuple[int, str, int]:
    answer = gateway.ask("/readyz", key=None)
    told = answer.json()
    return answer.status, told["status"], told["usage"]["unwritten"]


def stored(folder: Path) -> set[str]:
    with closing(sqlite3.connect(folder / "manyways.db")) as connection:
        return {row[0] for row in connection.execute("SELECT id FROM usage_stats")}


def use_up(gateway: Gateway, disk: Path) -> set[str]:
    """Fill the disk, and ask until the journal feels it."""
    fill(disk)
    found = set()
    for _ in range(100):
        found.add(answered(gateway))
        if ready(gateway)[2]:
            return found
    raise AssertionError("the journal does not feel it")


def test_a_full_disk_refuses_new_requests_until_there_is_room(
    tmp_path: Path, disk: Path, upstream: str
) -> None:
    with running_gateway(tmp_path, config(disk, "refuse", upstream)) as gateway:
        kept = {answered(gateway) for _ in range(3)}
        first = gateway.chat(CHAT, headers={"Idempotency-Key": "one"})
        kept |= {first.headers["x-request-id"], *use_up(gateway, disk)}
        again = gateway.chat(CHAT, headers={"Idempotency-Key": "one"})
        assert again.body == first.body, "what was answered needs no record"
        assert gateway.chat(CHAT, headers={"Idempotency-Key": "two"}).status == 503
        refused = gateway.chat(CHAT)
        assert (refused.status, refused.error["code"]) == (503, "server_error")
        assert int(refused.headers["retry-after"]) > 0
        assert ready(gateway) == (503, "records cannot be written", 1)
        page = gateway.ask("/metrics", key=None).body
        assert b"manyways_usage_unwritten_records 1.0" in page
        assert gateway.ask("/healthz", key=None).status == 200
        gateway.logged("the journal of usage cannot be written", "No space left")
        (disk / "filler").unlink()
        gateway.logged("the journal of usage is written again")
        assert ready(gateway) == (200, "ready", 0)
        kept |= {answered(gateway) for _ in range(3)}
        until(lambda: stored(tmp_path) == kept, "nothing is lost, and no refusal has a row")
        assert b"manyways_usage_lost_records_total 0.0" in gateway.ask("/metrics", key=None).body
        assert gateway.stop() == 0


def test_a_full_disk_is_served_on_where_so_configured_and_records_wait_in_memory(
    tmp_path: Path, disk: Path, upstream: str
) -> None:
    with running_gateway(tmp_path, config(disk, "go-on", upstream)) as gateway:
        kept = use_up(gateway, disk)
        kept |= {answered(gateway) for _ in range(50)}
        assert ready(gateway)[:2] == (200, "ready")
        assert ready(gateway)[2] >= 50
        (disk / "filler").unlink()
        gateway.logged("the journal of usage is written again", '"lost":0')
        until(lambda: stored(tmp_path) == kept, "all of them are kept")
        assert gateway.stop() == 0


def test_a_stop_while_the_disk_is_full_says_what_is_lost(
    tmp_path: Path, disk: Path, upstream: str
) -> None:
    with running_gateway(tmp_path, config(disk, "go-on", upstream)) as gateway:
        use_up(gateway, disk)
        unwritten = ready(gateway)[2]
        assert gateway.stop() == 0
        gateway.logged("records of usage are lost", f'"records":{unwritten}')


def test_a_journal_that_cannot_be_made_ends_the_start_in_words(
    tmp_path: Path, upstream: str
) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    settings = f'[usage]\njournal = "taken/journal"\n{upstream}'
    (tmp_path / "manyways.toml").write_text(settings)
    done = run_command(tmp_path, "serve", "--port", "0")
    assert (done.returncode, done.stdout) == (1, "")
    assert "The journal of usage cannot be written in taken/journal" in done.stderr
    assert "usage.journal" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_journal_that_may_not_be_written_ends_the_start_in_words(
    tmp_path: Path, upstream: str
) -> None:
    folder = tmp_path / "journal"
    folder.mkdir(mode=0o500)
    (tmp_path / "manyways.toml").write_text(f'[usage]\njournal = "journal"\n{upstream}')
    done = run_command(tmp_path, "serve", "--port", "0")
    assert (done.returncode, "Permission denied" in done.stderr) == (1, True)
