import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from manyways.errors import StoreError
from manyways.store.database import Database, Settings, open_database
from manyways.store.serving import Serving, serving


def opened(path: Path) -> Database:
    return open_database(Settings(url=f"sqlite:///{path}"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gate.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    database = opened(path)
    yield database
    database.close()


def count(connection: Connection) -> int:
    return int(connection.exec_driver_sql("SELECT counter FROM changes").scalar_one())


def add_one(connection: Connection) -> None:
    connection.exec_driver_sql("UPDATE changes SET counter = counter + 1")


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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_lock_file_on_a_full_disk_is_told(tmp_path: Path) -> None:
    database = open_database(Settings(url=f"sqlite:///{tmp_path}/keys.db"))
    (tmp_path / "keys.db.lock").symlink_to("/dev/full")
    with pytest.raises(StoreError, match=r"lock file .* cannot be"):
        database.lock_for_serving()
    database.close()
