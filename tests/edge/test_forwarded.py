"""Where a caller is, behind reverse proxies."""

import pytest

from manyways.edge.forwarded import origin_of

OURS = ("10.0.0.0/8", "127.0.0.1", "fd00::/8")


@pytest.mark.parametrize(
    ("peer", "forwarded", "origin"),
    [
        ("127.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", "203.0.113.9, 10.1.2.3", "203.0.113.9"),
        ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("fd00::1", "203.0.113.9", "203.0.113.9"),
    ],
)
def test_our_proxies_are_believed(peer: str, forwarded: str, origin: str) -> None:
    assert origin_of(peer, forwarded, OURS) == origin


def test_a_stranger_cannot_say_that_it_is_somebody_else() -> None:
    assert origin_of("203.0.113.9", "198.51.100.1", OURS) == "203.0.113.9"
    assert origin_of("127.0.0.1", "198.51.100.1, 203.0.113.9", OURS) == "203.0.113.9"


@pytest.mark.parametrize("garbage", ["", "unknown", "198.51.100.1, _hidden", " , "])
def test_what_is_no_address_says_nothing(garbage: str) -> None:
    assert origin_of("127.0.0.1", garbage, OURS) == "127.0.0.1"
