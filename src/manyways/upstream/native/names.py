"""Names that were looked up, kept for a fixed time."""

import asyncio
import socket
from collections.abc import Sequence
from functools import partial
from ipaddress import ip_address
from typing import Final, NamedTuple

from manyways.upstream.transport import Address, Lookup

_KEPT: Final = 1024
"""Names that are remembered at most."""
_LONGEST: Final = 30.0
"""Seconds for one look-up, were it that those who wait for it have all the time in the world."""

_Key = tuple[str, int]


class _Known(NamedTuple):
    addresses: Sequence[Address]
    until: float


class Names:
    """Looks names up by `lookup`, and serves what was found for `seconds`, never longer.

    Who asks for the same name at the same time shares one look-up, which goes on when nobody waits
    any more: it could not be called off, and the next who asks would begin another beside it.
    Failures are not remembered.
    """

    def __init__(self, lookup: Lookup, seconds: float = 30.0) -> None:
        self._lookup = lookup
        self._seconds = seconds
        self._known: dict[_Key, _Known] = {}  # the oldest first
        self._asked: dict[_Key, asyncio.Task[Sequence[Address]]] = {}

    def __repr__(self) -> str:
        return f"<Names known={len(self._known)} asked={len(self._asked)}>"

    async def addresses(self, host: str, port: int) -> Sequence[Address]:
        """Where a host is; an IP address is its own.

        Raises `OSError` where it is nowhere, and what the look-up likes for those that must not
        be reached.
        """
        if (literal := _literal(host, port)) is not None:
            return (literal,)
        key = host, port
        loop = asyncio.get_running_loop()
        known = self._known.get(key)
        if known is not None and loop.time() < known.until:
            return known.addresses
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = loop.create_task(self._ask(key))
            asked.add_done_callback(partial(self._answered, key))
        return await asyncio.shield(asked)

    def close(self) -> None:
        """Wait for nothing any more."""
        for task in self._asked.values():
            task.cancel()

    def forget(self, host: str, port: int) -> None:
        """None of its addresses could be reached: the next who asks shall have new ones."""
        self._known.pop((host, port), None)

    def prefer(self, host: str, port: int, address: str) -> None:
        """This one of its addresses could be reached: the others come behind it for now."""
        known = self._known.get((host, port))
        if known is not None and known.addresses[0].host != address:
            first = sorted(known.addresses, key=lambda one: one.host != address)
            self._known[host, port] = known._replace(addresses=first)

    def _answered(self, key: _Key, task: "asyncio.Task[Sequence[Address]]") -> None:
        del self._asked[key]
        if not task.cancelled():
            task.exception()  # one that nobody waits for is none that asyncio should report

    async def _ask(self, key: _Key) -> Sequence[Address]:
        try:
            async with asyncio.timeout(_LONGEST):
                found = tuple(await self._lookup(*key))
        except TimeoutError:
            raise TimeoutError("nobody told its address in time") from None
        except UnicodeError as error:  # what the system says of a name that cannot be one
            raise OSError("it is no name of a host") from error
        if not found:
            raise OSError("it has no address")
        self._known.pop(key, None)
        if self._seconds > 0:
            self._known[key] = _Known(found, asyncio.get_running_loop().time() + self._seconds)
            if len(self._known) > _KEPT:
                del self._known[next(iter(self._known))]
        return found


def _literal(host: str, port: int) -> Address | None:
    try:
        version = ip_address(host).version
    except ValueError:
        return None
    return Address(socket.AF_INET if version == 4 else socket.AF_INET6, host, port)
