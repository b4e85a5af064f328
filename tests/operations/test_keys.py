import subprocess
import sys
from pathlib import Path

import pytest

from manyways import operations
from manyways.access.keys import KeyType, Settings, digest, well_formed
from manyways.errors import ConfigError, StoreError
from manyways.store import keys
from manyways.store.changes import counted
from manyways.store.database import Database, open_database
from manyways.store.database import Settings as DatabaseSettings

SETTINGS = Settings()
NOW = 1_800_000_000.75


class TestCreating:
    def test_a_key_lives_as_long_as_its_type_says(self, database: Database) -> None:
        made = {
            name: operations.create_key(database, SETTINGS, name, now=NOW)
            for name in SETTINGS.types
        }
        lives = {
            name: key.expires_at and key.expires_at - key.created_at for name, key in made.items()
        }
        assert lives == {"test": 3600, "full": 30 * 86400, "admin": None}
        assert {key.created_at for key in made.values()} == {int(NOW)}
        assert all(well_formed(key.key, SETTINGS) for key in made.values())

    def test_what_is_kept_is_everything_but_the_secret(self, database: Database) -> None:
        made = operations.create_key(database, SETTINGS, "full", note="Anna's bot", now=NOW)
        (kept,) = operations.list_keys(database)
        assert kept == keys.KeyRow(
            id=made.id,
            last4=made.key[-4:],
            type="full",
            note="Anna's bot",
            created_at=made.created_at,
            expires_at=made.expires_at,
            revoked_at=None,
            revoked_reason=None,
        )

    def test_no_secret_is_in_the_file(self, tmp_path: Path) -> None:
        database = open_database(DatabaseSettings(url=f"sqlite:///{tmp_path}/keys.db"))
        made = operations.create_key(database, SETTINGS, "full", now=NOW)
        database.close()
        content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        assert digest(made.key) in content
        assert made.key[:-4].encode() not in content

    def test_a_type_that_is_not_configured_is_refused_and_the_others_named(
        self, database: Database
    ) -> None:
        with pytest.raises(ConfigError, match=r"no key type 'gold'.*: test, full, admin\."):
            operations.create_key(database, SETTINGS, "gold", now=NOW)
        assert operations.list_keys(database) == ()

    def test_a_note_is_one_line_that_can_be_printed(self, database: Database) -> None:
        note = "Anna\n\x1b[31m\x00\udcff for tests "
        made = operations.create_key(database, SETTINGS, "full", note=note, now=NOW)
        assert made.note == "Anna  [31m   for tests"
        assert operations.list_keys(database)[0].note == made.note


class TestFinding:
    def test_keys_are_listed_oldest_first(self, database: Database) -> None:
        moments = [NOW + 5, NOW, NOW + 3]
        made = [operations.create_key(database, SETTINGS, "full", now=now) for now in moments]
        listed = [key.id for key in operations.list_keys(database)]
        assert listed == [made[1].id, made[2].id, made[0].id]

    def test_only_those_that_work_where_a_moment_is_given(self, database: Database) -> None:
        hour, month, endless = (
            operations.create_key(database, SETTINGS, name, now=NOW)
            for name in ("test", "full", "admin")
        )
        operations.revoke_key(database, endless.id, reason="lost", now=NOW)
        alive = [key.id for key in operations.list_keys(database, alive_at=NOW + 3599)]
        assert alive == sorted([hour.id, month.id])
        alive = [key.id for key in operations.list_keys(database, alive_at=NOW + 3600)]
        assert alive == [month.id]

    def test_a_key_answers_to_its_id_its_end_and_its_whole(self, database: Database) -> None:
        made = operations.create_key(database, SETTINGS, "full", now=NOW)
        for wanted in (made.id, made.last4, made.key):
            assert [key.id for key in operations.find_keys(database, wanted)] == [made.id]

    @pytest.mark.parametrize("wanted", ["", "nobody", "%", "ключ", "\udcff", "\0", "' OR 1=1 --"])
    def test_nothing_else_finds_it(self, database: Database, wanted: str) -> None:
        operations.create_key(database, SETTINGS, "full", now=NOW)
        assert operations.find_keys(database, wanted) == ()


class TestRevoking:
    def test_a_revocation_says_when_and_why(self, database: Database) -> None:
        made = operations.create_key(database, SETTINGS, "full", now=NOW)
        revoked = operations.revoke_key(database, made.id, reason="paid\nback", now=NOW + 9)
        assert revoked is not None
        assert (revoked.revoked_at, revoked.revoked_reason) == (int(NOW + 9), "paid back")
        assert revoked.standing(NOW + 9) == "revoked"
        assert operations.list_keys(database) == (revoked,)

    def test_the_first_revocation_stands(self, database: Database) -> None:
        made = operations.create_key(database, SETTINGS, "full", now=NOW)
        first = operations.revoke_key(database, made.id, reason="first", now=NOW)
        assert operations.revoke_key(database, made.id, reason="second", now=NOW + 9) == first

    @pytest.mark.parametrize("unknown", ["", "01900000-0000-7000-8000-000000000000", "ключ"])
    def test_a_key_that_does_not_exist_cannot_be_revoked(
        self, database: Database, unknown: str
    ) -> None:
        made = operations.create_key(database, SETTINGS, "full", now=NOW)
        assert operations.revoke_key(database, unknown, reason="why not", now=NOW) is None
        assert operations.find_keys(database, made.id)[0].revoked_at is None


