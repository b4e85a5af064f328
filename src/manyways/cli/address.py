"""Where a gateway that listens somewhere is found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from manyways.errors import ManywaysError

if TYPE_CHECKING:
    from manyways.config import Settings

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


def running(settings: Settings) -> str | None:
    """The address to ask the gateway at that serves the configured database, as it said itself;
    `None` where none does, or it does not listen yet."""
    from manyways.store.database import serving, sqlite_path

    try:
        found = serving(sqlite_path(settings.database.url))
    except ManywaysError:
        return None
    where = urlsplit(found.address if found else "")
    return origin(where.hostname, where.port or 80) if where.hostname else None
