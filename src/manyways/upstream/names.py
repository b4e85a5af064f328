"""Host names, looked up by the system.

That cannot be called off, and a name server that is away holds it for half a minute. So look-ups
have threads of their own: neither other work waits for them, nor does the end of the process.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Sequence
from typing import Final

from manyways.upstream.transport import Address

AT_ONCE: Final = 64
"""Look-ups of the whole process. Who comes then is told so, and is not made to wait."""

_room = threading.BoundedSemaphore(AT_ONCE)


async def system_addresses(host: str, port: int) -> Sequence[Address]:
    """The addresses of a host as the system knows them, as `transport.Lookup`.

    Raises `OSError` where it knows none.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[Sequence[Address]] = loop.create_future()
    if not _room.acquire(blocking=False):
        raise OSError(f"{AT_ONCE} names are being looked up, and none is found")

    def tell(addresses: Sequence[Address], error: Exception | None) -> None:
        if found.done():  # nobody waits any more
            return
        if error is None:
            found.set_result(addresses)
        else:
            found.set_exception(error)

    def work() -> None:
        addresses: Sequence[Address] = ()
        failure: Exception | None = None
        try:
            addresses = _looked_up(host, port)
        except (OSError, UnicodeError) as error:
            failure = error
        finally:
            _room.release()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, addresses, failure)

    try:
        threading.Thread(target=work, name=f"look-up of {host}", daemon=True).start()
    except RuntimeError as error:
        _room.release()
        raise OSError(f"no thread to look it up: {error}") from error
    return await found


def _looked_up(host: str, port: int) -> Sequence[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return tuple(Address(family, str(where[0]), int(where[1])) for family, _, _, _, where in found)
