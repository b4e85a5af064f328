"""What the parts of our own transport say of themselves, as an exchange goes on, and what the pool
does without waiting. The connection's other side is played here: no sockets.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from yarl import URL

from manyways.errors import Cut, Garbled
from manyways.upstream.decoded import decoded
from manyways.upstream.native.answer import Answer
from manyways.upstream.native.origin import Origin, Route
from manyways.upstream.native.pool import Pool
from manyways.upstream.native.wire import Wire

ROUTE = Route("a.test", 80, tls=False)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n"
OTHERS = 500


class Socket(asyncio.Transport):
    """Takes everything, and tells its wire that it is closed when the test says so."""

    closing = False

    def write(self, data: Any) -> None:
        pass

    def abort(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def get_write_buffer_size(self) -> int:
        return 0


class Compared(Wire):
    """Counts how often it is compared with another."""

    times = 0

    def __eq__(self, other: object) -> bool:
        Compared.times += 1
        return self is other

    __hash__ = Wire.__hash__


@pytest.fixture
async def pool() -> Pool:
    loop = asyncio.get_running_loop()
    return Pool(ROUTE, loop, bound=0, keepalive=60, max_age=60, emptied=lambda _: None)


async def connected(pool: Pool, kind: type[Wire] = Wire) -> Wire:
    """A new connection in use."""
    assert await pool.turn() is None
    wire = kind(asyncio.get_running_loop(), ROUTE, pool.drop)
    wire.connection_made(Socket())
    pool.busy.add(wire)
    return wire


def answer_of(wire: Wire, pool: Pool) -> Answer:
    loop = asyncio.get_running_loop()
    return Answer(wire, pool, loop, idle=60, whole=60, ends=loop.time() + 60)


async def test_a_wire_from_one_request_to_the_next(pool: Pool) -> None:
    wire = Wire(asyncio.get_running_loop(), ROUTE, pool.drop)
    assert repr(wire) == "<Wire a.test:80 uses=0 connecting>"
    assert await pool.turn() is None
    pool.busy.add(wire)
    assert repr(pool) == "<Pool a.test:80 in_use=1 idle=0 line=0>"
    wire.connection_made(Socket())
    assert repr(wire) == "<Wire a.test:80 uses=0 idle>"
    wire.begin((b"request",), bodiless=False)
    assert repr(wire) == "<Wire a.test:80 uses=1 asked>"
    wire.data_received(HEAD)
    assert repr(wire) == "<Wire a.test:80 uses=1 asked>"
    wire.data_received(b"\r\nso")
    assert repr(wire) == "<Wire a.test:80 uses=1 answering>"
    wire.data_received(b"me")
    assert repr(wire) == "<Wire a.test:80 uses=1 complete>"
    assert wire.read() == b"some"
    pool.give_back(wire)
    assert repr(wire) == "<Wire a.test:80 uses=1 idle>"
    assert repr(pool) == "<Pool a.test:80 in_use=0 idle=1 line=0>"
    assert pool.take() is wire
    assert repr(pool) == "<Pool a.test:80 in_use=1 idle=0 line=0>"
    wire.begin((b"request",), bodiless=False)
    wire.connection_lost(None)
    assert repr(wire) == "<Wire a.test:80 uses=2 broken: the connection was closed>"
    pool.discard(wire)
    assert repr(pool) == "<Pool a.test:80 in_use=0 idle=0 line=0>"


async def test_who_waits_is_counted(pool: Pool) -> None:
    loop = asyncio.get_running_loop()
    pool = Pool(ROUTE, loop, bound=1, keepalive=60, max_age=60, emptied=lambda _: None)
    assert await pool.turn() is None
    waiting = asyncio.create_task(pool.turn())
    await asyncio.sleep(0)
    assert repr(pool) == "<Pool a.test:80 in_use=1 idle=0 line=1>"
    pool.gone()
    assert await waiting is None
    assert repr(pool) == "<Pool a.test:80 in_use=1 idle=0 line=0>"


async def test_an_answer_tells_whether_it_goes_on(pool: Pool) -> None:
    wire = await connected(pool)
    wire.begin((b"request",), bodiless=False)
    wire.data_received(HEAD + b"\r\n")
    answer = answer_of(wire, pool)
    assert repr(answer) == "<Answer 200 open>"
    wire.data_received(b"some")
    assert await answer.chunk() == b"some"
    assert repr(answer) == "<Answer 200 complete>"


async def test_an_answer_tells_why_it_ended(pool: Pool) -> None:
    wire = await connected(pool)
    wire.begin((b"request",), bodiless=False)
    wire.data_received(HEAD + b"\r\nso")
    answer = answer_of(wire, pool)
    wire.connection_lost(ConnectionResetError("reset by peer"))
    assert await answer.chunk() == b"so"
    with pytest.raises(Cut):
        await answer.chunk()
    assert repr(answer) == "<Answer 200 reset by peer>"


async def test_a_decoded_answer_tells_of_the_one_below_and_of_its_own_end(pool: Pool) -> None:
    wire = await connected(pool)
    wire.begin((b"request",), bodiless=False)
    wire.data_received(HEAD + b"Content-Encoding: gzip\r\n\r\n")
    answer = decoded(answer_of(wire, pool))
    assert repr(answer) == "<Decoded <Answer 200 open>>"
    wire.data_received(b"none")
    with pytest.raises(Garbled) as caught:
        await answer.chunk()
    assert repr(answer) == f"<Decoded {caught.value}>"
    assert str(caught.value).startswith("the answer's gzip data is broken: ")


@pytest.mark.parametrize(
    ("url", "proxy", "told"),
    [
        ("http://a.test", None, "a.test:80"),
        ("https://a.test:444/v1", None, "a.test:444"),
        ("https://[::1]/v1", None, "[::1]:443"),
        ("https://a.test", "http://proxy.test:3128", "a.test:443"),
        ("http://a.test", "socks5://proxy.test", "a.test:80"),
        ("http://a.test", "http://me:hunter2@proxy.test", "a.test:80 by way of proxy.test:80"),
        ("http://[::1]", "https://proxy.test", "[::1]:80 by way of proxy.test:443"),
    ],
)  # fmt: skip
def test_an_origin_tells_where_it_leads(url: str, proxy: str | None, told: str) -> None:
    assert repr(Origin(url, URL(proxy) if proxy else None)) == f"<Origin {told}>"


ORDERS: dict[str, Callable[[list[Wire]], list[Wire]]] = {
    "the oldest first": lambda wires: wires,
    "the newest first": lambda wires: wires[::-1],
    "across": lambda wires: wires[1::2] + wires[::2],
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
async def test_an_idle_connection_that_is_closed_is_not_looked_for_among_the_others(
    pool: Pool, order: Callable[[list[Wire]], list[Wire]]
) -> None:
    """A server that goes down closes all at once, and the loop must not stand still for it."""
    wires = [await connected(pool, Compared) for _ in range(OTHERS)]
    for wire in wires:
        wire.begin((b"request",), bodiless=False)
        wire.data_received(HEAD + b"\r\nsome")
        wire.read()
        pool.give_back(wire)
    assert repr(pool) == f"<Pool a.test:80 in_use=0 idle={OTHERS} line=0>"
    Compared.times = 0
    for wire in order(wires):
        wire.connection_lost(None)
    assert repr(pool) == "<Pool a.test:80 in_use=0 idle=0 line=0>"
    assert Compared.times <= OTHERS


async def test_the_connection_used_last_is_taken_first_and_the_oldest_is_let_go_first(
    pool: Pool,
) -> None:
    wires = [await connected(pool) for _ in range(4)]
    for wire in wires:
        wire.begin((b"request",), bodiless=False)
        wire.data_received(HEAD + b"\r\nsome")
        wire.read()
    for wire, at in zip(wires, (1.0, 2.0, 3.0, 4.0), strict=True):
        pool.give_back(wire)
        wire.rested = at
    assert pool.take() is wires[3]
    assert pool.take() is wires[2]
    wires[2].rested = 1.0  # another one that has been idle since then is as likely closed
    pool.replace(wires[2])
    assert [wire.open for wire in wires] == [False, True, True, True]
    assert pool.idle == 1
    assert pool.take() is wires[1]
