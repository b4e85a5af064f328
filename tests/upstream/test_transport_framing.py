"""What every implementation of `manyways.upstream.transport` promises: how answers are framed.

Which ends are clean, what each broken one is called, and how much of it is listened to.
"""

import pytest

from manyways.errors import Cut, Garbled, Reset, TimedOut, TooLarge
from manyways.upstream.aiohttp_transport import AiohttpTransport
from manyways.upstream.transport import Limits, Transport
from tests.support import wall as scripted
from tests.support.wall import (
    END,
    Close,
    Forever,
    HangUp,
    Moment,
    Script,
    Send,
    Stall,
    WaitFor,
    Wall,
    head,
    piece,
    whole,
)
from tests.upstream.exchange import (
    ENOUGH,
    answer,
    ask,
    chunks_until_failure,
    settle,
    state,
)

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

# Whole answers, in all the ways there are to write one

LEAVES_THE_CONNECTION: dict[str, bytes] = {
    "a length": OK + b"Content-Length: 4\r\n\r\nsome",
    "a length in any case, with blanks around": OK + b"cONTENT-lENGTH: \t4 \r\n\r\nsome",
    "a length with zeros": OK + b"Content-Length: 0000000004\r\n\r\nsome",
    "chunks": CHUNKED + b"2\r\nso\r\n2\r\nme\r\n0\r\n\r\n",
    "chunks in any case": OK + b"transfer-ENCODING: Chunked\r\n\r\n4\r\nsome\r\n0\r\n\r\n",
    "sizes with zeros": CHUNKED + b"0002\r\nso\r\n2\r\nme\r\n000\r\n\r\n",
    "sizes padded with blanks": CHUNKED + b"2   \r\nso\r\n2\t\r\nme\r\n0 \r\n\r\n",
    "blanks before an extension": CHUNKED + b"4 ;a=b\r\nsome\r\n0 ;last\r\n\r\n",
    "extensions": CHUNKED + b'2;a=b\r\nso\r\n2;a="b;c";d\r\nme\r\n0;last\r\n\r\n',
    "trailers": CHUNKED + b"4\r\nsome\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n",
    "no reason": b"HTTP/1.1 200 \r\nContent-Length: 4\r\n\r\nsome",
    "not even a blank before no reason": b"HTTP/1.1 200\r\nContent-Length: 4\r\n\r\nsome",
    "a reason in another language": b"HTTP/1.1 200 \xd0\x94\xd0\xb0\r\n"
    b"Content-Length: 4\r\n\r\nsome",
    "a header without a value": OK + b"X:\r\nContent-Length: 4\r\n\r\nsome",
    "keep-alive said": OK + b"Connection: keep-alive\r\nKeep-Alive: timeout=5, max=100\r\n"
    b"Content-Length: 4\r\n\r\nsome",
    "100 before it": b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 4\r\n\r\nsome",
    "hints before it": b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n" * 3
    + OK
    + b"Content-Length: 4\r\n\r\nsome",
    "a kept connection of the older protocol": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n"
    b"Content-Length: 4\r\n\r\nsome",
}


@pytest.mark.parametrize("data", LEAVES_THE_CONNECTION.values(), ids=LEAVES_THE_CONNECTION)
async def test_an_answer_is_whole_and_leaves_the_connection(
    transport: Transport, wall: Wall, data: bytes
) -> None:
    wall.answer = (Send(data),)
    for _ in range(2):
        async with await ask(transport, wall.url, b"{}") as response:
            assert (response.status, await response.body(ENOUGH)) == (200, b"some")
            assert response.headers.get("x-sum") is None
            assert response.headers.get("link") is None
        assert state(transport, in_use=0, idle=1)
    assert wall.connections == 1


ENDS_THE_CONNECTION: dict[str, bytes] = {
    "a length, and the wish to close": OK + b"Connection: close\r\nContent-Length: 4\r\n\r\nsome",
    "chunks, and the wish to close": OK
    + b"Connection: Close\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n0\r\n\r\n",
    "the wish to close among others": OK
    + b"Connection: x-thing, CLOSE\r\nContent-Length: 4\r\n\r\nsome",
    "the older protocol": b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nsome",
}


