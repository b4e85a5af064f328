"""The socket that callers connect to, and the process around it: start, signals, stop.

start   socket ─▶ everything behind it (`gateway`) ─▶ listening
stop    new requests refused ─▶ running ones finish, or are cut honestly ─▶ the rest
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import cast

import structlog
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from manyways.app.gateway import Worker, gateway
from manyways.config import Settings
from manyways.edge.http import Edge
from manyways.errors import ManywaysError
from manyways.store.database import Database

log = structlog.get_logger("manyways")

ONE_SIGNAL = 0.5
"""Seconds in which several signals are one: `make` passes on what the whole group got."""


class CannotListen(ManywaysError):
    """The address is taken, or not ours to listen on."""


async def serve(
    settings: Settings,
    database: Database,
    ready: Callable[[str], None],
    listener: socket.socket | None = None,
    worker: Worker | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT. `ready` is called with the base URL once the socket listens.
    `listener` is one that was made already, for a `worker`.

    Raises `CannotListen`. The database stays open: it belongs to the caller.
    """
    listener = listener or listen(settings)
    stop = asyncio.Event()
    _do_not_interrupt()
    async with gateway(settings, database, worker) as edge:
        url = url_of(listener)
        server = _Server(edge, settings, listener)
        serving = asyncio.create_task(server.serve())
        with _signals(stop):
            _spare_what_stays()
            ready(url)
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                await serving
                raise CannotListen("the HTTP server ended by itself")
            log.info("stopping")
            # Until they are through, whoever comes is told to ask again, and not turned away.
            await edge.drain(settings.server.drain)
            cast("Callable[[], None]", server.stop)()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5.0):
                    await serving
        log.info("stopped")


class _Server(Server):
    """Granian on a socket of ours, which it closes when it stops."""

    def __init__(self, edge: Edge, settings: Settings, listener: socket.socket) -> None:
        server = settings.server
        super().__init__(
            edge,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            log_enabled=False,
            backlog=server.backlog,
            backpressure=server.max_connections,
            http1_settings=HTTP1Settings(
                header_read_timeout=int(server.header_timeout * 1000), max_buffer_size=64 * 1024
            ),
        )
        self._listener = listener

    def _init_shared_socket(self) -> None:
        # Its type information knows neither the constructor's arguments nor what this holds.
        held = cast("Callable[[int, bool, int], object]", SocketHolder)
        vars(self)["_shd"] = held(self._listener.detach(), False, self.backlog)


def url_of(listener: socket.socket) -> str:
    """The address that a socket listens on, as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def listen(settings: Settings, port: int | None = None, *, shared: bool = False) -> socket.socket:
    """The socket that callers connect to, `port` in place of the configured one. Several that
    are `shared` may listen at one address: the system deals out connections among them.

    Raises `CannotListen`.
    """
    server = settings.server
    wanted = server.port if port is None else port
    try:
        found = socket.getaddrinfo(
            server.host, wanted, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, where = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                # Connections inherit it: the system ends one whose caller reads nothing, which
                # the HTTP server would keep, place and all, for as long as the caller likes.
                limit = int(server.send_timeout * 1000)
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit)
            listener.bind(where)
            listener.listen(server.backlog)
            listener.setblocking(False)
        except BaseException:  # also when interrupted: nobody else would close it
            listener.close()
            raise
    except OSError as error:
        raise CannotListen(
            f"Cannot listen on {server.host}:{wanted}: {error.strerror or error}. Another"
            " program may be using the port; choose one with --port, in the config under [server]"
            " port, or as MANYWAYS__SERVER__PORT."
        ) from error
    return listener


def _do_not_interrupt() -> None:
    """Threads hand over when they wait, not whenever another wakes up.

    The HTTP server's thread is woken many times a request. On a busy core each wake-up would
    interrupt the event loop, and cost a quarter of all answers. Threads inherit the policy.
    """
    if hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):  # where a sandbox forbids it, it is only slower
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _spare_what_stays() -> None:
    """The garbage collector need not look at modules and settings again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@contextlib.contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    """A first signal asks for a clean stop, a later one ends the process."""
    loop = asyncio.get_running_loop()
    first = 0.0

    def heard() -> None:
        nonlocal first
        if not stop.is_set():
            first = loop.time()
            stop.set()
        elif loop.time() - first > ONE_SIGNAL:
            os._exit(1)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, heard)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
