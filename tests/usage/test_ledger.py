"""The journal reaches the database whole, in order and once, however the database is."""

import asyncio
import contextlib
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog
from msgspec import json
from sqlalchemy import Connection, select

from manyways.operations import retention
from manyways.store import segments, tables, usage
from manyways.store.database import Database, Settings, open_database
from manyways.store.ids import new_id
from manyways.types import Usage
from manyways.usage import ledger as module
from manyways.usage.journal import Journal
from manyways.usage.ledger import Ledger
from manyways.usage.record import Record, RefusalRecord, UsageRecord
from manyways.usage.settings import Settings as UsageSettings
from tests.support.databases import migrated
from tests.support.postgres import PostgresProcess
from tests.support.records import record

CHILD = (sys.executable, "-m", "tests.support.journal_child")
PATIENCE = 30.0


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


def moved(database: Database) -> list[str]:
    """The ids in the database, in their order."""
    query = select(tables.usage_stats.c.id).order_by(tables.usage_stats.c.id)
    return database.run(lambda connection: list(connection.scalars(query)))


def counted(database: Database) -> int:
    query = select(tables.usage_hourly.c.requests)
    return sum(database.run(lambda connection: list(connection.scalars(query))))


def noted(database: Database) -> list[str]:
    """The segments of which the database knows how far they came."""
    query = select(tables.usage_segments.c.name)
    return database.run(lambda connection: list(connection.scalars(query)))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def written(folder: Path) -> int:
    """Whole lines in all segments."""
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("*.jsonl"))


