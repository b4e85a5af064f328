"""What every implementation of `manyways.upstream.transport` promises: requests and answers.

Each test runs against each implementation, on asyncio's loop and on uvloop's; those that take
`wall` also over plain connections and over TLS.
"""

import asyncio
import gzip

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manyways.errors import (
    Cut,
    Garbled,
    Reset,
    TooLarge,
)
from manyways.upstream.transport import Transport
from tests.support import wall as scripted
from tests.support.wall import (
    END,
    GARBAGE,
    Close,
    Moment,
    Script,
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
from tests.upstream.exchange import (
    ENOUGH,
    answer,
    ask,
    chunks_until_failure,
    reluctant,
    settle,
    state,
    until,
)

# An answer, and a request


async def test_an_answer_is_its_status_its_headers_and_its_body(
    transport: Transport, wall: Wall
) -> None:
    wall.answer = whole(b"hello", 200, [("X-One", "1")])
    async with await ask(transport, wall.url + "/v1/models?a=b%20c") as response:
        assert response.status == 200
        assert response.headers["x-one"] == "1"
        assert await response.body(ENOUGH) == b"hello"
    assert wall.requests[0].method == "GET"
    assert wall.requests[0].path == "/v1/models?a=b%20c"


async def test_headers_are_looked_up_in_any_case_and_the_first_of_repeated_ones_counts(
    transport: Transport, wall: Wall
) -> None:
    wall.answer = whole(b"", 200, [("Retry-After", "1"), ("retry-after", "2")])
    async with await ask(transport, wall.url) as response:
        assert response.headers["RETRY-AFTER"] == "1"
        assert response.headers.get("absent") is None


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 429, 500, 503, 529])
async def test_errors_and_redirects_are_ordinary_answers(transport: Transport, status: int) -> None:
    async with Wall() as wall:
        wall.answer = whole(b"why", status, [("Location", wall.url + "/elsewhere")])
        async with await ask(transport, wall.url, b"{}") as response:
            assert (response.status, await response.body(ENOUGH)) == (status, b"why")
        assert len(wall.requests) == 1


async def test_nothing_is_added_to_a_request_but_what_is_promised(
    transport: Transport, wall: Wall
) -> None:
    async with await ask(transport, wall.url, b"{}", headers=[("Authorization", "Bearer k")]):
        pass
    async with await ask(transport, wall.url, headers=[("ACCEPT-ENCODING", "br")]):
        pass
    async with await ask(transport, wall.url, method="POST"):
        pass
    host = wall.url.partition("//")[2]
    posted, got, empty = wall.requests
    assert posted.body == b"{}"
    assert posted.headers == {
        "host": host,
        "authorization": "Bearer k",
        "accept-encoding": "identity",
        "content-length": "2",
    }
    assert got.headers == {"host": host, "accept-encoding": "br"}
    assert empty.headers["content-length"] == "0"


async def test_no_cookie_is_kept(transport: Transport, wall: Wall) -> None:
    wall.answer = whole(b"", 200, [("Set-Cookie", "a=b; Path=/")])
    await answer(transport, wall.url)
    await answer(transport, wall.url)
    assert "cookie" not in wall.requests[1].headers


async def test_a_body_in_a_coding_that_nobody_knows_is_not_touched(
    transport: Transport, wall: Wall
) -> None:
    wall.answer = whole(b"\x1f\x8bnot really", 200, [("Content-Encoding", "x-secret")])
    async with await ask(transport, wall.url) as response:
        assert response.headers["content-encoding"] == "x-secret"
        assert await response.body(ENOUGH) == b"\x1f\x8bnot really"


async def test_a_compressed_body_is_decoded_though_nobody_asked_for_it(
    transport: Transport, wall: Wall
) -> None:
    coded = [("Content-Encoding", "gzip")]
    packed = gzip.compress(b"some")
    wall.then(whole(packed, 200, coded), recut(chunked(packed[:9], packed[9:], headers=coded)))
    for _ in range(2):
        async with await ask(transport, wall.url) as response:
            assert response.headers.get("content-encoding") is None
            assert response.headers.get("content-length") is None
            assert await response.body(ENOUGH) == b"some"
        assert state(transport, in_use=0, idle=1)


