"""What proxies' URLs say, whom the environment names, and who is spared."""

import pytest

from manyways.upstream.proxies import (
    Named,
    Proxy,
    bypasses,
    can_be_meant,
    is_loopback,
    named,
    parse,
    spared,
)


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy.test:3128", Proxy("http", "proxy.test", 3128)),
        ("http://proxy.test/", Proxy("http", "proxy.test", 80)),
        ("https://proxy.test", Proxy("https", "proxy.test", 443)),
        ("HTTP://me:p@ss@proxy.test", Proxy("http", "proxy.test", 80, "me", "p@ss")),
        ("socks5://proxy.test", Proxy("socks5", "proxy.test", 1080)),
        ("socks5h://me:p%40ss@[::1]:9050", Proxy("socks5h", "::1", 9050, "me", "p@ss")),
        ("http://me@proxy.test:1", Proxy("http", "proxy.test", 1, "me")),
        ("http://:token@proxy.test:1", Proxy("http", "proxy.test", 1, "", "token")),
        ("http://прокси.test:1", Proxy("http", "xn--h1adldfi.test", 1)),
    ],
)
def test_a_url_says_where_a_proxy_is(url: str, proxy: Proxy) -> None:
    assert parse(url) == proxy


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("proxy.test:3128", 'should be a URL like "http://proxy.example.com:3128", or "none"'),
        ("None", 'should be a URL like "http://proxy.example.com:3128", or "none"'),
        (" http://proxy.test", "holds a blank or a control character"),
        ("http://me:hunter2/@proxy.test:1", "has a /, ? or # in its user or password; write it"),
        ("http://me:hunter2#x@proxy.test:1", "has a /, ? or # in its user or password; write it"),
        ("http://me:1?hunter2@proxy.test:1", "has a /, ? or # in its user or password; write it"),
        ("ftp://proxy.test", 'is of the scheme "ftp"; there is http, https, socks5, socks5h'),
        ("http://", "has no host, or a port that is none"),
        ("http://me:hunter2@:3128", "has no host, or a port that is none"),
        ("http://me:hunter2@proxy.test:99999", "has no host, or a port that is none"),
        ("http://me:hunter2@proxy.test:0", "has no host, or a port that is none"),
        ("http://me:hunter2@proxy test", "holds a blank or a control character"),
        ("http://me:hunter2@proxy.test/path", "has something behind its port, where nothing"),
        ("http://me:hunter2@proxy.test?x", "has something behind its port, where nothing"),
        ("http://m%3Ae:hunter2@proxy.test", "has a colon in its user"),
        ("socks5://me@proxy.test", "has no password; SOCKS wants both or neither"),
        ("socks5://:hunter2@proxy.test", "has no user; SOCKS wants both or neither"),
        (f"socks5://me:{'hunter2' * 40}@proxy.test", "has a password that SOCKS cannot carry"),
        ("socks5://я:hunter2@proxy.test", "has a user that SOCKS cannot carry"),
    ],
)
def test_what_is_no_proxy_is_told_without_its_password(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse(url)

    assert str(caught.value).startswith(words)
    assert "hunter2" not in str(caught.value)


def test_what_is_printed_of_a_proxy_holds_no_password() -> None:
    proxy = parse("http://me:hunter2@[::1]:3128")

    assert (str(proxy), repr(proxy)) == ("[::1]:3128", "<Proxy http://[::1]:3128>")


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://a:1"}, Named("HTTPS_PROXY", "http://a:1")),
        ({"https_proxy": "a:1"}, Named("https_proxy", "http://a:1")),
        ({"https_proxy": "http://a", "HTTPS_PROXY": "http://b"}, Named("https_proxy", "http://a")),
        ({"https_proxy": "", "HTTPS_PROXY": "http://b"}, None),
        ({"HTTP_PROXY": "http://a"}, None),
        ({"ALL_PROXY": "socks5://a"}, Named("ALL_PROXY", "socks5://a")),
        ({"ALL_PROXY": "socks5://a", "HTTPS_PROXY": "http://b"}, Named("HTTPS_PROXY", "http://b")),
    ],
)
def test_the_environment_names_a_proxy_as_for_curl(
    environ: dict[str, str], found: Named | None
) -> None:
    assert named(environ, "https") == found


def test_what_a_caller_could_have_set_is_not_believed() -> None:
    environ = {"HTTP_PROXY": "http://a", "REQUEST_METHOD": "GET"}

    assert named(environ, "http") is None
    assert named({**environ, "http_proxy": "http://b"}, "http") == Named("http_proxy", "http://b")


def test_the_environment_spares_what_it_lists() -> None:
    assert spared({"NO_PROXY": "a.test, .b.test ,10.0.0.0/8"}) == (
        "a.test",
        ".b.test",
        "10.0.0.0/8",
    )
    assert spared({"NO_PROXY": "a", "no_proxy": "b"}) == ("b",)
    assert spared({}) == ()


@pytest.mark.parametrize(
    ("entry", "url", "meant"),
    [
        ("*", "https://a.test", True),
        ("a.test", "https://a.test/v1", True),
        ("A.test", "https://a.TEST", True),
        ("a.test", "https://a.test.", True),
        ("a.test", "https://x.a.test", True),
        (".a.test", "https://a.test", True),
        ("*.a.test", "https://x.a.test", True),
        ("a.test", "https://xa.test", False),
        ("a.test:443", "https://a.test", True),
        ("a.test:444", "https://a.test", False),
        ("10.0.0.1", "http://10.0.0.1", True),
        ("10.0.0.0/8", "http://10.9.9.9:8080", True),
        ("10.0.0.0/8", "http://11.0.0.1", False),
        ("10.0.0.0/8", "http://a.test", False),
        ("::1", "http://[::1]", True),
        ("[::1]", "http://[0:0::1]", True),
        ("[::1]:80", "http://[::1]:80", True),
        ("[::1]:81", "http://[::1]:80", False),
        ("fd00::/8", "http://[fd00::1]", True),
        ("nonsense/x", "http://a.test", False),
        (".", "http://a.test", False),
    ],
)
def test_who_is_spared(entry: str, url: str, *, meant: bool) -> None:
    assert bypasses(url, ["other.test", entry]) is meant


@pytest.mark.parametrize(
    ("entry", "can"),
    [
        ("*", True),
        ("*.a.test", True),
        ("a.test:443", True),
        ("::1", True),
        ("[::1]:80", True),
        ("a.test:abc", False),
        ("a.test:", False),
        ("a.test:0", False),
        ("a.test:65536", False),
        (":80", False),
        ("a:b:c", False),
        ("[::1", False),
        ("[::1]80", False),
        ("[a.test:x]", False),
    ],
)
def test_what_nobody_can_be_meant_by_is_known(entry: str, *, can: bool) -> None:
    assert can_be_meant(entry) is can


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://localhost:1", True),
        ("http://x.localhost", True),
        ("http://127.9.9.9", True),
        ("http://[::1]", True),
        ("http://localhost.test", False),
        ("http://10.0.0.1", False),
    ],
)
def test_this_machine_is_known(url: str, *, here: bool) -> None:
    assert is_loopback(url) is here