@pytest.mark.parametrize("data", ENDS_THE_CONNECTION.values(), ids=ENDS_THE_CONNECTION)
async def test_an_answer_is_whole_and_ends_the_connection(
    transport: Transport, wall: Wall, data: bytes
) -> None:
    """The server need not close it: we do."""
    wall.answer = (Send(data), Stall())
    assert await answer(transport, wall.url, b"{}") == b"some"
    assert state(transport, in_use=0, idle=0)
    await wall.requests[0].left.wait()


@pytest.mark.parametrize("opening", [OK, b"HTTP/1.0 200 OK\r\n"], ids=["1.1", "1.0"])
async def test_a_body_without_a_length_goes_on_until_the_close(
    transport: Transport, wall: Wall, opening: bytes
) -> None:
    turn = Moment()
    wall.answer = (Send(opening + b"\r\n"), Send(b"so"), WaitFor(turn), Send(b"me"), Close())
    async with await ask(transport, wall.url) as response:
        assert await response.chunk() == b"so"
        turn.set()
        assert await response.body(ENOUGH) == b"me"
    assert state(transport, in_use=0, idle=0)


BODILESS: dict[str, tuple[str, bytes]] = {
    "HEAD with a length": ("HEAD", head(200, length=4)),
    "HEAD with chunks": ("HEAD", head(200, chunked=True)),
    "204": ("GET", head(204)),
    "204 with a length of nothing": ("GET", head(204, length=0)),
    "304 with the length that it would have": ("GET", head(304, length=4)),
    "304 with chunks": ("GET", head(304, chunked=True)),
    "a length of nothing": ("GET", head(200, length=0)),
    "chunks of nothing": ("GET", head(200, chunked=True) + END),
}


@pytest.mark.parametrize(("method", "data"), BODILESS.values(), ids=BODILESS)
async def test_an_answer_without_a_body_is_whole_at_its_headers(
    transport: Transport, wall: Wall, method: str, data: bytes
) -> None:
    wall.answer = (Send(data),)
    for _ in range(2):
        async with await ask(transport, wall.url, method=method) as response:
            assert await response.body(ENOUGH) == b""
        assert state(transport, in_use=0, idle=1)
    assert wall.connections == 1


async def test_a_server_may_ask_for_the_body_or_refuse_it_where_the_caller_expects_that(
    transport: Transport, wall: Wall
) -> None:
    wall.then((Send(b"HTTP/1.1 100 Continue\r\n\r\n"), *whole(b"done")), whole(b"no", 417))
    for status, body in ((200, b"done"), (417, b"no")):
        headers = [("Expect", "100-continue")]
        async with await ask(transport, wall.url, b"{}", headers=headers) as response:
            assert (response.status, await response.body(ENOUGH)) == (status, body)
    assert [request.body for request in wall.requests] == [b"{}", b"{}"]


# More than was promised

MORE: dict[str, tuple[str, bytes, bytes]] = {
    "than its length": ("GET", head(200, length=4) + b"some", b" more"),
    "after its length, an answer": ("GET", head(200, length=4) + b"some", head(200, length=0)),
    "than its chunks": ("GET", CHUNKED + piece(b"some") + END, b"more"),
    "after its chunks, an answer": ("GET", CHUNKED + piece(b"some") + END, head(200, length=0)),
    "than HEAD asks for": ("HEAD", head(200, length=4), b"some"),
    "than 204 may have": ("GET", head(204), b"some"),
    "than 304 may have": ("GET", head(304, length=4), b"some"),
}


@pytest.mark.parametrize("name", MORE)
async def test_what_comes_after_an_answer_belongs_to_none(
    transport: Transport, wall: Wall, name: str
) -> None:
    """At once with the answer: that one is whole, and nothing else comes on its connection."""
    method, data, more = MORE[name]
    wall.then((Send(data + more), Stall()))
    try:
        async with await ask(transport, wall.url, method=method) as response:
            assert await response.body(ENOUGH) == (b"some" if b"some" in data else b"")
    except Garbled:
        assert isinstance(transport, AiohttpTransport)  # hands over nothing of such a read
    assert await answer(transport, wall.url) == b"ok"
    assert wall.connections == 2