async def test_a_compressed_body_without_its_end_is_never_a_whole_one(
    transport: Transport, wall: Wall
) -> None:
    coded = [("Content-Encoding", "gzip")]
    packed = gzip.compress(b"some")
    for script, kind in (
        (whole(packed[:-5], 200, coded), Garbled),
        (whole(b"\x1f\x8bnot really", 200, coded), Garbled),
        ((*whole(packed[:-5], 200, coded, claims=len(packed)), Close()), Cut),
    ):
        wall.answer = script
        async with await ask(transport, wall.url) as response:
            with pytest.raises(kind):
                await response.body(ENOUGH)
            with pytest.raises(kind):
                await response.chunk()
        assert "in_use=0" in repr(transport)


@pytest.mark.parametrize(
    "header", [("X", "a\r\nEvil: 1"), ("X\n", "a"), ("X", "a\0"), ("Content-Length", "3")]
)
async def test_a_header_that_would_break_the_framing_is_not_sent(
    transport: Transport, header: tuple[str, str]
) -> None:
    async with Wall() as wall:
        with pytest.raises(ValueError, match=r"header|length"):
            await ask(transport, wall.url, b"{}", headers=[header])
        assert wall.connections == 0


async def test_interim_answers_are_passed_over(transport: Transport, wall: Wall) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    wall.answer = (Send(interim), *whole(b"final"))
    async with await ask(transport, wall.url, b"{}") as response:
        assert (response.status, await response.body(ENOUGH)) == (200, b"final")
        assert "link" not in response.headers


async def test_answers_without_a_body_leave_the_connection_usable(
    transport: Transport, wall: Wall
) -> None:
    wall.then((Send(head(204)),), (Send(head(304)),), (Send(head(200, length=5)),), whole(b""))
    for method in ("DELETE", "GET", "HEAD", "GET"):
        async with await ask(transport, wall.url, method=method) as response:
            assert await response.chunk() == b""
    assert wall.connections == 1


async def test_a_request_of_megabytes_arrives_whole(transport: Transport, wall: Wall) -> None:
    picture = bytes(range(256)) * 4 * 10_000
    await answer(transport, wall.url, picture)
    assert wall.requests[0].body == picture


async def test_an_answer_to_half_a_request_is_taken_and_the_rest_is_not_sent(
    transport: Transport,
) -> None:
    size = 2**26
    async with reluctant(head(413, length=3) + b"big") as (url, read, go_on):
        async with await ask(transport, url, bytes(size)) as response:
            assert (response.status, await response.body(ENOUGH)) == (413, b"big")
        assert state(transport, in_use=0, idle=0)
        go_on.set()
        assert await asyncio.wait_for(read, 5) < size // 2


# Streams


async def test_headers_are_handed_over_before_the_body_is_sent(
    transport: Transport, wall: Wall
) -> None:
    go_on = Moment()
    wall.answer = (Send(head(200, length=2)), WaitFor(go_on), Send(b"ok"))
    async with await ask(transport, wall.url) as response:
        go_on.set()
        assert await response.body(ENOUGH) == b"ok"


async def test_a_chunk_is_handed_over_before_the_next_is_sent(
    transport: Transport, wall: Wall
) -> None:
    turns = [Moment() for _ in range(5)]
    steps: list[scripted.Step] = [Send(head(chunked=True))]
    for number, turn in enumerate(turns):
        steps += [WaitFor(turn), Send(piece(b"event %d\n\n" % number))]
    wall.answer = (*steps, Send(END))
    async with await ask(transport, wall.url) as response:
        for number, turn in enumerate(turns):
            turn.set()
            assert await response.chunk() == b"event %d\n\n" % number
        assert await response.chunk() == b""
        assert await response.chunk() == b""
    assert await response.chunk() == b""


