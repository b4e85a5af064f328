"""What `manyways doctor` says of ways that lead through a proxy, or ask for certificates: who is
at fault, and which setting mends it."""

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from manyways.cli.checks import Finding
from manyways.cli.provider_checks import ProviderChecks
from manyways.types import Provider
from manyways.upstream.outlets import Outlets
from manyways.upstream.settings import Settings
from tests.support.proxy import Proxy
from tests.support.socks import Socks
from tests.support.tls import Authority
from tests.support.wall import Wall, whole
from tests.upstream.exchange import AUTHORITY

LISTED = whole(json.dumps({"data": [{"id": "m"}]}).encode())
SECRET = "hunter2"

Examine = Callable[..., Awaitable[Finding]]


@pytest.fixture
async def examine_natively(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Examine]:
    async with examining("native", monkeypatch) as check:
        yield check


@pytest.fixture(params=["aiohttp", "native"])
async def examine(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Examine]:
    async with examining(request.param, monkeypatch) as check:
        yield check


@contextlib.asynccontextmanager
async def examining(transport: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Examine]:
    """Check a provider at `url` with settings of its own; `upstream` is the section."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    opened: list[Outlets] = []

    async def check(url: str, *, upstream: dict[str, str] | None = None, **own: str) -> Finding:
        settings = replace(Settings(), transport=transport, **(upstream or {}))
        opened.append(Outlets(settings))
        asked = Provider(name="P", protocol="openai", base_url=f"{url}/v1")
        provider = replace(asked, **own)
        found = await ProviderChecks(opened[-1].to, settings).check(provider)
        assert SECRET not in f"{found}"
        assert "\n" not in f"{found.detail}{found.advice}"
        return found

    yield check
    for ways in opened:
        await ways.aclose()


def known(proxy: Wall | Proxy) -> str:
    return proxy.url.replace("//", f"//me:{SECRET}@")


async def test_a_proxy_is_told_of_where_all_is_well(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Wall(LISTED) as proxy:
        way = f"has 1 model (by way of the proxy 127.0.0.1:{proxy.port}, "
        own = await examine("http://a.test", proxy=known(proxy))
        section = await examine("http://a.test", upstream={"proxy": known(proxy)})
        monkeypatch.setenv("HTTP_PROXY", known(proxy))
        environment = await examine("http://a.test")
    for found, setting in (
        (own, "proxy of the provider"),
        (section, "upstream.proxy"),
        (environment, "HTTP_PROXY"),
    ):
        assert found.status == "ok"
        assert found.detail.endswith(f"{way}{setting})")


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_does_not_believe_us(examine: Examine, scheme: str) -> None:
    async with Wall(whole(b"", 407)) as proxy:
        found = await examine(f"{scheme}://a.test", upstream={"proxy": known(proxy)})
    assert found.detail.startswith(
        f"{scheme}://a.test/v1 (by way of the proxy 127.0.0.1:{proxy.port}, upstream.proxy)"
        " cannot be reached: the proxy answered 407"
    )
    assert found.detail.count("127.0.0.1") == found.detail.count("a.test") == 1
    assert found.advice == "See that user and password in upstream.proxy are right."


async def test_a_proxy_that_wants_to_know_who_asks(examine: Examine) -> None:
    async with Wall(whole(b"", 407)) as proxy:
        found = await examine("https://a.test", proxy=proxy.url)
    assert found.advice.startswith("Put user and password into proxy of the provider: ")


async def test_a_socks_proxy_that_refuses(examine_natively: Examine) -> None:
    async with Socks(user="me", password=SECRET) as proxy:
        wrong = await examine_natively("https://a.test", proxy=proxy.url.replace("me:", "you:"))
    async with Socks(refusal=2) as proxy:
        forbidden = await examine_natively("https://a.test", proxy=proxy.url)
    assert wrong.advice == "See that user and password in proxy of the provider are right."
    assert forbidden.detail.endswith("the proxy: Connection not allowed by ruleset")
    assert forbidden.advice.startswith("Ask who runs the proxy")


async def test_a_proxy_that_forbids(examine: Examine) -> None:
    async with Wall(whole(b"", 403)) as proxy:
        secure = await examine("https://a.test", proxy=known(proxy))
        plain = await examine("http://a.test", proxy=known(proxy))
    assert "the proxy answered 403" in secure.detail
    assert secure.advice.startswith("Ask who runs the proxy")
    assert "by way of the proxy" in plain.detail
    assert "Or it is the proxy that says so" in plain.advice


async def test_a_proxy_that_is_not_there(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Wall() as proxy:
        monkeypatch.setenv("ALL_PROXY", known(proxy))
    for url in ("http://a.test", "https://a.test"):
        found = await examine(url)
        assert found.detail.endswith("ALL_PROXY) cannot be reached: the proxy: connection refused")
        assert "scheme, address and port in ALL_PROXY" in found.advice


async def test_a_proxy_that_is_none(examine: Examine) -> None:
    async with Proxy(refusal=b"SSH-2.0-x\r\n\r\n") as proxy:
        found = await examine("https://a.test", proxy=known(proxy))
    assert found.detail.endswith("the proxy answered what is not HTTP")
    assert "proxy of the provider" in found.advice


async def test_the_certificate_of_a_proxy(examine: Examine, tmp_path: Path) -> None:
    wrong, _, _ = Authority().write(tmp_path)
    async with Wall(tls=AUTHORITY.server) as proxy:
        for url in ("http://a.test", "https://a.test"):
            found = await examine(url, upstream={"proxy": known(proxy)})
            assert "no secure connection to the proxy: the certificate is not" in found.detail
            assert "in ca_file" in found.advice
            found = await examine(url, upstream={"proxy": known(proxy)}, ca_file=str(wrong))
            assert f"ca_file of the provider ({wrong})" in found.advice


async def test_the_certificate_of_a_provider(examine: Examine, tmp_path: Path) -> None:
    right, _, _ = AUTHORITY.write(tmp_path)
    (tmp_path / "other").mkdir()
    wrong, _, _ = Authority().write(tmp_path / "other")
    async with Wall(LISTED, tls=AUTHORITY.server) as wall:
        assert "name the file" in (await examine(wall.url)).advice
        found = await examine(wall.url, upstream={"ca_file": str(wrong)})
        assert f"upstream.ca_file ({wrong}) holds the authority" in found.advice
        assert (await examine(wall.url, ca_file=str(right))).status == "ok"
    async with Wall(tls=AUTHORITY.expired) as wall:
        assert "clock" in (await examine(wall.url, ca_file=str(right))).advice
    async with Wall(tls=AUTHORITY.elsewhere) as wall:
        found = await examine(wall.url, ca_file=str(right))
        assert found.advice.startswith("See that the name in base_url is the one")


@contextlib.contextmanager
def strict() -> Iterator[str]:
    """The URL of a server that wants a client certificate, and tells who has none that it knows
    by an alert, as OpenSSL does. (One of asyncio closes without a word.)"""

    def serve() -> None:
        with contextlib.suppress(OSError):  # nobody listens any more
            while True:
                sock, _ = listening.accept()
                copy = sock.dup()  # the first is closed where the handshake fails
                with copy, contextlib.suppress(OSError):
                    with contextlib.suppress(ssl.SSLError):
                        AUTHORITY.mutual.wrap_socket(sock, server_side=True)
                    copy.shutdown(socket.SHUT_WR)
                    while copy.recv(4096):
                        pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


async def test_a_client_certificate_is_wanted(examine: Examine, tmp_path: Path) -> None:
    authority, certificate, key = AUTHORITY.write(tmp_path)
    (tmp_path / "other").mkdir()
    _, stranger, its_key = Authority().write(tmp_path / "other")
    with strict() as url:
        found = await examine(url, ca_file=str(authority))
        assert f"{url}/v1 wants a client certificate: " in found.detail
        assert "client_certificate and client_key" in found.advice
        shown = {"client_certificate": str(stranger), "client_key": str(its_key)}
        found = await examine(url, ca_file=str(authority), **shown)
        assert f"{url}/v1 refuses a client certificate: " in found.detail
        assert f"client_certificate ({stranger})" in found.advice
    async with Wall(LISTED, tls=AUTHORITY.mutual) as wall:
        found = await examine(wall.url, ca_file=str(authority))
        assert "client_certificate" in found.advice
        shown = {"client_certificate": str(certificate), "client_key": str(key)}
        assert (await examine(wall.url, ca_file=str(authority), **shown)).status == "ok"


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_wants_a_client_certificate(
    examine: Examine, tmp_path: Path, scheme: str
) -> None:
    authority, _, _ = AUTHORITY.write(tmp_path)
    (tmp_path / "other").mkdir()
    _, stranger, its_key = Authority().write(tmp_path / "other")
    trusting = {"ca_file": str(authority)}
    with strict() as url:
        way = f"{scheme}://a.test/v1 (by way of the proxy {url.removeprefix('https://')}, "
        found = await examine(f"{scheme}://a.test", proxy=url, **trusting)
        assert found.detail.startswith(
            f"{way}proxy of the provider) cannot be reached: the proxy wants a client certificate: "
        )
        assert "client_certificate and client_key" in found.advice
        shown = {"client_certificate": str(stranger), "client_key": str(its_key)}
        found = await examine(f"{scheme}://a.test", upstream={"proxy": url} | trusting | shown)
        assert "the proxy refuses a client certificate: " in found.detail
        assert f"upstream.client_certificate ({stranger})" in found.advice
    async with Proxy(tls=AUTHORITY.mutual) as proxy:  # which closes without a word
        found = await examine("https://a.test", proxy=proxy.url, **trusting)
        assert "the proxy: the connection was closed" in found.detail
        assert found.advice.endswith("shows no client_certificate that it knows.")
    async with Wall(whole(b"", 403), tls=AUTHORITY.server) as wall:
        found = await examine("https://a.test", proxy=wall.url, **trusting)
        assert "client_certificate" not in found.advice
