"""Real HTTP proxies, each as a process of its own on a port of 127.0.0.1.

with running("squid", folder) as url:
    ...
"""

import contextlib
import os
import shutil
import socket
import string
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

__all__ = ["NAMES", "PASSWORD", "missing", "running"]

NAMES: Final = ("squid", "tinyproxy")
PASSWORD: Final = "hunter2"
"""Of the user "me", which tinyproxy asks for."""

_HERE: Final = Path(__file__).parent
_UNPACKED: Final = _HERE.parents[2] / "bench" / ".peers" / "debian"
_TINYPROXY: Final = f"""Port $PORT
Listen 127.0.0.1
BasicAuth me {PASSWORD}
MaxClients 100
"""
_TRIES: Final = 5
_START_LIMIT: Final = 60.0
_END_LIMIT: Final = 10.0


def missing(name: str) -> str | None:
    """Why this proxy cannot run here, if it cannot."""
    found = _program(name)
    if found is None or (
        name == "squid" and not (_root(found) / "usr/lib/squid/unlinkd").is_file()
    ):
        return f"{name} is not on this machine, or not Debian's; `.ci/run` fetches it"
    tried = subprocess.run(
        [str(found), "-v"], env=_environment(found), capture_output=True, check=False
    )
    if tried.returncode:
        return f"{name} does not run here: {tried.stderr.decode(errors='replace').strip()}"
    return None


@contextlib.contextmanager
def running(name: str, folder: Path) -> Iterator[str]:
    """The URL of a proxy, user and password included where it wants them.

    `folder` is for its configuration. Neither program takes a port that is open already or tells
    of one it was given, so somebody else may be quicker: then another one is tried.
    """
    for _ in range(_TRIES):
        port = _free_port()
        process = _start(name, folder, port)
        try:
            if _listens(process, port):
                yield f"http://{f'me:{PASSWORD}@' if name == 'tinyproxy' else ''}127.0.0.1:{port}"
                return
        finally:
            process.terminate()
            process.wait(_END_LIMIT)
    raise OSError(f"{name} does not start")


def _start(name: str, folder: Path, port: int) -> "subprocess.Popen[bytes]":
    program = _program(name)
    if program is None:
        raise FileNotFoundError(name)
    root = _root(program)
    template = (_HERE / "squid.conf").read_text() if name == "squid" else _TINYPROXY
    conf = folder / f"{name}.conf"
    inside = "" if root == Path("/") else str(root)
    conf.write_text(string.Template(template).safe_substitute(PORT=port, ROOT=inside))
    return subprocess.Popen(
        [str(program), *_arguments(name, conf, port)],
        cwd=folder,
        env=_environment(program),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _environment(program: Path) -> dict[str, str]:
    """With the libraries beside a program that was unpacked."""
    root = _root(program)
    libraries = ":".join(map(str, root.glob("usr/lib/*-linux-gnu*"))) if root == _UNPACKED else ""
    return dict(os.environ) | ({"LD_LIBRARY_PATH": libraries} if libraries else {})


def _arguments(name: str, conf: Path, port: int) -> Sequence[str]:
    if name == "squid":
        return ["-N", "-n", f"manyways{port}", "-f", str(conf)]  # shared memory has that name
    return ["-d", "-c", str(conf)]


def _listens(process: "subprocess.Popen[bytes]", port: int) -> bool:
    until = time.monotonic() + _START_LIMIT
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return process.poll() is None
        time.sleep(0.02)
    return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


def _program(name: str) -> Path | None:
    """A program of the system, or one that was unpacked from its package."""
    unpacked = f"{_UNPACKED}/usr/sbin:{_UNPACKED}/usr/bin"
    found = shutil.which(name) or shutil.which(name, path=f"/usr/sbin:/usr/local/sbin:{unpacked}")
    return Path(found) if found else None


def _root(program: Path) -> Path:
    return _UNPACKED if program.is_relative_to(_UNPACKED) else Path("/")
