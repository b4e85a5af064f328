"""Host names, looked up by the system."""

import asyncio
import socket
from collections.abc import Sequence

from manyways.upstream.transport import Address


async def system_addresses(host: str, port: int) -> Sequence[Address]:
    """The addresses of a host as the system knows them, as `transport.Lookup`.

    Raises `OSError` where it knows none.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return tuple(Address(family, str(where[0]), int(where[1])) for family, _, _, _, where in found)