def leave(folder: Path, *lines: Record | bytes, end: bytes = b"\n") -> Path:
    """A segment of a process that is gone."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{new_id()}.jsonl"
    texts = (each if isinstance(each, bytes) else json.encode(each) for each in lines)
    path.write_bytes(b"\n".join(texts) + end)
    return path


def another(folder: Path) -> sqlite3.Connection:
    """Another program's connection."""
    return sqlite3.connect(folder / "test.db", isolation_level=None)


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - a thread, or another process, makes it true
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(ledger: Ledger) -> AsyncIterator[None]:
    task = asyncio.create_task(ledger.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_what_is_written_is_soon_in_the_database(
    journal: Journal, database: Database
) -> None:
    ledger = Ledger(journal, database)
    some = [record() for _ in range(300)]
    refused = RefusalRecord(id=new_id(), minute=60, api_key_id="k", code="quota", count=2)
    async with running(ledger):
        for each in some:
            journal.write(each)
        journal.write(refused)
        await until(lambda: ledger.moved == 301 and ledger.caught_up)
    assert moved(database) == [each.id for each in some]
    assert counted(database) == 300
    refusals = select(tables.usage_refusals.c.id)
    assert database.run(lambda connection: connection.scalar(refusals)) == refused.id
    assert await ledger.drain(PATIENCE)


async def test_the_backlog_tells_lines_bytes_and_age(journal: Journal, sqlite: Database) -> None:
    ledger = Ledger(journal, sqlite)
    assert ledger.backlog == (0, 0, 0.0)
    some = [record() for _ in range(50)]
    for each in some:
        journal.write(each)
    backlog = ledger.backlog
    assert backlog.bytes == sum(len(json.encode(each)) + 1 for each in some)
    assert 25 <= backlog.lines <= 100
    assert 0 <= backlog.age < PATIENCE
    assert not ledger.caught_up
    assert await ledger.drain(PATIENCE)
    assert ledger.backlog == (0, 0, 0.0)
    assert ledger.caught_up


async def test_nothing_is_left_in_the_folder_when_all_is_moved(
    folder: Path, sqlite: Database
) -> None:
    journal = Journal(folder, UsageSettings())
    journal.open()
    ledger = Ledger(journal, sqlite)
    for _ in range(10):
        journal._full = 1500
        journal.write(record())
    assert len(files(folder)) > 2
    await until(lambda: not journal._ended)
    assert await ledger.drain(PATIENCE)
    journal.close()
    assert files(folder) == []
    assert len(moved(sqlite)) == 10


async def test_segments_turn_while_they_are_moved(journal: Journal, sqlite: Database) -> None:
    ledger = Ledger(journal, sqlite)
    some = [record() for _ in range(400)]
    async with running(ledger):
        for number, each in enumerate(some):
            journal._full = 5000
            journal.write(each)
            if not number % 40:
                await asyncio.sleep(0.01)
        assert await ledger.drain(PATIENCE)
    await until(lambda: not journal._ended)
    assert await ledger.drain(PATIENCE)
    assert moved(sqlite) == [each.id for each in some]
    assert len(files(journal.folder)) == 1


async def test_what_others_left_behind_comes_first_the_oldest_first(
    folder: Path, sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    insert = usage.insert

    def watched(connection: Connection, requests: Sequence[UsageRecord], **rest: Any) -> int:
        order.extend(each.id for each in requests)
        return insert(connection, requests, **rest)

    monkeypatch.setattr(usage, "insert", watched)
    left = [record() for _ in range(9)]
    for start in range(0, 9, 3):
        leave(folder, *left[start : start + 3])
    journal = Journal(folder, UsageSettings())
    journal.open()
    journal.write(own := record())
    assert await Ledger(journal, sqlite).drain(PATIENCE)
    journal.close()
    assert order == [each.id for each in (*left, own)]
    assert files(folder) == []


async def test_a_segment_that_another_process_writes_is_left_alone(
    folder: Path, sqlite: Database
) -> None:
    mine, other = (Journal(folder, UsageSettings()) for _ in range(2))
    mine.open()
    other.open()
    mine.write(first := record())
    other.write(second := record())
    ledger = Ledger(mine, sqlite)
    assert await ledger.drain(PATIENCE)
    assert moved(sqlite) == [first.id]
    other.close()
    assert await ledger.drain(PATIENCE)
    assert moved(sqlite) == [first.id, second.id]
    mine.close()


async def test_a_line_torn_at_any_byte_is_skipped_with_a_warning(
    journal: Journal, folder: Path, sqlite: Database, logs: list[Any]
) -> None:
    whole = []
    torn = json.encode(record())
    for position in range(1, len(torn) + 1):
        whole.append(record())
        leave(folder, whole[-1], torn[:position], end=b"")
    ledger = Ledger(journal, sqlite)
    assert await ledger.drain(PATIENCE)
    assert moved(sqlite) == [each.id for each in whole]
    assert [line["log_level"] for line in logs] == ["warning"] * len(torn)
    assert {line["bytes"] for line in logs} == set(range(1, len(torn) + 1))
    assert ledger.set_aside == 0


async def test_a_segment_of_nothing_but_a_torn_line_or_nothing_goes(
    journal: Journal, folder: Path, sqlite: Database, logs: list[Any]
) -> None:
    leave(folder, b"", end=b"")
    leave(folder, bytes(4096), end=b"")
    assert await Ledger(journal, sqlite).drain(PATIENCE)
    assert len(files(folder)) == 1
    assert [line["event"] for line in logs] == ["the last line of the journal is torn, and skipped"]


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"request","id":"x"}',
        b'{"type":"something new","id":"x"}',
        b'{"type":"req',
        b"\xff\xfe",
        b"\0\0\0",
        b"[]",
    ],
)
async def test_a_line_that_cannot_be_read_is_set_aside_and_stops_nothing(
    journal: Journal, folder: Path, sqlite: Database, logs: list[Any], line: bytes
) -> None:
    before, after = record(), record()
    path = leave(folder, before, line, after)
    ledger = Ledger(journal, sqlite)
    assert await ledger.drain(PATIENCE)
    assert moved(sqlite) == [before.id, after.id]
    bad = path.with_name(path.name + ".bad")
    assert bad.read_bytes() == line + b"\n"
    assert bad.stat().st_mode & 0o777 == 0o600
    assert not path.exists()
    assert ledger.set_aside == 1
    assert [(told["log_level"], told["file"]) for told in logs] == [("error", str(bad))]


async def test_lines_set_aside_are_read_again_when_their_file_is_renamed(
    journal: Journal, folder: Path, sqlite: Database
) -> None:
    path = leave(folder, one := record())
    path.rename(path.with_name(path.name + ".bad"))
    ledger = Ledger(journal, sqlite)
    assert await ledger.drain(PATIENCE)
    assert moved(sqlite) == []
    path.with_name(path.name + ".bad").rename(path)
    assert await ledger.drain(PATIENCE)
    assert moved(sqlite) == [one.id]