class TestChanges:
    """Running servers look at a counter: whatever changes keys has to move it."""

    def test_every_write_moves_the_counter_and_no_reading_does(self, database: Database) -> None:
        counts = [database.run(counted)]
        made = operations.create_key(database, SETTINGS, "full", now=NOW)
        counts.append(database.run(counted))
        operations.find_keys(database, made.id)
        operations.list_keys(database)
        counts.append(database.run(counted))
        operations.revoke_key(database, made.id, reason="lost", now=NOW)
        counts.append(database.run(counted))
        operations.revoke_key(database, made.id, reason="lost again", now=NOW)
        operations.revoke_key(database, "nobody", now=NOW)
        counts.append(database.run(counted))
        assert counts == [0, 1, 1, 2, 2]

    def test_a_write_that_fails_does_not_move_it(self, database: Database) -> None:
        made = operations.create_key(database, SETTINGS, "full", now=NOW)
        (row,) = operations.list_keys(database)
        with pytest.raises(StoreError, match=r"(?i)unique constraint"):
            database.run(lambda connection: keys.add(connection, row, digest(made.key)), write=True)
        assert database.run(counted) == 1


class TestFirstKey:
    def test_the_first_start_makes_an_admin_key_and_no_later_one_does(
        self, database: Database
    ) -> None:
        made = operations.ensure_admin_key(database, SETTINGS, NOW, show=print)
        assert made is not None
        assert (made.type, made.expires_at) == ("admin", None)
        assert operations.ensure_admin_key(database, SETTINGS, NOW, show=print) is None
        operations.revoke_key(database, made.id, reason="lost", now=NOW)
        assert operations.ensure_admin_key(database, SETTINGS, NOW, show=print) is None

    def test_not_where_an_operator_was_first(self, database: Database) -> None:
        operations.create_key(database, SETTINGS, "admin", now=NOW)
        assert operations.ensure_admin_key(database, SETTINGS, NOW, show=print) is None

    def test_also_where_there_are_keys_of_callers_only(self, database: Database) -> None:
        operations.create_key(database, SETTINGS, "test", now=NOW)
        assert operations.ensure_admin_key(database, SETTINGS, NOW, show=print) is not None

    def test_one_that_could_not_be_shown_is_not_there_and_the_next_start_makes_another(
        self, database: Database
    ) -> None:
        def fail(_made: operations.CreatedKey) -> None:
            raise OSError("no paper")

        with pytest.raises(OSError, match="no paper"):
            operations.ensure_admin_key(database, SETTINGS, NOW, show=fail)
        with pytest.raises(OSError, match="no paper"):
            operations.create_key(database, SETTINGS, "full", now=NOW, show=fail)
        assert operations.list_keys(database) == ()
        shown: list[operations.CreatedKey] = []
        made = operations.ensure_admin_key(database, SETTINGS, NOW, show=shown.append)
        assert shown == [made]

    def test_whoever_is_shown_a_key_can_use_it_at_once(self, database_url: str) -> None:
        database = open_database(DatabaseSettings(url=database_url))
        elsewhere = open_database(DatabaseSettings(url=database_url))
        known: list[tuple[str, ...]] = []

        def show(made: operations.CreatedKey) -> None:
            known.append(tuple(row.id for row in operations.find_keys(elsewhere, made.key)))

        first = operations.ensure_admin_key(database, SETTINGS, NOW, show=show)
        assert first is not None
        second = operations.create_key(database, SETTINGS, "full", now=NOW, show=show)
        third = operations.rotate_key(database, SETTINGS, second.id, now=NOW, show=show)
        assert third is not None
        for one in (database, elsewhere):
            one.close()
        assert known == [(first.id,), (second.id,), (third.id,)]

    def test_its_type_is_whichever_the_configuration_gives_the_right(
        self, database: Database
    ) -> None:
        none = Settings(types={"full": KeyType()})
        assert operations.ensure_admin_key(database, none, NOW, show=print) is None
        boss = Settings(types={"full": KeyType(), "boss": KeyType(admin=True)})
        made = operations.ensure_admin_key(database, boss, NOW, show=print)
        assert made is not None
        assert made.type == "boss"

    def test_of_several_processes_one_makes_it(self, database_url: str) -> None:
        open_database(DatabaseSettings(url=database_url)).close()
        program = (
            "import sys\n"
            "from manyways import operations\n"
            "from manyways.access.keys import Settings\n"
            "from manyways.store.database import Settings as DatabaseSettings, open_database\n"
            "database = open_database(DatabaseSettings(url=sys.argv[1]))\n"
            "print('ready', flush=True)\n"
            "sys.stdin.readline()\n"
            "show = lambda made: print('shown')\n"
            "print(bool(operations.ensure_admin_key(database, Settings(), 1.0, show=show)))\n"
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
            for _ in range(3)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        told = [process.communicate(timeout=60)[0] for process in processes]
        assert sorted(told) == ["False\n", "False\n", "shown\nTrue\n"]
        database = open_database(DatabaseSettings(url=database_url))
        assert len(operations.list_keys(database)) == 1
        database.close()
