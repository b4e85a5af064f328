"""What every implementation of `manyways.upstream.transport` promises of compressed content."""

import asyncio
import gzip
import sys
import zlib
from collections.abc import Callable

import brotli
import pytest

from manyways.errors import Cut, Garbled, TooLarge
from manyways.upstream.transport import Transport
from tests.support.wall import (
    END,
    Close,
    Moment,
    Send,
    Stall,
    WaitFor,
    Wall,
    chunked,
    head,
    piece,
    recut,
    until_close,
    whole,
)
from tests.upstream.exchange import ENOUGH, answer, ask, chunks_until_failure, state

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LIST = b'{"data": [' + b", ".join(b'{"id": "model-%d"}' % n for n in range(5000)) + b"]}"
GZIP = [("Content-Encoding", "gzip")]
every_coding = pytest.mark.parametrize(
    ("coding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("br", brotli.compress),
     ("zstd", zstd.compress)],
    ids=["gzip", "deflate", "br", "zstd"],
)  # fmt: skip


@every_coding
@pytest.mark.parametrize("asked_for", [True, False])
async def test_compressed_content_is_decoded_asked_for_or_not(
    transport: Transport,
    wall: Wall,
    coding: str,
    pack: Callable[[bytes], bytes],
    asked_for: bool,
) -> None:
    said = [("content-encoding", coding.upper()), ("X-Other", "kept")]
    packed = pack(LIST)
    wall.then(
        whole(packed, headers=said),
        chunked(packed[:700], packed[700:], headers=said),
        recut(whole(packed, headers=said), range(0, len(packed), 97)),
    )
    headers = [("Accept-Encoding", coding)] if asked_for else []
    for _ in range(3):
        async with await ask(transport, wall.url, headers=headers) as response:
            assert "Content-Encoding" not in response.headers
            assert response.headers.get("content-length") is None
            assert "content-length" not in {name.lower() for name in response.headers}
            assert response.headers["x-other"] == "kept"
            assert await response.body(ENOUGH) == LIST
            assert await response.chunk() == b""
    assert state(transport, in_use=0, idle=1)
    asked = {request.headers["accept-encoding"] for request in wall.requests}
    assert asked == {coding if asked_for else "identity"}


async def test_content_in_a_coding_that_is_not_known_is_passed_as_it_is(
    transport: Transport, wall: Wall
) -> None:
    wall.answer = whole(b"\x01\x02\x03", headers=[("Content-Encoding", "gzip, br")])
    async with await ask(transport, wall.url) as response:
        assert response.headers["content-encoding"] == "gzip, br"
        assert response.headers["content-length"] == "3"
        assert await response.body(ENOUGH) == b"\x01\x02\x03"


async def test_what_was_flushed_comes_at_once(transport: Transport, wall: Wall) -> None:
    packer = zlib.compressobj(wbits=31)
    first = packer.compress(b"data: 1\n\n") + packer.flush(zlib.Z_SYNC_FLUSH)
    second = packer.compress(b"data: 2\n\n") + packer.flush(zlib.Z_SYNC_FLUSH)
    ask_on, end = Moment(), Moment()
    wall.answer = (
        Send(head(headers=GZIP, chunked=True) + piece(first)),
        WaitFor(ask_on),
        Send(piece(second)),
        WaitFor(end),
        Send(piece(packer.flush()) + END),
    )
    async with await ask(transport, wall.url) as response:
        assert await response.chunk() == b"data: 1\n\n"
        ask_on.set()
        assert await response.chunk() == b"data: 2\n\n"
        end.set()
        assert await response.chunk() == b""
        assert await response.chunk() == b""
    assert state(transport, in_use=0, idle=1)


async def test_an_answer_without_a_body_has_nothing_to_decode(
    transport: Transport, wall: Wall
) -> None:
    wall.then(whole(b"", headers=GZIP), (Send(head(204, GZIP)),), (Send(head(304, GZIP)),))
    for _ in range(3):
        assert await answer(transport, wall.url) == b""
    wall.then((Send(head(headers=GZIP, length=500)),))
    async with await ask(transport, wall.url, method="HEAD") as response:
        assert await response.body(ENOUGH) == b""
    assert state(transport, in_use=0, idle=1)


