import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, insert, select, text

from manyways.errors import StoreError
from manyways.store import migrations, postgres
from manyways.store.database import Database, Settings, open_database
from manyways.store.database_address import is_postgres, postgres_address, sqlite_path
from manyways.store.engine import Engine
from manyways.store.migrations import revision
from manyways.store.postgres import PostgresServer
from manyways.store.sqlite import SqliteFile
from manyways.store.tables import api_keys, changes, compatibility, metadata


def opened(url: str) -> Database:
    return open_database(Settings(url=url))


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """The database, open, and nothing done to it."""
    engine: Engine
    if is_postgres(database_url):
        engine = PostgresServer(postgres_address(database_url))
    else:
        engine = SqliteFile(sqlite_path(database_url), 5.0)
    yield engine
    engine.close()


def execute(engine: Engine, *statements: str) -> None:
    with engine.transaction(write=True) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def test_the_constant_is_the_newest_migration_and_the_line_has_no_forks() -> None:
    script = ScriptDirectory.from_config(migrations.alembic_config())
    assert script.get_heads() == [migrations.HEAD]
    line = [one.revision for one in script.walk_revisions()]
    assert line == [f"{number:04}" for number in range(len(line), 0, -1)]


def test_each_migration_says_which_programs_can_go_on_behind_it() -> None:
    script = ScriptDirectory.from_config(migrations.alembic_config())
    line = [one for one in script.walk_revisions() if one.revision > "0001"][::-1]
    said = [one.module.compatible_from for one in line]
    assert said == sorted(said), "what was taken away does not come back"
    assert all(oldest <= one.revision for oldest, one in zip(said, line, strict=True))


def test_migrations_lead_from_nothing_to_the_tables_as_they_are_written(
    database_url: str,
) -> None:
    database = opened(database_url)

    def difference(connection: Connection) -> list[object]:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, metadata))

    assert database.run(difference) == []
    assert database.run(revision) == migrations.HEAD
    database.close()


def test_constraints_have_the_names_that_tables_says(database_url: str) -> None:
    """A constraint without its name cannot be changed by a later migration."""
    database = opened(database_url)
    queries = {
        False: "SELECT sql FROM sqlite_master WHERE sql > ''",
        True: "SELECT 'CONSTRAINT ' || conname || ' ' FROM pg_constraint",
    }
    sql = database.run(
        lambda connection: " ".join(connection.exec_driver_sql(queries[database.shared]).scalars())
    )
    names = {str(one.name) for table in metadata.tables.values() for one in table.constraints}
    assert {"pk_api_keys", "uq_api_keys_digest", "pk_changes", "uq_accounts_name"} < names
    assert all(f"CONSTRAINT {name} " in sql for name in names)
    database.close()


def test_opening_again_changes_nothing(database_url: str) -> None:
    first = opened(database_url)
    key = {"id": "1", "digest": bytes(32), "last4": "last", "type": "full", "created_at": 1 << 40}
    first.run(lambda connection: connection.execute(insert(api_keys).values(key)), write=True)
    first.close()
    second = opened(database_url)
    kept = second.run(lambda connection: connection.execute(select(api_keys)).mappings().one())
    assert (kept["last4"], kept["created_at"], kept["digest"]) == ("last", 1 << 40, bytes(32))
    assert second.run(lambda connection: connection.scalar(select(changes.c.counter))) == 0
    second.close()


def test_a_database_that_is_up_to_date_is_opened_without_importing_alembic(
    database_url: str,
) -> None:
    opened(database_url).close()
    program = (
        "import sys\n"
        "from manyways.store.database import Settings, open_database\n"
        "open_database(Settings(url=sys.argv[1])).close()\n"
        "print({'alembic', 'sqlalchemy.orm', 'psycopg'} & set(sys.modules) or '')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, database_url], capture_output=True, check=False
    )
    assert done.stderr == b""
    assert done.stdout == (b"{'psycopg'}\n" if is_postgres(database_url) else b"\n")


FOREIGN = {
    "without versions": ["CREATE TABLE songs (title TEXT)"],
    "with versions of its own": [
        "CREATE TABLE alembic_version (version_num TEXT)",
        "INSERT INTO alembic_version VALUES ('ae1027a6acf')",
    ],
    "with no version": ["CREATE TABLE alembic_version (version_num TEXT)"],
}


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_database_of_another_program_is_refused_and_left_alone(
    engine: Engine, database_url: str, foreign: Sequence[str]
) -> None:
    execute(engine, *foreign)
    with pytest.raises(StoreError, match="belongs to another program"):
        opened(database_url)
    with engine.transaction(write=False) as connection:
        assert revision(connection) == ""