async def test_a_trickle_adds_up(transport: Transport, wall: Wall) -> None:
    wall.then(recut(whole(b"hello")), recut(chunked(b"hel", b"lo")))
    assert await answer(transport, wall.url) == b"hello"
    assert await answer(transport, wall.url) == b"hello"
    assert wall.connections == 1


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    pieces=st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    in_chunks=st.booleans(),
    cuts=st.sets(st.integers(1, 400), max_size=12),
)
async def test_however_the_bytes_are_split_the_body_is_the_same(
    transport: Transport, pieces: list[bytes], in_chunks: bool, cuts: set[int]
) -> None:
    body = b"".join(pieces)
    script = chunked(*pieces) if in_chunks else whole(body)
    async with Wall(recut(script, cuts)) as wall:
        assert await answer(transport, wall.url) == body


async def test_a_reader_that_does_not_read_stops_the_provider(
    transport: Transport, wall: Wall
) -> None:
    size = 64 * 2**20
    wall.then(whole(bytes(size)))
    async with await ask(transport, wall.url) as response:
        sent = -1
        while wall.requests[0].sent != sent:
            sent = wall.requests[0].sent
            await settle(transport)
        assert sent < size // 8
        received = 0
        while part := await response.chunk():
            assert len(part) <= 2**20
            received += len(part)
        assert received == size
    await answer(transport, wall.url)
    assert wall.connections == 1


async def test_many_small_chunks_that_nobody_reads_stop_the_provider_too(
    transport: Transport, wall: Wall
) -> None:
    small = piece(b"x" * 8) * 200_000
    wall.then((Send(head(chunked=True)), Send(small), Send(END)))
    async with await ask(transport, wall.url) as response:
        await settle(transport)
        assert len(await response.body(ENOUGH)) == 8 * 200_000
    await answer(transport, wall.url)
    assert wall.connections == 1


# How an answer ends


async def test_a_body_without_a_length_ends_with_its_connection(
    transport: Transport, wall: Wall
) -> None:
    wall.answer = until_close(b"all of it")
    assert await answer(transport, wall.url) == b"all of it"
    assert state(transport, in_use=0, idle=0)


CUT: dict[str, Script] = {
    "short of its length": (*whole(b"some", claims=10), Close()),
    "chunks without an end": (*chunked(b"so", b"me", ends=False), Close()),
    "inside a chunk": (Send(head(chunked=True)), Send(piece(b"some")), Send(b"9\r\n"), Close()),
    "reset short of its length": (*whole(b"some", claims=10), scripted.Reset()),
    "reset between chunks": (*chunked(b"so", b"me", ends=False), scripted.Reset()),
    "reset where only a close would end it": (Send(head() + b"some"), scripted.Reset()),
}


@pytest.mark.parametrize("script", CUT.values(), ids=CUT)
async def test_a_cut_answer_gives_what_came_and_then_says_so(
    transport: Transport, wall: Wall, script: Script
) -> None:
    wall.answer = script
    async with await ask(transport, wall.url) as response:
        data, error = await chunks_until_failure(response)
        assert data == b"some"
        assert isinstance(error, Cut)
        with pytest.raises(Cut):
            await response.chunk()
    assert state(transport, in_use=0, idle=0)


@pytest.mark.parametrize("script", CUT.values(), ids=CUT)
async def test_a_slow_reader_gets_what_came_before_the_cut(
    transport: Transport, wall: Wall, script: Script
) -> None:
    wall.answer = script
    async with await ask(transport, wall.url) as response:
        await wall.deserted().wait()
        await settle(transport)
        data, error = await chunks_until_failure(response)
    assert data == b"some"
    assert isinstance(error, Cut)


