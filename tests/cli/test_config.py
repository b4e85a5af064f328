"""`manyways config check` and `show`, as a script sees them."""

import tomllib
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from manyways.cli.config import app


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("MANYWAYS_CONFIG", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return tmp_path


def test_without_a_file_check_says_so_and_succeeds() -> None:
    done = CliRunner().invoke(app, ["check"])

    assert done.exit_code == 0
    assert done.stdout == (
        "No configuration file: the built-in defaults apply. Providers: local (local).\n"
    )


def test_check_tells_what_has_no_effect(folder: Path) -> None:
    (folder / "manyways.toml").write_text("server.public_url = 'http://here'\n")

    done = CliRunner().invoke(app, ["check"])

    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "manyways.toml is fine. Providers: local (local).",
        "These settings are accepted, but have no effect in this version:",
        "  server.public_url: no answer names it yet",
    ]


def test_check_tells_what_is_worth_a_look_and_succeeds(folder: Path) -> None:
    (folder / "manyways.toml").write_text(
        'routing.deadline = "60s"\n'
        '[[providers]]\nname = "Capi"\nprotocol = "openai"\n'
        'base_url = "http://capi.example/v1/models/"\napi_key = ["secret", "other", "secret"]\n'
        '[[providers]]\nname = "CAPI"\nprotocol = "openai"\n'
        'base_url = "http://capi.example/v1/chat/completions"\n'
    )

    done = CliRunner().invoke(app, ["check"])

    assert done.exit_code == 0
    fine, *doubts = done.stdout.splitlines()
    assert fine == "manyways.toml is fine. Providers: Capi (openai), CAPI (openai)."
    assert "secret" not in done.stdout
    assert [words.removeprefix("Worth a look: ") for words in doubts] == [
        "routing.answer_timeout is 2m, but routing.deadline ends everything after 1m.",
        "providers[0].base_url (line 5) ends in /models, which the gateway adds itself.",
        "providers[0].api_key[2] (line 6) is a key that stands before it already.",
        'providers[1].name (line 8) differs from "Capi" only in upper and lower case.',
        "providers[1].base_url (line 10) ends in /chat/completions, which the gateway adds itself.",
    ]


def test_check_tells_which_models_a_quota_in_money_does_not_count(folder: Path) -> None:
    models = "".join(f'[[providers.models]]\nid = "m{number}"\n' for number in range(7))
    priced = '[[providers.models]]\nid = "priced"\npricing = { completion = 0.001 }\n'
    text = (
        '[[keys.types.team.quota]]\ncost = 20.0\nper = "month"\n'
        '[[accounts.quota]]\nrequests = 5\nper = "day"\n'
        '[[providers]]\nname = "P"\nprotocol = "openai"\nbase_url = "http://p.example/v1"\n'
    )
    file = folder / "manyways.toml"

    file.write_text(text + priced + models)
    told = CliRunner().invoke(app, ["check"]).stdout.splitlines()
    (doubt,) = told[1:]
    assert doubt == (
        "Worth a look: keys.types.team.quota[0].cost (line 2) counts what has a price."
        " Models without `pricing` cost nothing: P/m0, P/m1, P/m2, P/m3, P/m4 and 2 more."
    )
    file.write_text(text + priced)
    assert len(CliRunner().invoke(app, ["check"]).stdout.splitlines()) == 1


def test_check_tells_every_problem_and_fails(folder: Path) -> None:
    (folder / "manyways.toml").write_text("[server]\nprot = 1\nhost = 5\n")

    done = CliRunner().invoke(app, ["check"])

    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        'manyways.toml:2: server.prot is not a setting; did you mean "port"?',
        "manyways.toml:3: server.host should be a text in quotes, not the number 5",
        "2 problems found.",
    ]


def test_check_as_json_is_one_document_either_way(folder: Path) -> None:
    file = folder / "other.toml"
    file.write_text("server.port = 1")
    fine = CliRunner().invoke(app, ["check", "--config", "other.toml", "--json"])
    file.write_text("server.port = ''")
    wrong = CliRunner().invoke(app, ["check", "--config", "other.toml", "--json"])

    assert (fine.exit_code, wrong.exit_code) == (0, 1)
    assert msgspec.json.decode(fine.stdout) == {
        "ok": True,
        "file": "other.toml",
        "problems": [],
        "doubts": [],
        "not_yet": [],
        "providers": ["local"],
        "proxies": [],
    }
    assert msgspec.json.decode(wrong.stdout) == {
        "ok": False,
        "problems": [
            {
                "where": "other.toml:1",
                "setting": "server.port",
                "message": 'server.port should be a whole number, not the text ""',
            }
        ],
    }


def test_a_proxy_that_only_the_environment_names_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://me:hunter2@p.test:1")
    (folder / "manyways.toml").write_text(
        '[[providers]]\nname = "A"\nprotocol = "openai"\nbase_url = "https://a.test/v1"\n'
    )
    words = "https_proxy names the proxy p.test:1, used for A"

    assert CliRunner().invoke(app, ["check"]).stdout.splitlines()[1:] == [f"{words}."]
    shown = CliRunner().invoke(app, ["show"]).stdout
    assert shown.splitlines()[0] == f"# {words}"
    assert tomllib.loads(shown)["providers"][0]["name"] == "A"
    assert "hunter2" not in shown
    for command in ("check", "show"):
        told = CliRunner().invoke(app, [command, "--json"]).stdout
        assert msgspec.json.decode(told)["proxies"] == [
            {"proxy": "p.test:1", "variable": "https_proxy", "providers": ["A"]}
        ]
        assert "hunter2" not in told


def test_show_prints_toml_with_origins(folder: Path) -> None:
    (folder / "manyways.toml").write_text("server.port = 1")

    done = CliRunner().invoke(app, ["show"])

    assert done.exit_code == 0
    assert "port = 1  # line 1" in done.stdout
    assert tomllib.loads(done.stdout)["server"]["port"] == 1


def test_show_as_json_holds_settings_and_origins(folder: Path) -> None:
    (folder / "manyways.toml").write_text("server.port = 1")

    shown = msgspec.json.decode(CliRunner().invoke(app, ["show", "--json"]).stdout)

    assert shown["settings"]["server"]["port"] == 1
    assert shown["origins"] == {"server.port": "line 1"}


def test_show_of_a_wrong_file_fails(folder: Path) -> None:
    (folder / "manyways.toml").write_text("server.port = ''")

    done = CliRunner().invoke(app, ["show"])

    assert done.exit_code == 1
    assert "1 problem found." in done.stderr


def test_a_misused_command_ends_with_two() -> None:
    assert CliRunner().invoke(app, ["check", "--no-such-option"]).exit_code == 2
