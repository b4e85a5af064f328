"""How quick the public catalog is with 5,000 models, beside nginx with the same bytes.

python -m bench catalog [--seconds 3] [--rounds 3]
"""

import http.client
import random
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace
from rich.console import Console
from rich.table import Table

from bench import install, peers, wrk
from bench.comparison import Comparison
from bench.failures import Died, Missing, Unloaded, Wrong
from bench.figures import readable
from bench.process import Process, finished, free_port, pinned
from bench.results import Metric
from bench.run import START_LIMIT, WORK_FOLDER, Settings
from manyways.catalog import listings
from manyways.catalog.claims import merge
from manyways.catalog.discovery import parse
from manyways.catalog.snapshot import Snapshot
from manyways.types import Provider

MODELS: Final = 5_000
PROVIDERS: Final = 8
OURS: Final = "Manyways"
NGINX: Final = "nginx, from memory"
CONNECTIONS: Final = {"unchanged": 64, "one": 64, "whole": 16}
GOALS: Final = (
    ("unchanged", 20_000.0, None),
    ("one", 20_000.0, None),
    ("whole", 0.25, NGINX),
    ("whole_busy", 0.25, NGINX),
)
"""The least that is wanted on one core; as a share of somebody's figure, where one is named."""

_METRICS: Final = (
    Metric("unchanged", "304 for the list", "/s", more_is_better=True),
    Metric("unchanged_cpu", "processor", "µs each", more_is_better=False),
    Metric("one", "one model", "/s", more_is_better=True),
    Metric("one_cpu", "processor", "µs each", more_is_better=False),
    Metric("whole", "the whole list", "MB/s", more_is_better=True),
    Metric("whole_busy", "the whole list", "MB per s of processor", more_is_better=True),
)
_RENDERED: Final = 10
"""So often, for the median."""
_SCRIPT: Final = Path(__file__).with_name("get.lua")
_LIST: Final = "/v1/models"
_LIMIT: Final = 15.0
_MEMORY: Final = Path("/dev/shm")  # noqa: S108  (what is there is in memory)

_CONFIG: Final = """\
[server]
port = {port}

[database]
url = "sqlite:///{folder}/bench.db"

[catalog]
probe = false
"""
_PROVIDER: Final = """
[[providers]]
name = "provider-{number}"
protocol = "openai"
base_url = "http://127.0.0.1:{port}/{number}/v1"
api_key = "x"
"""
# Over loopback, reading from memory in large pieces is quicker than sendfile by half.
_NGINX_CONF: Final = """\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    default_type application/json;
    keepalive_requests 100000000;
    sendfile off;
    output_buffers 2 512k;
    open_file_cache max=10000 inactive=1h;
    open_file_cache_valid 1h;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        root {root};
        try_files $uri.json =404;
    }}
}}
"""