async def test_data_that_ends_before_its_end_is_garbled_though_the_body_is_whole(
    transport: Transport, wall: Wall
) -> None:
    packed = gzip.compress(LIST)
    for script in (
        whole(packed[:-1], headers=GZIP),
        chunked(packed[:-9], headers=GZIP),
        until_close(packed[:-1], headers=GZIP),
    ):
        wall.then(script)
        async with await ask(transport, wall.url) as response:
            data, error = await chunks_until_failure(response)
            assert LIST.startswith(data)
            assert type(error) is Garbled
            with pytest.raises(Garbled):
                await response.chunk()
    assert repr(transport).split()[1] == "in_use=0"
    assert await answer_after(transport, wall) == b"ok"


async def answer_after(transport: Transport, wall: Wall) -> bytes:
    wall.then(whole(b"ok"))
    return await answer(transport, wall.url)


async def test_a_body_that_is_cut_is_cut_behind_all_that_could_be_decoded(
    transport: Transport, wall: Wall
) -> None:
    packer = zlib.compressobj(wbits=31)
    first = packer.compress(LIST) + packer.flush(zlib.Z_SYNC_FLUSH)
    wall.answer = (Send(head(headers=GZIP, length=10**6) + first), Close())
    async with await ask(transport, wall.url) as response:
        data, error = await chunks_until_failure(response)
        assert data == LIST
        assert type(error) is Cut
    assert state(transport, in_use=0, idle=0)


@every_coding
async def test_broken_data_is_garbled_and_the_connection_is_closed(
    transport: Transport, wall: Wall, coding: str, pack: Callable[[bytes], bytes]
) -> None:
    wall.answer = (
        Send(head(headers=[("Content-Encoding", coding)], chunked=True)),
        Send(piece(b'{"data": "no compressed data at all, whatever the headers say"}')),
        Stall(),
    )
    async with await ask(transport, wall.url) as response:
        for _ in range(2):
            with pytest.raises(Garbled, match=coding):
                await response.chunk()
        assert state(transport, in_use=0, idle=0)
    await wall.requests[0].left.wait()


@every_coding
async def test_the_limit_of_a_body_is_one_of_decoded_bytes(
    transport: Transport, wall: Wall, coding: str, pack: Callable[[bytes], bytes]
) -> None:
    size = 8 * 2**20
    wall.answer = whole(pack(bytes(size)), headers=[("Content-Encoding", coding)])
    async with await ask(transport, wall.url) as response:
        assert len(await response.body(size)) == size
    async with await ask(transport, wall.url) as response:
        for _ in range(2):
            with pytest.raises(TooLarge):
                await response.body(size - 1)
    assert repr(transport).split()[1] == "in_use=0"
    assert await answer_after(transport, wall) == b"ok"


async def test_others_have_their_turn_while_one_read_is_unfolded_a_thousandfold(
    transport: Transport, wall: Wall
) -> None:
    turns = 0
    ended = False

    async def count() -> None:
        nonlocal turns
        while not ended:
            turns += 1
            await asyncio.sleep(0)

    wall.answer = whole(zstd.compress(bytes(2**24)), headers=[("Content-Encoding", "zstd")])
    async with await ask(transport, wall.url) as response:
        counting = asyncio.create_task(count())
        await response.chunk()
        before = turns
        pieces = 0
        while await response.chunk():
            pieces += 1
        assert pieces > 50
        assert turns - before >= pieces
        ended = True
        await counting


async def test_a_caller_that_leaves_while_pieces_wait_closes_the_connection(
    transport: Transport, wall: Wall
) -> None:
    wall.answer = (
        Send(head(headers=GZIP, chunked=True) + piece(gzip.compress(bytes(2**22)))),
        Stall(),
    )
    async with await ask(transport, wall.url) as response:
        assert await response.chunk()
        task = asyncio.create_task(response.chunk())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert state(transport, in_use=0, idle=0)
    await wall.requests[0].left.wait()