@pytest.mark.parametrize("name", MORE)
async def test_what_comes_between_answers_belongs_to_none(
    transport: Transport, wall: Wall, name: str
) -> None:
    method, data, more = MORE[name]
    turn = Moment()
    wall.then((Send(data), WaitFor(turn), Send(more), Stall()))
    async with await ask(transport, wall.url, method=method) as response:
        assert await response.body(ENOUGH) == (b"some" if b"some" in data else b"")
    assert state(transport, in_use=0, idle=1)
    turn.set()
    await settle(transport)
    assert await answer(transport, wall.url) == b"ok"
    assert wall.connections == 2


# Broken before the body

BAD_HEADS: dict[str, bytes] = {
    "no number for a status": b"HTTP/1.1 abc OK\r\n\r\n",
    "a status of two figures": b"HTTP/1.1 20 OK\r\n\r\n",
    "a status of four figures": b"HTTP/1.1 2000 OK\r\n\r\n",
    "no version": b"HTTP 200 OK\r\n\r\n",
    "a version that does not exist": b"HTTP/9.9 200 OK\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a header without a colon": OK + b"Nothing of the kind\r\n\r\n",
    "a header without a name": OK + b": value\r\n\r\n",
    "a NUL in a name": OK + b"X\0Y: 1\r\n\r\n",
    "a NUL in a value": OK + b"X: a\0b\r\nContent-Length: 0\r\n\r\n",
    "a negative length": OK + b"Content-Length: -4\r\n\r\nsome",
    "a length with a sign": OK + b"Content-Length: +4\r\n\r\nsome",
    "a length in hexadecimal": OK + b"Content-Length: 0x4\r\n\r\nsome",
    "a length of two figures apart": OK + b"Content-Length: 4 4\r\n\r\nsome",
    "a length beyond all bounds": OK + b"Content-Length: 99999999999999999999999\r\n\r\nsome",
    "two lengths": OK + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nsome",
    "a list of lengths": OK + b"Content-Length: 4, 4\r\n\r\nsome",
    "a length and chunks": OK
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n0\r\n\r\n",
    "chunks and a length": OK
    + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n4\r\nsome\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("data", BAD_HEADS.values(), ids=BAD_HEADS)
async def test_a_broken_head_is_garbled(transport: Transport, wall: Wall, data: bytes) -> None:
    wall.answer = (Send(data), Stall())
    with pytest.raises(Garbled):
        await ask(transport, wall.url, b"{}")
    assert state(transport, in_use=0, idle=0)
    await wall.requests[0].left.wait()
    assert len(wall.requests) == 1


HALF_HEADS = [b"H", b"HTTP/1.1", OK, OK + b"X: ", OK + b"Content-Length: 4\r\n", OK + b"\r"]


@pytest.mark.parametrize("data", HALF_HEADS)
@pytest.mark.parametrize("end", [Close(), scripted.Reset()], ids=["close", "reset"])
async def test_a_connection_that_ends_inside_the_head_is_reset(
    transport: Transport, wall: Wall, data: bytes, end: scripted.Step
) -> None:
    wall.answer = (Send(data), end)
    with pytest.raises(Reset):
        await ask(transport, wall.url, b"{}")
    assert state(transport, in_use=0, idle=0)


async def test_what_was_said_before_the_headers_is_no_answer(
    transport: Transport, wall: Wall
) -> None:
    wall.answer = (Send(b"HTTP/1.1 100 Continue\r\n\r\n"), Close())
    with pytest.raises(Reset):
        await ask(transport, wall.url, b"{}")
    assert len(wall.requests) == 1


DISPUTED: dict[str, bytes] = {
    "lines that end with LF": b"HTTP/1.1 200 OK\nContent-Length: 4\n\nsome",
    "a CR inside a header": OK + b"X: a\rb\r\nContent-Length: 4\r\n\r\nsome",
    "a folded header": OK + b"X: a\r\n b\r\nContent-Length: 4\r\n\r\nsome",
    "a blank before the colon": OK + b"Content-Length : 4\r\n\r\nsome",
    "LF after a chunk": CHUNKED + b"4\r\nsome\n0\r\n\r\n",
    "LF after a size": CHUNKED + b"4\nsome\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("data", DISPUTED.values(), ids=DISPUTED)
async def test_what_parsers_disagree_about_is_an_answer_or_garbled(
    transport: Transport, wall: Wall, data: bytes
) -> None:
    wall.answer = (Send(data), Stall())
    limits = Limits(connect=5, headers=5, idle=0.1)
    try:
        async with await ask(transport, wall.url, limits=limits) as response:
            assert await response.body(ENOUGH) == b"some"
    except (Garbled, TimedOut):
        assert state(transport, in_use=0, idle=0)


async def test_another_protocol_that_nobody_asked_for_is_not_spoken(
    transport: Transport, wall: Wall
) -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    wall.then((Send(switch), Stall()))
    try:
        async with await ask(transport, wall.url) as response:
            assert response.status == 101
    except Garbled:
        pass
    assert state(transport, in_use=0, idle=0)
    assert await answer(transport, wall.url) == b"ok"


# Broken inside the body

SOME = CHUNKED + piece(b"some")

BAD_CHUNKS: dict[str, bytes] = {
    "a size that is none": b"zz\r\n",
    "a negative size": b"-1\r\n",
    "a size with a prefix": b"0x4\r\nmore\r\n",
    "a size beyond all bounds": b"fffffffffffffffff\r\n",
    "a size of two figures apart": b"4 4\r\nmore\r\n",
    "a size behind a blank": b" 4\r\nmore\r\n",
    "no size": b"\r\nmore\r\n",
    "no size but blanks": b"  \r\nmore\r\n",
    "only an extension": b";a=b\r\n",
    "more than its size": b"4\r\nmore!\r\n",
    "less than its size": b"5\r\nmore\r\n0\r\n\r\n",
    "less than its size, with a blank": b"5 \r\nmore\r\n0\r\n\r\n",
    "nothing between chunks": b"4\r\nmore4\r\nmore\r\n",
    "a NUL in an extension": b"4;a=\0\r\nmore\r\n",
    "a trailer without a name": b"0\r\n: x\r\n\r\n",
    "another answer before the end": OK,
}


FORGIVEN = {"less than its size", "less than its size, with a blank", "nothing between chunks"}
"""aiohttp's parser is set to let lines end with LF, and to forget a line."""


@pytest.mark.parametrize("name", BAD_CHUNKS)
@pytest.mark.parametrize("apart", [False, True], ids=["at once", "apart"])
async def test_broken_chunks_give_what_came_before_and_are_garbled(
    transport: Transport, wall: Wall, name: str, apart: bool
) -> None:
    if name in FORGIVEN and isinstance(transport, AiohttpTransport):
        pytest.skip("aiohttp forgives that")
    turn = Moment()
    if not apart:
        turn.set()
    data = BAD_CHUNKS[name]
    wall.answer = (
        (Send(SOME), WaitFor(turn), Send(data), Stall()) if apart else (Send(SOME + data), Stall())
    )
    try:
        async with await ask(transport, wall.url) as response:
            first = await response.chunk()
            turn.set()
            rest, error = await chunks_until_failure(response)
            got = first + rest
            assert type(error) is Garbled
            assert got.startswith(b"some")
            assert b"somemore\r".startswith(got)
            with pytest.raises(Garbled):
                await response.chunk()
            await wall.requests[0].left.wait()
    except Garbled:
        assert isinstance(transport, AiohttpTransport)  # hands over nothing of such a read
        assert not apart
    assert state(transport, in_use=0, idle=0)


CUT: dict[str, bytes] = {
    "inside a size": SOME + b"1",
    "after a size": SOME + b"4\r\n",
    "inside an extension": SOME + b"4;a=",
    "inside a chunk": SOME + b"8\r\n",
    "before the line after a chunk": CHUNKED + b"4\r\nsome",
    "inside the line after a chunk": CHUNKED + b"4\r\nsome\r",
    "between chunks": SOME,
    "inside the last size": SOME + b"0",
    "after the last size": SOME + b"0\r\n",
    "inside the last line": SOME + b"0\r\n\r",
    "inside the trailers": SOME + b"0\r\nX: y\r\n",
    "inside a trailer": SOME + b"0\r\nX: ",
    "short of its length": head(200, length=5) + b"some",
    "far short of its length": head(200, length=2**29) + b"some",
}


@pytest.mark.parametrize("data", CUT.values(), ids=CUT)
@pytest.mark.parametrize("end", [Close(), HangUp(), scripted.Reset()], ids=["", "hung up", "reset"])
async def test_a_body_cut_anywhere_gives_what_came_and_is_cut(
    transport: Transport, wall: Wall, data: bytes, end: scripted.Step
) -> None:
    wall.answer = (Send(data), end)
    async with await ask(transport, wall.url) as response:
        got, error = await chunks_until_failure(response)
        assert got == b"some"
        assert type(error) is Cut
        with pytest.raises(Cut):
            await response.body(ENOUGH)
    assert state(transport, in_use=0, idle=0)


# Without an end

LARGE = 256 * 1024
ENDLESS_HEADS: dict[str, Script] = {
    "status line": (Send(b"HTTP/1.1 200 "), Forever(b"a" * 1000)),
    "name": (Send(OK), Forever(b"a" * 1000)),
    "value": (Send(OK + b"X: "), Forever(b"a" * 1000)),
    "row of headers": (Send(OK), Forever(b"X: a\r\n" * 100)),
}


@pytest.mark.parametrize("script", ENDLESS_HEADS.values(), ids=ENDLESS_HEADS)
async def test_of_a_head_without_an_end_no_more_than_a_bound_is_read(
    transport: Transport, wall: Wall, script: Script
) -> None:
    wall.answer = script
    with pytest.raises(Garbled):
        await ask(transport, wall.url)
    assert state(transport, in_use=0, idle=0)
    await wall.requests[0].left.wait()


async def test_interim_answers_without_an_end_are_given_up(
    transport: Transport, wall: Wall
) -> None:
    wall.answer = (Forever(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 20),)
    limits = Limits(connect=5, headers=0.1, idle=5)
    with pytest.raises((Garbled, TimedOut)):
        await ask(transport, wall.url, limits=limits)
    assert state(transport, in_use=0, idle=0)
    await wall.requests[0].left.wait()


ENDLESS_BODIES: dict[str, Script] = {
    "size": (Send(SOME), Forever(b"0" * 1000)),
    "blanks behind a size": (Send(SOME + b"4"), Forever(b" " * 1000)),
    "extension": (Send(SOME + b"4;a="), Forever(b"a" * 1000)),
    "trailer": (Send(SOME + b"0\r\nX: "), Forever(b"a" * 1000)),
    "row of trailers": (Send(SOME + b"0\r\n"), Forever(b"X: a\r\n" * 100)),
}


@pytest.mark.parametrize("script", ENDLESS_BODIES.values(), ids=ENDLESS_BODIES)
async def test_framing_without_an_end_is_given_up(
    transport: Transport, wall: Wall, script: Script
) -> None:
    """What brings no byte of the body is no arrival: at the latest, the idle limit ends it."""
    wall.answer = script
    limits = Limits(connect=5, headers=5, idle=0.1)
    async with await ask(transport, wall.url, limits=limits) as response:
        got, error = await chunks_until_failure(response)
        assert got == b"some"
        assert isinstance(error, Garbled | TimedOut)
        await wall.requests[0].left.wait()
    assert state(transport, in_use=0, idle=0)


async def test_a_body_without_an_end_is_not_held(transport: Transport, wall: Wall) -> None:
    for opening, endless in (
        (head(200), b"x" * 5000),
        (head(200, chunked=True), piece(b"x" * 50) * 100),
        (head(200, length=2**40), b"x" * 5000),
    ):
        wall.answer = (Send(opening), Forever(endless))
        async with await ask(transport, wall.url) as response:
            with pytest.raises(TooLarge):
                await response.body(LARGE)
            assert state(transport, in_use=0, idle=0)
            await wall.requests[-1].left.wait()
            with pytest.raises(TooLarge):
                await response.chunk()
