import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from manyways.access.keys import Settings, well_formed
from manyways.cli import app
from manyways.operations import create_account, create_key, revoke_key
from manyways.store.database import Database, open_database
from manyways.store.database import Settings as DatabaseSettings
from manyways.types import Allowance, Quota
from tests.support.usage import fill, request

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
LONG_AGO = 1_700_000_000.0

Command = Callable[..., Result]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "gate.toml"
    file.write_text(
        f'[database]\nurl = "sqlite:///{tmp_path}/keys.db"\n'
        '[keys.types.gold]\nrequests = 1000\nwindow = "1m"\n'
    )
    return file


@pytest.fixture
def database(tmp_path: Path, config: Path) -> Database:
    return open_database(DatabaseSettings(url=f"sqlite:///{tmp_path}/keys.db"))


@pytest.fixture
def keys(config: Path) -> Command:
    """`manyways keys WORDS... --config FILE`."""

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, ["keys", *words, "--config", str(config)])

    return run


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return json.loads(result.stdout)


class TestCreate:
    def test_the_key_alone_is_on_standard_output(self, keys: Command) -> None:
        made = keys("create", "--type", "full")
        assert made.exit_code == 0
        assert made.stdout.endswith("\n")
        assert well_formed(made.stdout[:-1], Settings())
        assert "shown this once" in made.stderr

    def test_json_says_everything_about_the_key(self, keys: Command) -> None:
        made = document(keys("create", "--type", "full", "--note", "Anna's bot", "--json"))
        assert list(made) == [
            "id", "key", "type", "last4", "account", "note", "limits", "created_at", "expires_at",
        ]  # fmt: skip
        assert made["key"].endswith(made["last4"])
        assert (made["type"], made["note"]) == ("full", "Anna's bot")
        assert MOMENT.fullmatch(made["created_at"])
        assert MOMENT.fullmatch(made["expires_at"])

    def test_a_key_that_never_expires_says_null(self, keys: Command) -> None:
        assert document(keys("create", "--type", "admin", "--json"))["expires_at"] is None

    def test_types_of_the_configuration_can_be_had(self, keys: Command) -> None:
        assert document(keys("create", "--type", "gold", "--json"))["type"] == "gold"

    def test_another_type_is_misuse_and_those_that_exist_are_named(self, keys: Command) -> None:
        wrong = keys("create", "--type", "lead", "--json")
        assert wrong.exit_code == 2
        assert wrong.stdout == ""
        assert all(name in wrong.stderr for name in ("test", "full", "admin", "gold"))


class TestList:
    def test_without_keys_it_says_how_to_make_one(self, keys: Command) -> None:
        nothing = keys("list")
        assert (nothing.exit_code, nothing.stdout) == (0, "")
        assert "manyways keys create" in nothing.stderr
        assert document(keys("list", "--json")) == []

    def test_only_keys_that_work_are_listed_unless_all_are_asked_for(
        self, keys: Command, database: Database
    ) -> None:
        create_key(database, Settings(), "test", now=LONG_AGO)
        lost = create_key(database, Settings(), "admin", now=LONG_AGO)
        revoke_key(database, lost.id, reason="lost", now=LONG_AGO)
        database.close()
        nothing = keys("list")
        assert (nothing.exit_code, nothing.stdout) == (0, "")
        assert "2 have expired or been revoked: manyways keys list --all" in nothing.stderr
        document(keys("create", "--json"))
        assert [key["status"] for key in document(keys("list", "--json"))] == ["active"]
        every = document(keys("list", "--all", "--json"))
        assert sorted(key["status"] for key in every) == ["active", "expired", "revoked"]

    def test_json_has_every_field_and_no_secret(self, keys: Command) -> None:
        made = document(keys("create", "--json"))
        (listed,) = document(keys("list", "--json"))
        secret = made.pop("key")
        nothing = ("last_used_at", "revoked_at", "revoked_reason", "line", "replaced_by")
        assert listed == made | {"status": "active"} | dict.fromkeys(nothing)
        assert secret not in keys("list").stdout

    def test_a_pipe_gets_columns_with_tabs_between_them(self, keys: Command) -> None:
        made = document(keys("create", "--type", "admin", "--note", "[red] alert", "--json"))
        lines = [line.split("\t") for line in keys("list").stdout.splitlines()]
        assert lines == [
            ["id", "key", "type", "status", "expires", "last used", "account", "note"],
            [
                made["id"],
                f"…{made['last4']}",
                "admin",
                "active",
                "never",
                "never",
                "",
                "[red] alert",
            ],
        ]

    @pytest.mark.parametrize(("columns", "with_ids"), [(80, False), (100, True)])
    def test_a_terminal_gets_a_table_whose_ids_are_whole_or_left_out(
        self, keys: Command, config: Path, columns: int, with_ids: bool
    ) -> None:
        made = document(keys("create", "--type", "admin", "--note", "[red]alert[/red]", "--json"))
        ours, theirs = pty.openpty()
        listed = subprocess.run(
            [sys.executable, "-m", "manyways", "keys", "list", "--config", str(config)],
            stdout=theirs,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"COLUMNS": str(columns), "LINES": "40", "TERM": "dumb"},
            check=True,
        )
        os.close(theirs)
        shown = os.read(ours, 1 << 16).decode()
        os.close(ours)
        assert (made["id"] in shown, "--json" in listed.stderr) == (with_ids, not with_ids)
        assert f"…{made['last4']}" in shown
        assert "[red]" in shown, "a note is no markup"
        assert max(len(line) for line in shown.splitlines()) <= columns


