"""The app in one process, behind one of Python's servers.

    python -m tests.support.servers.serve uvicorn PLAIN TLS IMPATIENT CERTIFICATE KEY

The first three are descriptors of listening sockets: one that speaks plainly, one with TLS, and
one whose connections may be unused for a second. It ends when its standard input does.
"""

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.support.servers.app import app

PATIENT: Final = 60
IMPATIENT: Final = 1


class Listener(NamedTuple):
    """A socket, and what is special about it. `patience` is in seconds."""

    socket: socket.socket
    patience: int = PATIENT
    certificate: Path | None = None
    key: Path | None = None


async def uvicorn(listener: Listener) -> None:
    from uvicorn import Config, Server

    server = Server(
        Config(
            app,
            log_level="critical",
            timeout_keep_alive=listener.patience,
            ssl_certfile=listener.certificate,
            ssl_keyfile=listener.key,
        )
    )
    await server.serve(sockets=[listener.socket])


async def hypercorn(listener: Listener) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{listener.socket.detach()}"]
    config.loglevel = "critical"
    config.keep_alive_timeout = listener.patience
    if listener.certificate is not None:
        config.certfile, config.keyfile = str(listener.certificate), str(listener.key)
    served: Any = app  # its own types of the same
    await serve(served, config, shutdown_trigger=asyncio.Event().wait)


async def granian(listener: Listener) -> None:
    from granian._granian import SocketHolder
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.server.embed import Server

    class Held(Server):
        def _init_shared_socket(self) -> None:
            held: Any = SocketHolder
            vars(self)["_shd"] = held(listener.socket.detach(), False, self.backlog)

    server = Held(
        app,
        interface=Interfaces.ASGINL,
        http=HTTPModes.auto if listener.certificate is not None else HTTPModes.http1,
        websockets=False,
        log_enabled=False,
        backlog=1024,
        # The wait for any head, the next one's as well as the first one's: the latter may be late.
        http1_settings=HTTP1Settings(header_read_timeout=2 * listener.patience * 1000),
        ssl_cert=listener.certificate,
        ssl_key=listener.key,
    )
    await server.serve()


SERVERS: Final[dict[str, Callable[[Listener], Awaitable[None]]]] = {
    "uvicorn": uvicorn,
    "hypercorn": hypercorn,
    "granian": granian,
}


async def main(name: str, descriptors: Sequence[str], *files: str) -> None:
    plain, tls, impatient = (socket.socket(fileno=int(number)) for number in descriptors)
    serve = SERVERS[name]
    await asyncio.gather(
        serve(Listener(plain)),
        serve(Listener(tls, PATIENT, *map(Path, files))),
        serve(Listener(impatient, IMPATIENT)),
    )


def _leave_with_the_parent() -> None:
    while sys.stdin.buffer.read(1):
        pass
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_leave_with_the_parent, daemon=True).start()
    asyncio.run(main(sys.argv[1], sys.argv[2:5], *sys.argv[5:]))
