import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import typer
from typer.testing import CliRunner, Result

from manyways.catalog import listings
from manyways.catalog.snapshot import Snapshot
from manyways.cli.models import app, list_
from manyways.errors import Refusal
from manyways.types import Model

SNAPSHOT = Snapshot(
    models=(
        Model(
            id="gpt-4o",
            provider="Capi",
            upstream_id="gpt-4o",
            created=1,
            context_window=128000,
            latency_ms=1500,
        ),
        Model(id="[bold]flux", provider="Capi", upstream_id="flux", created=1, category="image"),
        Model(id="llama-3", provider="Space", upstream_id="l", created=1, status="degraded"),
    ),
    provider_names=("Capi", "Space", "Quiet"),
    made_at=1.0,
)


class Gateway(ThreadingHTTPServer):
    """A server that answers `GET {mount}/models` as the gateway does, or with `says`."""

    daemon_threads = True
    says: tuple[int, bytes] | None = None
    asked: list[str]

    def answer(self, path: str) -> tuple[int, bytes]:
        self.asked.append(path)
        if self.says is not None:
            return self.says
        parts = urlsplit(path)
        filters: dict[str, Any] = dict(parse_qsl(parts.query))
        try:
            return 200, listings.models(SNAPSHOT, **filters).body
        except Refusal as refusal:
            return 404, json.dumps({"error": {"message": refusal.message}}).encode()


class Answer(BaseHTTPRequestHandler):
    server: Gateway

    def do_GET(self) -> None:
        status, body = self.server.answer(self.path)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway(("127.0.0.1", 0), Answer) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port where nobody listens: bound, so that nobody else takes it meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No configuration but the test's own, and a proxy that nothing local may go through."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MANYWAYS_CONFIG", raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)


def configured(port: int) -> None:
    Path("manyways.toml").write_text(
        f"""
[server]
port = {port}

[[providers]]
name = "Capi"
protocol = "openai"
base_url = "http://127.0.0.1:9/v1"

[[providers]]
name = "Listed"
protocol = "openai"
base_url = "http://127.0.0.1:9/v1"
models = [{{ id = "one", context_window = 8192 }}, {{ id = "dall-e-3" }}]
""",
        encoding="utf-8",
    )


def run(*arguments: str) -> Result:
    root = typer.Typer()
    root.add_typer(app, name="models")
    return CliRunner().invoke(root, ["models", "list", *arguments])


def test_the_running_gateway_is_asked_where_the_configuration_has_it(gateway: Gateway) -> None:
    configured(gateway.server_port)
    done = run()
    assert (done.exit_code, done.stderr) == (0, "")
    assert gateway.asked == ["/v1/models"]
    assert done.stdout.splitlines() == [
        "model\tprovider\tcategory\tcontext\tlatency\tstatus",
        "gpt-4o\tCapi\ttext\t128,000\t1.5 s\tactive",
        "[bold]flux\tCapi\timage\t\t\tactive",
        "llama-3\tSpace\ttext\t\t\tdegraded",
    ]


def test_a_gateway_that_listens_everywhere_is_asked_here(gateway: Gateway) -> None:
    configured(gateway.server_port)
    text = Path("manyways.toml").read_text(encoding="utf-8")
    Path("other.toml").write_text(
        text.replace("[server]", '[server]\nhost = "0.0.0.0"\nmounts = ["/webhook/v1"]'),
        encoding="utf-8",
    )
    assert run("--config", "other.toml").exit_code == 0
    assert gateway.asked == ["/webhook/v1/models"]


def test_filters_are_the_gateways_business(gateway: Gateway) -> None:
    configured(gateway.server_port)
    done = run("--provider", "Capi", "--category", "image", "--json")
    assert gateway.asked == ["/v1/models?provider=Capi&category=image"]
    assert [row["id"] for row in json.loads(done.stdout)["data"]] == ["[bold]flux"]


def test_json_is_the_gateways_own_document_and_where_it_is_from(gateway: Gateway) -> None:
    done = run("--url", f"http://127.0.0.1:{gateway.server_port}/", "--json")
    expected = json.loads(listings.models(SNAPSHOT).body)
    expected["meta"]["source"] = "gateway"
    assert json.loads(done.stdout) == expected
    assert done.stderr == ""


def test_a_url_with_a_path_is_taken_as_it_is(gateway: Gateway) -> None:
    assert run("--url", f"http://127.0.0.1:{gateway.server_port}/webhook/v1").exit_code == 0
    assert gateway.asked == ["/webhook/v1/models"]


