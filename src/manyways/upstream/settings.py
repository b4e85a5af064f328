"""The `[upstream]` section: how providers are reached."""

from typing import Literal

from msgspec import Struct


class Settings(Struct, frozen=True, kw_only=True):
    """`proxy` is a URL, `none`, or empty for what the environment names. Files are in PEM form.

    `pool_size` bounds the connections to one origin of a provider (0: no bound). Connections are
    kept for `keepalive` seconds unused, and used until they are `max_age` seconds old. What was
    found out about names holds for `dns_ttl` seconds.
    """

    transport: Literal["aiohttp", "native"] = "aiohttp"
    proxy: str = ""
    no_proxy: tuple[str, ...] = ()
    ca_file: str = ""
    client_certificate: str = ""
    client_key: str = ""
    pool_size: int = 0
    keepalive: float = 15.0
    max_age: float | None = None
    dns_ttl: float = 30.0
