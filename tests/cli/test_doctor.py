"""`manyways doctor`, as a process, with providers that follow a script."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from manyways.store.database import Settings, open_database
from tests.support.gateway import provider, run_command, running_gateway
from tests.support.terminal import Terminal
from tests.support.tls import Authority
from tests.support.wall import Request, Script, Wall, html, wall_in_thread, whole

pytestmark = pytest.mark.process

SECRET = "provider-secret"
LISTED = whole(json.dumps({"data": [{"id": "m"}, {"id": "n"}]}).encode())


@pytest.fixture(scope="module")
def wall() -> Iterator[Wall]:
    with wall_in_thread() as wall:
        yield wall


@pytest.fixture
def port() -> int:
    """One that nobody has."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
        return number


def examine(folder: Path, port: int, providers: str) -> tuple[int, dict[str, Any]]:
    """The exit status, and each check under its name."""
    (folder / "manyways.toml").write_text(f"[server]\nport = {port}\n{providers}")
    done = run_command(folder, "doctor", "--json")
    document = json.loads(done.stdout)
    assert done.stderr == ""
    assert SECRET not in done.stdout
    assert document["ok"] is (done.returncode == 0)
    return done.returncode, {check["name"]: check for check in document["checks"]}


def test_where_all_is_well_it_says_so(tmp_path: Path, port: int, wall: Wall) -> None:
    wall.answer = LISTED
    status, found = examine(tmp_path, port, provider(wall.url))

    assert status == 0
    assert list(found) == [
        "program",
        "configuration",
        "embedded model",
        "database",
        "disk",
        "time zone",
        "server",
        "provider Test",
    ]
    assert {check["status"] for check in found.values()} == {"ok"}
    assert found["provider Test"]["detail"].endswith("accepts the key, has 2 models")
    assert wall.requests[-1].headers["authorization"] == f"Bearer {SECRET}"


def test_looking_makes_no_database(tmp_path: Path, port: int, wall: Wall) -> None:
    wall.answer = LISTED
    _, found = examine(tmp_path, port, provider(wall.url))

    assert "is not there yet" in found["database"]["detail"]
    assert [file.name for file in tmp_path.iterdir()] == ["manyways.toml"]


def test_the_size_of_a_database_in_use_is_with_what_has_not_been_moved_into_it(
    tmp_path: Path, port: int, wall: Wall
) -> None:
    wall.answer = LISTED
    file = tmp_path / "manyways.db"
    with closing(open_database(Settings(url=f"sqlite:///{file}"))):
        beside = file.with_name("manyways.db-wal").stat().st_size
        assert beside > 100_000, "all tables have just been made"
        _, found = examine(tmp_path, port, provider(wall.url))

    _, _, size = found["database"]["detail"].partition(f"{file}, ")
    kilobytes, unit = size.split()[:2]
    assert unit.startswith("kB")
    assert float(kilobytes) * 1000 >= beside


def test_plain_output_has_a_line_a_check_and_a_summary(
    tmp_path: Path, port: int, wall: Wall
) -> None:
    wall.answer = whole(b"{}", 401)
    (tmp_path / "manyways.toml").write_text(f"[server]\nport = {port}\n{provider(wall.url)}")
    done = run_command(tmp_path, "doctor", env={"PYTHONIOENCODING": "utf-8"})

    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert lines[0].startswith("✓ program: Manyways ")
    assert "✗ provider Test: does not accept the key (HTTP 401)" in lines
    assert lines[-3].startswith("    → ")
    assert lines[-1] == "1 thing is wrong."


