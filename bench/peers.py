"""The gateways that are measured: how each is had, set up, started and asked.

Each is set up as its makers would for this work, with one upstream and nothing recorded to a
database, apart from what it cannot do without. Manyways checks keys; LiteLLM does too.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench import install, wire
from bench.failures import Missing
from bench.process import free_port

CHAT = "/v1/chat/completions"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a gateway is to run: its own port, the upstream's, and a folder for its files."""

    port: int
    upstream: int
    folder: Path

    @property
    def upstream_url(self) -> str:
        return f"http://127.0.0.1:{self.upstream}/v1"

    def write(self, name: str, text: str) -> Path:
        """A file in the folder of this gateway."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / name
        path.write_text(text)
        return path


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What starts a gateway, and how to ask it. `port_file` will name a port it picks itself."""

    command: tuple[str | Path, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    path: str = CHAT
    headers: Mapping[str, str] = field(default_factory=dict)
    model: str = wire.MODEL
    port_file: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A gateway: `have` installs it (raises `Missing`) and tells its version."""

    name: str
    label: str
    have: Callable[[], str]
    launch: Callable[[Place], Launch]
    streams: bool = True
    note: str = ""
    transport: str = ""
    """Of Manyways: which of its transports it has."""


def _installed(python: Path, distribution: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({distribution!r}))"
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


# --- nginx ------------------------------------------------------------------------------------

_NGINX_CONF = """\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 100000000;
    upstream provider {{
        server 127.0.0.1:{upstream};
        keepalive 1024;
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://provider;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


def _have_nginx() -> str:
    program = install.debian("nginx", ["nginx"])
    done = subprocess.run(
        [program.path, "-v"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env=os.environ | program.environment,
    )
    if done.returncode:
        raise Missing(f"nginx does not run here: {done.stderr.strip()[-200:]}")
    return done.stderr.strip().rpartition("/")[2]


def _launch_nginx(place: Place) -> Launch:
    program = install.debian("nginx", ["nginx"])
    conf = _NGINX_CONF.format(folder=place.folder, port=place.port, upstream=place.upstream)
    path = place.write("nginx.conf", conf)
    command = (program.path, "-p", place.folder, "-e", place.folder / "error.log", "-c", path)
    return Launch(command=command, environment=program.environment)


# --- Manyways ---------------------------------------------------------------------------------

_MANYWAYS = Path(sys.executable).parent / "manyways"
_MANYWAYS_TOML = """\
{stores}
[server]
port = {port}

[[providers]]
name = "bench"
protocol = "openai"
base_url = "{upstream}"
api_key = "x"

[[providers.models]]
id = "{model}"
"""


def manyways_config(place: Place, stores: str) -> Path:
    """The file that sets Manyways up at a place; `stores` are its tables about where it keeps
    keys and records, and whatever else is wanted."""
    toml = _MANYWAYS_TOML.format(
        port=place.port, stores=stores, upstream=place.upstream_url, model=wire.MODEL
    )
    return place.write("manyways.toml", toml)


def manyways_command(place: Place, config: Path, *, workers: int = 1) -> tuple[str | Path, ...]:
    """What serves there."""
    command = (_MANYWAYS, "serve", "--config", config, "--port", str(place.port))
    return command if workers == 1 else (*command, "--workers", str(workers))


def _launch_manyways(place: Place, transport: str) -> Launch:
    stores = f'[database]\nurl = "sqlite:///{place.folder}/bench.db"\n'
    return manyways(place, manyways_config(place, stores + over(transport)))


def over(transport: str) -> str:
    """The table that chooses Manyways' transport."""
    return f'[upstream]\ntransport = "{transport}"\n'


def manyways(place: Place, config: Path) -> Launch:
    """Manyways with a new database, asked with a key of an administrator."""
    done = subprocess.run(
        [_MANYWAYS, "keys", "create", "--type", "admin", "--config", config, "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise Missing(f"manyways keys create failed: {done.stderr.strip()[-300:]}")
    key = json.loads(done.stdout)["key"]
    command = manyways_command(place, config)
    return Launch(command=command, headers={"Authorization": f"Bearer {key}"})


def _have_manyways() -> str:
    if not _MANYWAYS.is_file():
        raise Missing("not installed here: make install")
    return importlib.metadata.version("manyways")


# --- TensorZero -------------------------------------------------------------------------------

_TENSORZERO_TOML = """\
[gateway]
observability.enabled = false

[models.{model}]
routing = ["bench"]

[models.{model}.providers.bench]
type = "openai"
model_name = "{model}"
api_base = "{upstream}"
api_key_location = "none"
"""


def _have_tensorzero() -> str:
    return _installed(install.venv("tensorzero"), "tensorzero")


def _launch_tensorzero(place: Place) -> Launch:
    toml = _TENSORZERO_TOML.format(model=wire.MODEL, upstream=place.upstream_url)
    config = place.write("tensorzero.toml", toml)
    port_file = place.folder / "port"
    port_file.unlink(missing_ok=True)
    runner = install.HERE / "tensorzero_gateway.py"
    return Launch(
        command=(install.venv("tensorzero"), runner, config, port_file),
        environment={"RUST_LOG": "error"},
        path="/openai/v1/chat/completions",
        model=f"tensorzero::model_name::{wire.MODEL}",
        port_file=port_file,
    )


# --- LiteLLM ----------------------------------------------------------------------------------

_LITELLM_YAML = """\
model_list:
  - model_name: {model}
    litellm_params:
      model: openai/{model}
      api_base: {upstream}
      api_key: x
general_settings:
  master_key: sk-bench
"""


def _have_litellm() -> str:
    return _installed(install.venv("litellm"), "litellm")


def _launch_litellm(place: Place) -> Launch:
    yaml = _LITELLM_YAML.format(model=wire.MODEL, upstream=place.upstream_url)
    config = place.write("litellm.yaml", yaml)
    program = install.venv("litellm").parent / "litellm"
    options = ("--host", "127.0.0.1", "--port", str(place.port), "--num_workers", "1")
    return Launch(
        command=(program, "--config", config, *options, "--telemetry", "False"),
        environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        headers={"Authorization": "Bearer sk-bench"},
    )


# --- SGLang router ----------------------------------------------------------------------------


def _have_sglang() -> str:
    return _installed(install.venv("sglang"), "sglang-router")


def _launch_sglang(place: Place) -> Launch:
    python = install.venv("sglang")
    upstream = place.upstream_url.removesuffix("/v1")
    where = ("--host", "127.0.0.1", "--port", str(place.port), "--worker-urls", upstream)
    # Its own metrics listener has a fixed port unless told otherwise.
    metrics = ("--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port()))
    module = ("-m", "sglang_router.launch_router", "--backend", "openai", "--log-level", "error")
    many = ("--max-concurrent-requests", "4096", "--queue-size", "4096")
    return Launch(command=(python, *module, *where, *metrics, *many))


# --- Portkey ----------------------------------------------------------------------------------


def _have_portkey() -> str:
    package = install.npm("portkey") / "@portkey-ai/gateway/package.json"
    return str(json.loads(package.read_text())["version"])


def _launch_portkey(place: Place) -> Launch:
    start = install.npm("portkey") / "@portkey-ai/gateway/build/start-server.js"
    return Launch(
        command=("node", start, "--headless", f"--port={place.port}"),
        headers={
            "Authorization": "Bearer x",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": place.upstream_url,
        },
    )


PEERS = (
    Peer(
        name="nginx",
        label="nginx proxy_pass",
        have=_have_nginx,
        launch=_launch_nginx,
        note="The limit: it passes bytes on and looks at none of them.",
    ),
    Peer(
        name="manyways",
        label="Manyways",
        have=_have_manyways,
        launch=partial(_launch_manyways, transport="aiohttp"),
        note="As it comes, authentication on.",
        transport="aiohttp",
    ),
    Peer(
        name="manyways-native",
        label="Manyways (own transport)",
        have=_have_manyways,
        launch=partial(_launch_manyways, transport="native"),
        note='The same with `upstream.transport = "native"`.',
        transport="native",
    ),
    Peer(
        name="sglang",
        label="SGLang router",
        have=_have_sglang,
        launch=_launch_sglang,
        note="Rust. No keys, no accounts.",
    ),
    Peer(
        name="tensorzero",
        label="TensorZero",
        have=_have_tensorzero,
        launch=_launch_tensorzero,
        note="Rust, the gateway inside its Python wheel, observability and authentication off; "
        "memory and start include that Python.",
    ),
    Peer(
        name="portkey",
        label="Portkey",
        have=_have_portkey,
        launch=_launch_portkey,
        streams=False,
        note="Node.js. Its streams fail with the Node of this machine, so only whole answers.",
    ),
    Peer(
        name="litellm",
        label="LiteLLM proxy",
        have=_have_litellm,
        launch=_launch_litellm,
        note="Python, one worker, master key set.",
    ),
)
