"""By which way each provider is reached: through which proxy, with which certificates.

Providers that agree in that share a transport. What is heavy is imported for who uses it.
"""

import math
import os
import ssl
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from msgspec import Struct

from manyways.errors import ConfigError
from manyways.types import Provider
from manyways.upstream import proxies
from manyways.upstream.settings import Settings
from manyways.upstream.transport import Lookup, Transport

STRAIGHT: Final = "none"
"""What is written for `proxy` where there is to be none."""


class Outlet(Struct, frozen=True):
    """One way out. `proxy` is a URL, empty where none is used; files as the settings name them."""

    proxy: str = ""
    ca_file: str = ""
    client_certificate: str = ""
    client_key: str = ""

    def __repr__(self) -> str:
        """Without the proxy's password: whatever is printed ends in a log."""
        return f"<Outlet {proxies.parse(self.proxy) if self.proxy else 'straight'}>"

    @property
    def plain(self) -> bool:
        """Whether nothing is set about TLS."""
        return not (self.ca_file or self.client_certificate)


def outlet_of(
    provider: Provider, settings: Settings, environ: Mapping[str, str] = os.environ
) -> Outlet:
    """The way to a provider: its own settings before those of the section."""
    if provider.protocol == "local":
        return Outlet()
    own = bool(provider.client_certificate)
    return Outlet(
        proxy=proxy_to(provider, settings, environ).url,
        ca_file=provider.ca_file or settings.ca_file,
        client_certificate=provider.client_certificate or settings.client_certificate,
        client_key=provider.client_key if own else settings.client_key,
    )


def proxy_to(
    provider: Provider, settings: Settings, environ: Mapping[str, str] = os.environ
) -> proxies.Named:
    """The proxy on the way to a provider, and the variable that names it: empty where a setting
    does. A provider's own is used whatever `no_proxy` says, one of the environment not for
    addresses of this machine."""
    if provider.proxy:
        return proxies.Named("", "" if provider.proxy == STRAIGHT else provider.proxy)
    url = provider.base_url
    if settings.proxy == STRAIGHT or proxies.bypasses(url, settings.no_proxy):
        return proxies.Named("", "")
    if settings.proxy:
        return proxies.Named("", settings.proxy)
    return proxies.of_environment(environ, url) or proxies.Named("", "")


class Inherited(NamedTuple):
    """A proxy that only the environment names: where it is, the variable, and whose way it is."""

    proxy: proxies.Proxy
    variable: str
    providers: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.variable} names the proxy {self.proxy}, used for {', '.join(self.providers)}"


def inherited(
    providers: Iterable[Provider], settings: Settings, environ: Mapping[str, str] = os.environ
) -> tuple[Inherited, ...]:
    """The proxies that are used because the environment names them, each once."""
    found: dict[proxies.Named, list[str]] = {}
    for provider in providers:
        if (
            provider.protocol != "local"
            and (named := proxy_to(provider, settings, environ)).variable
        ):
            found.setdefault(named, []).append(provider.name)
    return tuple(
        Inherited(proxies.parse(named.url), named.variable, tuple(names))
        for named, names in found.items()
    )


def secured(outlet: Outlet) -> ssl.SSLContext | None:
    """What an outlet's TLS trusts and shows; `None` for what the system trusts.

    Raises `OSError` and `ssl.SSLError` for files that cannot be used.
    """
    if outlet.plain:
        return None
    context = ssl.create_default_context(cafile=outlet.ca_file or None)
    if outlet.client_certificate:
        context.load_cert_chain(
            outlet.client_certificate, outlet.client_key or None, password=_encrypted
        )
    return context


def transport(
    settings: Settings, outlet: Outlet | None = None, *, resolver: Lookup | None = None
) -> Transport:
    """A transport that takes this way (without one: straight, and with the system's trust). To
    be called inside of the running event loop; who calls it closes it.

    Raises `ConfigError` for files that cannot be used any more, and for a proxy that this
    transport does not speak to.
    """
    way = outlet or Outlet()
    try:
        context = secured(way)
    except OSError as error:
        raise ConfigError(f"certificates for providers cannot be used: {error}") from error
    if settings.transport == "native":
        from manyways.upstream.native import NativeTransport

        return NativeTransport(
            ssl_context=context,
            proxy=way.proxy or None,
            pool_size=settings.pool_size,
            keepalive=settings.keepalive,
            max_age=math.inf if settings.max_age is None else settings.max_age,
            resolver=resolver,
            dns_ttl=settings.dns_ttl,
        )
    from manyways.upstream.aiohttp_transport import AiohttpTransport

    try:
        return AiohttpTransport(
            ssl_context=context,
            proxy=way.proxy or None,
            pool_size=settings.pool_size,
            keepalive=settings.keepalive,
            resolver=resolver,
        )
    except ValueError as error:
        raise ConfigError(
            f"the proxy {proxies.parse(way.proxy)} cannot be used: {error};"
            " upstream.transport = native speaks to SOCKS proxies"
        ) from error


class Outlets:
    """The transports of all providers, each made when it is first asked for."""

    def __init__(self, settings: Settings, environ: Mapping[str, str] = os.environ) -> None:
        self._settings = settings
        self._environ = environ
        self._open: dict[Outlet, Transport] = {}

    def __repr__(self) -> str:
        return f"<Outlets {list(self._open)}>"

    def to(self, provider: Provider) -> Transport:
        """The transport that leads to a provider. Raises `ConfigError` as `transport` does."""
        outlet = outlet_of(provider, self._settings, self._environ)
        if outlet not in self._open:
            self._open[outlet] = transport(self._settings, outlet)
        return self._open[outlet]

    async def aclose(self) -> None:
        """Close every connection."""
        while self._open:
            await self._open.popitem()[1].aclose()


def _encrypted() -> str:
    """Asked for when a key is encrypted: OpenSSL would ask whoever sits at the terminal."""
    raise ssl.SSLError("the key is encrypted")