def _quoting(request: Request) -> Script:
    words = f"Incorrect API key provided: {SECRET}"
    return whole(json.dumps({"error": {"message": words}}).encode(), 500)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (whole(b"{}", 401), ("does not accept the key (HTTP 401)", "set it as api_key")),
        (whole(b"{}", 402), ("its credit is used up (HTTP 402)", "paid for")),
        (html(), ("the answer is a web page", "See that base_url is whole")),
        (whole(b'{"data": ['), ("the answer is not JSON", "See that base_url is whole")),
        (_quoting, ('answers HTTP 500: {"error"', "The fault is the provider's")),
        (
            whole(b"", 301, [("Location", "https://elsewhere.example/v1/models")]),
            ("to https://elsewhere.example/v1/models", "Put the address"),
        ),
    ],
    ids=["key", "credit", "html", "cut JSON", "500 that quotes the key", "redirect"],
)
def test_what_a_provider_answers_is_told_with_a_cure(
    tmp_path: Path, port: int, wall: Wall, answer: Script, told: tuple[str, str]
) -> None:
    wall.answer = answer
    status, found = examine(tmp_path, port, provider(wall.url))

    check = found["provider Test"]
    assert (status, check["status"]) == (1, "error")
    assert told[0] in check["detail"]
    assert told[1] in check["advice"]


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (whole(b"{}", 404), "has no list of models"),
        (whole(b"{}", 429), "wants fewer requests now"),
        (whole(b'{"data": [{"id": "other"}]}'), "has 1 model, but does not list m"),
    ],
)
def test_what_may_be_right_is_a_warning_only(
    tmp_path: Path, port: int, wall: Wall, answer: Script, detail: str
) -> None:
    wall.answer = answer
    status, found = examine(tmp_path, port, provider(wall.url))

    assert (status, found["provider Test"]["status"]) == (0, "warning")
    assert detail in found["provider Test"]["detail"]


def test_each_key_of_a_provider_is_tried(tmp_path: Path, port: int, wall: Wall) -> None:
    def one_key_is_dead(request: Request) -> Script:
        return whole(b"{}", 403) if "dead" in request.headers["authorization"] else LISTED

    wall.answer = one_key_is_dead
    table = provider(wall.url).replace(f'"{SECRET}"', '["good-key", "dead-key"]')
    status, found = examine(tmp_path, port, table)

    assert (status, found["provider Test"]["status"]) == (0, "warning")
    assert "with key 2 of 2: does not accept the key" in found["provider Test"]["detail"]


def test_providers_out_of_reach_are_told_apart(tmp_path: Path, port: int) -> None:
    with wall_in_thread(tls=Authority().server) as secure:
        closed = provider(f"http://127.0.0.1:{port}", name="Closed")
        unnamed = provider("http://nowhere.invalid", name="Unnamed")
        unproven = provider(secure.url, name="Unproven")
        status, found = examine(tmp_path, port, closed + unnamed + unproven)

    assert status == 1
    assert "connection refused" in found["provider Closed"]["detail"]
    assert found["provider Unnamed"]["detail"] == "the name nowhere.invalid leads nowhere (DNS)"
    assert "no secure connection" in found["provider Unproven"]["detail"]
    assert "certificate" in found["provider Unproven"]["detail"]


@pytest.mark.parametrize("transport", ["aiohttp", "native"])
def test_a_proxy_that_is_not_there_is_told_of(tmp_path: Path, port: int, transport: str) -> None:
    section = f'[upstream]\ntransport = "{transport}"\n'
    way = f'proxy = "http://me:{SECRET}@127.0.0.1:{port}"'
    behind = provider("http://nowhere.invalid", extra=way)
    status, found = examine(tmp_path, port, section + behind)

    assert (status, found["provider Test"]["status"]) == (1, "error")
    assert f"by way of the proxy 127.0.0.1:{port}" in found["provider Test"]["detail"]
    assert "connection refused" in found["provider Test"]["detail"]


def test_a_wrong_configuration_is_told_whole(tmp_path: Path) -> None:
    (tmp_path / "manyways.toml").write_text("[server]\nprot = 1\nhost = 5\n")
    done = run_command(tmp_path, "doctor", "--json")

    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 1
    assert list(found) == ["program", "configuration", "embedded model"]
    assert found["configuration"]["status"] == "error"
    assert "manyways.toml:2" in found["configuration"]["detail"]
    assert "manyways.toml:3" in found["configuration"]["detail"]


