import asyncio
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from manyways.errors import StoreError
from manyways.store.database import Database, Settings, open_database


def opened(path: Path, *, busy_timeout: float = 5.0) -> Database:
    return open_database(Settings(url=f"sqlite:///{path}"), busy_timeout=busy_timeout)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gate.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    database = opened(path)
    yield database
    database.close()


def pragma(name: str) -> Callable[[Connection], object]:
    return lambda connection: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()


def count(connection: Connection) -> int:
    return int(connection.exec_driver_sql("SELECT counter FROM changes").scalar_one())


def add_one(connection: Connection) -> None:
    connection.exec_driver_sql("UPDATE changes SET counter = counter + 1")


class TestFile:
    def test_a_new_file_and_its_companions_belong_to_the_owner_alone(
        self, database: Database, path: Path
    ) -> None:
        database.run(add_one, write=True)
        files = sorted(path.parent.iterdir())
        assert [file.name for file in files] == ["gate.db", "gate.db-shm", "gate.db-wal"]
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}

    def test_the_mode_of_a_file_that_exists_is_left_alone(self, path: Path) -> None:
        path.touch(mode=0o640)
        path.chmod(0o640)
        opened(path).close()
        assert stat.S_IMODE(path.stat().st_mode) == 0o640

    @pytest.mark.parametrize(
        ("name", "value"),
        [("journal_mode", "wal"), ("foreign_keys", 1), ("synchronous", 1), ("busy_timeout", 5000)],
    )
    def test_every_connection_is_set_up(self, database: Database, name: str, value: object) -> None:
        assert database.run(pragma(name)) == value

    def test_odd_letters_in_the_path_are_letters(self, tmp_path: Path) -> None:
        path = tmp_path / "100% #1 ключи; x=y.db"
        opened(path).close()
        assert path.stat().st_size > 0


class TestFailures:
    """Whatever SQLite cannot do is told with the file's name and a cure."""

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=f"there is no folder {tmp_path}/none"):
            opened(tmp_path / "none" / "keys.db")

    def test_a_folder_instead_of_a_file(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="is a folder"):
            opened(tmp_path)

    def test_a_folder_below_a_file(self, path: Path) -> None:
        path.touch()
        with pytest.raises(StoreError, match="cannot be made: Not a directory"):
            opened(path / "keys.db")

    def test_a_file_of_another_kind_is_not_touched(self, path: Path) -> None:
        text = b"Dear diary, today I did not write a database.\n" * 100
        path.write_bytes(text)
        with pytest.raises(StoreError, match=f"{path} is not an SQLite database"):
            opened(path)
        assert path.read_bytes() == text

    def test_a_damaged_file(self, path: Path) -> None:
        opened(path).close()
        content = bytearray(path.read_bytes())
        content[4096:] = b"\xff" * (len(content) - 4096)
        path.write_bytes(content)
        with pytest.raises(StoreError, match=f"{path} is damaged"):
            opened(path)

    def test_a_full_disk_and_nothing_is_half_written(self, database: Database) -> None:
        def fill(connection: Connection) -> None:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
            add_one(connection)
            connection.exec_driver_sql("CREATE TABLE blob AS SELECT zeroblob(1000000)")

        with pytest.raises(StoreError, match=r"disk .* is full. Make room"):
            database.run(fill, write=True)
        assert database.run(count) == 0

    def test_a_read_only_database(self, database: Database) -> None:
        def write(connection: Connection) -> None:
            connection.exec_driver_sql("PRAGMA query_only = ON")
            add_one(connection)

        with pytest.raises(StoreError, match="is read-only"):
            database.run(write)

    def test_a_writer_that_does_not_finish(self, database: Database, path: Path) -> None:
        impatient = opened(path, busy_timeout=0.0)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            with pytest.raises(StoreError, match="is locked: another program"):
                impatient.run(add_one, write=True)
            assert impatient.run(count) == 0, "readers do not wait for writers"
        finally:
            other.close()
            impatient.close()

    def test_a_database_that_is_locked_while_it_is_opened(self, path: Path) -> None:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("CREATE TABLE held (x)")
        other.execute("BEGIN EXCLUSIVE")
        try:
            with pytest.raises(StoreError, match="is locked: another program"):
                opened(path, busy_timeout=0.05)
        finally:
            other.close()

    def test_a_file_that_vanished_is_not_made_anew_and_empty(self, path: Path) -> None:
        database = opened(path)
        database.close()
        path.unlink()
        with pytest.raises(StoreError, match="cannot be opened"):
            database.run(count)
        assert not path.exists()

    def test_anything_else_still_names_the_file(self, database: Database, path: Path) -> None:
        with pytest.raises(StoreError, match=f"{path} cannot do .*: no such table: absent"):
            database.run(lambda connection: connection.exec_driver_sql("SELECT * FROM absent"))


class TestOneThread:
    @pytest.mark.parametrize("steps", range(6))
    async def test_a_cancellation_is_not_lost_when_the_answer_arrives_with_it(
        self, database: Database, steps: int
    ) -> None:
        begun = threading.Event()
        first = asyncio.create_task(database.call(lambda _: "answer", limit=5.0))
        second = asyncio.create_task(database.call(lambda _: begun.set(), limit=5.0))
        await asyncio.sleep(0)
        begun.wait(10)  # one thread: now the first answer is on its way to the loop
        for _ in range(steps):
            await asyncio.sleep(0)
        late = first.done()
        first.cancel()
        await asyncio.wait({first, second})
        assert first.cancelled() is not late
