"""Every implementation of `manyways.upstream.transport` gets along with real servers, and with
real proxies before them.

The scripted wall does to the byte what a test says; these do what servers really do.
"""

import asyncio
import contextlib
import itertools
import json
import os
import select
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from manyways.errors import ConnectFailed, Cut
from manyways.upstream import local_child
from manyways.upstream.local import LocalModel
from manyways.upstream.transport import Limits, Response, Transport
from tests.support.servers import NAMES, Running, Scheme, Servers, missing, pattern, proxies
from tests.upstream.exchange import AUTHORITY, ENOUGH, Make, ask, chunks_until_failure, state

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_factories=["uvloop"])]

PATIENT = Limits(connect=60, headers=60, idle=60)  # a model, on a processor with others beside it
LARGE = 4 * 2**20
MEBIBYTE = 2**20
every_scheme = pytest.mark.parametrize("scheme", ["http", "https"])
names = itertools.count()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("servers")
    (folder / "files").mkdir()
    (folder / "files" / "text").write_bytes(pattern(LARGE))
    issued = AUTHORITY._authority.issue_cert("127.0.0.1")
    certificate, key = folder / "chain.pem", folder / "key.pem"
    for number, part in enumerate(issued.cert_chain_pems):
        part.write_to_path(str(certificate), append=number > 0)
    issued.private_key_pem.write_to_path(str(key))
    with Servers(folder, certificate, key) as servers:
        yield servers


@pytest.fixture(params=NAMES)
def server(request: pytest.FixtureRequest, servers: Servers) -> Running:
    if why := missing(request.param):
        pytest.skip(why)
    return servers.get(request.param)


@pytest.fixture
def nginx(servers: Servers) -> Running:
    if why := missing("nginx"):
        pytest.skip(why)
    return servers.get("nginx")


async def read(response: Response) -> bytes:
    async with response:
        return await response.body(ENOUGH)


async def peer(transport: Transport, url: str) -> str:
    """The port that the server sees a small exchange come from."""
    response = await ask(transport, url)
    await read(response)
    return response.headers["x-peer"]


@every_scheme
async def test_whatever_comes_over_one_connection_comes_over_one_connection(
    transport: Transport, server: Running, scheme: Scheme
) -> None:
    url = server.url(scheme)
    peers = set()
    for path, status, size in [
        ("/length?bytes=0", 200, 0),
        ("/length?bytes=17", 200, 17),
        ("/chunked?bytes=0", 200, 0),
        ("/chunked?bytes=200000", 200, 200_000),
        ("/packed?bytes=5000", 200, 5000),
        ("/status/204", 204, 0),
        ("/status/404", 404, 5),
        ("/status/500", 500, 5),
        ("/length?bytes=300000", 200, 300_000),
    ]:
        for _ in range(3):
            response = await ask(transport, url + path)
            assert (response.status, len(await read(response))) == (status, size)
            peers.add(response.headers["x-peer"])
            assert state(transport, in_use=0, idle=1)
    response = await ask(transport, f"{url}/length?bytes=300000", method="HEAD")
    assert response.headers["content-length"] == "300000"
    assert await read(response) == b""
    peers.add(response.headers["x-peer"])
    for size in (1, 100_000):
        response = await ask(transport, f"{url}/echo", pattern(size))
        assert await read(response) == pattern(size)
        peers.add(response.headers["x-peer"])
    assert len(peers) == 1


@every_scheme
async def test_large_bodies_go_both_ways(
    transport: Transport, server: Running, scheme: Scheme
) -> None:
    url = server.url(scheme)
    body = pattern(LARGE)
    assert await read(await ask(transport, f"{url}/echo", body)) == body
    assert await read(await ask(transport, f"{url}/chunked?bytes={LARGE}")) == body
    assert await read(await ask(transport, f"{url}/length?bytes={LARGE}")) == body
    assert state(transport, in_use=0, idle=1)


