"""`manyways serve`: the first start, the next ones, and what keeps it from starting."""

import json
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Gateway, provider, run_command, running_gateway
from tests.support.wall import wall_in_thread

pytestmark = pytest.mark.process

NOBODY = provider("http://127.0.0.1:9", "m")


@pytest.mark.model
def test_the_first_start_prints_a_line_that_gets_a_real_answer(tmp_path: Path) -> None:
    with running_gateway(tmp_path) as gateway:
        start = gateway.welcome.index("curl ")
        line = gateway.welcome[start : gateway.welcome.index("\n\n", start)]
        assert "\N{BOX DRAWINGS LIGHT VERTICAL}" not in gateway.welcome, "unboxed"
        answer = pasted(line)
        assert answer["provider"] == "local"
        assert answer["choices"][0]["message"]["content"].strip()
        assert answer["usage"]["completion_tokens"] > 0
        streamed = gateway.chat(
            {
                "model": "auto",
                "stream": True,
                "stream_options": {"include_usage": True},
                "max_tokens": 20,
                "messages": [{"role": "user", "content": "Count to five."}],
            },
            timeout=120,
        )
        events = streamed.events()
        assert events[-1] == "[DONE]"
        assert any(event.get("usage") for event in events[:-1])
        assert {event["provider"] for event in events[:-1]} == {"local"}


def pasted(line: str) -> dict[str, Any]:
    """What a shell and curl would do with the line."""
    words = shlex.split(line.replace("\\\n", " "))
    assert words[0] == "curl"
    lines = [words[i + 1] for i, word in enumerate(words) if word == "-H"]
    headers = {name: value for name, _, value in (line.partition(": ") for line in lines)}
    data = words[words.index("-d") + 1].encode()
    request = urllib.request.Request(words[1], data, headers)  # noqa: S310  (loopback)
    with urllib.request.urlopen(request, timeout=120) as response:  # noqa: S310
        found: dict[str, Any] = json.load(response)
        return found


def test_later_starts_keep_the_key_and_do_not_show_it(tmp_path: Path) -> None:
    with running_gateway(tmp_path, NOBODY) as first:
        key = first.key
        assert first.chat({}).status == 400
    with running_gateway(tmp_path, NOBODY) as again:
        assert key not in again.welcome
        assert "Your admin key" not in again.welcome
        assert again.chat({}).status == 400, "the key is known"


def test_a_proxy_that_only_the_environment_names_is_logged(tmp_path: Path) -> None:
    env = {"HTTP_PROXY": "http://me:hunter2@127.0.0.1:9"}
    with running_gateway(tmp_path, provider("http://a.test", "m"), env=env) as gateway:
        pass
    (line,) = [one for one in gateway.log if "proxy of the environment" in one]
    told = json.loads(line)
    assert (told["proxy"], told["variable"]) == ("127.0.0.1:9", "HTTP_PROXY")
    assert told["providers"] == ["Test"]
    assert "hunter2" not in "".join(gateway.log)


