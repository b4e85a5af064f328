import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from manyways.errors import ConfigError, StoreError
from manyways.store.database import (
    MAX_WAITING,
    Database,
    Serving,
    Settings,
    open_database,
    serving,
    sqlite_path,
)


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


class TestAddress:
    def test_three_slashes_name_a_file_beside_us(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert sqlite_path("sqlite:///some/keys.db") == tmp_path.resolve() / "some" / "keys.db"

    def test_four_slashes_name_an_absolute_path(self) -> None:
        assert sqlite_path("sqlite:////var/lib/keys.db") == Path("/var/lib/keys.db").resolve()

    def test_two_names_of_one_file_are_one_database(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path / "real.db")
        assert sqlite_path(f"sqlite:///{tmp_path}/link") == sqlite_path(
            f"sqlite:///{tmp_path}/real.db"
        )

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("postgresql://user:hunter2@host/db", "not supported yet"),
            ("postgresql+asyncpg://user:hunter2@host/db", "not supported yet"),
            ("postgres://user:hunter2@host/db", "not supported yet"),
            ("mysql://user:hunter2@host/db", "sqlite:///manyways.db"),
            ("user:hunter2@host", "sqlite:///manyways.db"),
            ("sqlite+aiosqlite:///x.db", "sqlite:///manyways.db"),
            ("sqlite:x.db", "sqlite:///manyways.db"),
            ("", "sqlite:///manyways.db"),
            ("sqlite:///:memory:", "in memory"),
            ("sqlite://", "in memory"),
            ("sqlite:///", "in memory"),
            ("sqlite://x.db", "sqlite:///x.db is a relative path"),
            ("sqlite:///x.db?mode=ro", "nothing more"),
        ],
    )
    def test_any_other_address_is_refused_in_plain_words_and_without_its_password(
        self, url: str, words: str
    ) -> None:
        with pytest.raises(ConfigError) as refused:
            sqlite_path(url)
        assert words in str(refused.value)
        assert "hunter2" not in str(refused.value)


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


