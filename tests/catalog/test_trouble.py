import errno
import socket
import ssl
from itertools import pairwise

import pytest

from manyways.catalog.trouble import reason
from manyways.errors import (
    AttemptFailed,
    ConnectFailed,
    Garbled,
    OutOfSockets,
    Refusal,
    Reset,
    TimedOut,
    TlsFailed,
)
from manyways.types import Provider
from manyways.upstream.aiohttp_transport import AiohttpTransport
from manyways.upstream.openai import OpenAIProvider
from manyways.upstream.transport import Limits


def caused(*errors: Exception) -> Exception:
    """The first, caused by the second, and so on."""
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    return errors[0]


def untrusted() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "self-signed certificate"
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            caused(
                AttemptFailed("connect", "cannot be reached"),
                ConnectFailed("10.0.0.1:80: [Errno 113] Connect call failed"),
                OSError(errno.EHOSTUNREACH, "Connect call failed"),
            ),
            "no route to host",
        ),
        (
            caused(
                AttemptFailed("connect", "cannot be reached"),
                ConnectFailed("nowhere:80: [Errno -2]"),
                OSError(-2, "Name or service not known"),
                socket.gaierror(-2, "Name or service not known"),
            ),
            "its host name leads nowhere (DNS)",
        ),
        (
            caused(
                AttemptFailed("out_of_sockets", "was not asked"),
                OutOfSockets("the gateway is out of file descriptors: raise it"),
                OSError(errno.EMFILE, "Too many open files"),
            ),
            "the gateway is out of file descriptors: raise it",
        ),
        (
            caused(AttemptFailed("tls", "its certificate…"), TlsFailed("x"), untrusted()),
            "no secure connection: the certificate is not trusted (self-signed certificate)",
        ),
        (
            caused(AttemptFailed("timeout", "connect took…"), TimedOut("connect", 5.0)),
            "no connection within 5 s",
        ),
        (
            caused(AttemptFailed("timeout", "headers took…"), TimedOut("headers", 10.0)),
            "no answer within 10 s",
        ),
        (
            caused(AttemptFailed("timeout", "the list took longer than 15 s"), TimeoutError()),
            "the list took longer than 15 s",
        ),
        (
            caused(AttemptFailed("reset", "closed…"), Reset("the connection was closed")),
            "the connection was closed",
        ),
        (
            caused(AttemptFailed("garbled", "does not…"), Garbled("Bad status line")),
            "Bad status line",
        ),
        (
            AttemptFailed("credentials", "Incorrect API key\nprovided", status=401),
            "HTTP 401: Incorrect API key provided",
        ),
        (
            AttemptFailed("provider_error", "answered HTTP 500 without saying why", status=500),
            "answered HTTP 500 without saying why",
        ),
        (Refusal("provider_refused", "Not Found", status=404), "HTTP 404: Not Found"),
        (ConnectFailed(""), "ConnectFailed"),
        (ZeroDivisionError("odd"), "unexpected ZeroDivisionError: odd"),
    ],
)
def test_the_reason_is_as_exact_as_what_lies_behind_the_error(error: Exception, words: str) -> None:
    assert reason(error) == words


def test_a_reason_is_one_line_of_bounded_length() -> None:
    found = reason(AttemptFailed("provider_error", "long\n" * 1000, status=500))
    assert "\n" not in found
    assert len(found) < 400


async def test_a_port_where_nobody_listens_refuses_the_connection() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        transport = AiohttpTransport()
        provider = OpenAIProvider(
            Provider(name="Capi", protocol="openai", base_url=address), transport
        )
        try:
            with pytest.raises(AttemptFailed) as failed:
                await provider.list_models(Limits(connect=5, headers=5, idle=5))
        finally:
            await transport.aclose()
    assert reason(failed.value) == "connection refused"
