"""A server that works: its transactions, and what it refuses, told in plain words."""

import threading
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote

import pytest
from sqlalchemy import Connection, text

from manyways.errors import StoreError
from manyways.store import postgres
from manyways.store.database import Database, Settings, open_database
from manyways.store.database_address import postgres_address
from manyways.store.postgres import PostgresServer
from tests.support.postgres import PASSWORD, shared_server

pytestmark = pytest.mark.process


def opened(url: str) -> Database:
    return open_database(Settings(url=url))


@pytest.fixture
def database(empty_postgres: str) -> Iterator[Database]:
    database = opened(empty_postgres)
    yield database
    database.close()


@pytest.fixture
def role(empty_postgres: str) -> Iterator[str]:
    """A user `plain`, who may log in and nothing else."""
    shared_server().execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
    yield empty_postgres.replace(f"postgres:{quote(PASSWORD, safe='')}@", "plain:plain@")
    name = empty_postgres.rpartition("/")[2]
    shared_server().execute("DROP OWNED BY plain", database=name)
    shared_server().execute("DROP ROLE plain")


def refusal(url: str) -> str:
    """What is said where a database does not open."""
    with pytest.raises(StoreError) as refused:
        opened(url)
    told = str(refused.value)
    assert PASSWORD not in told
    assert quote(PASSWORD, safe="") not in told
    return told


def count(connection: Connection) -> int:
    return int(connection.execute(text("SELECT counter FROM changes")).scalar_one())


def add_one(connection: Connection) -> None:
    connection.execute(text("UPDATE changes SET counter = counter + 1"))


class TestConnecting:
    """Each refusal names the database and a cure."""

    def test_nobody_there(self) -> None:
        told = refusal("postgresql://user:hunter2@127.0.0.1:1/keys")
        assert told == (
            "The database keys at 127.0.0.1:1 cannot be reached: Connection refused. See that it "
            "runs, and that database.url names it."
        )

    def test_a_name_that_leads_nowhere(self) -> None:
        assert "cannot be reached: failed to resolve host" in refusal(
            "postgresql://user:hunter2@nowhere.invalid/keys"
        )

    @pytest.mark.parametrize(("user", "password"), [("postgres", "wrong"), ("nobody", "wrong")])
    def test_a_wrong_user_or_password(self, user: str, password: str) -> None:
        url = shared_server().url(user=user, password=password)
        assert "does not let this user in. Put the right user and password" in refusal(url)

    def test_no_such_database(self) -> None:
        assert "absent at 127.0.0.1" in refusal(shared_server().url("absent"))
        assert "does not exist. Make it" in refusal(shared_server().url("absent"))

    def test_a_server_without_tls(self, empty_postgres: str) -> None:
        assert "by TLS: server does not support SSL" in refusal(empty_postgres + "?sslmode=require")

    def test_a_user_who_has_no_connection_left(self, role: str) -> None:
        shared_server().execute("ALTER ROLE plain CONNECTION LIMIT 0")
        assert "has no connection left. Raise max_connections" in refusal(role)

    def test_a_user_who_may_not_come_in(self, role: str) -> None:
        name = role.rpartition("/")[2]
        shared_server().execute(f'REVOKE CONNECT ON DATABASE "{name}" FROM PUBLIC')
        told = refusal(role)
        assert f'permission denied for database "{name}"' in told
        assert "Make the user its owner" in told

    def test_a_server_that_only_reads(self, role: str) -> None:
        shared_server().execute("ALTER ROLE plain SET default_transaction_read_only = on")
        assert "is read-only: a standby" in refusal(role)

    def test_a_user_who_may_not_make_tables(self, role: str) -> None:
        assert "permission denied for schema public. Make the user its owner" in refusal(role)

    def test_a_user_who_may_not_read_our_tables(self, role: str, empty_postgres: str) -> None:
        opened(empty_postgres).close()
        assert "permission denied for table alembic_version" in refusal(role)

    def test_a_server_that_is_too_old(
        self, empty_postgres: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres, "OLDEST", 99)
        assert "too old. Version 99 is the oldest that works" in refusal(empty_postgres)

    def test_an_option_with_a_senseless_value(self, empty_postgres: str) -> None:
        assert 'invalid sslmode value: "perhaps"' in refusal(empty_postgres + "?sslmode=perhaps")

    def test_of_several_hosts_the_one_that_writes_is_found(self, empty_postgres: str) -> None:
        several = empty_postgres.replace("@127.0.0.1:", "@127.0.0.1:1,127.0.0.1:")
        database = opened(several)
        assert database.run(count) == 0
        assert ":1, 127.0.0.1:" in database.name
        database.close()

    def test_nothing_that_is_shown_has_the_password(self, empty_postgres: str) -> None:
        server = PostgresServer(postgres_address(empty_postgres))
        shown = f"{server!r} {server.name} {server._engine!r} {server._engine.url}"
        assert "hunter2" not in shown
        server.close()