def test_what_the_gateway_refuses_is_told_in_its_words(gateway: Gateway) -> None:
    configured(gateway.server_port)
    done = run("--provider", "Kapi")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no provider 'Kapi'. Known providers: Capi, Space, Quiet." in done.stderr


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ((200, b"<html>It works!</html>"), "but not with a list of models"),
        ((200, b"[]"), "but not with a list of models"),
        ((404, b"<html>nothing</html>"), "answers 404, not a list"),
        ((400, b'{"error": "invalid_request"}'), "invalid_request"),
        ((500, b"[" * 100_000), "answers 500, not a list"),
    ],
)
def test_somebody_else_at_the_address_is_no_crash(
    gateway: Gateway, says: tuple[int, bytes], told: str
) -> None:
    gateway.says = says
    done = run("--url", f"http://127.0.0.1:{gateway.server_port}", "--json")
    assert (done.exit_code, done.stdout) == (1, "")
    assert told in done.stderr


def test_without_a_gateway_the_configurations_own_list_is_shown_and_marked(
    closed_port: int,
) -> None:
    configured(closed_port)
    done = run()
    assert done.exit_code == 0
    assert f"No gateway runs at http://127.0.0.1:{closed_port}" in done.stderr
    assert "manyways serve" in done.stderr
    assert "Only a running gateway knows the models of Capi." in done.stderr
    assert "manyways.toml itself lists" in done.stderr
    assert done.stdout.splitlines()[1:] == [
        "one\tListed\ttext\t8,192\t\tactive",
        "dall-e-3\tListed\timage\t\t\tactive",
    ]


def test_without_a_gateway_json_is_still_one_document(closed_port: int) -> None:
    configured(closed_port)
    done = run("--category", "image", "--json")
    document = json.loads(done.stdout)
    assert [row["id"] for row in document["data"]] == ["dall-e-3"]
    assert document["meta"]["source"] == "configuration"
    assert "No gateway runs" in done.stderr


def test_without_a_gateway_an_unknown_provider_is_still_refused(closed_port: int) -> None:
    configured(closed_port)
    done = run("--provider", "Kapi")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "Known providers: Capi, Listed." in done.stderr


def test_a_named_gateway_that_does_not_answer_is_a_failure(closed_port: int) -> None:
    done = run("--url", f"http://127.0.0.1:{closed_port}")
    assert (done.exit_code, done.stdout) == (1, "")
    assert (
        f"No gateway answers at http://127.0.0.1:{closed_port}: Connection refused." in done.stderr
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("--url", "localhost:8080"),
        ("--url", "file:///etc/passwd"),
        ("--url", "http://"),
        ("--url", "http://user:secret@localhost:8080"),
        ("--url", "http://host:port"),
        ("--url", "http://a b"),
        ("--category", "smell"),
    ],
)
def test_misuse_is_status_2(arguments: tuple[str, str]) -> None:
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "secret" not in done.stderr


def test_a_configuration_that_is_wrong_is_told(tmp_path: Path) -> None:
    (tmp_path / "manyways.toml").write_text("[server]\nport = 'high'\n", encoding="utf-8")
    done = run()
    assert (done.exit_code, done.stdout) == (1, "")
    assert "server.port" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--provider", "Quiet"), "No model matches."),
        (("--category", "video"), "No model matches."),
    ],
)
def test_nothing_is_said_in_words(gateway: Gateway, arguments: tuple[str, ...], said: str) -> None:
    done = run("--url", f"http://127.0.0.1:{gateway.server_port}", *arguments)
    assert (done.exit_code, done.stdout) == (0, "")
    assert said in done.stderr


def test_a_gateway_without_any_model_points_at_the_doctor(gateway: Gateway) -> None:
    gateway.says = (200, listings.models(Snapshot()).body)
    done = run("--url", f"http://127.0.0.1:{gateway.server_port}")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "manyways doctor" in done.stderr


def test_on_a_terminal_it_is_a_table_and_ids_are_no_markup(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configured(gateway.server_port)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    list_()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["Model", "Provider", "Category", "Context", "Latency", "Status"],
        ["gpt-4o", "Capi", "text", "128,000", "1.5", "s", "active"],
        ["[bold]flux", "Capi", "image", "active"],
        ["llama-3", "Space", "text", "degraded"],
    ]
