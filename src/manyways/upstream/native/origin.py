"""Where a URL leads, and how requests to it begin. No sockets here."""

import base64
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Final

from msgspec import Struct
from yarl import URL

from manyways.upstream import proxies

_PORTS: Final = {"http": 80, "https": 443}
_BODILESS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "DELETE"})
_FRAMING: Final = frozenset({"content-length", "transfer-encoding"})
_HEADS: Final = 64
"""Beginnings of requests that are kept for each URL."""


class Route(Struct, frozen=True):
    """Where a connection leads. Requests whose routes are equal may share one.

    `host` is a name in ASCII, or an IP address without brackets. `tunnel`: by way of the proxy;
    else straight there. `asked_for`: there is the proxy, and this is the server that it is asked
    for. It would take requests for others as well, but bounds are a provider's own, and a proxy
    that reads no further than the first request would give one provider the other's keys.
    """

    host: str
    port: int
    tls: bool
    tunnel: bool = False
    asked_for: str = ""

    def __str__(self) -> str:
        place = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        return f"{self.asked_for} by way of {place}" if self.asked_for else place


class Origin:
    """What a URL means for the wire. `proxy` is an HTTP proxy's or a SOCKS proxy's URL.

    Raises `ValueError` for a URL that is not one of HTTP.
    """

    def __init__(self, url: str, proxy: URL | None = None) -> None:
        self.asked: proxies.Proxy | None = None
        """The proxy that is asked in place of the server, and may answer for itself."""
        parsed = URL(url)
        host, port = parsed.raw_host, parsed.port
        if parsed.scheme not in _PORTS or not host or not port:
            raise ValueError("not the address of an HTTP server")
        host.encode("idna")  # as who looks it up will, whose complaint nobody expects
        tls = parsed.scheme == "https"
        target, opening = parsed.raw_path_qs, f"Host: {parsed.host_port_subcomponent}\r\n"
        if proxy is None or tls or proxy.scheme not in _PORTS:
            self.route = Route(host, port, tls, tunnel=proxy is not None)
        else:  # an HTTP proxy is asked for the whole address
            self.asked = proxies.parse(str(proxy))
            self.route = Route(
                proxy.raw_host or "", proxy.port or 0, proxy.scheme == "https",
                asked_for=str(Route(host, port, tls)),
            )  # fmt: skip
            target = str(parsed.with_user(None).with_fragment(None))
            if proxy.user is not None:
                opening += f"Proxy-Authorization: {basic(proxy.user, proxy.password or '')}\r\n"
        opening = f" {target} HTTP/1.1\r\n{opening}"
        self._beginning = lru_cache(_HEADS)(partial(_beginning, opening, opening.count("\n")))

    def __repr__(self) -> str:
        return f"<Origin {self.route}>"

    def head(self, method: str, headers: Sequence[tuple[str, str]], size: int) -> bytes:
        """A request's first bytes, up to a body of `size` bytes. Raises `ValueError` for headers
        that cannot be sent: line breaks, or the framing that is ours to write."""
        beginning = self._beginning(method, tuple(headers))
        if size or method not in _BODILESS:
            return b"%sContent-Length: %d\r\n\r\n" % (beginning, size)
        return beginning + b"\r\n"


def _beginning(
    opening: str, lines: int, method: str, headers: tuple[tuple[str, str], ...]
) -> bytes:
    """All of a head but the length: the same for each request with the same headers."""
    text = method + opening + "".join(f"{name}: {value}\r\n" for name, value in headers)
    if not lines + len(headers) == text.count("\n") == text.count("\r") or "\0" in text:
        raise ValueError("a header holds a line break or a NUL")
    names = {name.lower() for name, _ in headers}
    if not _FRAMING.isdisjoint(names):
        raise ValueError("the length of the body is not the caller's to say")
    if "accept-encoding" not in names:
        text += "Accept-Encoding: identity\r\n"
    return text.encode()


def basic(user: str, password: str) -> str:
    """Credentials as RFC 7617 writes them."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
