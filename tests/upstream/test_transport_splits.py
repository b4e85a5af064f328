"""What every implementation of `manyways.upstream.transport` promises of bytes: an answer is the
same however the network cuts it into pieces, and one that ends too early is never whole.

Answers are made up at random, and recorded from real providers. The recordings lie beside the
checkout and are no part of it; where they are absent, samples of our own making do.
"""

import string
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manyways.errors import Cut, Reset, TransportError
from manyways.upstream.transport import Transport
from tests.support import wall as scripted
from tests.support.wall import END, Close, Send, Wall, head, piece, recut
from tests.upstream.exchange import ENOUGH, ask, idle

RECORDINGS = Path(__file__).parents[2].parent / "shared" / "recordings"
SAMPLES = Path(__file__).parents[1] / "dialects" / "data"
FILES = sorted([*RECORDINGS.glob("*/*.txt"), *RECORDINGS.glob("*/*.json"), *SAMPLES.glob("*.sse")])


@dataclass
class Sent:
    """An answer as it is sent, and what is to be read from it."""

    before: bytes = field(repr=False)
    """Up to the end of the headers."""
    after: bytes = field(repr=False)
    status: int
    headers: dict[str, str]
    body: bytes
    framed: bool
    kept: bool

    @property
    def data(self) -> bytes:
        return self.before + self.after


NAMES = st.text(string.ascii_letters + string.digits + "-_!#$%&'*+.^`|~", min_size=1, max_size=12)
VALUES = st.text(string.printable[:95], max_size=30).map(str.strip)
BLANKS = st.sampled_from(["", " ", "\t", "  \t "])
INTERIM = st.sampled_from(
    [b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n" * 2]
)
EXTENSIONS = st.sampled_from([b"", b"", b";a", b";a=b", b';a="b c"', b";a=b;c=d"])
TRAILERS = st.sampled_from([b"", b"", b"X-Sum: 1\r\n", b"X-Sum: 1\r\nx-more: \t 2 \r\n"])


@st.composite
def in_chunks(draw: st.DrawFn, pieces: list[bytes]) -> bytes:
    data = b""
    for one in pieces:
        size = draw(st.sampled_from([b"%x", b"%X", b"%04x"])) % len(one)
        data += size + draw(EXTENSIONS) + b"\r\n" + one + b"\r\n"
    return data + b"0" + draw(EXTENSIONS) + b"\r\n" + draw(TRAILERS) + b"\r\n"


@st.composite
def answers(draw: st.DrawFn) -> Sent:
    status = draw(st.sampled_from([200, 200, 201, 400, 429, 503]))
    reason = draw(st.sampled_from(["OK", "", "Too Many Requests"]))
    names = draw(st.lists(NAMES.map(lambda name: f"X-{name}"), max_size=5, unique_by=str.lower))
    headers = {name: draw(VALUES) for name in names}
    lines = [f"{name}:{draw(BLANKS)}{value}{draw(BLANKS)}" for name, value in headers.items()]
    pieces = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=6))
    body = b"".join(pieces)
    framing = draw(st.sampled_from(["length", "chunks", "close"]))
    closes = framing == "close" or draw(st.integers(0, 3)) == 0
    if framing == "length":
        lines.append(f"Content-Length: {len(body)}")
    elif framing == "chunks":
        lines.append("Transfer-Encoding: chunked")
    if closes:
        lines.append("Connection: close")
    lines = draw(st.permutations(lines))
    text = "\r\n".join([f"HTTP/1.1 {status} {reason}", *lines, "", ""])
    after = draw(in_chunks(pieces)) if framing == "chunks" else body
    before = draw(INTERIM) + text.encode()
    return Sent(before, after, status, headers, body, framing != "close", not closes)


CUTS = st.sets(st.integers(1, 900), max_size=20)
PATIENT = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@PATIENT
@given(sent=answers(), cuts=CUTS)
async def test_however_an_answer_is_split_it_is_the_same(
    transport: Transport, wall: Wall, sent: Sent, cuts: set[int]
) -> None:
    wall.answer = recut((Send(sent.data), Close() if sent.kept is False else Send(b"")), cuts)
    kept = idle(transport)
    async with await ask(transport, wall.url, b"{}") as response:
        assert response.status == sent.status
        assert {name: response.headers.get(name.upper()) for name in sent.headers} == sent.headers
        assert response.headers.get("link") is None
        assert await response.body(ENOUGH) == sent.body
        assert await response.chunk() == b""
        assert response.headers.get("x-sum") is None
    assert "in_use=0" in repr(transport)
    if sent.kept:
        assert idle(transport) == max(kept, 1)