async def test_a_slow_reader_gets_all_of_a_large_answer_whose_connection_is_gone(
    transport: Transport, wall: Wall
) -> None:
    size = 2**19
    wall.answer = (*whole(bytes(size)), Close())
    async with await ask(transport, wall.url) as response:
        await until(lambda: wall.requests[0].sent > size)
        await settle(transport)
        received = 0
        while part := await response.chunk():
            received += len(part)
            await asyncio.sleep(0)
    assert received == size


async def test_broken_chunk_framing_gives_what_came_and_is_garbled(
    transport: Transport, wall: Wall
) -> None:
    broken = Moment()
    wall.answer = (
        Send(head(chunked=True)),
        Send(piece(b"some")),
        WaitFor(broken),
        Send(b"zz\r\nnot a size"),
        Stall(),
    )
    async with await ask(transport, wall.url) as response:
        data = await response.chunk()
        broken.set()
        rest, error = await chunks_until_failure(response)
        assert data + rest == b"some"
        assert isinstance(error, Garbled)
    await wall.requests[0].left.wait()
    assert state(transport, in_use=0, idle=0)


NOT_HTTP: dict[str, Script] = {
    "noise": GARBAGE,
    "another protocol": (Send(b"SSH-2.0-OpenSSH_9.6\r\n"), Stall()),
    "a page without headers": (Send(b"<html>hello</html>\r\n\r\n"), Close()),
    "one huge header": (Send(head(200, [("X", "a" * 200_000)], length=0)), Stall()),
    "a header without an end": (Send(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000), Stall()),
    "forty thousand headers": (Send(head(200, [("X", "a")] * 40_000, length=0)), Stall()),
    "a length that is none": (Send(head(200, [("Content-Length", "five")])), Stall()),
    "two lengths": (Send(head(200, [("Content-Length", "1")], length=2) + b"ab"), Stall()),
}


@pytest.mark.parametrize("script", NOT_HTTP.values(), ids=NOT_HTTP)
async def test_what_is_not_http_is_garbled(
    transport: Transport, wall: Wall, script: Script
) -> None:
    wall.answer = script
    with pytest.raises(Garbled):
        await ask(transport, wall.url)
    assert state(transport, in_use=0, idle=0)


@pytest.mark.parametrize(
    "script",
    [
        (Close(),),
        (scripted.Reset(),),
        (Send(b"HTTP/1.1 200 OK\r\nContent-Le"), Close()),
        (Send(b"HTTP/1.1 200 OK\r\nContent-Le"), scripted.Reset()),
    ],
    ids=["closed", "reset", "closed inside the headers", "reset inside the headers"],
)
async def test_a_connection_that_ends_before_the_headers_is_reset(
    transport: Transport, wall: Wall, script: Script
) -> None:
    wall.answer = script
    with pytest.raises(Reset):
        await ask(transport, wall.url, b"{}")
    assert len(wall.requests) == 1
    assert state(transport, in_use=0, idle=0)


async def test_a_length_that_is_too_small_never_gives_more_and_spoils_the_connection(
    transport: Transport, wall: Wall
) -> None:
    wall.answer = (*whole(b"some more", claims=4), Stall())
    try:
        body = await answer(transport, wall.url)
    except Garbled:
        body = b"some"
    assert body == b"some"
    await settle(transport)
    wall.then(whole(b"right"))
    assert await answer(transport, wall.url) == b"right"


async def test_an_answer_larger_than_allowed_is_not_held(transport: Transport, wall: Wall) -> None:
    announced = (*whole(b"", claims=1001), Stall())
    grows = (*chunked(b"x" * 600, b"x" * 600, ends=False), Stall())
    for script in (announced, grows):
        wall.answer = script
        async with await ask(transport, wall.url) as response:
            with pytest.raises(TooLarge):
                await response.body(1000)
            await wall.requests[-1].left.wait()
    wall.answer = whole(b"x" * 1000)
    async with await ask(transport, wall.url) as response:
        assert len(await response.body(1000)) == 1000
