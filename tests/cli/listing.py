"""A gateway that has models to list, and nothing else; and where none is."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from manyways.catalog import listings
from manyways.catalog.snapshot import Snapshot
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
    snapshot = SNAPSHOT
    says: tuple[int, bytes] | None = None
    asked: list[str]

    def answer(self, path: str) -> tuple[int, bytes]:
        self.asked.append(path)
        if self.says is not None:
            return self.says
        parts = urlsplit(path)
        filters: dict[str, Any] = dict(parse_qsl(parts.query))
        try:
            return 200, listings.models(self.snapshot, **filters).body
        except Refusal as refusal:
            return 404, json.dumps({"error": {"message": refusal.message}}).encode()


class _Answer(BaseHTTPRequestHandler):
    server: Gateway

    def do_GET(self) -> None:
        status, body = self.server.answer(self.path)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextmanager
def listing_gateway() -> Iterator[Gateway]:
    """One that listens on this machine."""
    with Gateway(("127.0.0.1", 0), _Answer) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def unused_port() -> Iterator[int]:
    """A port where nobody listens: bound, so that nobody else takes it meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def configured(port: int) -> None:
    """The configuration of a gateway at this port, in the current folder."""
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


def on_terminal(patch: pytest.MonkeyPatch, columns: int) -> None:
    """From now on, standard output is a terminal so wide, without colours."""
    patch.setattr("sys.stdout.isatty", lambda: True)
    patch.setenv("COLUMNS", str(columns))
    patch.setenv("LINES", "40")
    patch.setenv("NO_COLOR", "1")
    patch.setenv("TERM", "dumb")
