"""A server that is stopped, killed, paused, and comes back: nobody waits without an end, and
everything heals by itself."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, text

from manyways.errors import StoreError
from manyways.store import postgres
from manyways.store.database import Database, Settings, open_database
from tests.support.postgres import PostgresProcess

pytestmark = pytest.mark.process

SLACK = 1.5  # seconds: machines have moods
GRACE = postgres._GRACE


@pytest.fixture
def database(own_postgres: PostgresProcess) -> Iterator[Database]:
    url = own_postgres.url(own_postgres.create_database())
    database = open_database(Settings(url=f"{url}?connect_timeout=2"))
    yield database
    own_postgres.resume()
    database.close()


def count(connection: Connection) -> int:
    return int(connection.execute(text("SELECT counter FROM changes")).scalar_one())


def add_one(connection: Connection) -> None:
    connection.execute(text("UPDATE changes SET counter = counter + 1"))


@contextmanager
def within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds + SLACK


async def several(database: Database) -> None:
    """More calls than threads, so that all of its connections but the spare ones are used."""
    await asyncio.gather(*(database.call(count, limit=5.0) for _ in range(8)))


def left_open(server: PostgresProcess) -> object:
    """Connections with a transaction that nobody ends."""
    ((number,),) = server.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
    )
    return number


GONE: dict[str, Callable[[PostgresProcess], None]] = {
    "stopped": PostgresProcess.stop,
    "killed": PostgresProcess.kill,
}


@pytest.mark.parametrize("go", GONE.values(), ids=GONE.keys())
class TestGone:
    async def test_what_is_asked_meanwhile_fails_at_once_and_afterwards_all_is_well(
        self, database: Database, own_postgres: PostgresProcess, go: Callable[..., None]
    ) -> None:
        await several(database)
        go(own_postgres)
        with within(0), pytest.raises(StoreError, match="cannot be reached: Connection refused"):
            await database.call(count, limit=5.0)
        with within(0), pytest.raises(StoreError, match="cannot be reached"):
            database.run(add_one, write=True)
        own_postgres.start()
        assert database.run(count) == 0
        await several(database)

    async def test_one_that_was_gone_for_a_moment_only_is_not_noticed(
        self, database: Database, own_postgres: PostgresProcess, go: Callable[..., None]
    ) -> None:
        database.run(add_one, write=True)
        await several(database)
        go(own_postgres)
        own_postgres.start()
        assert database.run(count) == 1, "what was committed is there"
        await several(database)

    def test_work_that_it_leaves_half_done_is_told_and_undone(
        self, database: Database, own_postgres: PostgresProcess, go: Callable[..., None]
    ) -> None:
        def work(connection: Connection) -> None:
            add_one(connection)
            go(own_postgres)
            add_one(connection)

        with within(0), pytest.raises(StoreError, match=r"cannot be reached|is starting or stop"):
            database.run(work, write=True)
        own_postgres.start()
        assert database.run(count) == 0


class TestPaused:
    """SIGSTOP: connections stand, the system acknowledges what is sent, nobody answers."""

    async def test_every_call_ends_within_its_limit_and_afterwards_all_is_well(
        self, database: Database, own_postgres: PostgresProcess
    ) -> None:
        await several(database)
        own_postgres.pause()
        with within(1.0):
            ends = await asyncio.gather(
                *(database.call(count, limit=1.0) for _ in range(12)), return_exceptions=True
            )
        assert [type(end) for end in ends] == [StoreError] * 12
        own_postgres.resume()
        await several(database)
        assert left_open(own_postgres) == 0

    def test_work_of_other_threads_ends_soon_behind_its_limit(
        self, database: Database, own_postgres: PostgresProcess
    ) -> None:
        own_postgres.pause()
        with within(0.2 + GRACE), pytest.raises(StoreError, match="is silent, and was given up"):
            database.run(count, limit=0.2)
        with within(2.0), pytest.raises(StoreError, match="cannot be reached: it does not answer"):
            database.run(count, limit=0.2)
        own_postgres.resume()
        assert database.run(count) == 0

    def test_a_long_limit_is_not_waited_for_before_work_has_begun(
        self, database: Database, own_postgres: PostgresProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres, "_BEGIN", 0.2)
        own_postgres.pause()
        with within(0.2), pytest.raises(StoreError, match="is silent"):
            database.run(count, limit=600.0)

    @pytest.mark.parametrize("step", ["a statement", "the end"])
    def test_work_that_it_leaves_half_done_is_told(
        self, database: Database, own_postgres: PostgresProcess, step: str
    ) -> None:
        def work(connection: Connection) -> None:
            add_one(connection)
            own_postgres.pause()
            if step == "a statement":
                add_one(connection)

        with within(0.2 + GRACE), pytest.raises(StoreError, match="is silent"):
            database.run(work, write=True, limit=0.2)
        own_postgres.resume()
        expected = {0} if step == "a statement" else {0, 1}  # a commit may have been heard
        assert database.run(count) in expected
        assert left_open(own_postgres) == 0

    def test_a_database_that_does_not_answer_is_not_opened(
        self, database: Database, own_postgres: PostgresProcess
    ) -> None:
        url = f"{own_postgres.url(database.name.split()[0])}?connect_timeout=2"
        own_postgres.pause()
        with within(2.0), pytest.raises(StoreError, match="cannot be reached: it does not answer"):
            open_database(Settings(url=url))

    def test_closing_does_not_wait_for_it(
        self, database: Database, own_postgres: PostgresProcess
    ) -> None:
        own_postgres.pause()
        with within(0):
            database.close()


def test_behind_a_failover_the_new_primary_is_found(own_postgres: PostgresProcess) -> None:
    name = own_postgres.create_database()
    primary = own_postgres.url(name)
    with PostgresProcess(of=own_postgres) as standby:
        # Nothing counts as committed before the standby has it.
        own_postgres.execute(
            "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"
        )
        hosts = f"@127.0.0.1:{own_postgres.port},127.0.0.1:{standby.port}/"
        both = primary.replace(f"@127.0.0.1:{own_postgres.port}/", hosts)
        database = open_database(Settings(url=both))
        database.run(add_one, write=True)
        with pytest.raises(StoreError, match="is read-only: a standby"):
            open_database(Settings(url=standby.url(name)))
        own_postgres.kill()
        with pytest.raises(StoreError, match="is read-only: a standby"):
            database.run(count)
        standby.execute("SELECT pg_promote()")
        assert database.run(count) == 1
        database.run(add_one, write=True)
        database.close()


async def test_a_call_that_is_cancelled_leaves_nothing_behind(
    database: Database, own_postgres: PostgresProcess
) -> None:
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(connection: Connection) -> None:
        add_one(connection)
        loop.call_soon_threadsafe(begun.set)
        connection.execute(text("SELECT pg_sleep(60)"))

    call = asyncio.create_task(database.call(slow, limit=0.5, write=True))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await several(database)
    await asyncio.to_thread(database.close)
    assert left_open(own_postgres) == 0
    ((counter,),) = own_postgres.execute(
        "SELECT counter FROM changes", database=database.name.split()[0]
    )
    assert counter == 0


async def test_one_that_falls_silent_again_and_again_is_forgiven(
    database: Database, own_postgres: PostgresProcess
) -> None:
    for turn in range(3):
        own_postgres.pause()
        with pytest.raises(StoreError):
            await database.call(add_one, limit=0.1, write=True)
        own_postgres.resume()
        assert await database.call(count, limit=5.0) <= turn + 1
