"""What stood in the journal before, what corrects it, and what is being closed just now."""

import asyncio
import contextlib
import os
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace
from sqlalchemy import select

from manyways.store import tables
from manyways.store.database import Database
from manyways.store.ids import new_id
from manyways.types import Usage
from manyways.usage.journal import Journal
from manyways.usage.ledger import Ledger
from manyways.usage.segments import Folder
from manyways.usage.settings import Settings as UsageSettings
from tests.support.records import record
from tests.usage.test_ledger import CHILD, PATIENCE, another, counted, files, leave, moved, until


async def test_what_stood_there_before_is_left_over_until_it_is_in_the_database(
    folder: Path, tmp_path: Path, sqlite: Database
) -> None:
    """Not what is written since; neither torn nor empty files stay for ever."""
    old = [record() for _ in range(3)]
    leave(folder, old[0])
    leave(folder, old[1], old[2], b'{"torn', end=b"")
    leave(folder, end=b"")
    journal = Journal(folder, UsageSettings(sync=0.02))
    journal.open()
    ledger = Ledger(journal, sqlite)
    assert ledger.left_over
    with contextlib.closing(another(tmp_path)) as locking:
        locking.execute("BEGIN IMMEDIATE")
        assert not await ledger.drain(0.3)
        assert ledger.left_over
        locking.execute("ROLLBACK")
    assert await ledger.drain(PATIENCE)
    assert not ledger.left_over
    journal.write(record())
    assert not ledger.left_over
    assert set(moved(sqlite)) == {each.id for each in old}
    journal.close()


async def test_a_file_that_is_left_alone_is_not_waited_for(folder: Path, sqlite: Database) -> None:
    """Nobody can read it: what it holds is told in the log."""
    leave(folder, record()).rename(folder / "elsewhere")
    (folder / f"{new_id()}.jsonl").mkdir()
    journal = Journal(folder, UsageSettings(sync=0.02))
    journal.open()
    ledger = Ledger(journal, sqlite)
    assert ledger.left_over
    assert await ledger.drain(PATIENCE)
    assert not ledger.left_over
    journal.close()


async def test_a_new_journal_has_nothing_left_over(journal: Journal, sqlite: Database) -> None:
    journal.write(record())
    assert not Ledger(journal, sqlite).left_over


async def test_what_a_living_neighbour_holds_is_not_left_over(
    folder: Path, tmp_path: Path, sqlite: Database
) -> None:
    """Nor once it has died: then it is taken over and moved as ever. What was left there before
    both of them is left over beside it."""
    left, of_neighbour = record(), record()
    leave(folder, left)
    neighbour = await asyncio.create_subprocess_exec(
        *CHILD,
        "write",
        str(folder),
        f"sqlite:///{tmp_path}/unused.db",
        stdout=asyncio.subprocess.PIPE,
    )
    assert neighbour.stdout is not None
    told = [(await neighbour.stdout.readline()).decode().strip()]
    held = Journal(folder, UsageSettings())
    held.open()
    held.write(of_neighbour)
    journal = Journal(folder, UsageSettings(sync=0.02))
    journal.open()
    ledger = Ledger(journal, sqlite)
    assert ledger.left_over
    assert await ledger.drain(PATIENCE)
    assert not ledger.left_over
    assert moved(sqlite) == [left.id]

    neighbour.kill()
    told += (await neighbour.stdout.read()).decode().split("\n")
    await neighbour.wait()
    held.close()
    assert not ledger.left_over
    assert await ledger.drain(PATIENCE)
    assert {left.id, of_neighbour.id, *told[:-1]} <= set(moved(sqlite))
    assert len(files(folder)) == 1
    journal.close()


def test_who_only_looks_at_a_segment_does_not_hide_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A neighbour measures what is left just when another journal is opened."""
    leave(folder, record())
    second = leave(folder, record())
    journal = Journal(folder, UsageSettings())
    fstat = os.fstat

    def slow(file: int) -> os.stat_result:
        status = fstat(file)
        if status.st_ino == second.stat().st_ino:
            monkeypatch.setattr(os, "fstat", fstat)
            journal.open()
        return status

    monkeypatch.setattr(os, "fstat", slow)
    taken = Folder(folder).take()
    assert taken is not None
    assert journal.found == [second]
    taken.drop()
    journal.close()


@pytest.mark.parametrize("apart", [False, True], ids=["one file", "two files, the later one first"])
async def test_a_correction_takes_the_place_of_what_was_said_before(
    folder: Path, sqlite: Database, apart: bool
) -> None:
    estimated = record(usage=Usage(prompt_tokens=1, completion_tokens=2, source="estimated"))
    told = Usage(prompt_tokens=4, completion_tokens=5, source="upstream")
    correction = replace(estimated, usage=told, corrects=True)
    if apart:
        leave(folder, correction)
        leave(folder, estimated)
    else:
        leave(folder, estimated, correction)
    journal = Journal(folder, UsageSettings())
    journal.open()
    assert await Ledger(journal, sqlite).drain(PATIENCE)
    journal.close()
    assert moved(sqlite) == [estimated.id]
    assert counted(sqlite) == 1
    sums = select(tables.usage_daily.c.completion_tokens, tables.usage_daily.c.estimated)
    assert sqlite.run(lambda connection: connection.execute(sums).all()) == [(5, 0)]


async def test_a_segment_that_is_being_closed_is_not_overlooked(
    folder: Path, sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow disk keeps its file locked meanwhile: nobody can move it yet."""
    begun, gate = threading.Event(), threading.Event()

    def slow(file: int) -> None:
        del file
        begun.set()
        gate.wait(PATIENCE)

    monkeypatch.setattr(os, "fdatasync", slow)
    journal = Journal(folder, UsageSettings(sync=0.2))
    journal.open()
    journal._full = 1
    last = record()
    journal.write(last)
    await until(begun.is_set)
    ledger = Ledger(journal, sqlite)
    assert not await ledger.drain(0.3)
    gate.set()
    assert await ledger.drain(PATIENCE)
    assert moved(sqlite) == [last.id]
    journal.close()