def test_redis_is_looked_at_where_there_is_one(tmp_path: Path, port: int, wall: Wall) -> None:
    wall.answer = LISTED
    away = "postgresql://manyways@127.0.0.1:1/manyways"
    meeting = f'[database]\nurl = "{away}"\n[cluster]\nredis = "redis://127.0.0.1:1"\n'
    status, found = examine(tmp_path, port, meeting + provider(wall.url))

    assert list(found).index("redis") == list(found).index("database") + 1
    assert (status, found["redis"]["status"]) == (1, "error")
    assert found["redis"]["detail"] == "127.0.0.1:1 cannot be reached: connection refused"


def test_doubts_about_the_configuration_deserve_a_look(
    tmp_path: Path, port: int, wall: Wall
) -> None:
    wall.answer = LISTED
    priced = '[[accounts.quota]]\ncost = 20.0\nper = "month"\n'
    status, found = examine(tmp_path, port, priced + provider(wall.url, "m"))

    assert (status, found["configuration"]["status"]) == (0, "warning")
    assert "Models without `pricing` cost nothing: Test/m" in found["configuration"]["detail"]


def test_settings_without_effect_deserve_a_look(tmp_path: Path, port: int, wall: Wall) -> None:
    wall.answer = LISTED
    config = "public_url = 'http://here'\n" + provider(wall.url)
    status, found = examine(tmp_path, port, config)

    assert (status, found["configuration"]["status"]) == (0, "warning")
    assert "server.public_url" in found["configuration"]["detail"]


def test_a_port_that_another_program_has(tmp_path: Path, wall: Wall) -> None:
    wall.answer = LISTED
    status, found = examine(tmp_path, wall.port, provider(wall.url))

    assert (status, found["server"]["status"]) == (1, "error")
    assert "another program has" in found["server"]["detail"]
    assert "another port" in found["server"]["advice"]


def test_a_port_that_somebody_has_without_listening(tmp_path: Path, wall: Wall) -> None:
    wall.answer = LISTED
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        status, found = examine(tmp_path, held.getsockname()[1], provider(wall.url))

    assert (status, found["server"]["status"]) == (1, "error")


def test_a_running_gateway_is_found_where_it_is_and_where_it_is_not(
    tmp_path: Path, port: int, wall: Wall
) -> None:
    wall.answer = LISTED
    (tmp_path / "elsewhere").mkdir()
    with running_gateway(tmp_path, provider(wall.url)) as gateway:
        here = int(gateway.root.rpartition(":")[2])
        pid = gateway.process.pid
        _, right = examine(tmp_path, here, provider(wall.url))
        _, moved = examine(tmp_path, port, provider(wall.url))
        told = json.loads(gateway.command("doctor", "--json").stdout)["health"]
        status, other = examine(tmp_path / "elsewhere", here, provider(wall.url))

    assert right["server"]["detail"] == f"runs at 127.0.0.1:{here} (pid {pid}), 1 model"
    assert right["database"]["detail"].endswith("1 key in use")
    assert moved["server"] == right["server"]  # it said itself where it listens
    assert told["asked"] == 0
    assert (status, other["server"]["status"]) == (1, "error")
    assert "another Manyways" in other["server"]["detail"]


def test_a_gateway_that_does_not_answer_is_told_of(tmp_path: Path, port: int, wall: Wall) -> None:
    wall.answer = LISTED
    database = open_database(Settings(url=f"sqlite:///{tmp_path}/manyways.db"))
    try:
        database.lock_for_serving()
        status, found = examine(tmp_path, port, provider(wall.url))
    finally:
        database.close()

    assert (status, found["server"]["status"]) == (0, "warning")
    assert found["server"]["detail"] == (
        f"a gateway (pid {os.getpid()}) serves this database, but does not answer at"
        f" 127.0.0.1:{port}"
    )


