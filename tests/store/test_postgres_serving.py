"""Who serves a PostgreSQL database: one by itself, or several together, never both."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from manyways.errors import StoreError
from manyways.store import postgres_serving
from manyways.store.database import Database, Settings, open_database
from tests.support.postgres import PostgresProcess, empty_postgres, own_postgres, shared_server

__all__ = ["empty_postgres", "own_postgres"]

pytestmark = pytest.mark.process

LOCKS = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2"


@pytest.fixture(autouse=True)
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_serving, "LOOK", 0.05)
    monkeypatch.setattr(postgres_serving, "PATIENCE", 0.3)


@pytest.fixture
def database(empty_postgres: str) -> Iterator[Database]:
    database = open_database(Settings(url=empty_postgres))
    yield database
    database.close()


@pytest.fixture
def other(empty_postgres: str, database: Database) -> Iterator[Database]:
    other = open_database(Settings(url=empty_postgres))
    yield other
    other.close()


def until(holds: Callable[[], bool], limit: float = 10.0) -> None:
    deadline = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_one_by_itself_lets_nobody_in(database: Database, other: Database) -> None:
    database.lock_for_serving()
    database.lock_for_serving()
    with pytest.raises(StoreError, match=r"\(at 127\.0\.0\.1\) serves .* only by cluster\.redis"):
        other.lock_for_serving()
    with pytest.raises(StoreError, match=r"by itself, without cluster\.redis"):
        other.lock_for_serving(together=True)
    assert repr(database).endswith(" locked>")
    assert repr(other).endswith(" open>")


def test_several_together_let_in_others_of_their_kind_only(
    database: Database, other: Database, empty_postgres: str
) -> None:
    database.lock_for_serving(together=True)
    other.lock_for_serving(together=True)
    third = open_database(Settings(url=empty_postgres))
    with pytest.raises(StoreError, match=r"set the same one"):
        third.lock_for_serving()
    third.close()


def test_the_next_one_gets_in_when_the_last_one_has_gone(
    database: Database, other: Database, empty_postgres: str
) -> None:
    database.lock_for_serving()
    database.close()
    other.lock_for_serving()
    assert repr(other).endswith(" locked>")


def test_another_database_on_the_same_server_is_another_matter(database: Database) -> None:
    server = shared_server()
    name = server.create_database()
    elsewhere = open_database(Settings(url=server.url(name)))
    database.lock_for_serving()
    elsewhere.lock_for_serving()
    elsewhere.close()
    server.drop_database(name)


def test_it_keeps_nothing_from_being_vacuumed(database: Database, empty_postgres: str) -> None:
    database.lock_for_serving()
    ((snapshot, transaction),) = shared_server().execute(
        "SELECT backend_xmin, backend_xid FROM pg_stat_activity"
        " WHERE application_name = 'manyways (serving)' AND datname = current_database()"
        " AND state = 'idle in transaction'",
        database=empty_postgres.rpartition("/")[2],
    )
    assert (snapshot, transaction) == (None, None)


def test_a_server_that_ends_idle_transactions_spares_it(empty_postgres: str) -> None:
    server, name = shared_server(), empty_postgres.rpartition("/")[2]
    open_database(Settings(url=empty_postgres)).close()
    server.execute(
        f'ALTER DATABASE "{name}" SET idle_in_transaction_session_timeout = 300',
        f'ALTER DATABASE "{name}" SET transaction_timeout = 500',
    )
    database = open_database(Settings(url=empty_postgres))
    try:
        database.lock_for_serving()
        before = server.execute(LOCKS)
        assert before
        time.sleep(0.8)  # what is watched is that nothing happens meanwhile
        assert server.execute(LOCKS) == before
    finally:
        database.close()


@pytest.mark.parametrize("how", ["killed", "paused", "ended by its operator"])
def test_a_lock_that_was_lost_is_taken_again(
    own_postgres: PostgresProcess, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_serving, "_ANSWER", 0.2)
    url = own_postgres.url(own_postgres.create_database())
    database = open_database(Settings(url=url))
    try:
        database.lock_for_serving()
        if how == "killed":
            own_postgres.kill()
            until(lambda: repr(database).endswith(" open>"))
            own_postgres.start()
        elif how == "paused":
            own_postgres.pause()
            until(lambda: repr(database).endswith(" open>"))
            own_postgres.resume()
        else:
            held = own_postgres.execute(LOCKS)
            own_postgres.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            )
            until(lambda: own_postgres.execute(LOCKS) not in ([], held))
        until(lambda: repr(database).endswith(" locked>"), limit=15.0)
        other = open_database(Settings(url=url))
        with pytest.raises(StoreError, match="Another Manyways"):
            other.lock_for_serving()
        other.close()
    finally:
        database.close()


def test_a_process_that_is_killed_has_let_go(database: Database, empty_postgres: str) -> None:
    program = (
        "import sys, time\n"
        "from manyways.store.database import Settings, open_database\n"
        "open_database(Settings(url=sys.argv[1])).lock_for_serving()\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, empty_postgres], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match="Another Manyways"):
            database.lock_for_serving()
        child.send_signal(signal.SIGKILL)
        child.wait()
        database.lock_for_serving()
