"""Why a provider cannot be asked, in plain words: whose fault it looks like, and which setting
mends it. What `manyways doctor` says of the way to a provider."""

import re
import ssl
from collections.abc import Iterator
from typing import Final, NamedTuple

from manyways.catalog.trouble import of_system
from manyways.cli.checks import Status
from manyways.config.shown import without_password
from manyways.errors import ConnectFailed, OutOfSockets, TimedOut, TlsFailed, TransportError
from manyways.types import Provider
from manyways.upstream import proxies
from manyways.upstream.failures import refuses_our_certificate
from manyways.upstream.outlets import outlet_of, proxy_to
from manyways.upstream.settings import Settings

_ANSWERED: Final = re.compile(r" answered (\d{3})\b")
_UNBELIEVED: Final = re.compile(r"authentication (failure|methods)", re.IGNORECASE)
_UNWILLING: Final = re.compile(
    r"server failure|not allowed|(network|host) unreachable|by destination|TTL expired"
    r"|not supported|reply code",
    re.IGNORECASE,
)
"""What SOCKS proxies say, in the library's words (RFC 1928, 6)."""
_PERHAPS_UNKNOWN: Final = (
    "A proxy over TLS may also close so on who shows no client_certificate that it knows."
)
_EXPIRED: Final = frozenset({9, 10})
"""OpenSSL's numbers for a certificate that is not good yet, or not any more."""
_MISNAMED: Final = frozenset({62, 63, 64})
"""Those for one of another name or address."""


class Verdict(NamedTuple):
    """What is to be said of a provider: `advice` is what to do, empty if nothing."""

    status: Status
    detail: str
    advice: str = ""


class Way(NamedTuple):
    """The way to a provider: the proxy on it, if there is one, and the setting that names that."""

    proxy: proxies.Proxy | None
    named_by: str

    def __str__(self) -> str:
        return f"by way of the proxy {self.proxy}, {self.named_by}" if self.proxy else "straight"

    @property
    def secure(self) -> bool:
        """Whether the proxy is spoken to over TLS."""
        return self.proxy is not None and self.proxy.scheme == "https"


def way_to(provider: Provider, settings: Settings) -> Way:
    """By which way a provider is asked."""
    named = proxy_to(provider, settings)
    if not named.url:
        return Way(None, "")
    setting = named.variable or ("proxy of the provider" if provider.proxy else "upstream.proxy")
    return Way(proxies.parse(named.url), setting)


def unreachable(error: TransportError, provider: Provider, settings: Settings) -> Verdict:
    """What it means that no answer came. Names no secret but those the error does."""
    way = way_to(provider, settings)
    of_proxy = _said_of_proxy(error, provider, way)
    if of_proxy is not None:
        return _at_proxy(error, of_proxy, provider, settings, way)
    where = without_password(provider.base_url)
    if way.proxy is not None:
        where = f"{where} ({way})"
    if refuses_our_certificate(error):
        return _refused(error, where, provider, settings)
    lacking = isinstance(error, OutOfSockets)  # which is told with its cure
    said = str(error) if lacking else of_system(error) or str(error)
    match error:
        case TlsFailed():
            detail = f"no secure connection to {where}: {said}"
            advice = _mend_trust(error, "base_url", _trust(provider, settings))
        case ConnectFailed():
            detail = f"{where} cannot be reached: {said}"
            advice = (
                "See that it runs, that address and port in base_url are right, and that no"
                " firewall is between."
            )
        case TimedOut(connecting=True):
            detail = f"{where} cannot be reached within {error.seconds:g} s"
            advice = "See that the address is right and that no firewall is between."
            if way.proxy is not None:
                advice = (
                    f"See that scheme, address and port in {way.named_by} are right, that the"
                    " proxy runs, and that it can reach the provider."
                )
        case TimedOut():
            detail = f"{where} takes connections, but does not answer ({error})"
            advice = "Try again; if it lasts, ask the provider, or take it out."
        case _:
            detail = f"{where} breaks the connection off: {error}"
            advice = "See that base_url is the address of an API over HTTP"
            if way.proxy is not None:
                advice += f", and that {way.named_by} is that of a proxy, scheme included"
            elif provider.base_url.startswith("https:"):
                advice += "; some close so on who shows no client_certificate that they know"
            advice += "."
    return Verdict("error", detail, advice)