@every_scheme
@pytest.mark.parametrize("coding", ["gzip", "gzip, br, zstd"])
async def test_compressed_content_is_there_to_be_asked_for(
    transport: Transport, server: Running, scheme: Scheme, coding: str
) -> None:
    url = f"{server.url(scheme)}/packed?bytes={MEBIBYTE}"
    response = await ask(transport, url, headers=[("Accept-Encoding", coding)])
    assert "content-encoding" not in response.headers
    assert "content-length" not in response.headers
    assert await read(response) == pattern(MEBIBYTE)
    response = await ask(transport, url)
    assert await read(response) == pattern(MEBIBYTE)
    assert state(transport, in_use=0, idle=1)


@every_scheme
@pytest.mark.parametrize("coding", ["identity", "gzip", "br"])
async def test_what_was_flushed_comes_at_once(
    transport: Transport, server: Running, scheme: Scheme, coding: str
) -> None:
    url = server.url(scheme)
    name = next(names)
    response = await ask(
        transport, f"{url}/events?name={name}", headers=[("Accept-Encoding", coding)]
    )
    async with response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for event in (b"data: 1\n\n", b"data: 2\n\n"):
            assert await response.chunk() == event
            await read(await ask(transport, f"{url}/turn?name={name}"))
        assert await response.chunk() == b""
    assert state(transport, in_use=0, idle=2)


@every_scheme
@pytest.mark.parametrize("framing", ["", "&chunked=1"])
async def test_an_answer_that_breaks_off_has_no_clean_end(
    transport: Transport, server: Running, scheme: Scheme, framing: str
) -> None:
    url = f"{server.url(scheme)}/cut?bytes=30000{framing}"
    async with await ask(transport, url) as response:
        data, error = await chunks_until_failure(response)
    assert type(error) is Cut
    assert pattern(30_000).startswith(data)
    assert state(transport, in_use=0, idle=0)


@every_scheme
async def test_a_connection_that_is_announced_to_end_is_not_used_again(
    transport: Transport, server: Running, scheme: Scheme
) -> None:
    url = server.url(scheme)
    before = await peer(transport, f"{url}/length?bytes=2")
    assert await peer(transport, f"{url}/last") == before
    assert state(transport, in_use=0, idle=0)
    assert await peer(transport, f"{url}/length?bytes=2") != before


@every_scheme
async def test_a_crowd_is_served(transport: Transport, server: Running, scheme: Scheme) -> None:
    url = server.url(scheme)
    sizes = [number * 1000 for number in range(40)]
    for _ in range(3):
        answers = await asyncio.gather(
            *(ask(transport, f"{url}/chunked?bytes={size}") for size in sizes)
        )
        bodies = await asyncio.gather(*map(read, answers))
        assert list(map(len, bodies)) == sizes
        assert state(transport, in_use=0, idle=len(sizes))


@every_scheme
async def test_a_stream_that_is_left_is_closed_and_the_next_one_comes(
    transport: Transport, server: Running, scheme: Scheme
) -> None:
    url = server.url(scheme)
    async with await ask(transport, f"{url}/events?name={next(names)}") as response:
        assert await response.chunk()
    assert state(transport, in_use=0, idle=0)
    async with await ask(transport, f"{url}/length?bytes={2 * LARGE}") as response:
        assert await response.chunk()
    assert state(transport, in_use=0, idle=0)
    assert await read(await ask(transport, f"{url}/length?bytes=3")) == pattern(3)


@contextlib.contextmanager
def our_ends(port: int) -> Iterator[list[socket.socket]]:
    """Doubles of our own sockets that are connected to a port."""
    with contextlib.ExitStack() as stack:
        found = []
        for descriptor in map(int, os.listdir("/dev/fd")):  # noqa: PTH208  the numbers
            with contextlib.suppress(OSError):
                if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                    continue
                double = stack.enter_context(socket.socket(fileno=os.dup(descriptor)))
                if double.family == socket.AF_INET and double.getpeername()[1] == port:
                    found.append(double)
        yield found


def block_until_the_other_end_closes(port: int) -> None:
    """Hold up everything, so that the transport does not hear of it."""
    with our_ends(port) as ends:
        assert ends
        for end in ends:
            poll = select.poll()
            poll.register(end, select.POLLRDHUP)
            assert poll.poll(10_000), "the server closes nothing"


