"""Proxies: what their URLs say, whom the environment names, and who is reached without one."""

import base64
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from ipaddress import ip_address, ip_network
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from msgspec import Struct

PORTS: Final = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
"""The ports of proxies whose URLs name none."""

_LONGEST: Final = 255
"""Bytes of a user or a password that SOCKS can carry (RFC 1929)."""

_PORTS: Final = 65536

_ENDS_HOST: Final = frozenset("/?#")

_SAID: Final = 100
"""Letters of a proxy's reason that are passed on."""


class Proxy(Struct, frozen=True):
    """Where a proxy is, and what it wants to know. `host` is ASCII and has no brackets."""

    scheme: str
    host: str
    port: int
    user: str = ""
    password: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __repr__(self) -> str:
        """Without its password: whatever is printed ends in a log."""
        return f"<Proxy {self.scheme}://{self}>"

    @property
    def socks(self) -> bool:
        return self.scheme.startswith("socks")

    def answered(self, status: int, reason: str = "") -> str:
        """That this proxy answered so, for a log: one line, without what it knows of us. Some
        repeat the user and the password that they do not accept."""
        if not reason and status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            reason = HTTPStatus.PROXY_AUTHENTICATION_REQUIRED.phrase
        said = "".join(letter for letter in reason if letter.isprintable())
        if not said.isascii() or self._is_quoted(said):
            said = ""
        return f"the proxy {self} answered {status} {said[:_SAID]}".rstrip()

    def _is_quoted(self, said: str) -> bool:
        """Whether words hold the user or the password, as they are or encoded."""
        basic = base64.b64encode(f"{self.user}:{self.password}".encode()).decode().rstrip("=")
        secrets = {self.user, self.password, basic} if self.user or self.password else set()
        heard = (said.lower(), unquote(said).lower())
        return any(one and one.lower() in text for one in secrets for text in heard)


class Named(NamedTuple):
    """A proxy's URL, and the variable of the environment that names it."""

    variable: str
    url: str


def parse(url: str) -> Proxy:
    """The proxy that a URL names: `http`, `https`, `socks5` or `socks5h`.

    Raises `ValueError`, whose words follow the name of a setting and hold no password.
    """
    from yarl import URL

    if " " in url or not url.isprintable():
        raise ValueError("holds a blank or a control character")
    scheme, found, rest = url.partition("://")
    if not found:
        raise ValueError('should be a URL like "http://proxy.example.com:3128", or "none"')
    scheme = scheme.lower()
    if scheme not in PORTS:
        raise ValueError(f'is of the scheme "{scheme}"; there is {", ".join(PORTS)}')
    before, at, _ = rest.rpartition("@")
    if at and not _ENDS_HOST.isdisjoint(before):
        raise ValueError(
            "has a /, ? or # in its user or password; write it percent-encoded: %2F, %3F, %23"
        )
    try:
        parsed = URL(url)
        host, port = parsed.raw_host, parsed.explicit_port
    except ValueError:
        parsed, host, port = URL(), None, None
    if not host or port == 0:
        raise ValueError("has no host, or a port that is none")
    if parsed.raw_path not in {"", "/"} or parsed.raw_query_string or parsed.raw_fragment:
        raise ValueError("has something behind its port, where nothing belongs")
    proxy = Proxy(scheme, host, port or PORTS[scheme], parsed.user or "", parsed.password or "")
    if ":" in proxy.user:
        raise ValueError("has a colon in its user, which no proxy could tell from the password's")
    if proxy.socks and (proxy.user or proxy.password):
        _see_that_socks_can_carry(proxy)
    return proxy


def _see_that_socks_can_carry(proxy: Proxy) -> None:
    for what, said in (("user", proxy.user), ("password", proxy.password)):
        if not said:
            raise ValueError(f"has no {what}; SOCKS wants both or neither")
        if not said.isascii() or len(said) > _LONGEST:
            raise ValueError(f"has a {what} that SOCKS cannot carry: 255 letters of ASCII")


def named(environ: Mapping[str, str], scheme: str) -> Named | None:
    """The proxy that an environment names for `http` or `https`, as curl and Python read it.

    A name in lower case goes before the same in capitals, even where it is empty. A proxy
    without a scheme is one of HTTP.
    """
    for kind in (scheme, "all"):
        # A server hands a request's `Proxy:` header to CGI programs as HTTP_PROXY.
        names = [f"{kind}_proxy", f"{kind}_proxy".upper()]
        if kind == "http" and "REQUEST_METHOD" in environ:
            names.pop()
        name = next((one for one in names if one in environ), None)
        if name is not None and (url := environ[name].strip()):
            return Named(name, url if "://" in url else f"http://{url}")
    return None


def of_environment(environ: Mapping[str, str], url: str) -> Named | None:
    """The proxy that an environment wants for a URL. This machine is reached without one."""
    found = named(environ, url.partition("://")[0])
    if found is None or is_loopback(url) or bypasses(url, spared(environ)):
        return None
    return found


def spared(environ: Mapping[str, str]) -> tuple[str, ...]:
    """What an environment wants reached without a proxy (`NO_PROXY`), for `bypasses`."""
    said = environ.get("no_proxy", environ.get("NO_PROXY", ""))
    return tuple(said.replace(",", " ").split())


def bypasses(url: str, entries: Iterable[str]) -> bool:
    """Whether one of `entries` means the host of `url`.

    An entry is a name, which means all below it as well, an address, a network (`10.0.0.0/8`)
    or `*`; names and addresses may have a port.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or PORTS.get(parts.scheme)
    return any(_means(entry.lower(), host, port) for entry in entries)


def can_be_meant(entry: str) -> bool:
    """Whether an entry without a network is of a form that `bypasses` knows: its port is one,
    and its address of IPv6 too."""
    host, port = entry, ""
    if entry.startswith("["):
        host, bracket, rest = entry[1:].partition("]")
        port = rest.removeprefix(":")
        if not bracket or (rest and not port) or (rest and not rest.startswith(":")):
            return False
    elif entry.count(":") == 1:
        host, _, port = entry.partition(":")
        if not port:
            return False
    if port and not (port.isdecimal() and port.isascii() and 0 < int(port[:9]) < _PORTS):
        return False
    return bool(host) and (":" not in host or _is_within(host, host))


def _means(entry: str, host: str, port: int | None) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        return _is_within(host, entry)
    wanted = ""
    if entry.startswith("["):
        entry, _, rest = entry[1:].partition("]")
        wanted = rest.removeprefix(":")
    elif entry.count(":") == 1:
        entry, _, wanted = entry.partition(":")
    if wanted and wanted != str(port):
        return False
    if ":" in entry:
        return _is_within(host, entry)
    name = entry.removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _is_within(host: str, network: str) -> bool:
    try:
        return ip_address(host) in ip_network(network, strict=False)
    except ValueError:
        return False


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine itself."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
