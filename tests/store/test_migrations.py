import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, insert, select

from manyways.errors import StoreError
from manyways.store import migrations
from manyways.store.database import Database, Settings, open_database
from manyways.store.sqlite import SqliteFile
from manyways.store.tables import api_keys, changes, metadata


def opened(path: Path) -> Database:
    return open_database(Settings(url=f"sqlite:///{path}"))


def revision(connection: Connection) -> str:
    return str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one())


def test_the_constant_is_the_newest_migration_and_the_line_has_no_forks() -> None:
    script = ScriptDirectory.from_config(migrations.alembic_config())
    assert script.get_heads() == [migrations.HEAD]
    line = [one.revision for one in script.walk_revisions()]
    assert line == [f"{number:04}" for number in range(len(line), 0, -1)]


def test_migrations_lead_from_an_empty_file_to_the_tables_as_they_are_written(
    tmp_path: Path,
) -> None:
    database = opened(tmp_path / "new.db")

    def difference(connection: Connection) -> list[object]:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, metadata))

    assert database.run(difference) == []
    assert database.run(revision) == migrations.HEAD
    database.close()


def test_constraints_have_the_names_that_tables_says(tmp_path: Path) -> None:
    """A constraint without its name cannot be changed by a later migration."""
    database = opened(tmp_path / "new.db")
    sql = database.run(
        lambda connection: " ".join(
            connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE sql > ''").scalars()
        )
    )
    names = {str(one.name) for table in metadata.tables.values() for one in table.constraints}
    assert {"pk_api_keys", "uq_api_keys_digest", "pk_changes", "uq_accounts_name"} < names
    assert all(f"CONSTRAINT {name} " in sql for name in names)
    database.close()


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    first = opened(tmp_path / "again.db")
    key = {"id": "1", "digest": bytes(32), "last4": "last", "type": "full", "created_at": 1}
    first.run(lambda connection: connection.execute(insert(api_keys).values(key)), write=True)
    first.close()
    second = opened(tmp_path / "again.db")
    assert second.run(lambda connection: connection.scalar(select(api_keys.c.last4))) == "last"
    assert second.run(lambda connection: connection.scalar(select(changes.c.counter))) == 0
    second.close()


def test_a_database_that_is_up_to_date_is_opened_without_importing_alembic(
    tmp_path: Path,
) -> None:
    opened(tmp_path / "ready.db").close()
    program = (
        "import sys\n"
        "from manyways.store.database import Settings, open_database\n"
        "open_database(Settings(url=sys.argv[1])).close()\n"
        "print('alembic' in sys.modules, 'sqlalchemy.orm' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, f"sqlite:///{tmp_path}/ready.db"],
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"False False\n"


def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    database = opened(tmp_path / "newer.db")
    database.run(
        lambda connection: connection.exec_driver_sql(
            "UPDATE alembic_version SET version_num = '9999'"
        ),
        write=True,
    )
    with pytest.raises(StoreError, match=r"newer version of Manyways \(it stands at 9999"):
        opened(tmp_path / "newer.db")
    assert database.run(revision) == "9999"
    database.close()


@pytest.mark.parametrize(
    "foreign",
    [
        ["CREATE TABLE songs (title TEXT)"],
        [
            "CREATE TABLE alembic_version (version_num TEXT)",
            "INSERT INTO alembic_version VALUES ('ae1027a6acf')",
        ],
        ["CREATE TABLE alembic_version (version_num TEXT)"],
    ],
    ids=["without versions", "with versions of its own", "with no version"],
)
def test_a_database_of_another_program_is_refused_and_left_alone(
    tmp_path: Path, foreign: list[str]
) -> None:
    with sqlite3.connect(tmp_path / "songs.db") as connection:
        for statement in foreign:
            connection.execute(statement)
    names = connection.execute("SELECT name FROM sqlite_master").fetchall()
    with pytest.raises(StoreError, match="belongs to another program"):
        opened(tmp_path / "songs.db")
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == names
    connection.close()


def test_a_migration_that_fails_leaves_the_database_as_it_was(tmp_path: Path) -> None:
    """All of it happens in one transaction: here a table is in the way of the second one."""
    file = SqliteFile(tmp_path / "half.db", 5.0)

    def meet_a_table_in_the_way() -> None:
        with file.transaction(write=True) as connection:
            connection.exec_driver_sql("CREATE TABLE changes (x)")
            migrations._upgrade(connection)

    with pytest.raises(StoreError, match="changes already exists"):
        meet_a_table_in_the_way()
    with file.transaction(write=False) as connection:
        left = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one()
    assert left == 0
    file.close()


def test_several_processes_may_open_an_empty_database_at_once(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "import alembic.command, manyways.store.migrations, manyways.store.sqlite\n"
        "from manyways.store.database import Settings, open_database\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "database = open_database(Settings(url=sys.argv[1]))\n"
        "sql = 'SELECT version_num FROM alembic_version'\n"
        "print(database.run(lambda c: c.exec_driver_sql(sql).scalar_one()))\n"
        "database.close()\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program, f"sqlite:///{tmp_path}/at-once.db"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60)[0] for process in processes]
    assert told == [f"{migrations.HEAD}\n"] * 4
