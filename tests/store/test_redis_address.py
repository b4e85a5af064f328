"""Addresses of Redis, as they are written into the configuration."""

import pytest

from manyways.store.redis_address import Address, Server, parse


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://host", Address(kind="single", servers=(Server("host", 6379),))),
        ("redis://host:1/3", Address(kind="single", servers=(Server("host", 1),), db=3)),
        (
            "rediss://ada:p%40ss:word@[::1]:6380/0",
            Address(
                kind="single",
                servers=(Server("::1", 6380),),
                tls=True,
                user="ada",
                password="p@ss:word",
            ),
        ),
        (
            "redis://:word@host",
            Address(kind="single", servers=(Server("host", 6379),), password="word"),
        ),
        (
            "redis+cluster://a:1,b",
            Address(kind="cluster", servers=(Server("a", 1), Server("b", 6379))),
        ),
        (
            "rediss+sentinel://u:w@a,b:2/main",
            Address(
                kind="sentinel",
                servers=(Server("a", 26379), Server("b", 2)),
                tls=True,
                user="u",
                password="w",
                name="main",
            ),
        ),
    ],
)
def test_every_form_of_an_address_is_understood(url: str, address: Address) -> None:
    assert parse(url) == address


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "redis://host:6379/0"),
        ("http://host", "redis://host:6379/0"),
        ("redis+other://host", "redis://host:6379/0"),
        ("redis://", "redis://host:6379/0"),
        ("redis://a,b", "several servers"),
        ("redis://a/x", "number of a database"),
        ("redis://a:99999", "port"),
        ("redis://a:b", "cannot be read"),
        ("redis://ada@host", "password"),
        ("redis+cluster://a/1", "no other than 0"),
        ("redis+sentinel://a", "calls the master"),
    ],
)
def test_what_is_wrong_with_an_address_is_said(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://ada:word@host", "redis://host:6379/0"),
        ("rediss://:word@[::1]:7000/3", "rediss://[::1]:7000/3"),
        ("redis+cluster://:word@a,b:7000", "redis+cluster://a:6379,b:7000"),
        ("rediss+sentinel://ada:word@a,b/main", "rediss+sentinel://a:26379,b:26379/main"),
    ],
)
def test_an_address_is_shown_without_user_and_password(url: str, shown: str) -> None:
    assert str(parse(url)) == shown
    assert repr(parse(url)) == f"<Address {shown}>"
