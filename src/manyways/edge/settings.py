"""The `[server]` section: where callers reach us, and what we put up with from them."""

from typing import Literal

from msgspec import Struct

ErrorFormat = Literal["object", "string"]


class Mount(Struct, frozen=True, kw_only=True):
    """A path under which the API hangs: starts with a slash and does not end with one.

    `error_format` is `None` where the server's own applies.
    """

    path: str
    error_format: ErrorFormat | None = None


class Settings(Struct, frozen=True, kw_only=True):
    """Time limits in seconds, sizes in bytes.

    `port` 0 lets the system choose. `body_timeout` is for a request's whole body to arrive,
    `header_timeout` for its head, `send_timeout` for a caller that reads nothing, `drain` for
    running streams to finish when the server stops. `max_connections` is how many requests
    are served at once, `backlog` how many may wait at the socket. `public_url` is where
    callers reach us, when it is not where we listen. `trusted_proxies` are addresses or networks
    whose `X-Forwarded-For` is believed.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    mounts: tuple[Mount, ...] = (Mount(path="/v1"), Mount(path="/webhook/v1"))
    error_format: ErrorFormat = "object"
    max_body: int = 32 * 1024 * 1024
    body_timeout: float = 30.0
    header_timeout: float = 10.0
    send_timeout: float = 60.0
    drain: float = 30.0
    backlog: int = 2048
    max_connections: int = 4096
    public_url: str | None = None
    trusted_proxies: tuple[str, ...] = ()
