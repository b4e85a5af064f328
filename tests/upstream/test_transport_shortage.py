"""What every implementation of `manyways.upstream.transport` promises: whose fault it is that no
connection can be made, where we have run out of what a connection takes."""

import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from manyways.errors import ConnectFailed, OutOfSockets
from manyways.upstream.transport import Transport
from tests.support.wall import Wall
from tests.upstream.exchange import AUTHORITY, Make, answer, ask, no_descriptors, state

URLS: dict[str, Callable[[Wall], str]] = {
    "address": lambda wall: wall.url,
    "name": lambda wall: wall.url.replace("127.0.0.1", "localhost"),
}


@pytest.mark.parametrize("where", URLS.values(), ids=URLS)
async def test_without_descriptors_it_is_us_who_cannot_ask(
    transport: Transport, wall: Wall, where: Callable[[Wall], str]
) -> None:
    url = where(wall)
    with no_descriptors(), pytest.raises(OutOfSockets, match="raise `ulimit -n`"):
        await ask(transport, url)
    assert wall.requests == []
    assert state(transport, in_use=0, idle=0)

    assert await answer(transport, url) == b"ok"


async def test_who_has_a_connection_can_be_asked(transport: Transport, wall: Wall) -> None:
    await answer(transport, wall.url)
    with no_descriptors():
        assert await answer(transport, wall.url) == b"ok"
    assert wall.connections == 1


@pytest.mark.parametrize("proxy", ["127.0.0.1:1", "localhost:1"])
async def test_nor_is_the_proxy_to_blame(make: Make, wall: Wall, proxy: str) -> None:
    transport = make(ssl_context=AUTHORITY.client, proxy=f"http://{proxy}")
    with no_descriptors(), pytest.raises(OutOfSockets, match="raise `ulimit -n`"):
        await ask(transport, wall.url)
    with pytest.raises(ConnectFailed) as caught:
        await ask(transport, wall.url)
    assert not isinstance(caught.value, OutOfSockets)
    assert f"the proxy {proxy}" in str(caught.value)


NARROW = """
    import fcntl, socket, struct, sys, uvloop
    from pathlib import Path
    from manyways.errors import OutOfSockets
    from manyways.upstream.aiohttp_transport import AiohttpTransport
    from manyways.upstream.native import NativeTransport
    from manyways.upstream.transport import Limits

    with socket.socket() as any_socket:  # the network of our own has to be switched on
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))
    listener = socket.create_server(("127.0.0.1", 40000), backlog=8)
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("50000 50001")

    async def main() -> None:
        taken = [socket.create_connection(("127.0.0.1", 40000)) for _ in range(2)]
        transport = {implementation}()
        try:
            await transport.send("GET", "http://127.0.0.1:40000/", (), b"", Limits(
                connect=5, headers=5, idle=5))
        except OutOfSockets as error:
            print(error)
        finally:
            await transport.aclose()
            for one in taken:
                one.close()

    uvloop.run(main())
"""


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(
        ["unshare", "-Urn", "sh", "-c", "echo 40000 40001 >/proc/sys/net/ipv4/ip_local_port_range"],
        capture_output=True,
        check=False,
    ).returncode
    != 0,
    reason="needs a network of its own",
)
def test_without_local_ports_it_is_us_who_cannot_ask(implementation: Make, tmp_path: Path) -> None:
    script = textwrap.dedent(NARROW).format(implementation=implementation.__name__)
    found = subprocess.run(
        ["unshare", "-Urn", sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "ip_local_port_range" in found.stdout, found.stderr
