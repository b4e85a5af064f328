"""Where a caller really is, behind reverse proxies of ours."""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network


def origin_of(peer: str, forwarded: str, trusted: Sequence[str]) -> str:
    """The address that the nearest party tells which is not one of our proxies.

    `forwarded` is the `X-Forwarded-For` that `peer` sent: each proxy adds, at its end, whom it
    was asked by. What stands before an address we do not trust may be made up.
    """
    address = peer
    for told in reversed(forwarded.split(",")):
        known = _address(address)
        if known is None or not _is_trusted(known, tuple(trusted)):
            break
        before = _address(told.strip())
        if before is None:
            break
        address = str(before)
    return address


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(text.removeprefix("[").partition("]")[0])
    except ValueError:
        return None
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


@lru_cache(1024)
def _is_trusted(address: IPv4Address | IPv6Address, trusted: tuple[str, ...]) -> bool:
    return any(address in ip_network(network, strict=False) for network in trusted)
