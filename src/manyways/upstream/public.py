"""Names and addresses that lead to the public internet, and nowhere else.

A provider may answer with an address where a picture lies. Whoever follows it from inside of a
private network must not be led to what is in there. Names are looked at when a connection is
made, so that one that means something else a moment later gains nothing.
"""

from collections.abc import Sequence
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

from manyways.errors import Refusal
from manyways.upstream.names import system_addresses
from manyways.upstream.transport import Address, Lookup

_TRANSLATED: Final = IPv6Network("64:ff9b::/96")
"""IPv4 addresses as networks without IPv4 write them (RFC 6052)."""


def public(lookup: Lookup = system_addresses) -> Lookup:
    """A lookup that raises `Refusal` (`provider_refused`) for a host that has an address in a
    private network, among others or not, and `OSError` for one that has none."""

    async def addresses(host: str, port: int) -> Sequence[Address]:
        found = await lookup(host, port)
        for one in found:
            see_that_it_is_public(one.host)
        return found

    return addresses


def see_that_it_is_public(host: str) -> None:
    """Raises `Refusal` where this is an address in a private network. Names pass."""
    if is_public(host) is False:
        raise Refusal("provider_refused", "what it names is in a private network")


def is_public(host: str) -> bool | None:
    """Whether an address is one of the public internet; `None` where it is no address.

    What is written in an odd way (`127.1`, `2130706433`, `0x7f.1`) is not taken for public. An
    IPv4 address inside of an IPv6 address counts; where that was for crossing networks, and is
    not done any more (6to4, Teredo), it is not public.
    """
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        last = host.rstrip(".").rpartition(".")[2]
        return False if last.isdecimal() or last[:2].lower() == "0x" else None
    if isinstance(address, IPv6Address):
        if address.sixtofour is not None:
            return False
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif address in _TRANSLATED:
            address = ip_address(int(address) & 0xFFFFFFFF)
    return address.is_global and not (address.is_multicast or address.is_reserved)
