"""Each provider is reached by the way that is set for it; who agrees shares a transport."""

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from manyways.errors import ConfigError
from manyways.types import Provider
from manyways.upstream import outlets
from manyways.upstream.outlets import Outlet, Outlets, inherited, outlet_of
from manyways.upstream.settings import Settings
from manyways.upstream.transport import Limits
from tests.support.proxy import Proxy
from tests.support.socks import Socks
from tests.support.tls import Authority
from tests.support.wall import Wall, whole

AUTHORITY = Authority()
ENVIRON = {"HTTPS_PROXY": "http://env.test:1", "NO_PROXY": "spared.test"}
LIMITS = Limits(connect=5, headers=5, idle=5)


def provider(url: str = "https://a.test/v1", **given: str) -> Provider:
    return replace(Provider(name="A", protocol="openai", base_url=url), **given)


def proxy_of(provider: Provider, **settings: object) -> str:
    return outlet_of(provider, replace(Settings(), **settings), ENVIRON).proxy


def test_without_settings_the_environment_says_it() -> None:
    assert proxy_of(provider()) == "http://env.test:1"
    assert proxy_of(provider("http://a.test")) == ""
    assert proxy_of(provider("https://x.spared.test")) == ""
    assert proxy_of(provider("https://127.0.0.1:8443")) == ""
    assert proxy_of(provider("https://localhost")) == ""


def test_the_section_goes_before_the_environment() -> None:
    assert proxy_of(provider(), proxy="none") == ""
    assert proxy_of(provider(), proxy="http://p.test") == "http://p.test"
    assert proxy_of(provider(), proxy="http://p.test", no_proxy=("a.test",)) == ""
    assert proxy_of(provider(), no_proxy=("a.test",)) == ""
    # What was said on purpose holds for this machine too, and for whom the environment spares.
    assert proxy_of(provider("https://localhost"), proxy="http://p.test") == "http://p.test"
    assert proxy_of(provider("https://spared.test"), proxy="http://p.test") == "http://p.test"


def test_a_providers_own_goes_before_everything() -> None:
    own = provider(proxy="socks5://own.test")

    assert proxy_of(own, proxy="http://p.test", no_proxy=("*",)) == "socks5://own.test"
    assert proxy_of(provider(proxy="none"), proxy="http://p.test") == ""


def test_files_are_the_providers_own_or_the_sections() -> None:
    section = Settings(proxy="none", ca_file="ca", client_certificate="cert", client_key="key")

    assert outlet_of(provider(), section, {}) == Outlet("", "ca", "cert", "key")
    own = provider(ca_file="own-ca")
    assert outlet_of(own, section, {}) == Outlet("", "own-ca", "cert", "key")
    whole = provider(client_certificate="both")  # the section's key is another one's
    assert outlet_of(whole, section, {}) == Outlet("", "ca", "both", "")


def test_the_embedded_model_is_reached_straight() -> None:
    local = Provider(name="L", protocol="local")

    assert outlet_of(local, Settings(proxy="http://p.test", ca_file="ca"), ENVIRON) == Outlet()


def test_what_only_the_environment_names_is_told_once() -> None:
    environ = {**ENVIRON, "ALL_PROXY": "http://me:hunter2@all.test:2"}
    asked = [
        provider(),
        replace(provider("https://b.test"), name="B"),
        replace(provider("http://c.test"), name="C"),
        replace(provider(proxy="http://p.test"), name="D"),
        replace(provider("https://spared.test"), name="E"),
        Provider(name="L", protocol="local"),
    ]
    found = inherited(asked, Settings(), environ)

    assert [str(one) for one in found] == [
        "HTTPS_PROXY names the proxy env.test:1, used for A, B",
        "ALL_PROXY names the proxy all.test:2, used for C",
    ]
    assert "hunter2" not in repr(found)
    assert inherited(asked, replace(Settings(), proxy="none"), environ) == ()


def test_what_is_printed_holds_no_password() -> None:
    assert repr(Outlet("http://me:hunter2@p.test:1")) == "<Outlet p.test:1>"
    assert repr(Outlet()) == "<Outlet straight>"


@pytest.mark.parametrize("transport", ["aiohttp", "native"])
async def test_who_agrees_shares_a_transport(transport: str, tmp_path: Path) -> None:
    authority, _, _ = AUTHORITY.write(tmp_path)
    ways = Outlets(replace(Settings(), transport=transport), ENVIRON)
    alike = ways.to(provider()), ways.to(provider("https://b.test"))
    others = [
        ways.to(provider(proxy="none")),
        ways.to(provider(proxy="http://p.test")),
        ways.to(provider(ca_file=str(authority))),
    ]

    assert alike[0] is alike[1]
    assert len({id(one) for one in (*alike, *others)}) == 4
    assert ways.to(provider("http://127.0.0.1")) is others[0]
    assert repr(alike[0]).lower().startswith(f"<{transport}transport")
    await ways.aclose()
    await ways.aclose()


@pytest.mark.parametrize("transport", ["aiohttp", "native"])
@pytest.mark.parametrize("kind", [Proxy, lambda: Proxy(tls=AUTHORITY.server)])
async def test_a_provider_is_asked_through_its_proxy_with_its_certificates(
    transport: str, kind: Callable[[], Proxy], tmp_path: Path
) -> None:
    authority, certificate, key = map(str, AUTHORITY.write(tmp_path))
    async with Wall(whole(b"hello"), tls=AUTHORITY.mutual) as wall, kind() as proxy:
        one = provider(
            wall.url,
            proxy=proxy.url,
            ca_file=authority,
            client_certificate=certificate,
            client_key=key,
        )
        ways = Outlets(replace(Settings(), transport=transport), {})
        answered = await ways.to(one).send("GET", f"{wall.url}/models", [], b"", LIMITS)
        async with answered as response:
            assert await response.body(100) == b"hello"
        assert proxy.log == [f"CONNECT 127.0.0.1:{wall.port} HTTP/1.1"]
        await ways.aclose()


async def test_a_provider_is_asked_through_socks() -> None:
    async with Wall(whole(b"hello")) as wall, Socks(user="me", password="hunter2") as proxy:
        ways = Outlets(Settings(transport="native"), {})
        to = ways.to(provider(wall.url, proxy=proxy.url))
        async with await to.send("GET", wall.url, [], b"", LIMITS) as response:
            assert await response.body(100) == b"hello"
        assert proxy.log == [f"127.0.0.1:{wall.port}"]
        await ways.aclose()


async def test_what_cannot_be_used_any_more_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^certificates for .* be used: .*No such"):
        outlets.transport(Settings(), Outlet(ca_file=str(tmp_path / "gone.pem")))
    with pytest.raises(ConfigError, match=r"^the proxy p.test:1080 cannot be used: .*native") as it:
        outlets.transport(Settings(), Outlet(proxy="socks5://me:hunter2@p.test"))
    assert "hunter2" not in str(it.value)