class TestTransactions:
    def test_work_that_others_came_between_is_done_again(self, database: Database) -> None:
        tries = 0

        def meet(connection: Connection) -> None:
            nonlocal tries
            tries += 1
            before = count(connection)
            if tries == 1:
                other = threading.Thread(target=lambda: database.run(add_one, write=True))
                other.start()
                other.join()
            connection.execute(text("UPDATE changes SET counter = :n"), {"n": before + 10})

        database.run(meet, write=True)
        assert (tries, database.run(count)) == (2, 11)

    def test_two_that_wait_for_each_other_are_both_done(self, database: Database) -> None:
        database.run(
            lambda connection: connection.execute(
                text("INSERT INTO changes (name, counter) VALUES ('a', 0), ('b', 0)")
            ),
            write=True,
        )
        both = threading.Barrier(2)

        def both_rows(names: str) -> None:
            first = True

            def work(connection: Connection) -> None:
                nonlocal first
                for name in names:
                    connection.execute(
                        text("UPDATE changes SET counter = counter + 1 WHERE name = :n"),
                        {"n": name},
                    )
                    if first:
                        first = False
                        both.wait(10)

            database.run(work, write=True, isolated=False)

        threads = [threading.Thread(target=both_rows, args=[names]) for names in ("ab", "ba")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sums = database.run(
            lambda connection: connection.scalar(
                text("SELECT sum(counter) FROM changes WHERE name IN ('a', 'b')")
            )
        )
        assert sums == 4

    def test_without_isolation_others_are_seen_as_soon_as_they_commit(
        self, database: Database
    ) -> None:
        def look_twice(connection: Connection) -> tuple[int, int]:
            before = count(connection)
            other = threading.Thread(target=lambda: database.run(add_one, write=True))
            other.start()
            other.join()
            return before, count(connection)

        assert database.run(look_twice, isolated=False) == (0, 1)

    def test_work_that_goes_on_behind_a_failure_is_not_taken_for_done(
        self, database: Database
    ) -> None:
        def swallow(connection: Connection) -> None:
            add_one(connection)
            with pytest.raises(Exception, match="absent"):
                connection.execute(text("SELECT * FROM absent"))

        with pytest.raises(StoreError, match="undid the work"):
            database.run(swallow, write=True)
        assert database.run(count) == 0

    def test_letters_that_postgresql_cannot_keep_are_replaced(self, database: Database) -> None:
        kept = database.run(
            lambda connection: connection.scalar(text("SELECT :text"), {"text": "a\0b\ud800c"})
        )
        assert kept == "a\N{REPLACEMENT CHARACTER}b?c"

    def test_nothing_of_a_transaction_stays_on_its_connection(self, database: Database) -> None:
        """Poolers hand the next transaction to another connection."""

        def limits(connection: Connection) -> list[object]:
            names = ("statement_timeout", "idle_in_transaction_session_timeout")
            return [connection.scalar(text(f"SHOW {name}")) for name in names]

        assert database.run(limits, limit=7.0) == ["7s", "7s"]
        server = PostgresServer(postgres_address(shared_server().url(database.name.split()[0])))
        with closing(server), server._engine.connect() as connection:
            assert limits(connection) == ["0", "0"]
            assert connection.scalar(text("SELECT count(*) FROM pg_prepared_statements")) == 0


class TestFailures:
    @pytest.mark.parametrize(
        ("code", "words"),
        [
            ("53100", "cannot grow: its disk is full. Make room."),
            ("53200", "has no memory left"),
            ("53300", "has no connection left"),
            ("25006", "is read-only: a standby"),
            ("42501", "let this user do that: words. Make the user its owner"),
            ("55P03", "is locked: another program"),
            ("57P03", "is starting or stopping"),
            ("58030", "its disk fails"),
            ("XX001", "is damaged. Restore it"),
            ("XX002", "REINDEX DATABASE"),
            ("08006", "cannot be reached: words."),
            ("40001", "was changed by another program"),
            ("40P01", "waited for each other"),
            ("P0001", "cannot do what was asked of it: words"),
        ],
    )
    def test_each_code_of_the_servers_is_told_with_a_cure(
        self, database: Database, code: str, words: str
    ) -> None:
        def fail(connection: Connection) -> None:
            connection.execute(
                text(f"DO $$ BEGIN RAISE EXCEPTION 'words' USING ERRCODE = '{code}'; END $$")
            )

        with pytest.raises(StoreError) as failed:
            database.run(fail, limit=0.2)
        assert str(failed.value).startswith(f"The database {database.name} ")
        assert words in str(failed.value)
        assert database.run(count) == 0

    def test_work_that_takes_too_long_is_stopped_by_the_server(self, database: Database) -> None:
        with pytest.raises(StoreError, match="did not answer in time"):
            database.run(
                lambda connection: connection.execute(text("SELECT pg_sleep(60)")), limit=0.2
            )
        assert database.run(count) == 0

    def test_work_that_waits_for_another_is_stopped_by_the_server(self, database: Database) -> None:
        def hold(connection: Connection) -> None:
            add_one(connection)
            other = threading.Thread(target=wait)
            other.start()
            other.join()

        told: list[str] = []

        def wait() -> None:
            with pytest.raises(StoreError) as refused:
                database.run(add_one, write=True, limit=0.2)
            told.append(str(refused.value))

        database.run(hold, write=True)
        assert "did not answer in time" in told[0]
        assert database.run(count) == 1

    def test_a_session_that_the_operator_ends(self, database: Database) -> None:
        def be_ended(connection: Connection) -> None:
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

        with pytest.raises(StoreError, match="is starting or stopping"):
            database.run(be_ended)
        assert database.run(count) == 0

    def test_a_server_that_turns_read_only_is_told(self, database: Database) -> None:
        def write(connection: Connection) -> None:
            connection.execute(text("SET TRANSACTION READ ONLY"))
            add_one(connection)

        with pytest.raises(StoreError, match="is read-only"):
            database.run(write, write=True)

    def test_connections_have_an_end(
        self, empty_postgres: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgres, "_FREE", 0.05)
        database = opened(empty_postgres)
        release = threading.Event()
        began = threading.Barrier(postgres.CONNECTIONS + 1)

        def hold(_: Connection) -> None:
            began.wait(10)
            release.wait(10)

        threads = [
            threading.Thread(target=lambda: database.run(hold)) for _ in range(postgres.CONNECTIONS)
        ]
        for thread in threads:
            thread.start()
        began.wait(10)
        with pytest.raises(StoreError, match=f"all {postgres.CONNECTIONS} connections"):
            database.run(count)
        release.set()
        for thread in threads:
            thread.join()
        assert database.run(count) == 0
        database.close()
