"""Names that were looked up, kept for a fixed time."""

import asyncio
import socket
from collections.abc import Sequence
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


class _Asked:
    """A look-up under way, and how many wait for it: somebody always does."""

    __slots__ = ("task", "waiting")

    def __init__(self, task: "asyncio.Task[Sequence[Address]]") -> None:
        self.task = task
        self.waiting = 0


class Names:
    """Looks names up by `lookup`, and serves what was found for `seconds`, never longer.

    Who asks for the same name at the same time shares one look-up; it ends with the last who
    waits for it. Failures are not remembered.
    """

    def __init__(self, lookup: Lookup, seconds: float = 30.0) -> None:
        self._lookup = lookup
        self._seconds = seconds
        self._known: dict[_Key, _Known] = {}  # the oldest first
        self._asked: dict[_Key, _Asked] = {}

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
            asked = self._asked[key] = _Asked(loop.create_task(self._ask(key)))
            asked.task.add_done_callback(_noticed)
        asked.waiting += 1
        try:
            return await asyncio.shield(asked.task)
        finally:
            asked.waiting -= 1
            if not asked.waiting:
                asked.task.cancel()  # nothing to one that has ended
                if self._asked.get(key) is asked:
                    del self._asked[key]

    def forget(self, host: str, port: int) -> None:
        """None of its addresses could be reached: the next who asks shall have new ones."""
        self._known.pop((host, port), None)

    def prefer(self, host: str, port: int, address: str) -> None:
        """This one of its addresses could be reached: the others come behind it for now."""
        known = self._known.get((host, port))
        if known is not None and known.addresses[0].host != address:
            first = sorted(known.addresses, key=lambda one: one.host != address)
            self._known[host, port] = known._replace(addresses=first)

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


def _noticed(task: "asyncio.Task[Sequence[Address]]") -> None:
    """A failure that nobody waits for any more is none that asyncio should report."""
    if not task.cancelled():
        task.exception()


def _literal(host: str, port: int) -> Address | None:
    try:
        version = ip_address(host).version
    except ValueError:
        return None
    return Address(socket.AF_INET if version == 4 else socket.AF_INET6, host, port)