class TestTransactions:
    def test_work_is_committed_when_it_returns(self, database: Database, path: Path) -> None:
        database.run(add_one, write=True)
        other = opened(path)
        assert other.run(count) == 1
        other.close()

    def test_work_is_undone_when_it_raises(self, database: Database) -> None:
        def fail(connection: Connection) -> None:
            add_one(connection)
            raise LookupError("half way")

        with pytest.raises(LookupError, match="half way"):
            database.run(fail, write=True)
        assert database.run(count) == 0

    def test_writers_in_several_threads_lose_nothing(self, database: Database) -> None:
        def read_then_write(connection: Connection) -> None:
            before = count(connection)
            connection.exec_driver_sql("UPDATE changes SET counter = ?", (before + 1,))

        def many() -> None:
            for _ in range(10):
                database.run(read_then_write, write=True)

        threads = [threading.Thread(target=many) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert database.run(count) == 40


class TestCalls:
    async def test_a_call_runs_in_the_databases_own_thread(self, database: Database) -> None:
        names = {
            await database.call(lambda _: threading.current_thread().name, limit=5.0)
            for _ in range(3)
        }
        assert names == {"database_0"}

    async def test_errors_arrive_where_the_call_was_made(self, database: Database) -> None:
        with pytest.raises(StoreError, match="no such table"):
            await database.call(
                lambda connection: connection.exec_driver_sql("SELECT * FROM absent"), limit=5.0
            )

    async def test_a_slow_call_is_given_up_and_one_behind_it_never_begins(
        self, database: Database
    ) -> None:
        release = threading.Event()
        begun: list[str] = []

        def slow(_: Connection) -> None:
            begun.append("slow")
            release.wait(10)

        with pytest.raises(StoreError, match=r"did not answer within 0\.01 s"):
            await database.call(slow, limit=0.01)
        with pytest.raises(StoreError, match="did not answer"):
            await database.call(lambda _: begun.append("behind"), limit=0.01)
        release.set()
        await database.call(lambda _: begun.append("later"), limit=5.0)
        assert begun == ["slow", "later"]

    async def test_who_stops_waiting_is_cancelled_and_nothing_else(
        self, database: Database
    ) -> None:
        release = threading.Event()
        waiting = asyncio.create_task(database.call(lambda _: release.wait(10), limit=5.0))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        release.set()
        assert await database.call(count, limit=5.0) == 0

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

    async def test_too_many_calls_are_refused_at_once(self, database: Database) -> None:
        release = threading.Event()
        waiting = [
            asyncio.create_task(database.call(lambda _: release.wait(10), limit=5.0))
            for _ in range(MAX_WAITING)
        ]
        await asyncio.sleep(0)
        with pytest.raises(StoreError, match="too busy"):
            await database.call(count, limit=5.0)
        release.set()
        await asyncio.gather(*waiting)
        assert await database.call(count, limit=5.0) == 0

    async def test_calls_that_have_not_begun_when_it_closes_are_told_so(
        self, database: Database
    ) -> None:
        release = threading.Event()
        first = asyncio.create_task(database.call(lambda _: release.wait(10), limit=5.0))
        second = asyncio.create_task(database.call(count, limit=5.0))
        await asyncio.sleep(0)
        closing = threading.Thread(target=database.close)
        closing.start()
        with pytest.raises(StoreError, match="is closed"):
            await second
        release.set()
        assert await first is True
        closing.join()
        with pytest.raises(StoreError, match="is closed"):
            await database.call(count, limit=5.0)
        assert repr(database) == f"<Database {database.path} closed>"


class TestServing:
    def test_a_second_server_is_refused_and_told_who_the_first_is(
        self, database: Database, path: Path
    ) -> None:
        database.lock_for_serving()
        database.lock_for_serving()
        program = (
            "import sys\n"
            "from manyways.errors import StoreError\n"
            "from manyways.store.database import Settings, open_database\n"
            "database = open_database(Settings(url=sys.argv[1]))\n"
            "try:\n"
            "    database.lock_for_serving()\n"
            "except StoreError as error:\n"
            "    print(error)\n"
            "database.close()\n"
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, f"sqlite:///{path}"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"Another Manyways serves this database (pid {os.getpid()})" in done.stdout
        assert repr(database) == f"<Database {path} locked>"

    def test_others_work_beside_the_server(self, database: Database, path: Path) -> None:
        database.lock_for_serving()
        other = opened(path)
        other.run(add_one, write=True)
        other.close()
        assert database.run(count) == 1

    def test_whoever_serves_is_found_with_the_address_that_it_announced(
        self, database: Database, path: Path
    ) -> None:
        assert serving(path) is None
        database.announce("http://127.0.0.1:1")  # does not serve: nobody is told
        database.lock_for_serving()
        assert serving(path) == Serving(str(os.getpid()))
        database.announce("http://127.0.0.1:8123")
        assert serving(path) == Serving(str(os.getpid()), "http://127.0.0.1:8123")
        database.close()
        assert serving(path) is None

    def test_the_lock_ends_with_the_server(self, database: Database, path: Path) -> None:
        database.lock_for_serving()
        database.close()
        database.close()
        other = opened(path)
        other.lock_for_serving()
        other.close()

    def test_a_lock_file_that_cannot_be_opened(self, database: Database, path: Path) -> None:
        path.with_name("gate.db.lock").mkdir()
        with pytest.raises(StoreError, match=r"gate\.db\.lock cannot be opened: Is a directory"):
            database.lock_for_serving()


def test_settings_are_read_without_importing_sqlalchemy() -> None:
    """Commands that ask no database start without paying for one."""
    program = (
        "import sys, manyways.access.keys, manyways.store.database\n"
        "print(sorted(n for n in sys.modules if n in ('sqlalchemy', 'alembic')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"[]\n"


def test_links_that_lead_in_a_circle_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.db").symlink_to("b.db")
    (tmp_path / "b.db").symlink_to("a.db")
    with pytest.raises(StoreError):
        open_database(Settings(url=f"sqlite:///{tmp_path}/a.db"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_lock_file_on_a_full_disk_is_told(tmp_path: Path) -> None:
    database = open_database(Settings(url=f"sqlite:///{tmp_path}/keys.db"))
    (tmp_path / "keys.db.lock").symlink_to("/dev/full")
    with pytest.raises(StoreError, match=r"lock file .* cannot be"):
        database.lock_for_serving()
    database.close()