def test_a_migration_that_fails_leaves_the_database_as_it_was(engine: Engine) -> None:
    """All of it happens in one transaction: here a table is in the way of the second one."""

    def meet_a_table_in_the_way() -> None:
        with engine.migration() as connection:
            connection.exec_driver_sql("CREATE TABLE changes (x INTEGER)")
            migrations._upgrade(connection)

    with pytest.raises(StoreError, match="already exists"):
        meet_a_table_in_the_way()
    with engine.transaction(write=False) as connection:
        assert revision(connection) is None


class TestRollingUpgrade:
    """Old programs and new ones on one database: what the new ones say, the old ones do."""

    @pytest.mark.parametrize("oldest", ["0001", migrations.HEAD])
    def test_an_older_program_goes_on_where_it_may(self, database_url: str, oldest: str) -> None:
        database = opened(database_url)
        stand_at(database, "9999", oldest)
        opened(database_url).close()
        assert database.run(revision) == "9999"
        database.close()

    def test_where_it_may_not_it_says_so_and_leaves_the_database_alone(
        self, database_url: str
    ) -> None:
        database = opened(database_url)
        stand_at(database, "9999", "9998")
        with pytest.raises(StoreError, match=r"newer version of Manyways \(it stands at 9999"):
            opened(database_url)
        assert database.run(revision) == "9999"
        database.close()

    @pytest.mark.parametrize("compatible_from", [migrations.HEAD, "0999"])
    def test_a_newer_program_says_so_when_it_migrates(
        self,
        database_url: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        compatible_from: str,
    ) -> None:
        """Programs that know one migration more, made from ours."""
        old = opened(database_url)
        with monkeypatch.context() as newer:
            copy = tmp_path / "newer"
            shutil.copytree(Path(migrations.__file__).parent, copy)
            (copy / "versions" / "0999_newer.py").write_text(
                "import sqlalchemy as sa\n"
                "from alembic import op\n"
                f"revision, down_revision = '0999', '{migrations.HEAD}'\n"
                f"compatible_from = '{compatible_from}'\n"
                "def upgrade():\n"
                "    op.add_column('changes', sa.Column('new', sa.Text))\n"
            )
            newer.setattr(migrations, "HEAD", "0999")
            newer.setattr(migrations, "__file__", str(copy / "__init__.py"))
            opened(database_url).close()
        assert old.run(lambda connection: connection.scalar(select(compatibility.c.oldest))) == (
            compatible_from
        )
        old.run(
            lambda connection: connection.execute(insert(changes).values(name="x", counter=1)),
            write=True,
        )
        old.close()
        if compatible_from <= migrations.HEAD:
            opened(database_url).close()
        else:
            with pytest.raises(StoreError, match="newer version of Manyways"):
                opened(database_url)


def stand_at(database: Database, newest: str, oldest: str) -> None:
    def write(connection: Connection) -> None:
        connection.execute(text("UPDATE alembic_version SET version_num = :n"), {"n": newest})
        connection.execute(compatibility.update().values(oldest=oldest))

    database.run(write, write=True)


def test_many_processes_may_open_an_empty_database_at_once(database_url: str) -> None:
    program = (
        "import sys\n"
        "import alembic.command, manyways.store.migrations, manyways.store.sqlite\n"
        "import manyways.store.postgres\n"
        "from manyways.store.database import Settings, open_database\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "database = open_database(Settings(url=sys.argv[1]))\n"
        "print(database.run(manyways.store.migrations.revision))\n"
        "database.close()\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program, database_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(8)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.communicate(timeout=60)[0] for process in processes]
    assert told == [f"{migrations.HEAD}\n"] * 8


@pytest.mark.process
def test_a_turn_to_migrate_that_does_not_come_is_told(
    empty_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_TURN", 1)
    with closing(PostgresServer(postgres_address(empty_postgres))) as server:
        with (
            server.migration(),
            pytest.raises(StoreError, match="is locked: another program"),
        ):
            opened(empty_postgres)
        opened(empty_postgres).close()