async def test_a_row_that_the_database_refuses_is_set_aside_and_stops_nothing(
    journal: Journal, database: Database, logs: list[Any]
) -> None:
    good = [record() for _ in range(40)]
    bad = [record(usage=Usage(prompt_tokens=2**70)), record(created_at=1e30)]
    for number, each in enumerate(good):
        journal.write(each)
        if number in (7, 30):
            journal.write(bad.pop(0))
    (path,) = journal.folder.glob("*.jsonl")
    ledger = Ledger(journal, database)
    assert await ledger.drain(PATIENCE)
    assert moved(database) == [each.id for each in good]
    assert counted(database) == 40
    assert ledger.set_aside == 2
    assert len(path.with_name(path.name + ".bad").read_bytes().splitlines()) == 2
    assert [line["log_level"] for line in logs] == ["error"] * 2


@pytest.mark.parametrize("size", [10, 1_000_000])
async def test_lines_of_any_length_are_moved(journal: Journal, sqlite: Database, size: int) -> None:
    some = [record(client_request_id="x" * size) for _ in range(3)]
    for each in some:
        journal.write(each)
    assert await Ledger(journal, sqlite).drain(PATIENCE)
    assert moved(sqlite) == [each.id for each in some]


async def test_while_the_database_is_locked_records_wait_and_follow_in_order(
    journal: Journal,
    sqlite: Database,
    tmp_path: Path,
    logs: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "REST", 0.01)
    monkeypatch.setattr(module, "LONGEST_REST", 0.02)
    ledger = Ledger(journal, sqlite)
    some = [record() for _ in range(100)]
    other = another(tmp_path)
    async with running(ledger):
        other.execute("BEGIN IMMEDIATE")
        for each in some:
            journal.write(each)
        await until(lambda: ledger.away)
        assert ledger.backlog.bytes > 0
        await until(lambda: ledger._rest == module.LONGEST_REST)
        assert moved(sqlite) == []
        other.execute("ROLLBACK")
        other.close()
        await until(lambda: ledger.caught_up)
    assert not ledger.away
    assert moved(sqlite) == [each.id for each in some]
    assert [line["event"] for line in logs] == [
        "usage is not moved to the database",
        "usage is moved to the database again",
    ]


async def test_it_ends_at_once_although_the_database_hangs(
    journal: Journal, tmp_path: Path
) -> None:
    database = open_database(migrated(tmp_path / "test.db"), busy_timeout=2.0)
    ledger = Ledger(journal, database)
    other = another(tmp_path)
    other.execute("BEGIN IMMEDIATE")
    journal.write(one := record())
    began = time.monotonic()
    async with running(ledger):
        await until(lambda: ledger._own)
    assert not await ledger.drain(0.05)
    assert time.monotonic() - began < 1.5
    other.execute("ROLLBACK")
    other.close()
    assert await ledger.drain(PATIENCE)
    assert moved(database) == [one.id]
    database.close()


