"""Ways to providers that cannot be gone stop the start, with the setting's name and the cure."""

from pathlib import Path

import pytest

from manyways.config import doubts, show
from tests.config.folder import PROVIDER, Folder
from tests.support.tls import Authority

AUTHORITY = Authority()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A certificate and its key, one more key, an authority, and a text that is none of them."""
    authority, certificate, key = AUTHORITY.write(tmp_path)
    _, _, other = AUTHORITY.write(tmp_path, "other")
    text = tmp_path / "text.pem"
    text.write_text("hello")
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    both = tmp_path / "both.pem"
    both.write_text(certificate.read_text() + key.read_text())
    return {
        "CA": authority, "CERT": certificate, "KEY": key, "OTHER": other, "TEXT": text,
        "ENCRYPTED": encrypted, "BOTH": both, "GONE": tmp_path / "gone.pem", "FOLDER": tmp_path,
    }  # fmt: skip


def filled(text: str, files: dict[str, Path]) -> str:
    for name, file in files.items():
        text = text.replace(f'"{name}"', f'"{file}"')
    return text


def test_what_is_given_is_read(folder: Folder, files: dict[str, Path]) -> None:
    section = """[upstream]
transport = "native"
proxy = "socks5://me:hunter2@p.test:1080"
no_proxy = ["10.0.0.0/8", ".a.test"]
ca_file = "CA"
client_certificate = "CERT"
client_key = "KEY"
pool_size = 5
keepalive = "1m"
max_age = "1h"
dns_ttl = 0
"""
    own = 'proxy = "http://me:hunter2@q.test"\nclient_certificate = "BOTH"\n'
    settings = folder.load(filled(section + PROVIDER + own, files))

    assert settings.upstream.max_age == 3600
    assert settings.upstream.no_proxy == ("10.0.0.0/8", ".a.test")
    assert settings.providers[0].client_certificate == str(files["BOTH"])
    shown = show(settings)
    assert "hunter2" not in shown
    assert 'proxy = "socks5://me:***@p.test:1080"  # line 3' in shown
    assert 'proxy = "http://me:***@q.test"' in shown
    again = folder.load(shown.replace("***", "hunter2"))
    assert (again.upstream, again.providers) == (settings.upstream, settings.providers)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('proxy = "p.test:3128"', 'proxy should be a URL like "http://proxy.example.com:3128"'),
        ('proxy = "ftp://p.test"', 'proxy is of the scheme "ftp"; there is http, https, socks5'),
        ('proxy = "http://p.test/x"', "proxy has something behind its port"),
        (
            'proxy = "socks5://p.test"',
            'proxy is a SOCKS proxy, which upstream.transport = "aiohttp" does not speak to; set',
        ),
        ('ca_file = "GONE"', "ca_file names a file that is not there: /"),
        (
            'ca_file = "no/such.pem"',
            f"ca_file names a file that is not there: {Path.cwd()}/no/such",
        ),
        ('ca_file = "FOLDER"', "ca_file names a file that cannot be read: is a directory"),
        ('ca_file = "TEXT"', "ca_file holds no certificate: the file should be in PEM form"),
        ('client_key = "KEY"', "client_key is of no use without client_certificate beside it"),
        ('client_certificate = "GONE"', "client_certificate names a file that is not there"),
        (
            'client_certificate = "CERT"',
            "client_certificate holds no private key: name the file that does in client_key",
        ),
        ('client_certificate = "TEXT"\nclient_key = "KEY"', "client_certificate holds no certific"),
        (
            'client_key = "TEXT"\nclient_certificate = "CERT"',
            "client_key holds no private key: the",
        ),
        ('client_key = "OTHER"\nclient_certificate = "CERT"', "client_key does not fit the certif"),
        (
            'client_key = "ENCRYPTED"\nclient_certificate = "CERT"',
            "client_key is encrypted, and no",
        ),
        ('client_key = "GONE"\nclient_certificate = "CERT"', "client_key names a file that is not"),
    ],
)
def test_what_cannot_be_used_is_named(
    folder: Folder, files: dict[str, Path], line: str, problem: str
) -> None:
    named = problem.partition(" ")[0]
    place = 2 + [one.partition(" ")[0] for one in line.splitlines()].index(named)

    said = folder.problems(filled(f"[upstream]\n{line}\n{PROVIDER}", files))
    assert [one.startswith(f"{place}: upstream.{problem}") for one in said] == [True], said

    said = folder.problems(filled(f"{PROVIDER}{line}\n", files))
    assert [one.startswith(f"{place + 3}: providers[0].{problem}") for one in said] == [True], said


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('no_proxy = ["a.test, b.test"]', "no_proxy[0] should be one host, like"),
        ('no_proxy = ["http://a.test"]', "no_proxy[0] should be one host, like"),
        ('no_proxy = ["10.0.0.0/99"]', "no_proxy[0] should be an address or a network"),
        ('no_proxy = ["localhost:abc"]', "no_proxy[0] has a port that is none"),
        ("pool_size = -1", "pool_size must be between 0 and 1000000"),
        ("max_age = 0", "max_age must be between 1s and"),
        ('transport = "httpx"', 'transport should be one of "aiohttp", "native"'),
    ],
)
def test_the_sections_own_are_judged(folder: Folder, line: str, problem: str) -> None:
    (said,) = folder.problems(f"[upstream]\n{line}\n{PROVIDER}")

    assert said.startswith(f"2: upstream.{problem}")


def test_a_wrong_proxy_is_told_without_its_password(folder: Folder) -> None:
    for proxy in ("http://me:hunter2@p.test:99999", "hunter2", "socks5://me:hunter2@p.test"):
        (said,) = folder.problems(f'[upstream]\nproxy = "{proxy}"\n{PROVIDER}')
        assert "hunter2" not in said


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("socks5://p.test", 'is a SOCKS proxy, which upstream.transport = "aiohttp" does not'),
        ("ftp://me:hunter2@p.test", 'is of the scheme "ftp"'),
    ],
)
def test_a_proxy_of_the_environment_is_judged_where_it_would_be_used(
    folder: Folder, value: str, problem: str
) -> None:
    environ = {"ALL_PROXY": value}
    (said,) = folder.problems(PROVIDER, environ)

    assert said.startswith(f"ALL_PROXY: {problem}")
    assert said.endswith('To use no proxy: upstream.proxy = "none"')
    assert "hunter2" not in said
    for text in (
        f'[upstream]\nproxy = "none"\n{PROVIDER}',
        f'[upstream]\nproxy = "http://p.test"\n{PROVIDER}',
        f'[upstream]\nno_proxy = ["a.test"]\n{PROVIDER}',
        PROVIDER.replace("a.test", "localhost"),
    ):
        assert folder.load(text, environ).providers


def test_the_embedded_model_has_no_way(folder: Folder) -> None:
    local = '[[providers]]\nname = "L"\nprotocol = "local"\nproxy = "http://p.test"\n'

    assert folder.problems(local) == [
        "4: providers[0].proxy has no use with protocol local; leave it out"
    ]


def test_what_the_transport_does_not_heed_is_doubted(folder: Folder) -> None:
    text = f'[upstream]\nmax_age = "1h"\ntransport = "aiohttp"\n{PROVIDER}'

    assert doubts(folder.load(text)) == (
        'upstream.max_age (line 2) has no effect with upstream.transport = "aiohttp"',
    )
    assert doubts(folder.load(text.replace("aiohttp", "native"))) == ()