async def test_connections_that_servers_closed_unheard_are_replaced(
    transport: Transport, servers: Servers
) -> None:
    running = [servers.get(name) for name in NAMES if not missing(name)]
    for server in running:
        await read(await ask(transport, f"{server.url('impatient')}/length?bytes=2"))
    assert state(transport, in_use=0, idle=len(running))
    for server in running:
        block_until_the_other_end_closes(server.impatient)
    for server in running:
        response = await ask(transport, f"{server.url('impatient')}/echo", b"ok")
        assert await read(response) == b"ok", server.name
    assert state(transport, in_use=0, idle=len(running))


@every_scheme
async def test_nginx_serves_files(transport: Transport, nginx: Running, scheme: Scheme) -> None:
    url = f"{nginx.url(scheme)}/files/text"
    response = await ask(transport, url)
    assert response.headers["content-length"] == str(LARGE)
    assert await read(response) == pattern(LARGE)
    response = await ask(transport, url, headers=[("Accept-Encoding", "gzip")])
    assert await read(response) == pattern(LARGE)
    response = await ask(transport, url, headers=[("Range", "bytes=5-14")])
    assert (response.status, await read(response)) == (206, pattern(15)[5:])
    tag = [("If-None-Match", response.headers["etag"])]
    response = await ask(transport, url, headers=tag)
    assert (response.status, await read(response)) == (304, b"")
    assert state(transport, in_use=0, idle=1)


@every_scheme
async def test_nginx_is_heard_while_it_refuses_what_is_still_being_sent(
    transport: Transport, nginx: Running, scheme: Scheme
) -> None:
    url = f"{nginx.url(scheme)}/small/"
    response = await ask(transport, url, bytes(2 * LARGE))
    assert response.status == 413
    assert b"413 Request Entity Too Large" in await read(response)
    assert state(transport, in_use=0, idle=0)


# Through a proxy


@pytest.fixture(scope="module", params=proxies.NAMES)
def proxy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    if why := proxies.missing(request.param):
        pytest.skip(why)
    with proxies.running(request.param, tmp_path_factory.mktemp("proxy")) as url:
        yield url


@pytest.fixture(params=["uvicorn", "nginx"])
def far(request: pytest.FixtureRequest, servers: Servers) -> Running:
    """A server behind the proxy."""
    if why := missing(request.param):
        pytest.skip(why)
    return servers.get(request.param)


@pytest.fixture
async def proxied(make: Make, proxy: str) -> Transport:
    """Bounded so that a connection that was forgotten, or is another provider's, is missed."""
    return make(proxy=proxy, pool_size=2, ssl_context=AUTHORITY.client)


@every_scheme
async def test_whatever_comes_through_a_proxy_comes_as_it_was_sent(
    proxied: Transport, far: Running, scheme: Scheme
) -> None:
    url = far.url(scheme)
    for path, status, size in [
        ("/length?bytes=0", 200, 0),
        ("/length?bytes=17", 200, 17),
        ("/chunked?bytes=0", 200, 0),
        ("/chunked?bytes=200000", 200, 200_000),
        ("/status/204", 204, 0),
        ("/status/404", 404, 5),
        ("/status/500", 500, 5),
    ]:
        for _ in range(3):
            response = await ask(proxied, url + path)
            assert (response.status, len(await read(response))) == (status, size)
    packed = [("Accept-Encoding", "gzip")]
    response = await ask(proxied, f"{url}/packed?bytes={MEBIBYTE}", headers=packed)
    assert await read(response) == pattern(MEBIBYTE)
    response = await ask(proxied, f"{url}/length?bytes=300000", method="HEAD")
    assert response.headers["content-length"] == "300000"
    assert await read(response) == b""
    for size in (1, LARGE):
        response = await ask(proxied, f"{url}/echo", pattern(size))
        assert await read(response) == pattern(size)
    assert "in_use=0" in repr(proxied)


@every_scheme
async def test_what_was_flushed_comes_through_a_proxy_at_once(
    proxied: Transport, far: Running, scheme: Scheme
) -> None:
    url = far.url(scheme)
    name = next(names)
    async with await ask(proxied, f"{url}/events?name={name}") as response:
        for event in (b"data: 1\n\n", b"data: 2\n\n"):
            assert await response.chunk() == event
            await read(await ask(proxied, f"{url}/turn?name={name}"))
        assert await response.chunk() == b""
    assert "in_use=0" in repr(proxied)


