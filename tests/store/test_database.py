"""What `Database` promises, on SQLite and on PostgreSQL alike."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from manyways.errors import StoreError
from manyways.store.database import MAX_WAITING, Database, Settings, is_there, open_database


def count(connection: Connection) -> int:
    return int(connection.exec_driver_sql("SELECT counter FROM changes").scalar_one())


def add_one(connection: Connection) -> None:
    connection.exec_driver_sql("UPDATE changes SET counter = counter + 1")


def read_then_write(connection: Connection) -> None:
    """Two of these at once must not read the same."""
    connection.execute(text("UPDATE changes SET counter = :n"), {"n": count(connection) + 1})


def absent(connection: Connection) -> None:
    connection.exec_driver_sql("SELECT * FROM absent")


@asynccontextmanager
async def busy(database: Database) -> AsyncIterator[threading.Event]:
    """All of the database's threads wait for the event; it is set at the end."""
    release = threading.Event()
    calls = [
        asyncio.create_task(database.call(lambda _: release.wait(10), limit=5.0))
        for _ in range(database._engine.threads)
    ]
    await asyncio.sleep(0)
    yield release
    release.set()
    assert all(await asyncio.gather(*calls))


def in_threads(work: Callable[[], object], *, times: int) -> None:
    threads = [threading.Thread(target=work) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class TestTransactions:
    def test_work_is_committed_when_it_returns(self, database_url: str) -> None:
        first = open_database(Settings(url=database_url))
        first.run(add_one, write=True)
        other = open_database(Settings(url=database_url))
        assert other.run(count) == 1
        other.close()
        first.close()

    def test_work_is_undone_when_it_raises(self, database: Database) -> None:
        def fail(connection: Connection) -> None:
            add_one(connection)
            raise LookupError("half way")

        with pytest.raises(LookupError, match="half way"):
            database.run(fail, write=True)
        assert database.run(count) == 0

    @pytest.mark.parametrize("isolated", [True, False])
    def test_writers_in_several_threads_lose_nothing(
        self, database: Database, isolated: bool
    ) -> None:
        work = read_then_write if isolated else add_one

        def many() -> None:
            for _ in range(10):
                database.run(work, write=True, isolated=isolated)

        in_threads(many, times=4)
        assert database.run(count) == 40

    def test_of_two_that_look_before_they_write_one_sees_the_other(
        self, database: Database
    ) -> None:
        """Each would write if there were nothing: what one reads the other changes."""

        def first_of_all(connection: Connection) -> None:
            if not connection.scalar(text("SELECT count(*) FROM changes WHERE name = 'first'")):
                name = threading.current_thread().name
                connection.execute(
                    text("INSERT INTO changes (name, counter) VALUES ('first', 1), (:n, 1)"),
                    {"n": name},
                )

        in_threads(lambda: database.run(first_of_all, write=True), times=4)
        rows = database.run(
            lambda connection: connection.scalar(text("SELECT count(*) FROM changes"))
        )
        assert rows == 3

    def test_work_that_reads_sees_one_moment(self, database: Database) -> None:
        def read_twice(connection: Connection) -> tuple[int, int]:
            before = count(connection)
            in_threads(lambda: database.run(add_one, write=True), times=1)
            return before, count(connection)

        assert database.run(read_twice) == (0, 0)
        assert database.run(count) == 1

    def test_a_failure_leaves_nothing_behind_on_its_connection(self, database: Database) -> None:
        for _ in range(12):  # more than there are connections
            with pytest.raises(StoreError):
                database.run(absent, write=True)
        assert database.run(count) == 0


class TestCalls:
    async def test_a_call_runs_in_the_databases_own_thread(self, database: Database) -> None:
        names = {
            await database.call(lambda _: threading.current_thread().name, limit=5.0)
            for _ in range(3)
        }
        assert {name.partition("_")[0] for name in names} == {"database"}
        assert len(names) <= database._engine.threads

    async def test_errors_arrive_where_the_call_was_made(self, database: Database) -> None:
        with pytest.raises(StoreError, match="absent"):
            await database.call(absent, limit=5.0)

    async def test_a_slow_call_is_given_up_and_one_behind_it_never_begins(
        self, database: Database
    ) -> None:
        begun: list[str] = []
        async with busy(database):
            with pytest.raises(StoreError, match=r"did not answer within 0\.01 s"):
                await database.call(lambda _: begun.append("behind"), limit=0.01)
        await database.call(lambda _: begun.append("later"), limit=5.0)
        assert begun == ["later"]

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
        async with busy(database) as release:
            waiting = asyncio.create_task(database.call(count, limit=5.0))
            await asyncio.sleep(0)
            closing = threading.Thread(target=database.close)
            closing.start()
            with pytest.raises(StoreError, match="is closed"):
                await waiting
            release.set()
            await asyncio.to_thread(closing.join)
        with pytest.raises(StoreError, match="is closed"):
            await database.call(count, limit=5.0)
        assert repr(database) == f"<Database {database.name} closed>"


class TestServing:
    def test_whoever_serves_has_it_locked(self, database: Database) -> None:
        database.lock_for_serving()
        database.announce("http://127.0.0.1:1")
        assert repr(database).endswith("locked>")

    def test_only_an_sqlite_file_has_a_path(self, database: Database) -> None:
        if not database.shared:
            assert str(database.path) == database.name
            return
        with pytest.raises(StoreError, match="is not a file"):
            database.path  # noqa: B018 - asking is enough


def test_settings_are_read_without_importing_sqlalchemy() -> None:
    """Commands that ask no database start without paying for one."""
    program = (
        "import sys, manyways.access.keys, manyways.store.database\n"
        "print(sorted({'sqlalchemy', 'alembic', 'psycopg'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"[]\n"


def test_whether_there_is_a_database_is_told_without_making_one(tmp_path: Path) -> None:
    settings = Settings(url=f"sqlite:///{tmp_path}/keys.db")
    assert not is_there(settings)
    assert not list(tmp_path.iterdir())
    open_database(settings).close()
    assert is_there(settings)
    assert is_there(Settings(url="postgresql://127.0.0.1:1/others-make-it"))
