"""What is written is in a file at once; where it cannot be, nothing is torn and little is lost."""

import asyncio
import contextlib
import errno
import fcntl
import os
import resource
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from msgspec import json

from manyways.errors import StoreError
from manyways.store.ids import new_id
from manyways.usage import journal as module
from manyways.usage.journal import Journal
from manyways.usage.record import Record, RefusalRecord, UsageRecord
from manyways.usage.settings import Settings
from tests.support.records import record
from tests.support.virtual_time import virtual_time

decode = json.Decoder[Record](Record).decode


@contextlib.contextmanager
def open_journal(folder: Path, **settings: Any) -> Iterator[Journal]:
    journal = Journal(folder, Settings(**settings))
    journal.open()
    try:
        yield journal
    finally:
        journal.close()


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def kept(folder: Path) -> list[str]:
    """The ids in the journal, in their order. Fails where a line is not whole."""
    found: list[str] = []
    for path in files(folder):
        data = path.read_bytes()
        assert data.endswith(b"\n") or not data
        found += [decode(line).id for line in data.splitlines()]
    return found


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """The system refuses to let a file grow further, in the middle of a write. That goes for
    the file that catches the log, too: what is logged meanwhile has to be captured."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for 64 kB; only root can have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_record_is_in_the_file_when_write_returns(tmp_path: Path) -> None:
    one = record()
    refused = RefusalRecord(id=new_id(), minute=60, api_key_id="k", code="quota", count=2)
    with open_journal(tmp_path / "journal") as journal:
        journal.write(one)
        (path,) = files(tmp_path / "journal")
        assert decode(path.read_bytes()) == one
        journal.write(refused)
        assert [decode(line) for line in path.read_bytes().splitlines()] == [one, refused]
        assert (journal.written, journal.waiting, journal.lost) == (2, 0, 0)


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "journal"
    with open_journal(folder) as journal:
        journal.write(record())
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert [stat.S_IMODE(path.stat().st_mode) for path in files(folder)] == [0o600]


def test_a_segment_is_locked_while_it_is_written(tmp_path: Path) -> None:
    with open_journal(tmp_path):
        (path,) = files(tmp_path)
        with path.open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_full_segment_is_followed_by_another(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal._full = 1000
        some = [record() for _ in range(5)]
        for each in some:
            journal.write(each)
        assert len(files(tmp_path)) > 1
        assert all(path.stat().st_size < 1000 + 1000 for path in files(tmp_path))
        assert kept(tmp_path) == [each.id for each in some]


def test_broken_characters_keep_no_record_out(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.write(record(requested_model="gpt\ud800", error_message="ж\0"))
        (path,) = files(tmp_path)
        told = decode(path.read_bytes())
        assert isinstance(told, UsageRecord)
        assert (told.requested_model, told.error_message) == ("gpt?", "ж\0")


def test_an_empty_segment_goes_when_the_journal_is_closed(tmp_path: Path) -> None:
    with open_journal(tmp_path):
        assert len(files(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_no_use_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="journal of usage cannot be written"):
        Journal(tmp_path / "file" / "journal", Settings()).open()


def test_what_cannot_be_written_waits_and_follows_in_its_order(
    tmp_path: Path, logs: list[Any]
) -> None:
    some = [record() for _ in range(20)]

    async def fail() -> None:
        with no_file_larger_than(3000):
            for each in some:
                journal.write(each)
            assert journal.refuses
            assert 0 < journal.waiting < 20
            assert kept(tmp_path) == [each.id for each in some[: -journal.waiting]]
        await asyncio.sleep(module.RETRY)
        assert (journal.waiting, journal.refuses, journal.lost) == (0, False, 0)
        assert [line["event"] for line in logs] == [
            "the journal of usage cannot be written",
            "the journal of usage is written again",
        ]
        assert logs[0]["reason"] == os.strerror(errno.EFBIG)

    with virtual_time() as run, open_journal(tmp_path) as journal:
        run(fail())
        assert kept(tmp_path) == [each.id for each in some]
        after = record()
        journal.write(after)
        assert kept(tmp_path)[-1] == after.id


def test_a_file_that_takes_no_more_is_left_for_another(tmp_path: Path, logs: list[Any]) -> None:
    some = [record() for _ in range(20)]

    async def fail() -> None:
        with no_file_larger_than(3000):
            for each in some:
                journal.write(each)
            await asyncio.sleep(10 * module.RETRY)
            assert (journal.waiting, journal.refuses, journal.lost) == (0, False, 0)
        assert len(files(tmp_path)) > 1

    with virtual_time() as run, open_journal(tmp_path) as journal:
        run(fail())
        assert kept(tmp_path) == [each.id for each in some]


def test_a_full_disk_tears_nothing_and_heals(small_disk: Path) -> None:
    folder = small_disk / "journal"
    (small_disk / "ballast").write_bytes(bytes(32 * 1024))
    some = [record(error_message="x" * 400) for _ in range(60)]

    async def fail() -> None:
        for each in some:
            journal.write(each)
        assert journal.refuses
        await asyncio.sleep(3 * module.RETRY)
        waiting = journal.waiting
        assert kept(folder) == [each.id for each in some[:-waiting]]
        (small_disk / "ballast").unlink()
        await asyncio.sleep(module.RETRY)
        assert (journal.waiting, journal.refuses) == (0, False)

    with virtual_time() as run, open_journal(folder) as journal:
        run(fail())
        assert kept(folder) == [each.id for each in some]
        assert len(files(folder)) == 1
        shutil.rmtree(folder)


def test_with_go_on_nothing_is_refused_and_the_oldest_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: list[Any]
) -> None:
    monkeypatch.setattr(module, "WAITING", 10)
    some = [record() for _ in range(25)]

    async def fail() -> None:
        with no_file_larger_than(10):
            for each in some:
                journal.write(each)
            assert (journal.refuses, journal.waiting, journal.lost) == (False, 10, 15)
        await asyncio.sleep(module.RETRY)

    with virtual_time() as run, open_journal(tmp_path, when_full="go-on") as journal:
        run(fail())
        assert kept(tmp_path) == [each.id for each in some[15:]]


def test_what_still_waits_at_the_end_is_written(tmp_path: Path, logs: list[Any]) -> None:
    async def fail() -> None:
        with no_file_larger_than(10):
            journal.write(one)

    one = record()
    with virtual_time() as run, open_journal(tmp_path) as journal:
        run(fail())
    assert kept(tmp_path) == [one.id]


def test_what_cannot_be_written_at_the_end_is_told(tmp_path: Path, logs: list[Any]) -> None:
    journal = Journal(tmp_path, Settings())
    journal.open()
    with no_file_larger_than(10):
        journal.write(record())
        journal.close()
    assert (journal.lost, kept(tmp_path)) == (1, [])
    assert logs[-1] == {
        "event": "records of usage are lost: the journal cannot be written",
        "log_level": "error",
        "records": 1,
    }


async def test_a_deleted_folder_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    with open_journal(folder, sync=0.01) as journal:
        journal.write(record())
        shutil.rmtree(folder)
        async with asyncio.timeout(10):
            while not folder.exists():
                journal.write(record())
                await asyncio.sleep(0.01)
        journal.write(last := record())
        assert kept(folder) == [last.id]
        assert journal.lost == 0


async def test_lines_of_a_deleted_file_can_still_be_read(tmp_path: Path) -> None:
    with open_journal(tmp_path, sync=0.01) as journal:
        journal.write(lost := record())
        (path,) = files(tmp_path)
        path.unlink()
        async with asyncio.timeout(10):
            while not journal._orphans:
                journal.write(record())
                await asyncio.sleep(0.01)
        segment = journal.claim()
        assert segment is not None
        assert segment.path == path
        assert decode(segment.read(10_000).splitlines()[0]).id == lost.id
        segment.drop()