@every_scheme
@pytest.mark.parametrize("framing", ["", "&chunked=1"])
async def test_an_answer_that_breaks_off_behind_a_proxy_has_no_clean_end(
    proxied: Transport, far: Running, scheme: Scheme, framing: str
) -> None:
    url = f"{far.url(scheme)}/cut?bytes=30000{framing}"
    async with await ask(proxied, url) as response:
        data, error = await chunks_until_failure(response)
    assert type(error) is Cut
    assert pattern(30_000).startswith(data)
    assert state(proxied, in_use=0, idle=0)


@every_scheme
async def test_a_provider_that_is_slow_keeps_nobody_from_another_behind_the_same_proxy(
    make: Make, proxy: str, servers: Servers, scheme: Scheme
) -> None:
    transport = make(proxy=proxy, pool_size=1, ssl_context=AUTHORITY.client)
    slow, fast = (servers.get(name).url(scheme) for name in ("uvicorn", "hypercorn"))
    async with await ask(transport, f"{slow}/events?name={next(names)}") as response:
        assert await response.chunk()
        for _ in range(3):
            assert await read(await ask(transport, f"{fast}/length?bytes=17")) == pattern(17)
            assert await read(await ask(transport, f"{fast}/echo", b"ok")) == b"ok"
    assert "in_use=0" in repr(transport)


@every_scheme
async def test_a_proxy_that_wants_a_password_is_told_as_such(
    make: Make, servers: Servers, scheme: Scheme, tmp_path: Path
) -> None:
    if why := proxies.missing("tinyproxy"):
        pytest.skip(why)
    with proxies.running("tinyproxy", tmp_path) as url:
        address = url.rpartition("@")[2]
        transport = make(proxy=f"http://{address}", ssl_context=AUTHORITY.client)
        with pytest.raises(ConnectFailed, match=f"the proxy {address} answered 407"):
            await ask(transport, f"{servers.get('uvicorn').url(scheme)}/length?bytes=1")
        assert state(transport, in_use=0, idle=0)


# Our own model


@pytest.fixture
async def llama() -> AsyncIterator[LocalModel]:
    if why := local_child.missing():
        pytest.skip(why)
    model = LocalModel()
    model.start()
    yield model
    await model.stop()


@pytest.mark.model
async def test_llama_cpp(transport: Transport, llama: LocalModel) -> None:
    url = await llama.address(60)
    port = int(url.split(":")[2].split("/")[0])
    key = [("Authorization", f"Bearer {llama.api_key}"), ("Content-Type", "application/json")]

    async def asked(path: str, **question: object) -> Response:
        body = json.dumps(question).encode() if question else b""
        return await ask(transport, url + path, body, headers=key, limits=PATIENT)

    async def chat(**question: object) -> Response:
        return await asked(
            "/chat/completions", messages=[{"role": "user", "content": "Hello"}], **question
        )

    used: set[tuple[str, int]] = set()
    for _ in range(3):
        assert json.loads(await read(await asked("/models")))["object"] == "list"
        said = json.loads(await read(await chat(max_tokens=5)))
        assert said["usage"]["completion_tokens"] == 5
        with our_ends(port) as ends:
            used.update(end.getsockname() for end in ends)
        assert state(transport, in_use=0, idle=1)
    assert len(used) == 1
    # Behind a stream it closes the connection, sooner or later, and does not say so.
    for _ in range(5):
        assert (await read(await chat(max_tokens=5, stream=True))).endswith(b"data: [DONE]\n\n")

    response = await asked("/nothing")
    assert (response.status, bool(await read(response))) == (404, True)
    response = await ask(transport, f"{url}/chat/completions", b"{}", limits=PATIENT)
    assert (response.status, bool(await read(response))) == (401, True)
    async with await chat(max_tokens=1000, stream=True) as response:
        assert await response.chunk()
    assert state(transport, in_use=0, idle=0)
    assert json.loads(await read(await asked("/models")))["object"] == "list"