@dataclass(frozen=True, kw_only=True)
class Server:
    """Somebody who serves the catalog. `tag` is that of the whole list."""

    name: str
    port: int
    process: Process
    tag: str = ""

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> "Page":
        """One answer. Raises `OSError`, `http.client.HTTPException`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_LIMIT)
        try:
            connection.request("GET", path, headers=dict(headers or {}))
            answer = connection.getresponse()
            return Page(answer.status, answer.getheader("etag") or "", answer.read())
        finally:
            connection.close()


@dataclass(frozen=True)
class Page:
    """An answer."""

    status: int
    tag: str
    body: bytes = field(repr=False)


class _Rows(msgspec.Struct):
    data: list[msgspec.Raw]


class _Row(msgspec.Struct):
    id: str


def _rendering(core: int) -> dict[str, float]:
    """Milliseconds until the list is there: at first, and once one of all models has changed, its
    row made anew or all rows."""
    rows = [
        model
        for number in range(PROVIDERS)
        for model in merge(
            Provider(name=f"provider-{number}", protocol="openai"), parse(_told(number)), now=0.0
        )
    ]
    names = tuple(f"provider-{number}" for number in range(PROVIDERS))
    found: dict[str, list[float]] = {}
    with pinned(core):
        for number in range(_RENDERED + 1):
            rows[number] = replace(rows[number], latency_ms=number)
            for what, models in (("row", rows), ("rows", [replace(row) for row in rows])):
                snapshot = Snapshot(tuple(models), names, float(number))
                began = time.perf_counter()
                listings.models(snapshot)
                took = (time.perf_counter() - began) * 1e3
                found.setdefault(what if number else f"first {what}", []).append(took)
    return {what: statistics.median(took) for what, took in found.items()}


def main(settings: Settings, console: Console) -> int:
    """Measure and tell; always 0."""
    compared = Comparison(_METRICS)
    program = install.debian("wrk", wrk.PACKAGES)
    WORK_FOLDER.mkdir(parents=True, exist_ok=True)
    with (
        _providers() as port,
        _gateway(port, settings.gateway_core) as ours,
        _memory() as root,
        _nginx(ours, root, settings.gateway_core) as nginx,
    ):
        load = _Load(program, settings)
        size = len(_checked(ours, nginx))
        console.print(f"{MODELS:,} models, a list of {size / 1e6:.2f} MB", highlight=False)
        for number in range(1, settings.rounds + 1):
            console.print(f"round {number} of {settings.rounds}", highlight=False)
            for work in CONNECTIONS:
                for server in (nginx, ours):
                    compared.keep(server.name, load.figures(work, server))
    compared.show(
        console,
        title=f"The public catalog: median of {settings.rounds} rounds, ± half the spread",
    )
    console.print(_goals(compared))
    took = _rendering(settings.gateway_core)
    console.print(
        f"The list is put together in {took['first row']:.1f} ms at first; when one of its models"
        f" has changed, in {took['row']:.1f} ms, and in {took['rows']:.1f} ms where all rows are"
        " new objects",
        style="dim",
    )
    return 0


def _goals(compared: Comparison) -> Table:
    table = Table("what", title="Goals", title_justify="left")
    for column in ("wanted", "reached", ""):
        table.add_column(column, justify="right")
    titles = {metric.name: f"{metric.title}, {metric.unit}" for metric in _METRICS}
    for name, bound, than in GOALS:
        wanted = f"≥ {readable(bound)}"
        if than is None:
            figure = compared.figure(OURS, name)
            reached = None if figure is None else figure.median
        else:
            reached = compared.ratio(OURS, than, name)
            wanted += f" × {than}"
        if reached is not None:
            met = "met" if reached >= bound else "missed"
            table.add_row(titles[name], wanted, readable(reached), met)
    return table


class _Load:
    """wrk on one core, asking for pages."""

    def __init__(self, program: install.Program, settings: Settings) -> None:
        self._program = program
        self._settings = settings
        ids = [model_id for number in range(PROVIDERS) for model_id in _ids(number)]
        random.Random(1).shuffle(ids)
        self._paths = {
            "unchanged": self._file("list", [_LIST]),
            "one": self._file("each", [f"{_LIST}/{model_id}" for model_id in ids]),
            "whole": self._file("list", [_LIST]),
        }

    def figures(self, work: str, server: Server) -> dict[str, float]:
        """What a server does of one work while the other rests."""
        server.process.resume()
        server.process.check()
        try:
            self._run(work, server, seconds=1)
            spent = server.process.cpu()
            sample = self._run(work, server, seconds=self._settings.seconds)
            spent = server.process.cpu() - spent
        finally:
            server.process.settle(2.0)
            server.process.pause()
        if sample.errors or not sample.requests:
            raise Unloaded(f"{server.name}: {work}: {sample}")
        if work == "whole":
            # The load's core is full before theirs are: what they could do is seen by processor.
            return {work: sample.bytes_per_second / 1e6, f"{work}_busy": sample.bytes / spent / 1e6}
        return {work: sample.per_second, f"{work}_cpu": spent / sample.requests * 1e6}

    def _run(self, work: str, server: Server, *, seconds: float) -> wrk.Sample:
        command = [str(self._program.path), "-t1", f"-c{CONNECTIONS[work]}", f"-d{seconds:.0f}s"]
        command += ["--timeout", "30s", "-s", str(_SCRIPT)]
        if work == "unchanged":
            command += ["-H", f"If-None-Match: {server.tag}"]
        said = finished(
            [*command, f"http://127.0.0.1:{server.port}/"],
            core=self._settings.load_core,
            limit=seconds + wrk.GRACE,
            environment={**self._program.environment, "BENCH_PATHS": str(self._paths[work])},
        )
        lines = [line for line in said.splitlines() if line.startswith(b'{"requests"')]
        if not lines:
            raise Unloaded(f"wrk told no figures: {said.decode().strip()[-300:]}")
        return msgspec.json.decode(lines[-1], type=wrk.Sample)

    def _file(self, name: str, paths: list[str]) -> Path:
        path = WORK_FOLDER / f"{name}.paths"
        path.write_text("".join(f"{line}\n" for line in paths))
        return path


def _checked(ours: Server, nginx: Server) -> bytes:
    """The list, once both were seen to serve the same. Raises `Wrong`."""
    whole = ours.get(_LIST).body
    if nginx.get(_LIST).body != whole:
        raise Wrong("nginx serves another list")
    for server in (ours, nginx):
        answer = server.get(_LIST, {"If-None-Match": server.tag})
        if (answer.status, answer.body) != (304, b""):
            raise Wrong(f"{server.name} answers {answer.status} to its own tag")
    for model_id in (*_ids(0)[:3], *_ids(PROVIDERS - 1)[-3:]):
        path = f"{_LIST}/{model_id}"
        row, same = ours.get(path), nginx.get(path)
        if row.status != 200 or msgspec.json.decode(row.body, type=_Row).id != model_id:
            raise Wrong(f"{path} is answered {row.status}")
        if row.body != same.body:
            raise Wrong(f"nginx answers {path} otherwise: {same.status}")
    ours.process.pause()
    nginx.process.pause()
    return whole


# Who is asked


@contextmanager
def _gateway(providers: int, core: int) -> Iterator[Server]:
    """Manyways, once it has all models."""
    next(peer for peer in peers.PEERS if peer.name == "manyways").have()
    folder = WORK_FOLDER / "catalog"
    shutil.rmtree(folder, ignore_errors=True)  # it would remember models of another run
    folder.mkdir(parents=True)
    place = peers.Place(port=free_port(), upstream=providers, folder=folder)
    tables = [_PROVIDER.format(number=number, port=providers) for number in range(PROVIDERS)]
    config = _CONFIG.format(port=place.port, folder=folder) + "".join(tables)
    command = peers.manyways_command(place, place.write("catalog.toml", config))
    with Process(command, core=core, log=folder / "output.log", cwd=folder) as process:
        server = Server(name=OURS, port=place.port, process=process)
        tag = _until(server, _LIST, lambda page: page.body.count(b'"object":"model"') == MODELS)
        yield Server(name=OURS, port=place.port, process=process, tag=tag)


@contextmanager
def _nginx(ours: Server, root: Path, core: int) -> Iterator[Server]:
    """nginx, with the answers of ours as files in memory."""
    listed = root / _LIST.strip("/")
    whole = ours.get(_LIST).body
    for row in msgspec.json.decode(whole, type=_Rows).data:
        path = listed / f"{msgspec.json.decode(row, type=_Row).id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(row)
    listed.with_suffix(".json").write_bytes(whole)
    program = install.debian("nginx", ["nginx"])
    folder = WORK_FOLDER / "catalog-nginx"
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    conf = folder / "nginx.conf"
    conf.write_text(_NGINX_CONF.format(folder=folder, port=port, root=root))
    command = (program.path, "-p", folder, "-e", folder / "error.log", "-c", conf)
    log = folder / "output.log"
    with Process(command, core=core, log=log, environment=program.environment) as process:
        server = Server(name=NGINX, port=port, process=process)
        tag = _until(server, _LIST, lambda page: page.status == 200)
        yield Server(name=NGINX, port=port, process=process, tag=tag)


def _until(server: Server, path: str, right: Callable[[Page], bool]) -> str:
    """The tag of the first answer that is right. Raises `Died` where none comes in time."""
    while time.monotonic() < server.process.started + START_LIMIT:
        server.process.check()
        try:
            page = server.get(path)
        except (OSError, http.client.HTTPException):
            page = None
        if page is not None and right(page):
            return page.tag
        time.sleep(0.05)
    raise Died(f"{server.name} did not serve {path} within {START_LIMIT:.0f} s")


@contextmanager
def _memory() -> Iterator[Path]:
    """A folder that is in memory."""
    if not _MEMORY.is_dir():
        raise Missing(f"{_MEMORY}, which nginx is to serve from")
    with tempfile.TemporaryDirectory(dir=_MEMORY) as folder:
        root = Path(folder)
        root.chmod(0o755)  # its workers are nobody
        yield root


# Who has the models


def _ids(provider: int) -> list[str]:
    each = MODELS // PROVIDERS
    return [f"vendor-{provider}/model-{provider * each + n}-instruct" for n in range(each)]


def _told(provider: int) -> bytes:
    """A list of models as OpenRouter tells it, with all that a row can have."""
    models = [
        {
            "id": model_id,
            "created": 1731654208,
            "context_length": 131072,
            "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
            "pricing": {"prompt": "0.0000025", "completion": "0.00001"},
            "top_provider": {"max_completion_tokens": 16384},
            "supported_parameters": ["tools", "structured_outputs", "reasoning"],
        }
        for model_id in _ids(provider)
    ]
    return msgspec.json.encode({"data": models})


class _Provider(BaseHTTPRequestHandler):
    """Whoever is asked at `/{number}/...` has that provider's models."""

    def do_GET(self) -> None:
        body = _told(int(self.path.split("/")[1]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nobody reads it."""


@contextmanager
def _providers() -> Iterator[int]:
    """The port of all providers. They are asked once, at the start of the gateway."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Provider) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
