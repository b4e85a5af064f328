"""`manyways accounts`, and keys with accounts, limits and successors, as they are typed."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from manyways.access.keys import Settings, well_formed
from manyways.cli import app
from manyways.store.database import Settings as DatabaseSettings
from manyways.store.database import open_database

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")

Command = Callable[..., Result]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "gate.toml"
    file.write_text(
        f'[database]\nurl = "sqlite:///{tmp_path}/keys.db"\n[accounts]\nconcurrent = 7\n'
        '[[providers]]\nname = "Capi"\nprotocol = "openai"\nbase_url = "http://127.0.0.1:9/v1"\n'
        '[[providers.models]]\nid = "gpt"\npricing = { prompt = 0.001 }\n'
    )
    return file


@pytest.fixture
def manyways(config: Path) -> Command:
    """`manyways WORDS... --config FILE`."""

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, [*words, "--config", str(config)])

    return run


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return json.loads(result.stdout)


def misuse(result: Result, option: str) -> None:
    assert (result.exit_code, result.stdout) == (2, "")
    assert option in result.stderr


class TestAccounts:
    def test_an_account_is_made_and_says_how_to_go_on(self, manyways: Command) -> None:
        made = manyways("accounts", "create", "Ada Ltd", "--note", "a customer")
        assert made.exit_code == 0
        assert "name            Ada Ltd" in made.stdout.splitlines()
        assert "limits          7 at once (of the configuration)" in made.stdout.splitlines()
        assert "manyways keys create --type full --account 'Ada Ltd'" in made.stderr

    def test_json_has_every_field(self, manyways: Command) -> None:
        made = document(manyways("accounts", "create", "Ada", "--concurrent", "5", "--json"))
        assert MOMENT.fullmatch(made.pop("created_at"))
        assert made == {
            "id": made["id"],
            "name": "Ada",
            "status": "active",
            "note": None,
            "limits": {"concurrent": 5},
            "suspended_at": None,
            "suspended_reason": None,
            "keys": 0,
            "in_effect": {"account": {"windows": [], "concurrent": 5, "quotas": []}},
        }
        (listed,) = document(manyways("accounts", "list", "--json"))
        assert (listed["id"], listed["name"]) == (made["id"], "Ada")
        assert document(manyways("accounts", "show", made["id"], "--json"))["name"] == "Ada"

    def test_a_name_is_given_once(self, manyways: Command) -> None:
        document(manyways("accounts", "create", "Ada", "--json"))
        again = manyways("accounts", "create", " Ada ", "--json")
        assert (again.exit_code, again.stdout) == (1, "")
        assert "There is an account named 'Ada' already." in again.stderr

    def test_without_accounts_the_list_says_how_to_make_one(self, manyways: Command) -> None:
        nothing = manyways("accounts", "list")
        assert (nothing.exit_code, nothing.stdout) == (0, "")
        assert "manyways accounts create" in nothing.stderr
        assert document(manyways("accounts", "list", "--json")) == []

    def test_a_pipe_gets_columns_with_tabs_between_them(self, manyways: Command) -> None:
        made = document(manyways("accounts", "create", "Ada", "--quota", "5 usd", "--json"))
        lines = [line.split("\t") for line in manyways("accounts", "list").stdout.splitlines()]
        created = made["created_at"][:16].replace("T", " ")
        assert lines == [
            ["id", "name", "status", "created", "limits", "note"],
            [made["id"], "Ada", "active", created, "5 USD in all", ""],
        ]

    def test_a_terminal_gets_a_table(self, manyways: Command, config: Path) -> None:
        document(manyways("accounts", "create", "[b]Ada", "--note", "x" * 90, "--json"))
        ours, theirs = pty.openpty()
        subprocess.run(
            [sys.executable, "-m", "manyways", "accounts", "list", "--config", str(config)],
            stdout=theirs,
            env=os.environ | {"COLUMNS": "80", "TERM": "dumb"},
            check=True,
        )
        os.close(theirs)
        shown = os.read(ours, 1 << 16).decode()
        os.close(ours)
        assert "[b]Ada" in shown, "a name is no markup"
        assert "active" in shown
        assert max(len(line) for line in shown.splitlines()) <= 80

    def test_suspended_it_says_when_and_why_until_it_is_resumed(self, manyways: Command) -> None:
        document(manyways("accounts", "create", "Ada", "--json"))
        document(manyways("keys", "create", "--account", "Ada", "--json"))
        told = document(manyways("accounts", "suspend", "Ada", "--reason", "in debt", "--json"))
        assert (told["status"], told["suspended_reason"]) == ("suspended", "in debt")
        assert MOMENT.fullmatch(told["suspended_at"])
        (key,) = document(manyways("keys", "list", "--json"))
        assert key["status"] == "suspended"
        again = manyways("accounts", "suspend", "Ada", "--reason", "other")
        assert "suspended before; nothing changed" in again.stderr
        assert "in debt" in again.stdout
        assert document(manyways("accounts", "resume", "Ada", "--json"))["status"] == "active"
        assert "was not suspended" in manyways("accounts", "resume", "Ada").stderr

    def test_its_limits_can_be_set_and_taken_back(self, manyways: Command) -> None:
        document(manyways("accounts", "create", "Ada", "--json"))
        quotas = ("--quota", "1_000_000 tokens/month", "--quota", "2.5 usd a day")
        set_ = document(manyways("accounts", "limits", "Ada", *quotas, "--json"))
        assert set_["limits"] == {
            "quota": [{"tokens": 1_000_000, "per": "month"}, {"cost": 2.5, "per": "day"}]
        }
        shown = manyways("accounts", "show", "Ada").stdout
        assert "1000000 tokens a month, 2.5 USD a day (its own)" in shown
        none = document(manyways("accounts", "limits", "Ada", "--unlimited", "--json"))
        assert none["limits"] == {}
        assert (
            document(manyways("accounts", "limits", "Ada", "--usual", "--json"))["limits"] is None
        )

    @pytest.mark.parametrize(
        "words", ["accounts show", "accounts suspend", "accounts resume", "accounts limits"]
    )
    def test_one_that_is_not_there_fails_and_is_guessed(
        self, manyways: Command, words: str
    ) -> None:
        document(manyways("accounts", "create", "Ada Ltd", "--json"))
        more = ["--usual"] if words.endswith("limits") else []
        wrong = manyways(*words.split(), "ada lt", *more, "--json")
        assert (wrong.exit_code, wrong.stdout) == (1, "")
        assert "Did you mean 'Ada Ltd'?" in wrong.stderr
        assert "manyways accounts list" in wrong.stderr
        assert "accounts create" not in wrong.stderr

    def test_labels_and_values_stand_apart(self, manyways: Command) -> None:
        document(manyways("accounts", "create", "Ada", "--json"))
        told = manyways("accounts", "suspend", "Ada", "--reason", "in debt").stdout.splitlines()
        assert "suspended reason  in debt" in told
        assert "name              Ada" in told

    @pytest.mark.parametrize("command", ["create", "list", "show", "suspend", "resume", "limits"])
    def test_every_command_explains_itself(self, command: str) -> None:
        told = CliRunner().invoke(app, ["accounts", command, "--help"])
        assert told.exit_code == 0
        assert "--json" in told.stdout
        assert "--config" in told.stdout


class TestKeysOfAccounts:
    def test_a_key_says_whose_it_is(self, manyways: Command) -> None:
        account = document(manyways("accounts", "create", "Ada", "--json"))
        made = document(manyways("keys", "create", "--account", account["id"], "--json"))
        assert made["account"] == "Ada"
        document(manyways("keys", "create", "--json"))
        assert len(document(manyways("keys", "list", "--json"))) == 2
        (listed,) = document(manyways("keys", "list", "--account", "Ada", "--json"))
        assert (listed["id"], listed["account"]) == (made["id"], "Ada")
        assert document(manyways("accounts", "show", "Ada", "--json"))["keys"] == 1

    @pytest.mark.parametrize(("command", "new"), [("create", True), ("list", False)])
    def test_of_an_account_that_is_not_there_it_is_said_how_to_make_it_if_it_may_be_new(
        self, manyways: Command, command: str, new: bool
    ) -> None:
        wrong = manyways("keys", command, "--account", "Ada Ltd", "--json")
        assert (wrong.exit_code, wrong.stdout) == (1, "")
        assert "There is no account 'Ada Ltd'" in wrong.stderr
        assert ("manyways accounts create 'Ada Ltd'" in wrong.stderr) == new
        assert document(manyways("keys", "list", "--json")) == []

    def test_an_account_without_keys_says_how_to_make_one(self, manyways: Command) -> None:
        account = document(manyways("accounts", "create", "Ada", "--json"))
        nothing = manyways("keys", "list", "--account", "Ada")
        assert f"manyways keys create --type full --account {account['id']}" in nothing.stderr

    def test_a_long_list_is_whole(self, manyways: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("manyways.cli.keys.PAGE", 2)
        made = [document(manyways("keys", "create", "--json"))["id"] for _ in range(5)]
        assert sorted(key["id"] for key in document(manyways("keys", "list", "--json"))) == sorted(
            made
        )
        assert len(manyways("keys", "list").stdout.splitlines()) == 6

    def test_when_it_was_last_used_is_shown(self, manyways: Command, tmp_path: Path) -> None:
        made = document(manyways("keys", "create", "--json"))
        database = open_database(DatabaseSettings(url=f"sqlite:///{tmp_path}/keys.db"))
        used = "UPDATE api_keys SET last_used_at = 1700000000"
        database.run(lambda connection: connection.exec_driver_sql(used), write=True)
        database.close()
        shown = document(manyways("keys", "show", made["id"], "--json"))
        assert shown["last_used_at"] == "2023-11-14T22:13:20Z"
        assert "2023-11-14 22:13" in manyways("keys", "list").stdout


class TestKeysWithLimits:
    def test_limits_are_read_as_people_write_them(self, manyways: Command) -> None:
        spans = ("--requests", "5", "--window", "1m", "--tokens", "100", "--tokens-window", "1d")
        quotas = (
            "--quota",
            "1000 tokens/month",
            "--quota",
            "20 USD per month",
            "--quota",
            "9 requests",
        )
        made = document(manyways("keys", "create", *spans, "--concurrent", "2", *quotas, "--json"))
        assert made["limits"] == {
            "requests": 5,
            "window": 60.0,
            "tokens": 100,
            "tokens_window": 86400.0,
            "concurrent": 2,
            "quota": [
                {"tokens": 1000, "per": "month"},
                {"cost": 20.0, "per": "month"},
                {"requests": 9, "per": "ever"},
            ],
        }
        (told,) = [
            line
            for line in manyways("keys", "show", made["id"]).stdout.splitlines()
            if line.startswith("limits")
        ]
        assert told == (
            "limits          5 requests in 1m, 100 tokens in 1d, 2 at once, 1000 tokens a month,"
            " 20 USD a month, 9 requests in all (its own)"
        )

    def test_without_its_own_those_of_its_type_are_told(self, manyways: Command) -> None:
        made = document(manyways("keys", "create", "--json"))
        assert made["limits"] is None
        shown = manyways("keys", "show", made["id"]).stdout
        assert "30 requests in 1m (of type full)" in shown

    @pytest.mark.parametrize(
        ("words", "option"),
        [
            (["--requests", "5"], "--window"),
            (["--window", "1m"], "--requests"),
            (["--requests", "0", "--window", "1m"], "--requests"),
            (["--requests", "5", "--window", "soon"], "--window"),
            (["--tokens", "5"], "--tokens-window"),
            (["--concurrent", "-5"], "--concurrent"),
            (["--quota", "many"], "--quota"),
            (["--quota", "5"], "--quota"),
            (["--quota", "1.5 requests"], "--quota"),
            (["--quota", "0 usd"], "--quota"),
            (["--quota", "5 usd/week"], "--quota"),
            (["--unlimited", "--concurrent", "5"], "--unlimited"),
            (["--expires", "soon"], "--expires"),
        ],
    )
    def test_what_makes_no_sense_is_misuse(
        self, manyways: Command, words: list[str], option: str
    ) -> None:
        misuse(manyways("keys", "create", *words, "--json"), option)
        assert document(manyways("keys", "list", "--all", "--json")) == []

    def test_they_can_be_set_and_taken_back(self, manyways: Command) -> None:
        key = document(manyways("keys", "create", "--json"))["id"]
        set_ = document(manyways("keys", "limits", key, "--concurrent", "3", "--json"))
        assert set_["limits"] == {"concurrent": 3}
        assert document(manyways("keys", "limits", key, "--unlimited", "--json"))["limits"] == {}
        assert document(manyways("keys", "limits", key, "--usual", "--json"))["limits"] is None
        misuse(manyways("keys", "limits", key, "--json"), "limits")
        misuse(manyways("keys", "limits", key, "--usual", "--unlimited", "--json"), "--usual")

    def test_a_lifetime_of_its_own(self, manyways: Command) -> None:
        never = document(manyways("keys", "create", "--expires", "never", "--json"))
        assert never["expires_at"] is None
        day = document(manyways("keys", "create", "--expires", "1d", "--json"))
        assert day["expires_at"][10:16] == day["created_at"][10:16]


class TestPrices:
    """A quota in USD counts by prices: what has none is named where such a quota is given."""

    @pytest.mark.parametrize(
        "words",
        [
            ["accounts", "create", "Bob"],
            ["accounts", "limits", "Ada"],
            ["keys", "create"],
            ["keys", "limits", "{key}"],
        ],
    )
    def test_models_without_a_price_are_named(
        self, manyways: Command, config: Path, words: list[str]
    ) -> None:
        document(manyways("accounts", "create", "Ada", "--json"))
        key = document(manyways("keys", "create", "--json"))["id"]
        command = [word.format(key=key) for word in words]
        more = (
            '[[providers.models]]\nid = "new"\n[[providers]]\nname = "Groq"\nprotocol = "openai"\n'
        )
        config.write_text(f"{config.read_text()}{more}base_url = 'http://127.0.0.1:9/v1'\n")

        told = manyways(*command, "--quota", "5 usd/month", "--json")
        assert told.exit_code == 0
        assert "do not count: Capi/new, those that Groq tells without one." in told.stderr
        assert json.loads(told.stdout)["limits"] == {"quota": [{"cost": 5.0, "per": "month"}]}

    def test_nothing_is_said_where_all_have_one_or_no_money_is_limited(
        self, manyways: Command, config: Path
    ) -> None:
        assert document(manyways("keys", "create", "--quota", "5 usd", "--json"))
        config.write_text(f'{config.read_text()}[[providers.models]]\nid = "new"\n')
        assert document(manyways("keys", "create", "--quota", "5 tokens", "--json"))


class TestRotation:
    def test_the_new_key_alone_is_on_standard_output(self, manyways: Command) -> None:
        old = document(manyways("keys", "create", "--json"))
        made = manyways("keys", "rotate", old["key"])
        assert made.exit_code == 0
        assert well_formed(made.stdout[:-1], Settings())
        assert made.stdout[:-1] != old["key"]
        assert f"The old one, {old['id']}, works until" in made.stderr

    def test_json_says_which_it_replaces_and_until_when_that_works(self, manyways: Command) -> None:
        old = document(manyways("keys", "create", "--type", "admin", "--json"))
        new = document(manyways("keys", "rotate", old["id"], "--overlap", "0s", "--json"))
        assert new["replaces"]["id"] == old["id"]
        assert MOMENT.fullmatch(new["replaces"]["expires_at"])
        shown = document(manyways("keys", "show", old["id"], "--json"))
        assert (shown["status"], shown["replaced_by"]) == ("expired", new["id"])
        assert document(manyways("keys", "show", new["id"], "--json"))["line"] == old["id"]

    def test_one_that_ended_is_not_replaced_and_why_is_said(self, manyways: Command) -> None:
        old = document(manyways("keys", "create", "--json"))
        document(manyways("keys", "revoke", old["id"], "--json"))
        wrong = manyways("keys", "rotate", old["id"], "--json")
        assert (wrong.exit_code, wrong.stdout) == (1, "")
        assert "has been revoked" in wrong.stderr

    def test_an_overlap_that_is_none_is_misuse(self, manyways: Command) -> None:
        old = document(manyways("keys", "create", "--json"))
        misuse(manyways("keys", "rotate", old["id"], "--overlap", "a bit", "--json"), "--overlap")
