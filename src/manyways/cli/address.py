"""Where a gateway that listens somewhere is found."""

from typing import Final

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
"""Hosts that are this machine."""

_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - names for "everywhere", never bound here


def reachable(host: str) -> str:
    """The host to ask from this machine where `host` is listened on."""
    return _ANYWHERE.get(host, host)


def origin(host: str, port: int) -> str:
    """The address to ask from this machine: `http://127.0.0.1:8080`, `http://[::1]:8080`."""
    found = reachable(host)
    return f"http://[{found}]:{port}" if ":" in found else f"http://{found}:{port}"