def test_what_rests_at_the_running_gateway_is_told(tmp_path: Path, wall: Wall) -> None:
    def overloaded(request: Request) -> Script:
        return LISTED if request.method == "GET" else whole(b"{}", 503)

    wall.answer = overloaded
    configured = provider(wall.url, "m", "n")
    with running_gateway(tmp_path, configured) as gateway:
        here = int(gateway.root.rpartition(":")[2])
        _, before = examine(tmp_path, here, configured)
        chat = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
        gateway.chat(
            {**chat, "provider": {"allow_fallbacks": False}}, headers={"X-Request-Timeout": "2"}
        )
        status, after = examine(tmp_path, here, configured)
        document = json.loads(gateway.command("doctor", "--json").stdout)
        keys = json.loads(gateway.command("keys", "list", "--all", "--json").stdout)

    names = list(after)
    assert names[names.index("server") + 1] == "health"
    assert before["health"]["detail"] == "no model was asked yet"
    assert (status, after["health"]["status"]) == (0, "warning")
    assert "Test/m has been resting for " in after["health"]["detail"]
    assert "answered with an error" in after["health"]["detail"]
    assert [(one["model"], one["code"]) for one in document["health"]["resting"]] == [
        ("m", "provider_error")
    ]
    assert len(keys) == 1, "looking leaves no key behind"


def test_without_a_running_gateway_there_is_no_health(
    tmp_path: Path, port: int, wall: Wall
) -> None:
    wall.answer = LISTED
    (tmp_path / "manyways.toml").write_text(f"[server]\nport = {port}\n{provider(wall.url)}")
    document = json.loads(run_command(tmp_path, "doctor", "--json").stdout)

    assert document["health"] is None


@pytest.mark.parametrize(
    ("content", "detail"),
    [(b"this is no database" * 100, "is not an SQLite database"), (b"", "is empty")],
)
def test_a_file_that_is_no_database(
    tmp_path: Path, port: int, wall: Wall, content: bytes, detail: str
) -> None:
    wall.answer = LISTED
    file = tmp_path / "manyways.db"
    file.write_bytes(content)
    status, found = examine(tmp_path, port, provider(wall.url))

    assert status == (1 if content else 0)
    assert detail in found["database"]["detail"]
    assert file.read_bytes() == content


def test_a_database_without_a_folder(tmp_path: Path, port: int, wall: Wall) -> None:
    wall.answer = LISTED
    where = '[database]\nurl = "sqlite:///no/such/folder.db"\n'
    status, found = examine(tmp_path, port, where + provider(wall.url))

    assert (status, found["database"]["status"]) == (1, "error")
    assert "there is no folder" in found["database"]["detail"]


def test_on_a_terminal_it_fits_into_80_columns(tmp_path: Path, port: int, wall: Wall) -> None:
    wall.answer = html()
    (tmp_path / "manyways.toml").write_text(f"[server]\nport = {port}\n{provider(wall.url)}")
    with Terminal(tmp_path, "doctor") as terminal:
        terminal.expect("✗ provider Test")
        terminal.expect("→ See that base_url is whole")
        terminal.expect("1 thing is wrong.")

        assert terminal.wait() == 1
    shown = [line.rpartition("\r")[2] for line in terminal.text.replace("\r\n", "\n").split("\n")]
    assert max(map(len, shown)) <= 80


@pytest.mark.model
def test_the_embedded_model_is_started_and_asked(tmp_path: Path, port: int) -> None:
    pytest.importorskip("xllamacpp", exc_type=ImportError)
    status, found = examine(tmp_path, port, "")

    assert status == 0
    assert found["embedded model"]["detail"].startswith("installed: ")
    assert found["provider local"]["detail"].startswith("starts in ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_fails_is_told_plainly(tmp_path: Path) -> None:
    (tmp_path / "manyways.toml").write_text(provider("http://127.0.0.1:9", "m"))
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "manyways", "doctor"],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "No space left on device" in ended.stderr
