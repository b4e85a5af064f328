"""What we have run out of is told from what others do."""

import asyncio
import errno
import os
import socket
import ssl
import sys

import pytest

from manyways.errors import ConnectFailed, OutOfSockets
from manyways.upstream.names import system_addresses
from manyways.upstream.native import dial
from manyways.upstream.native.names import Names
from manyways.upstream.native.origin import Route
from manyways.upstream.shortage import AddressInfo, see_that_files_open, shortage
from tests.upstream.exchange import no_descriptors

FILES, PORTS = "raise `ulimit -n`", "ip_local_port_range"


def info(host: str) -> AddressInfo:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, 80)


HERE = info("127.0.0.1")
ELSEWHERE = info("fe80::1")  # of no network in particular: no address of ours leads there


def of(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def joined(*numbers: int) -> OSError:
    """As whoever tries several addresses tells what came of them."""
    return OSError("Multiple exceptions: " + ", ".join(str(of(number)) for number in numbers))


@pytest.mark.parametrize(
    ("error", "tried", "cure"),
    [
        (of(errno.EMFILE), [HERE], FILES),
        (of(errno.ENFILE), [HERE], "fs.file-max"),
        (of(errno.EMFILE), [], FILES),
        (joined(errno.ENETUNREACH, errno.EMFILE), [ELSEWHERE, HERE], FILES),
        (of(errno.EADDRNOTAVAIL), [HERE], PORTS),
        (of(errno.EADDRNOTAVAIL), [HERE, ELSEWHERE], PORTS),
        (joined(errno.ENETUNREACH, errno.EADDRNOTAVAIL), [HERE, HERE], PORTS),
        (of(errno.EADDRNOTAVAIL), [ELSEWHERE], None),
        (joined(errno.EADDRNOTAVAIL, errno.ECONNREFUSED), [ELSEWHERE, HERE], None),
        (of(errno.ECONNREFUSED), [HERE], None),
        (TimeoutError(), [HERE], None),
        (RuntimeError("the transport is gone"), [HERE], None),
        (socket.gaierror(socket.EAI_NONAME, "not known"), [], None),
        (ssl.SSLCertVerificationError(1, "unknown authority"), [], None),
    ],
)
def test_the_systems_words_are_understood(
    error: Exception, tried: list[AddressInfo], cure: str | None
) -> None:
    found = shortage(error, tried)
    assert found is None if cure is None else found is not None and cure in found


@pytest.mark.parametrize(
    "error",
    [
        socket.gaierror(socket.EAI_NONAME, "not known"),
        ssl.SSLCertVerificationError(1, "unable to get local issuer certificate"),
    ],
)
def test_what_needs_files_is_not_believed_while_there_are_none(error: Exception) -> None:
    with no_descriptors():
        found = shortage(error)
        refused = shortage(of(errno.ECONNREFUSED), [HERE])
    assert found is not None
    assert FILES in found
    assert refused is None
    see_that_files_open()


async def test_a_library_that_cannot_be_read_is_read_when_it_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "python_socks"]:
        monkeypatch.delitem(sys.modules, name)
    by = dial.Dialer(Names(system_addresses), proxy="socks5://127.0.0.1:1")
    route = Route("127.0.0.1", 80, tls=False, tunnel=True)
    with no_descriptors(), pytest.raises(OutOfSockets, match="ulimit"):
        await by.dial(route, asyncio.Protocol, lambda _: None)
    with pytest.raises(ConnectFailed, match=r"the proxy 127\.0\.0\.1:1: connection refused"):
        await by.dial(route, asyncio.Protocol, lambda _: None)


def test_authorities_that_could_not_be_read_are_not_remembered_as_none() -> None:
    dial._system.cache_clear()
    with no_descriptors(), pytest.raises(OutOfSockets, match="ulimit"):
        dial._system()
    fresh = ssl.create_default_context()
    assert dial._system().cert_store_stats() == fresh.cert_store_stats()
