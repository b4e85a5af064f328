"""Real HTTP servers, each as a process of its own on free ports of 127.0.0.1.

with Servers(folder, certificate, key) as servers:
    url = servers.get("nginx").url("https")
"""

import contextlib
import grp
import http.client
import os
import pwd
import shutil
import socket
import string
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

from tests.support.servers.app import pattern

__all__ = ["NAMES", "Running", "Scheme", "Servers", "missing", "pattern"]

NAMES: Final = ("nginx", "uvicorn", "granian", "hypercorn", "node")
Scheme = Literal["http", "https", "impatient"]

_HERE: Final = Path(__file__).parent
_ROOT: Final = _HERE.parents[2]
_UNPACKED: Final = _ROOT / "bench" / ".peers" / "debian" / "usr" / "sbin"
_START_LIMIT: Final = 60.0
_END_LIMIT: Final = 10.0


def missing(name: str) -> str | None:
    """Why this server cannot run here, if it cannot."""
    if name == "nginx" and _nginx() is None:
        return "nginx is not on this machine; `.ci/run` fetches it"
    if name == "node" and shutil.which("node") is None:
        return "node is not on this machine"
    return None


@dataclass(frozen=True)
class Running:
    """A server that listens at three ports.

    `impatient` is plain, and closes connections that were unused for a second.
    """

    name: str
    http: int
    https: int
    impatient: int

    def url(self, scheme: Scheme = "http") -> str:
        port: int = getattr(self, scheme)
        return f"{'https' if scheme == 'https' else 'http'}://127.0.0.1:{port}"


class Servers:
    """Starts servers when they are asked for first; leaving it ends them.

    `certificate` and `key` are files in PEM form, the chain's, for 127.0.0.1. `folder` is
    for what nginx writes, and serves below `/files/`.
    """

    def __init__(self, folder: Path, certificate: Path, key: Path) -> None:
        self._folder = folder
        self._certificate = certificate
        self._key = key
        self._running: dict[str, Running] = {}
        self._stack = contextlib.ExitStack()

    def __repr__(self) -> str:
        return f"<Servers {', '.join(self._running)}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def get(self, name: str) -> Running:
        """The server of this name."""
        if name not in self._running:
            self._running[name] = self._stack.enter_context(self._started(name))
        return self._running[name]

    @contextlib.contextmanager
    def _started(self, name: str) -> Iterator[Running]:
        # The sockets listen before the server runs: whoever comes early waits in their queue,
        # and nobody else can take their ports.
        with contextlib.ExitStack() as stack:
            sockets = [
                stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
                for _ in range(3)
            ]
            running = Running(name, *(one.getsockname()[1] for one in sockets))
            descriptors = [one.fileno() for one in sockets]
            command, environment = self._command(running, descriptors)
            process = subprocess.Popen(
                command,
                cwd=_ROOT,
                env=os.environ | environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=descriptors,
            )
        with process:
            try:
                _wait_for(running.http)
                yield running
            finally:
                if name == "nginx":
                    process.terminate()  # it ends its workers, too
                else:
                    process.kill()
                process.wait(_END_LIMIT)

    def _command(
        self, server: Running, descriptors: Sequence[int]
    ) -> tuple[Sequence[str], Mapping[str, str]]:
        arguments = [*map(str, descriptors), str(self._certificate), str(self._key)]
        if server.name == "node":
            return ["node", str(_HERE / "server.mjs"), *arguments], {}
        if server.name == "nginx":
            # As it hands its sockets over to a newer nginx.
            inherited = {"NGINX": "".join(f"{one};" for one in descriptors)}
            return self._nginx_command(server), inherited
        module = "tests.support.servers.serve"
        return [sys.executable, "-m", module, server.name, *arguments], {}

    def _nginx_command(self, server: Running) -> Sequence[str]:
        program = _nginx()
        if program is None:
            raise FileNotFoundError("nginx")
        template = string.Template((_HERE / "nginx.conf").read_text())
        text = template.safe_substitute(
            USER=pwd.getpwuid(os.getuid()).pw_name,
            GROUP=grp.getgrgid(os.getgid()).gr_name,
            FOLDER=self._folder,
            APP=self.get("uvicorn").http,
            PLAIN=server.http,
            TLS=server.https,
            IMPATIENT=server.impatient,
            CERTIFICATE=self._certificate,
            KEY=self._key,
        )
        conf = self._folder / "nginx.conf"
        conf.write_text(text)
        log = str(self._folder / "error.log")
        return [program, "-p", str(self._folder), "-e", log, "-c", str(conf)]


def _wait_for(port: int) -> None:
    """Return when there is an answer. Raises `OSError` where the server died, or says nothing."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_START_LIMIT)
    with contextlib.closing(connection):
        connection.request("GET", "/length?bytes=1")
        connection.getresponse().read()


def _nginx() -> str | None:
    """A program of the system, or the one that the benchmark has unpacked for itself."""
    return shutil.which("nginx") or shutil.which(
        "nginx", path=f"/usr/sbin:/usr/local/sbin:{_UNPACKED}"
    )