class TestShow:
    @pytest.mark.parametrize("name", ["id", "last4", "key"])
    def test_a_key_can_be_named_by_what_is_known_of_it(self, keys: Command, name: str) -> None:
        made = document(keys("create", "--json"))
        assert document(keys("show", made[name], "--json"))["id"] == made["id"]

    def test_it_reads_well_without_json(self, keys: Command) -> None:
        made = document(keys("create", "--type", "full", "--note", "Anna's bot", "--json"))
        lines = keys("show", made["id"]).stdout.splitlines()
        assert f"id              {made['id']}" in lines
        assert "note            Anna's bot" in lines
        assert not any("revoked" in line for line in lines), "what is not so is left out"

    def test_an_unknown_key_fails_and_a_secret_is_not_repeated(self, keys: Command) -> None:
        wrong = keys("show", "rvf_" + "x" * 71, "--json")
        assert (wrong.exit_code, wrong.stdout) == (1, "")
        assert "There is no such key" in wrong.stderr
        assert "xxx" not in wrong.stderr

    def test_an_end_that_several_keys_share_names_them(
        self, keys: Command, database: Database
    ) -> None:
        made = [create_key(database, Settings(), "full", now=LONG_AGO) for _ in range(2)]
        database.run(
            lambda connection: connection.exec_driver_sql("UPDATE api_keys SET last4 = 'same'"),
            write=True,
        )
        database.close()
        several = keys("show", "same")
        assert (several.exit_code, several.stdout) == (1, "")
        assert all(key.id in several.stderr for key in made)

    def test_what_is_left_of_its_quotas_and_its_accounts_is_told(
        self, keys: Command, config: Path, database: Database
    ) -> None:
        limits = Allowance(quota=(Quota(tokens=500), Quota(requests=9, per="month")))
        account = create_account(
            database, name="Ada", limits=Allowance(quota=(Quota(cost=1.0, per="day"),)), now=0
        )
        now = time.time()
        key = create_key(database, Settings(), "full", account="Ada", limits=limits, now=now)
        used = request(now, api_key_id=key.id, user_id=account.id, cost=0.25)
        fill(database, [used])
        database.close()

        told = keys("show", key.id).stdout.splitlines()
        at = told.index("used            120 of 500 tokens used in all, 380 left")
        assert re.fullmatch(
            r" {16}1 of 9 requests used this month, 8 left; renews \d{4}-\d\d-01 00:00 UTC",
            told[at + 1],
        )
        assert told[at + 2].startswith(
            "account used    0.25 of 1 USD used today, 0.75 left; renews"
        )
        left = document(keys("show", key.id, "--json"))["in_effect"]
        assert [quota["left"] for quota in left["key"]["quotas"]] == [380, 8]
        assert [quota["left"] for quota in left["account"]["quotas"]] == [0.75]


