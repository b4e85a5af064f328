"""What broke last, in words."""

import errno

import pytest

from manyways.errors import ConnectFailed
from manyways.upstream.failed import Failed


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ECONNREFUSED, "capi:443: no way (connection refused)"),
        (-2, "capi:443: no way"),
        (None, "capi:443: no way"),
    ],
)
def test_the_system_is_quoted_where_it_says_something(number: int | None, words: str) -> None:
    error = ConnectFailed("capi:443: no way")
    error.__cause__ = OSError("?") if number is None else OSError(number, "?")
    assert Failed.now("connect", error, ()).words == words


def test_secrets_are_not_in_it_nor_what_would_break_a_line() -> None:
    failed = Failed.now(
        "connect", ConnectFailed("asked with s3-long\n\x1b and s3"), ("s3-long", "s3")
    )
    assert failed.words == "asked with *** and ***"
