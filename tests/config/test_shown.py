"""What is shown can be read again, means the same, and holds no secret."""

import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyways.config import Settings, load, show
from manyways.config.document import quoted
from manyways.config.shown import without_password

FULL = """
[server]
port = "env:PORT"
mounts = ["/v1", { path = "/x", error_format = "string" }]
max_body = "10MB"
public_url = "https://x.test/y/"
[database]
url = "postgresql://user@x/y"
[cluster]
redis = "redis://user:hunter2@x:6379/0"
[routing]
idle_timeout = 0.25
continuation = "best-effort"
[keys.types."a b"]
concurrent = 2
[keys.types.full]
lifetime = "none"
[defaults]
temperature = 0.5
[[providers]]
name = 'A "quoted" one'
protocol = "openai"
base_url = "http://a.test/v1"
drain = true
api_key = ["env:ONE", "hunter2"]
headers = { X-Title = "Us", X-Secret = "hunter2", Cookie = "env:COOKIE" }
[[providers.models]]
id = "m"
pricing = { prompt = 0.000001 }
modalities = ["text"]
[[providers]]
name = "local"
protocol = "local"
"""
ENVIRONMENT = {"PORT": "90", "ONE": "hunter2", "COOKIE": "hunter2"}


def read(text: str, folder: Path) -> Settings:
    file = folder / "manyways.toml"
    file.write_text(text, encoding="utf-8")
    return load(file, ENVIRONMENT)


def test_no_secret_is_shown(tmp_path: Path) -> None:
    shown = show(read(FULL, tmp_path))

    assert "hunter2" not in shown
    assert 'api_key = ["env:ONE", "***"]' in shown
    assert 'headers = { X-Title = "Us", X-Secret = "***", Cookie = "env:COOKIE" }' in shown
    assert 'redis = "redis://user:***@x:6379/0"' in shown
    assert 'base_url = "http://a.test/v1"' in shown


def test_each_given_value_says_where_it_came_from(tmp_path: Path) -> None:
    shown = show(read(FULL, tmp_path)).splitlines()

    assert "port = 90  # env:PORT" in shown
    assert 'max_body = "10MB"  # line 5' in shown
    assert 'idle_timeout = "250ms"  # line 12' in shown
    assert 'host = "127.0.0.1"' in shown


def test_lists_and_tables_on_one_line_say_where_they_came_from(tmp_path: Path) -> None:
    quota = (
        '[upstream]\nno_proxy = []\n[accounts]\nquota = [\n  { requests = 5, per = "day" },\n]\n'
    )
    shown = show(read(FULL.replace("[defaults]", f"{quota}[defaults]"), tmp_path)).splitlines()

    assert 'mounts = ["/v1", { path = "/x", error_format = "string" }]  # line 4' in shown
    assert "no_proxy = []  # line 19" in shown
    assert 'quota = [{ requests = 5, per = "day" }]  # line 21' in shown
    assert 'api_key = ["env:ONE", "***"]  # line 31' in shown
    assert [one.partition("#")[2] for one in shown if one.startswith("headers")] == [
        " line 32, env:COOKIE"
    ]
    assert "pricing = { prompt = 1e-06 }  # line 35" in shown
    assert 'modalities = ["text"]  # line 36' in shown


def test_what_is_shown_reads_back_the_same_but_for_secrets(tmp_path: Path) -> None:
    settings = read(FULL, tmp_path)

    again = read(show(settings), tmp_path)

    for section in ("server", "database", "usage", "routing", "catalog", "keys", "log", "defaults"):
        assert getattr(again, section) == getattr(settings, section)
    assert [one.models for one in again.providers] == [one.models for one in settings.providers]
    assert again.providers[0].name == settings.providers[0].name
    assert [one.drain for one in again.providers] == [True, False]
    assert show(again).count("***") == 3


def test_the_built_in_defaults_read_back_the_same(tmp_path: Path) -> None:
    settings = read("", tmp_path)

    again = read(show(settings), tmp_path)

    assert msgspec.structs.replace(again, origins={}, not_yet=()) == settings


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("sqlite:///manyways.db", "sqlite:///manyways.db"),
        ("postgresql://u:p/q?#@@h/d", "postgresql://u:***@h/d"),
        ("postgresql://h/d?user=u&password=p", "postgresql://h/d?user=u&password=***"),
        ("redis://:p@h:1/0", "redis://:***@h:1/0"),
        ("http://h:80/v1", "http://h:80/v1"),
    ],
)
def test_passwords_in_addresses_are_masked(address: str, shown: str) -> None:
    assert without_password(address) == shown


@given(st.text(st.characters(codec="utf-8")))
def test_any_text_can_be_quoted(text: str) -> None:
    assert tomllib.loads(f"key = {quoted(text)}") == {"key": text}