@pytest.mark.process
async def test_a_postgresql_that_stops_is_waited_for(
    journal: Journal, own_postgres: PostgresProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REST", 0.05)
    monkeypatch.setattr(module, "LONGEST_REST", 0.1)
    database = open_database(Settings(url=own_postgres.url()))
    ledger = Ledger(journal, database)
    some = [record() for _ in range(90)]
    async with running(ledger):
        for each in some[:30]:
            journal.write(each)
        await until(lambda: ledger.caught_up)
        await asyncio.to_thread(own_postgres.kill)
        for each in some[30:60]:
            journal.write(each)
        await until(lambda: ledger.away)
        await asyncio.to_thread(own_postgres.start)
        await until(lambda: ledger.caught_up)
        await asyncio.to_thread(own_postgres.pause)
        for each in some[60:]:
            journal.write(each)
        await asyncio.sleep(3 * module.FRESH)
        assert ledger.backlog.bytes > 0
        await asyncio.to_thread(own_postgres.resume)
        await until(lambda: ledger.caught_up)
    assert moved(database) == [each.id for each in some]
    assert counted(database) == 90
    database.close()


@pytest.mark.process
async def test_a_killed_process_loses_nothing_and_nothing_is_there_twice(
    folder: Path, database_url: str
) -> None:
    open_database(Settings(url=database_url)).close()
    told: list[str] = []
    command = [*CHILD, "write", str(folder), database_url]
    rounds = 10 if database_url.startswith("sqlite") else 3
    for _ in range(rounds):
        children = [
            await asyncio.create_subprocess_exec(
                *command, *(["--ledger"] if ledger else []), stdout=asyncio.subprocess.PIPE
            )
            for ledger in (True, True, False)
        ]
        for child in children:
            told += await killed(child, random.uniform(0, 0.1))
    database = open_database(Settings(url=database_url))
    journal = Journal(folder, UsageSettings())
    journal.open()
    ledger = Ledger(journal, database)
    assert await ledger.drain(PATIENCE)
    journal.close()
    kept = moved(database)
    assert len(told) > 3 * rounds
    assert set(told) <= set(kept)
    assert len(kept) - len(told) <= 3 * rounds  # written, but not told any more
    assert counted(database) == len(kept)
    assert ledger.set_aside == 0
    assert files(folder) == []
    database.close()


@pytest.mark.process
async def test_a_killed_process_that_comes_back_behind_retention_counts_nothing_twice(
    folder: Path, database_url: str
) -> None:
    database = open_database(Settings(url=database_url))
    child = await asyncio.create_subprocess_exec(
        *CHILD, "write", str(folder), database_url, "--ledger", stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    reading = asyncio.create_task(child.stdout.read())
    await until(lambda: len(moved(database)) > 100)
    child.kill()
    await asyncio.gather(reading, child.wait())
    lines = written(folder)
    days = UsageSettings(retention=86_400.0)
    removed = 0

    def empty() -> bool:  # what it had sent may be carried out behind its end
        nonlocal removed
        removed += retention.run(database, days, time.time() + 2 * 86_400).requests
        return removed > 100 and not moved(database)

    await until(empty)

    journal = Journal(folder, UsageSettings())
    journal.open()
    assert await Ledger(journal, database).drain(PATIENCE)
    journal.close()
    assert counted(database) == lines
    assert files(folder) == []
    assert noted(database) == []
    database.close()


async def test_what_was_moved_of_a_segment_is_not_moved_again_and_the_rest_is(
    folder: Path, database: Database
) -> None:
    early, late = [record() for _ in range(5)], [record(client_request_id="y" * 5000), record()]
    path = leave(folder, *early, late[0])
    content = path.read_bytes()
    journal = Journal(folder, UsageSettings())
    journal.open()
    end = len(content) - len(json.encode(late[0])) - 1
    reached = segments.Reached(end, early[-1].id)
    database.run(lambda connection: segments.note(connection, path.name, reached), write=True)
    assert await Ledger(journal, database).drain(PATIENCE)
    assert moved(database) == [late[0].id]

    path.write_bytes(content + json.encode(late[1]) + b"\n")
    size = segments.Reached(len(content), late[0].id)
    database.run(lambda connection: segments.note(connection, path.name, size), write=True)
    assert await Ledger(journal, database).drain(PATIENCE)
    assert moved(database) == [late[0].id, late[1].id]
    journal.close()


@pytest.mark.parametrize("moved_before", [1, 600, 1 << 30])
async def test_another_file_of_a_name_that_was_moved_is_moved_whole(
    folder: Path, sqlite: Database, moved_before: int
) -> None:
    """As one is that was set aside and has its name back."""
    path = leave(folder, *(some := [record() for _ in range(3)]))
    reached = segments.Reached(moved_before, record().id)
    sqlite.run(lambda connection: segments.note(connection, path.name, reached), write=True)
    journal = Journal(folder, UsageSettings())
    journal.open()
    assert await Ledger(journal, sqlite).drain(PATIENCE)
    journal.close()
    assert moved(sqlite) == [each.id for each in some]


async def killed(child: asyncio.subprocess.Process, seconds: float) -> list[str]:
    """What it told of until then."""
    assert child.stdout is not None
    first = await child.stdout.readline()
    reading = asyncio.create_task(child.stdout.read())
    await asyncio.sleep(seconds)
    child.kill()
    rest = await reading
    await child.wait()
    whole, _, _ = (first + rest).rpartition(b"\n")
    return whole.decode().splitlines()


@pytest.mark.process
async def test_two_processes_share_what_a_third_left_behind(folder: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/test.db"
    database = open_database(Settings(url=url))
    some = [record() for _ in range(600)]
    for start in range(0, 600, 10):
        leave(folder, *some[start : start + 10])
    movers = [
        await asyncio.create_subprocess_exec(
            *CHILD, "move", folder, url,
            stdin=subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(2)
    ]  # fmt: skip
    for mover in movers:
        assert mover.stdout is not None
        await mover.stdout.readline()
    ended = await asyncio.gather(*(mover.communicate(b"\n") for mover in movers))
    assert len(ended) == 2
    assert [mover.returncode for mover in movers] == [0, 0]
    assert moved(database) == [each.id for each in some]
    assert counted(database) == 600
    assert files(folder) == []
    database.close()
