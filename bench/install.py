"""Where the peers live: each in a folder of its own below `bench/.peers`, pinned.

Nothing is installed into the system. What is there already is not fetched again.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.failures import Missing

HERE = Path(__file__).parent
PEERS = HERE / ".peers"
LIMIT = 900.0
"""Seconds that one installing command may take."""


def venv(name: str) -> Path:
    """The Python of a virtual environment that holds `bench/requirements-{name}.txt`."""
    requirements = HERE / f"requirements-{name}.txt"
    home = PEERS / name
    python = home / "bin" / "python"
    if not _current(home, requirements):
        shutil.rmtree(home, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(home)])
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--no-deps", "--require-hashes", "-r", str(requirements)])
        _stamp(home, requirements)
    return python


def npm(name: str) -> Path:
    """The `node_modules` that `bench/{name}/package-lock.json` asks for."""
    source = HERE / name
    home = PEERS / name
    lock = source / "package-lock.json"
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise Missing(f"{program} is not on this machine")
    if not _current(home, lock):
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(source, home)
        _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=home)
        _stamp(home, lock)
    return home / "node_modules"


def debian(program: str, packages: Sequence[str]) -> "Program":
    """A program of this system, or one unpacked from Debian's packages without installing them."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if found is not None:
        return Program(Path(found), None)
    root = PEERS / "debian"
    if _inside(root, program) is None:
        _unpack(packages, root)
    path = _inside(root, program)
    if path is None:
        raise Missing(f"Debian's packages {', '.join(packages)} hold no {program}")
    libraries = next(iter(sorted(root.glob("usr/lib/*-linux-gnu*"))), None)
    return Program(path, libraries)


class Program:
    """An executable, and the folder of libraries it needs beside the system's."""

    def __init__(self, path: Path, libraries: Path | None) -> None:
        self.path = path
        self.environment = {} if libraries is None else {"LD_LIBRARY_PATH": str(libraries)}

    def __repr__(self) -> str:
        return f"Program({self.path})"


def _inside(root: Path, program: str) -> Path | None:
    for folder in ("usr/sbin", "usr/bin"):
        path = root / folder / program
        if path.is_file():
            return path
    return None


def _unpack(packages: Sequence[str], root: Path) -> None:
    for program in ("apt-get", "dpkg"):
        if shutil.which(program) is None:
            raise Missing(f"neither here, nor to be fetched: {program} is not on this machine")
    # Package lists of our own, so that this needs no root and changes nothing outside.
    apt = PEERS / "apt"
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    options = ["-qq", "-o", f"Dir::State={apt / 'state'}", "-o", f"Dir::Cache={apt / 'cache'}"]
    options += ["-o", "Dir::State::status=/var/lib/dpkg/status", "-o", "APT::Sandbox::User="]
    _run(["apt-get", *options, "update"], cwd=apt)
    _run(["apt-get", *options, "download", *packages], cwd=apt)
    for package in sorted(apt.glob("*.deb")):
        _run(["dpkg", "-x", str(package), str(root)])


def _stamp_of(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()


def _current(home: Path, lock: Path) -> bool:
    stamp = home / ".stamp"
    return stamp.is_file() and stamp.read_text() == _stamp_of(lock)


def _stamp(home: Path, lock: Path) -> None:
    (home / ".stamp").write_text(_stamp_of(lock))


def _run(command: Sequence[str], cwd: Path | None = None) -> None:
    name = Path(command[0]).name
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Missing(f"{name} took more than {LIMIT:.0f} s") from error
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise Missing(f"{name} failed: {' '.join(last)}")
