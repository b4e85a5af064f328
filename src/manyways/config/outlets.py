"""What may be wrong with the ways to providers: proxies, and files about TLS."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from manyways.config.document import Document, Problem
from manyways.config.positions import Path as Place
from manyways.config.settings import Settings
from manyways.types import Provider
from manyways.upstream import proxies
from manyways.upstream.outlets import STRAIGHT, proxy_to
from manyways.upstream.settings import Settings as UpstreamSettings

_NOT_SPOKEN: Final = (
    'is a SOCKS proxy, which upstream.transport = "aiohttp" does not speak to;'
    ' set upstream.transport to "native"'
)
_PEM: Final = "the file should be in PEM form, with -----BEGIN"


def judge(settings: Settings, document: Document, environ: Mapping[str, str]) -> None:
    """Note what cannot be used: settings that do not fit each other, files that are not what
    they should be, and proxies that the environment names for a provider."""
    upstream = settings.upstream
    _judge_one(("upstream",), upstream, upstream, document)
    seen: set[str] = set()
    for index, provider in enumerate(settings.providers):
        if provider.protocol == "local":
            continue
        _judge_one(("providers", index), provider, upstream, document)
        named = proxy_to(provider, upstream, environ)
        if named.variable and named.variable not in seen:
            seen.add(named.variable)
            _judge_variable(named, upstream, document)


def _judge_one(
    path: Place, given: UpstreamSettings | Provider, upstream: UpstreamSettings, document: Document
) -> None:
    proxy = "" if given.proxy == STRAIGHT else given.proxy
    if proxy and upstream.transport == "aiohttp" and proxies.parse(proxy).socks:
        document.note((*path, "proxy"), _NOT_SPOKEN)
    if given.ca_file:
        _judge_authorities((*path, "ca_file"), given.ca_file, document)
    if given.client_certificate:
        _judge_pair(path, given.client_certificate, given.client_key, document)
    elif given.client_key:
        document.note((*path, "client_key"), "is of no use without client_certificate beside it")


def _judge_variable(named: proxies.Named, upstream: UpstreamSettings, document: Document) -> None:
    try:
        socks = proxies.parse(named.url).socks
    except ValueError as error:
        what = str(error)
    else:
        if not socks or upstream.transport != "aiohttp":
            return
        what = _NOT_SPOKEN
    cure = f'{what}. To use no proxy: upstream.proxy = "none"'
    document.problems.append(Problem(named.variable, named.variable, cure))


def _judge_authorities(path: Place, file: str, document: Document) -> None:
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
    except ssl.SSLError:
        document.note(path, f"holds no certificate: {_PEM} CERTIFICATE-----")
    except OSError as error:
        document.note(path, _unread(error, file))


def _judge_pair(path: Place, certificate: str, key: str, document: Document) -> None:
    """A client's certificate, and its key: in a file of its own or behind the certificate."""
    import ssl

    where, key_where = (
        (*path, "client_certificate"),
        (*path, "client_key" if key else "client_certificate"),
    )
    held = _text(where, certificate, document)
    key_held = _text(key_where, key, document) if key else held
    if held is None or key_held is None:
        return
    if "-----BEGIN CERTIFICATE-----" not in held:
        document.note(where, f"holds no certificate: {_PEM} CERTIFICATE-----")
    elif "PRIVATE KEY-----" not in key_held:
        cure = f"{_PEM} PRIVATE KEY-----" if key else "name the file that does in client_key"
        document.note(key_where, f"holds no private key: {cure}")
    elif "ENCRYPTED" in key_held:
        document.note(
            key_where, "is encrypted, and nobody is there to tell its password; decrypt it first"
        )
    else:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key or None)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                document.note(key_where, "does not fit the certificate: it is of another one")
            else:
                what = (error.reason or str(error)).lower().replace("_", " ")
                document.note(where, f"cannot be used: {what}")


def _text(path: Place, file: str, document: Document) -> str | None:
    """What a file holds; noted, and `None`, where it cannot be read."""
    try:
        return Path(file).read_text(encoding="latin-1")
    except OSError as error:
        document.note(path, _unread(error, file))
        return None


def _unread(error: OSError, file: str) -> str:
    """That it cannot be read, with the path that was tried: a relative one begins in the folder
    of the process."""
    if isinstance(error, FileNotFoundError):
        return f"names a file that is not there: {Path(file).absolute()}"
    what = (error.strerror or str(error)).lower()
    return f"names a file that cannot be read: {what} ({Path(file).absolute()})"