def _said_of_proxy(error: TransportError, provider: Provider, way: Way) -> str | None:
    """What is said of the proxy, where the way ended there."""
    if way.proxy is None:
        return None
    _, at_proxy, said = str(error).partition(f"the proxy {way.proxy}")
    if at_proxy:
        return said
    only_tls = way.secure and provider.base_url.startswith("http:")
    return f": {error}" if only_tls and refuses_our_certificate(error) else None


def _at_proxy(
    error: TransportError, said: str, provider: Provider, settings: Settings, way: Way
) -> Verdict:
    """The way ended at the proxy, which `said` so, or of which it is said."""
    where = f"{without_password(provider.base_url)} ({way})"
    # In TLS 1.3 it says so behind the handshake: then it is no failure of TLS any more.
    if way.secure and said.startswith(":") and refuses_our_certificate(TlsFailed(said)):
        return _refused(error, f"{where} cannot be reached: the proxy", provider, settings)
    if isinstance(error, TlsFailed):
        advice = _mend_trust(error, way.named_by, _trust(provider, settings))
        return Verdict(
            "error",
            f"{where} cannot be reached: no secure connection to the proxy:"
            f" {of_system(error) or said.lstrip(': ')}",
            advice if _is_about_trust(error) else f"{advice} {_PERHAPS_UNKNOWN}",
        )
    answered = _ANSWERED.match(said)
    if (answered and answered[1] == "407") or _UNBELIEVED.search(said):
        known = way.proxy is not None and way.proxy.user
        advice = f"See that user and password in {way.named_by} are right."
        if not known:
            advice = f"Put user and password into {way.named_by}: SCHEME://USER:PASSWORD@HOST:PORT."
    elif answered or _UNWILLING.search(said):
        advice = (
            "Ask who runs the proxy whether it may lead there and can;"
            ' proxy = "none" for the provider asks it without one.'
        )
    else:
        advice = (
            f"See that the proxy runs, and that scheme, address and port in {way.named_by} are"
            ' right; proxy = "none" for the provider asks it without one.'
        )
        if way.secure:
            advice += f" {_PERHAPS_UNKNOWN}"
    if said.startswith(":"):
        said = f": {of_system(error) or said.lstrip(': ')}"
    return Verdict("error", f"{where} cannot be reached: the proxy{said}", advice)


def _refused(error: TransportError, where: str, provider: Provider, settings: Settings) -> Verdict:
    """A server wants to know who asks: the provider's, or the proxy's. Both are shown the same."""
    shown = outlet_of(provider, settings).client_certificate
    whose = "client_certificate" if provider.client_certificate else "upstream.client_certificate"
    return Verdict(
        "error",
        f"{where} {'refuses' if shown else 'wants'} a client certificate:"
        f" {of_system(error) or error}",
        f"See that it accepts the certificate in {whose} ({shown}): that its authority is one the"
        " server knows, and that it has not expired."
        if shown
        else "Name the files with your certificate and its key for it in client_certificate and"
        " client_key.",
    )


class _Trust(NamedTuple):
    setting: str
    file: str


def _trust(provider: Provider, settings: Settings) -> _Trust:
    """The authorities that count on the way to a provider: no file, the system's."""
    if provider.ca_file:
        return _Trust("ca_file of the provider", provider.ca_file)
    return _Trust("upstream.ca_file", settings.ca_file)


def _is_about_trust(error: TransportError) -> bool:
    """Whether it is us who do not accept a certificate."""
    return any(isinstance(one, ssl.SSLCertVerificationError) for one in _causes(error))


def _mend_trust(error: TransportError, address: str, trust: _Trust) -> str:
    """What to do about TLS that cannot be had. `address` is the setting of who was asked."""
    codes = [
        getattr(one, "verify_code", None)  # which aiohttp's own errors of the kind do not have
        for one in _causes(error)
        if isinstance(one, ssl.SSLCertVerificationError)
    ]
    code = codes[-1] if codes else None
    if code is None:
        return (
            f"See that the port in {address} speaks TLS: else the address begins with http://;"
            " its TLS may also be older than 1.2."
        )
    if code in _EXPIRED:
        return (
            "See that this machine's clock is right; if it is, whoever runs the server must renew"
            " the certificate."
        )
    if code in _MISNAMED:
        return f"See that the name in {address} is the one that the certificate is for."
    if trust.file:
        return (
            f"See that {trust.setting} ({trust.file}) holds the authority of this certificate:"
            " what is in that file counts in place of the system's authorities."
        )
    return (
        "If the authority is your own, name the file with its certificate in ca_file; if it is a"
        " public one, install this machine's authorities (package ca-certificates)."
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