def test_the_key_is_in_no_log_and_in_no_file(tmp_path: Path) -> None:
    with running_gateway(tmp_path, NOBODY) as gateway:
        gateway.chat({"model": "m", "messages": [{"role": "user", "content": "x"}]})
        secret = gateway.key
    assert secret not in "".join(gateway.log)
    for file in tmp_path.rglob("*"):
        if file.is_file() and file.name != "key":
            assert secret.encode() not in file.read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_an_admin_key_that_cannot_be_shown_is_made_by_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "manyways.toml").write_text(NOBODY)
    serve = '"$0" -m manyways serve --port 0'
    for out in ("/dev/full", "&-"):
        ended = subprocess.run(
            ["sh", "-c", f"{serve} >{out}", sys.executable],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 1
        assert "Standard output" in ended.stderr
        assert "Traceback" not in ended.stderr
    with running_gateway(tmp_path, NOBODY) as gateway:
        assert "Your admin key" in gateway.welcome


def test_the_line_to_paste_survives_quotes_and_asks_a_text_model_on_this_machine(
    tmp_path: Path,
) -> None:
    with wall_in_thread() as wall:
        table = provider(wall.url, "painter", extra="")
        drawing = 'id = "painter"\ncategory = "image"'
        name = """it's "odd\\"""
        config = (
            '[server]\nhost = "0.0.0.0"\n'
            + table.replace('id = "painter"', drawing)
            + f"[[providers.models]]\nid = {json.dumps(name)}\n"
        )
        with running_gateway(tmp_path, config) as gateway:
            assert gateway.base_url.startswith("http://127.0.0.1:")
            start = gateway.welcome.index("curl ")
            line = gateway.welcome[start : gateway.welcome.index("\n\n", start)]
    words = shlex.split(line.replace("\\\n", " "))
    assert words[1] == f"{gateway.base_url}/chat/completions"
    assert json.loads(words[-1])["model"] == name


def test_a_revoked_key_is_refused_within_a_second(tmp_path: Path) -> None:
    with running_gateway(tmp_path, NOBODY) as gateway:
        made = json.loads(gateway.command("keys", "create", "--type", "full", "--json").stdout)
        assert gateway.chat({}, key=made["key"]).status == 400
        assert gateway.command("keys", "revoke", made["id"], "--reason", "refund").returncode == 0
        assert code_within(gateway, made["key"], 1.5) == "revoked_api_key"


def code_within(gateway: Gateway, key: str, seconds: float) -> str:
    deadline = time.monotonic() + seconds
    found = ""
    while time.monotonic() < deadline:
        answer = gateway.chat({}, key=key)
        found = answer.json()["error"]["code"]
        if answer.status == 403:
            break
    return found


def test_a_second_server_on_the_same_database_is_refused(tmp_path: Path) -> None:
    with running_gateway(tmp_path, NOBODY):
        other = run_command(tmp_path, "serve", "--port", "0")
        assert other.returncode == 1
        assert "Another Manyways serves this database" in other.stderr


def test_a_taken_port_is_told_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "manyways.toml").write_text(NOBODY)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = run_command(tmp_path, "serve", "--port", str(port))
    assert other.returncode == 1
    assert f"127.0.0.1:{port}" in other.stderr
    assert "--port" in other.stderr
    assert "Traceback" not in other.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("serve", "--workers", "2"), 1, "Set cluster.redis"),
        (("serve", "--config", "nowhere.toml"), 1, "nowhere.toml"),
        (("serve", "--nonsense"), 2, "No such option"),
        (("--version",), 0, ""),
        (("--help",), 0, ""),
        (("serve", "--help"), 0, ""),
    ],
)
def test_exit_status_and_words(
    tmp_path: Path, arguments: tuple[str, ...], status: int, words: str
) -> None:
    ended = run_command(tmp_path, *arguments)
    assert ended.returncode == status
    assert words in ended.stderr


def test_redis_beside_a_file_is_refused_by_whoever_reads_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "manyways.toml").write_text('[cluster]\nredis = "redis://127.0.0.1"\n')
    serve, check = run_command(tmp_path, "serve"), run_command(tmp_path, "config", "check")
    assert (serve.returncode, check.returncode) == (1, 1)
    assert serve.stderr.splitlines()[0] == check.stderr.splitlines()[0]
    assert "manyways.toml:2: cluster.redis is for several processes" in serve.stderr


def test_a_wrong_config_stops_the_start_with_file_line_and_hint(tmp_path: Path) -> None:
    (tmp_path / "manyways.toml").write_text("[server]\nprot = 80\n")
    ended = run_command(tmp_path, "serve")
    assert ended.returncode == 1
    assert "manyways.toml:2" in ended.stderr
    assert "port" in ended.stderr


def test_after_kill_9_the_next_start_just_works(tmp_path: Path) -> None:
    with wall_in_thread() as wall:
        with running_gateway(tmp_path, provider(wall.url)) as gateway:
            gateway.process.kill()
            gateway.process.wait(10)
        with running_gateway(tmp_path, provider(wall.url)) as gateway:
            assert gateway.chat({}).status == 400