class TestRevoke:
    def test_the_answer_is_the_key_as_it_stands_now(self, keys: Command) -> None:
        made = document(keys("create", "--json"))
        revoked = document(keys("revoke", made["id"], "--reason", "paid back", "--json"))
        assert (revoked["status"], revoked["revoked_reason"]) == ("revoked", "paid back")
        assert MOMENT.fullmatch(revoked["revoked_at"])
        assert document(keys("show", made["id"], "--json")) == revoked

    def test_a_second_time_changes_nothing_and_says_so(self, keys: Command) -> None:
        made = document(keys("create", "--json"))
        document(keys("revoke", made["id"], "--reason", "first", "--json"))
        again = keys("revoke", made["id"], "--reason", "second")
        assert again.exit_code == 0
        assert "revoked before" in again.stderr
        assert "revoked reason  first" in again.stdout.splitlines()

    def test_a_reason_can_be_left_out(self, keys: Command) -> None:
        made = document(keys("create", "--json"))
        revoked = document(keys("revoke", made["id"], "--json"))
        assert (revoked["status"], revoked["revoked_reason"]) == ("revoked", None)

    def test_an_unknown_key_fails(self, keys: Command) -> None:
        wrong = keys("revoke", "nobody", "--reason", "why not", "--json")
        assert (wrong.exit_code, wrong.stdout) == (1, "")


class TestTrouble:
    """What cannot work says why on standard error, and ends with status 1."""

    def test_a_configuration_with_mistakes(self, keys: Command, config: Path) -> None:
        config.write_text("[keys]\nlenght = 75\n")
        wrong = keys("list", "--json")
        assert (wrong.exit_code, wrong.stdout) == (1, "")
        assert "gate.toml:2" in wrong.stderr

    def test_a_database_that_is_none(self, keys: Command, tmp_path: Path) -> None:
        (tmp_path / "keys.db").write_text("Dear diary" * 1000)
        wrong = keys("create", "--json")
        assert (wrong.exit_code, wrong.stdout) == (1, "")
        assert "is not an SQLite database" in wrong.stderr
        assert "Traceback" not in wrong.stderr

    @pytest.mark.parametrize("command", ["create", "list", "show", "revoke", "rotate", "limits"])
    def test_every_command_explains_itself(self, keys: Command, command: str) -> None:
        told = CliRunner().invoke(app, ["keys", command, "--help"])
        assert told.exit_code == 0
        assert "--json" in told.stdout
        assert "--config" in told.stdout


class TestOutput:
    """Standard output that fails ends a command with one plain line, and loses no key."""

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
    @pytest.mark.parametrize(
        "words",
        [
            "create",
            "create --json",
            "list --json",
            "list",
            "show {id}",
            "revoke {id}",
            "rotate {id}",
            "rotate {id} --json",
        ],
    )
    def test_on_a_full_disk(self, config: Path, keys: Command, words: str) -> None:
        made = document(keys("create", "--json"))
        with Path("/dev/full").open("w") as full:
            ended = run(config, words.format(id=made["id"]), stdout=full)
        assert ended.returncode == 1
        assert "Standard output cannot be written: No space left on device." in ended.stderr
        assert "Traceback" not in ended.stderr
        assert "Exception" not in ended.stderr
        assert len(document(keys("list", "--all", "--json"))) == 1

    @pytest.mark.parametrize("words", ["create", "create --json"])
    def test_a_key_is_not_made_where_nobody_reads_or_there_is_nothing_to_write_to(
        self, config: Path, keys: Command, words: str
    ) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        unread = run(config, words, stdout=writing)
        os.close(writing)
        closed = subprocess.run(
            [
                "sh",
                "-c",
                f'"$0" -m manyways keys {words} --config "$1" >&-',
                sys.executable,
                config,
            ],
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        for ended in (unread, closed):
            assert ended.returncode == 1
            assert "Standard output" in ended.stderr
            assert "Traceback" not in ended.stderr
        assert document(keys("list", "--all", "--json")) == []

    def test_letters_that_the_terminal_lacks_are_spelt(self, config: Path, keys: Command) -> None:
        made = run(
            config,
            "create --json --note Анна",
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONIOENCODING": "ascii"},
        )
        assert made.returncode == 0
        assert r"\u0410" in made.stdout
        assert [key["note"] for key in document(keys("list", "--json"))] == ["Анна"]


def run(
    config: Path, words: str, *, stdout: Any, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "manyways", "keys", *words.split(), "--config", str(config)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        check=False,
    )