@PATIENT
@given(data=st.data())
async def test_an_answer_cut_at_any_byte_is_never_whole(
    transport: Transport, wall: Wall, data: st.DataObject
) -> None:
    sent = data.draw(answers())
    end = data.draw(st.integers(0, len(sent.data) - 1))
    await cut(transport, wall, sent, end, data.draw(CUTS), gently=data.draw(st.booleans()))


RICH = Sent(
    b"HTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nX-One:  1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"4\r\nsome\r\n5;a=b\r\n more\r\n0\r\nX-Sum: 1\r\n\r\n",
    status=200,
    headers={"X-One": "1"},
    body=b"some more",
    framed=True,
    kept=True,
)
PLAIN = Sent(
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
    b"some more",
    status=200,
    headers={},
    body=b"some more",
    framed=True,
    kept=True,
)


@pytest.mark.parametrize("sent", [RICH, PLAIN], ids=["chunks", "a length"])
async def test_each_byte_is_one_too_few(transport: Transport, wall: Wall, sent: Sent) -> None:
    for end in range(len(sent.data)):
        await cut(transport, wall, sent, end, set(), gently=True)


async def cut(
    transport: Transport, wall: Wall, sent: Sent, end: int, cuts: set[int], *, gently: bool
) -> None:
    """Send no more than the first `end` bytes, and see what is made of them."""
    last = Close() if gently else scripted.Reset()
    wall.answer = recut((Send(sent.data[:end]), last), cuts)
    got, whole = b"", False
    failure: TransportError | None = None
    try:
        async with await ask(transport, wall.url, b"{}") as response:
            assert response.status == sent.status
            try:
                while part := await response.chunk():
                    got += part
                whole = True
            except Cut as error:
                failure = error
    except Reset as error:
        failure = error
    if end < len(sent.before):
        assert isinstance(failure, Reset)
    else:
        assert sent.body.startswith(got)
        assert whole == (not sent.framed and gently)
        if not sent.framed:
            assert got == sent.body[: end - len(sent.before)]
    assert "in_use=0" in repr(transport)


# What providers really sent


def recorded(path: Path) -> Sent:
    text = path.read_bytes()
    if path.suffix == ".json":
        return Sent(head(200, length=len(text)), text, 200, {}, text, framed=True, kept=True)
    if path.suffix == ".txt":
        pieces = [b"data: " + line + b"\n\n" for line in text.splitlines() if line]
    else:
        pieces = text.splitlines(keepends=True)
    framed = b"".join(piece(one) for one in pieces) + END
    body = b"".join(pieces)
    return Sent(head(200, chunked=True), framed, 200, {}, body, framed=True, kept=True)


@settings(PATIENT, max_examples=12)
@given(
    path=st.sampled_from(FILES),
    cuts=st.sets(st.integers(1, 20_000), max_size=30),
    edge=st.integers(0, 3000),
)
async def test_a_recorded_answer_is_the_same_however_it_is_split(
    transport: Transport, wall: Wall, path: Path, cuts: set[int], edge: int
) -> None:
    """Some cuts anywhere, and one at every byte of a stretch of forty."""
    sent = recorded(path)
    wall.answer = recut((Send(sent.data),), cuts | set(range(edge + 1, edge + 41)))
    async with await ask(transport, wall.url, b"{}") as response:
        assert await response.body(ENOUGH) == sent.body
    assert idle(transport) == 1


@pytest.mark.parametrize("gently", [True, False], ids=["closed", "reset"])
async def test_every_recorded_answer_cut_in_its_middle_is_cut(
    transport: Transport, wall: Wall, gently: bool
) -> None:
    for path in FILES:
        sent = recorded(path)
        middle = len(sent.before) + len(sent.after) // 2
        await cut(transport, wall, sent, middle, set(), gently=gently)
